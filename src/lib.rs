//! Switchman: a Sentinel-aware Redis proxy.

pub mod admin;
pub mod app;
pub mod backoff;
pub mod cli;
pub mod command;
pub mod config;
pub mod demo;
pub mod downstream;
pub mod exchange;
pub mod mux;
pub mod net;
pub mod resp;
pub mod route;
pub mod sentinel;
pub mod session;
pub mod switchover;
pub mod tasks;
pub mod telemetry;
pub mod topology;
pub mod types;
pub mod upstream;
pub mod worker;
