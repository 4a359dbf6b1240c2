//! Micro-benchmarks of the pure modules: nanoseconds per operation, no sockets.

mod command;
mod consistency;
mod exchange;
mod resp;

criterion::criterion_group!(
    benches,
    resp::benches,
    command::benches,
    consistency::benches,
    exchange::benches
);
criterion::criterion_main!(benches);
