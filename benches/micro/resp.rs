//! Time per frame of the RESP readers and writers.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput};
use switchman::resp::{Decoded, ReplyScanner, RequestDecoder, RequestLimits, Scan, encode};
use switchman::types::Protocol;

/// Frames per iteration: a client's pipeline, so that the cost of the loop does not count.
const FRAMES: u8 = 100;

/// Adds the benchmarks of `switchman::resp`.
pub(crate) fn benches(c: &mut Criterion) {
    requests(c);
    replies(c);
    pieces(c);
    printing(c);
}

fn requests(c: &mut Criterion) {
    let mut group = c.benchmark_group("resp/request");
    let cases: [(&str, &[&[u8]]); 4] = [
        ("get", &[b"GET", b"user:1000:name"]),
        ("set", &[b"SET", b"user:1000:name", &[b'v'; 32]]),
        (
            "set_ex",
            &[b"SET", b"user:1000:name", &[b'v'; 32], b"EX", b"3600"],
        ),
        (
            "mget_10",
            &[
                &b"MGET"[..],
                b"a",
                b"b",
                b"c",
                b"d",
                b"e",
                b"f",
                b"g",
                b"h",
                b"i",
                b"j",
            ],
        ),
    ];
    group.throughput(Throughput::Elements(u64::from(FRAMES)));
    for (name, args) in cases {
        let mut one = Vec::new();
        encode::request(&mut one, args);
        let buf = one.repeat(usize::from(FRAMES));
        group.bench_function(name, |b| b.iter(|| decode_all(black_box(&buf))));
    }
    let inline = b"GET user:1000:name\r\n".repeat(usize::from(FRAMES));
    group.bench_function("inline_get", |b| b.iter(|| decode_all(black_box(&inline))));
    group.finish();
}

fn replies(c: &mut Criterion) {
    let mut group = c.benchmark_group("resp/reply");
    let bulk = [&b"$32\r\n"[..], &[b'v'; 32], b"\r\n"].concat();
    let cases: [(&str, &[u8]); 5] = [
        ("ok", b"+OK\r\n"),
        ("integer", b":1\r\n"),
        ("bulk_5", b"$5\r\nhello\r\n"),
        ("bulk_32", &bulk),
        ("null", b"$-1\r\n"),
    ];
    group.throughput(Throughput::Elements(u64::from(FRAMES)));
    for (name, one) in cases {
        let buf = one.repeat(usize::from(FRAMES));
        group.bench_function(name, |b| b.iter(|| scan_all(black_box(&buf))));
    }
    group.throughput(Throughput::Elements(1));
    let array = [&b"*1000\r\n"[..], &bulk.repeat(1000)].concat();
    group.bench_function("array_of_1000_bulks", |b| {
        b.iter(|| scan_all(black_box(&array)));
    });
    group.finish();
}

fn pieces(c: &mut Criterion) {
    let mut group = c.benchmark_group("resp/280kB_in_1460B_pieces");
    let element = [&b"$270\r\n"[..], &[b'v'; 270], b"\r\n"].concat();
    let array = [&b"*1000\r\n"[..], &element.repeat(1000)].concat();
    let bytes = u64::try_from(array.len()).expect("280 kB fit");
    group.throughput(Throughput::Bytes(bytes));
    group.bench_function("request", |b| {
        b.iter(|| {
            let (mut decoder, mut inline) = (RequestDecoder::default(), Vec::new());
            let limits = RequestLimits::AUTHENTICATED;
            let ends = (1460..array.len()).step_by(1460).chain([array.len()]);
            for end in ends {
                let part = black_box(&array[..end]);
                let _ = black_box(decoder.decode(part, &limits, &mut inline));
            }
        });
    });
    group.bench_function("reply", |b| {
        b.iter(|| {
            let (mut scanner, mut start) = (ReplyScanner::default(), 0);
            let ends = (1460..array.len()).step_by(1460).chain([array.len()]);
            for end in ends {
                match scanner.scan(black_box(&array[start..end])) {
                    Ok(Scan::Partial { len, .. } | Scan::Complete { len, .. }) => start += len,
                    Err(error) => unreachable!("{error}"),
                }
            }
            start
        });
    });
    group.finish();
}

fn printing(c: &mut Criterion) {
    let mut group = c.benchmark_group("resp/encode");
    let fresh = || Vec::with_capacity(256);
    group.bench_function("request_get", |b| {
        let args: [&[u8]; 2] = [b"GET", b"user:1000:name"];
        b.iter_batched_ref(
            fresh,
            |out| encode::request(out, &args),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("null", |b| {
        let write = |out: &mut Vec<u8>| encode::null(out, Protocol::Resp3);
        b.iter_batched_ref(fresh, write, BatchSize::SmallInput);
    });
    group.finish();
}

fn decode_all(mut buf: &[u8]) -> usize {
    let (mut decoder, mut inline) = (RequestDecoder::default(), Vec::new());
    let mut args = 0;
    while !buf.is_empty() {
        let found = decoder.decode(buf, &RequestLimits::AUTHENTICATED, &mut inline);
        let Ok(Decoded::Request { request, consumed }) = found else {
            unreachable!("the benchmark's requests are whole");
        };
        args += request.argc() + black_box(request.name()).len();
        black_box(request.arg1());
        buf = &buf[consumed..];
    }
    args
}

fn scan_all(mut buf: &[u8]) -> usize {
    let mut scanner = ReplyScanner::default();
    let mut replies = 0;
    while !buf.is_empty() {
        let Ok(Scan::Complete { len, kind }) = scanner.scan(buf) else {
            unreachable!("the benchmark's replies are whole");
        };
        black_box(kind);
        buf = &buf[len..];
        replies += 1;
    }
    replies
}
