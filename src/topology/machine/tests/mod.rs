//! Floor 1. The machine against an invented world.
//! Knows only inputs and outputs.

mod busy;
mod commanded;
mod discovery;
mod failover;
mod fork;
mod majority;
mod promotion;
mod property;
mod readers;
mod stale;
mod world;
