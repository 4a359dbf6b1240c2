//! Floor 1. What is believed of scripts. Knows no script.

/// What a script reads and changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scripts {
    /// Possibly anything: servers do not hold scripts to the keys that they declare.
    #[default]
    Everything,
    /// The keys that it declares, by the operator's word.
    Declared,
}
