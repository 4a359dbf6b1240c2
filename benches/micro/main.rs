//! Micro-benchmarks of the pure modules: nanoseconds per operation, no sockets.

mod command;
mod resp;

criterion::criterion_group!(benches, resp::benches, command::benches);
criterion::criterion_main!(benches);
