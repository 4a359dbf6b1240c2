//! Floor 6. Text → checked settings: a TOML file, `SWITCHMAN_*` variables and flags, in layers.
//! Nobody below imports it. One file (`load.rs`) reads files; the rest is pure.
//!
//! ```text
//! keys      every key there is: path, shape, flag, default, meaning
//! document  TOML text → layers of values that know their line
//! values    one text → one value, or what is wrong and what to write
//! check     layers → Settings, and every mistake at once
//! load      file, environment and flags → check
//! ```

mod check;
mod document;
mod groups;
pub mod keys;
mod layers;
mod listeners;
mod load;
mod problem;
mod secrets;
mod settings;
mod suggest;
#[cfg(test)]
mod tests;
mod values;

pub use load::{Inputs, load};
pub use problem::{ConfigErrors, Problem, Source};
pub use settings::{
    Admin, Commands, Consistency, Discovery, Effective, GroupSettings, Hold, Limits,
    ListenerSettings, Loaded, NoReplica, ReplicaChoice, Replicas, ScriptKeys, Settings, Shutdown,
    Spread, Upstream,
};
