//! Floor 4. What operators see: metrics, health, the status page and its JSON, over HTTP.
//! Changes nothing but by [`Control`], and knows the rest of the process only as a [`View`] that
//! it asks for.

mod control;
mod health;
mod json;
mod page;
mod server;
mod view;

pub use control::{Control, Ordered, Refused, StepView, SwitchoverEnd, SwitchoverView};
pub use health::{Health, Readiness};
pub use server::{Admin, serve};
pub use view::{
    Cost, Event, FencesView, GroupView, Incident, ListenerView, MajorityView, NodeRole, NodeView,
    Outcome, PhaseView, ReplicaView, SentinelView, View,
};
