//! Floor 0. Tests of the grammar as a whole, against a parser too simple to be wrong.
//! Knows the public face of the module only.
