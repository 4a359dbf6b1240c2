//! Floor 4. What operators see: metrics, health, the status page and its JSON, over HTTP.
//! Changes nothing, and knows the rest of the process only as a [`View`] that it asks for.

mod health;
mod json;
mod page;
mod server;
mod view;

pub use health::{Health, Readiness};
pub use server::{Admin, serve};
pub use view::{
    Event, GroupView, Incident, NodeRole, NodeView, Outcome, PhaseView, SentinelView, View,
};
