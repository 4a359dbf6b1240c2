//! Floor 1. What is in flight on one upstream connection: bytes out, tickets for the replies, same
//! order. Knows no clients and no sockets: a ticket is whatever the user of the pipeline wants
//! back.

mod pipeline;

pub use pipeline::{Completed, Lost, Pipeline, Sent, Waiting};
