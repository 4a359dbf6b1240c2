//! What a promise costs each key: to mark a write, to ask whether a replica has it.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use switchman::consistency::{SLOTS, Stamps};
use switchman::types::NodeAddr;

/// Keys in turn, so that their stamps lie all over the table.
const KEYS: usize = 4096;

/// Measures a mark and a check for each key, hash included.
pub(crate) fn benches(c: &mut Criterion) {
    let stamps: Stamps = Stamps::new(SLOTS, 0x5eed);
    let replica = stamps.node(&NodeAddr::new("r", 6379).expect("a name and a port"));
    let keys: Vec<String> = (0..KEYS).map(|key| format!("key:{key:012}")).collect();
    let count = u64::try_from(KEYS).expect("small");
    let mut group = c.benchmark_group("consistency");
    group.throughput(Throughput::Elements(count));
    group.bench_function("mark", |b| {
        b.iter(|| {
            let generation = stamps.generation();
            for key in &keys {
                stamps.mark(stamps.slot(0, black_box(key.as_bytes())), generation);
            }
        });
    });
    group.bench_function("mark in a new generation", |b| {
        b.iter(|| {
            stamps.advance();
            let generation = stamps.generation();
            for key in &keys {
                stamps.mark(stamps.slot(0, black_box(key.as_bytes())), generation);
            }
        });
    });
    group.bench_function("check", |b| {
        b.iter(|| {
            let may = |key: &&String| {
                let slot = stamps.slot(0, black_box(key.as_bytes()));
                stamps.stamp(slot).max(stamps.whole(0)) <= replica.settled()
            };
            keys.iter().filter(may).count()
        });
    });
    group.finish();
}
