//! Floor 1. Who is master: the pure machine that turns what Sentinels, nodes and workers say into
//! snapshots. Knows no sockets and no clock; replies and events come in as values, actions go out
//! as values.

mod action;
mod event;
mod incident;
mod machine;
mod names;
mod report;
mod settings;
mod snapshot;
mod status;
mod view;

pub use action::{Action, Note};
pub use event::Event;
pub use incident::{Cause, INCIDENTS_MAX, Incident, MARKS_MAX, Mark, Outcome, Recorder, Witness};
pub use machine::{HOLD_MAX, HoldRefused, Machine};
pub use names::Names;
pub use report::{Outlier, Report, ReportKind};
pub use settings::{Hold, ReplicaChoice, Settings, Source, Timings};
pub use snapshot::{Acks, Phase, Snapshot};
pub use status::{
    Candidate, Ejection, Ejections, Majority, NodeStatus, ReplicaStatus, SentinelStatus, Status,
    Subscription, Waiting,
};
pub use view::{
    FailoverStep, Fields, Flags, MasterEntry, NodeAnswer, NodeFailure, NodeRole, ReplicaEntry,
    ReportedRole, SentinelEntry, SentinelFailure, View,
};
