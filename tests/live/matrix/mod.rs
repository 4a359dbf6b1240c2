//! What may go wrong in a deployment, one test each, all under load: eight clients that write a
//! token each millisecond and never ask twice, and two that read.
//!
//! What holds in every cell: all clients go on over the connection they have; each command gets one
//! reply, its own; no token is there twice; an acknowledged one is there; one that was said not to
//! be sent is not there; a read never fails; where a master was left, no client's command reaches
//! it. That is asserted in each run. How long things took is printed, and judged by
//! `.ci/failover-matrix` over many runs: see `figures`.

pub(crate) mod figures;
mod link;
mod master;
mod named;
mod promised;
mod replica;
mod scene;
mod sentinels;
mod state;
mod story;
