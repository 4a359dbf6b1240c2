//! Micro-benchmarks of the pure modules: nanoseconds per operation, no sockets.

mod command;
mod exchange;
mod resp;

criterion::criterion_group!(benches, resp::benches, command::benches, exchange::benches);
criterion::criterion_main!(benches);
