//! Floor 1. The commands that are sent and the replies that must come: prepared before the clock
//! runs, so that a client costs a `write`, a `read` and a comparison.

use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::time::Duration;

use anyhow::Context;
use anyhow::ensure;

/// A stride that has no factor in common with the number of keys: every key is visited.
const STRIDE: usize = 7_919;
/// Key of the large value that idle clients read once.
pub(crate) const BLOB_KEY: &str = "blob";
/// Its size in bytes.
pub(crate) const BLOB_LEN: usize = 1 << 20;
/// How long the replica may take to have the data.
const FILL_DEADLINE: Duration = Duration::from_secs(20);

/// Which commands there are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mix {
    /// Keys in use.
    pub(crate) keys: usize,
    /// One command in so many is a SET, the others are GETs.
    pub(crate) cycle: usize,
}

/// One `write` of a client and the bytes that must answer it.
pub(crate) struct Batch {
    /// Commands, encoded.
    pub(crate) request: Vec<u8>,
    /// Replies, encoded. Known in advance: each key always has the same value.
    pub(crate) reply: Vec<u8>,
}

/// A cycle of batches of equal length.
pub(crate) struct Workload {
    pipeline: usize,
    batches: Vec<Batch>,
}

impl Workload {
    /// Prepares batches of `pipeline` commands: a multiple of the mix's cycle, at least one command
    /// for each key.
    pub(crate) fn new(pipeline: usize, mix: Mix) -> Self {
        let count = mix.cycle * mix.keys.div_ceil(mix.cycle * pipeline);
        let batches = (0..count)
            .map(|batch| build(batch * pipeline, pipeline, mix))
            .collect();
        Self { pipeline, batches }
    }

    /// Commands in one batch.
    pub(crate) fn pipeline(&self) -> usize {
        self.pipeline
    }

    /// Batch number `number`, counted round and round.
    pub(crate) fn batch(&self, number: usize) -> &Batch {
        &self.batches[number % self.batches.len()]
    }

    /// Where one of `clients` begins, so that they are spread over the cycle.
    pub(crate) fn start_of(&self, client: usize, clients: usize) -> usize {
        client * self.batches.len() / clients
    }
}

fn build(first: usize, pipeline: usize, mix: Mix) -> Batch {
    let mut batch = Batch {
        request: Vec::new(),
        reply: Vec::new(),
    };
    for number in first..first + pipeline {
        let key = key(number * STRIDE % mix.keys);
        let value = value(&key);
        if number % mix.cycle == mix.cycle - 1 {
            batch
                .request
                .extend(encode(&[b"SET", key.as_bytes(), value.as_bytes()]));
            batch.reply.extend(b"+OK\r\n");
        } else {
            batch.request.extend(encode(&[b"GET", key.as_bytes()]));
            batch
                .reply
                .extend(format!("${}\r\n{value}\r\n", value.len()).bytes());
        }
    }
    batch
}

fn key(number: usize) -> String {
    format!("key:{number:012}")
}

/// 32 bytes that no other key has.
fn value(key: &str) -> String {
    format!("{key:=>32}")
}

/// A command as an array of bulk strings.
pub(crate) fn encode(args: &[&[u8]]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        out.extend(format!("${}\r\n", arg.len()).bytes());
        out.extend(*arg);
        out.extend(b"\r\n");
    }
    out
}

/// Writes every key and the large value to the master, and waits until all `replicas` have them.
pub(crate) fn fill(master: SocketAddr, mix: Mix, replicas: usize) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(master)?;
    stream.set_read_timeout(Some(FILL_DEADLINE))?;
    let blob = vec![b'x'; BLOB_LEN];
    let mut request = encode(&[b"SET", BLOB_KEY.as_bytes(), &blob]);
    for number in 0..mix.keys {
        let key = key(number);
        request.extend(encode(&[b"SET", key.as_bytes(), value(&key).as_bytes()]));
    }
    let timeout = FILL_DEADLINE.as_millis().to_string();
    let all = replicas.to_string();
    request.extend(encode(&[b"WAIT", all.as_bytes(), timeout.as_bytes()]));
    stream.write_all(&request)?;
    let mut expected = b"+OK\r\n".repeat(mix.keys + 1);
    expected.extend(format!(":{replicas}\r\n").bytes());
    let mut replies = vec![0; expected.len()];
    stream
        .read_exact(&mut replies)
        .context("filling the master")?;
    ensure!(
        replies == expected,
        "the master or a replica did not take the data"
    );
    Ok(())
}
