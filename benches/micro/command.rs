//! What a request is: the time to classify one and to find its keys.

use std::hint::black_box;

use criterion::Criterion;
use switchman::command::Table;
use switchman::resp::Request;

/// Requests by the way they take: a plain name, a container, options, a long name, no name at all.
const REQUESTS: [(&str, &[&str]); 7] = [
    ("get", &["GET", "key:000000000001"]),
    ("set", &["set", "key:000000000001", "value"]),
    ("zrevrangebyscore", &["ZREVRANGEBYSCORE", "k", "1", "0"]),
    (
        "client setinfo",
        &["CLIENT", "SETINFO", "LIB-NAME", "redis-py"],
    ),
    (
        "xread block",
        &["XREAD", "COUNT", "10", "BLOCK", "0", "STREAMS", "k", "$"],
    ),
    (
        "mget of 10",
        &["MGET", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
    ),
    ("unknown", &["JSON.GET", "k"]),
];

/// Measures classification, and the search for keys.
pub(crate) fn benches(c: &mut Criterion) {
    let table = Table::builtin();
    let mut group = c.benchmark_group("command");
    for (name, words) in REQUESTS {
        let raw = encoded(words);
        let request = Request::from_raw(&raw).expect("encoded above");
        group.bench_function(format!("classify/{name}"), |b| {
            b.iter(|| table.classify(black_box(&request)).class);
        });
        let Some(spec) = table.classify(&request).spec else {
            continue;
        };
        group.bench_function(format!("keys/{name}"), |b| {
            b.iter(|| {
                let mut bytes = 0;
                let told = spec
                    .keys
                    .visit(black_box(&request), |key| bytes += key.len());
                (told, bytes)
            });
        });
    }
    group.bench_function("builtin", |b| b.iter(Table::builtin));
    group.finish();
}

fn encoded(words: &[&str]) -> Vec<u8> {
    let each = |word: &&str| format!("${}\r\n{word}\r\n", word.len());
    let words: Vec<String> = [format!("*{}\r\n", words.len())]
        .into_iter()
        .chain(words.iter().map(each))
        .collect();
    words.concat().into_bytes()
}
