//! Micro-benchmarks of the pure modules: nanoseconds per operation, no sockets.

mod resp;

criterion::criterion_group!(benches, resp::benches);
criterion::criterion_main!(benches);
