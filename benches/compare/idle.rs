//! Floor 4. Clients that have done their work and stay: what memory each of them costs a proxy.

use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use anyhow::ensure;

use crate::options::Options;
use crate::procfs;
use crate::targets::Proxy;
use crate::workload::BLOB_KEY;
use crate::workload::BLOB_LEN;
use crate::workload::encode;

/// Clients that read the large value at the same time.
const WAVE: usize = 8;
/// The longest wait for one reply.
const REPLY_DEADLINE: Duration = Duration::from_secs(20);

/// What idle clients cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Idle {
    /// Resident memory of the fresh process, in KB.
    pub(crate) start_kb: u64,
    /// Resident memory with half of the clients, in KB.
    pub(crate) half_kb: u64,
    /// Resident memory with all of them, in KB.
    pub(crate) full_kb: u64,
    /// All of them.
    pub(crate) clients: usize,
}

/// Brings the clients of one fresh proxy in two halves and reads its memory after each.
pub(crate) fn measure(options: &Options, proxy: &Proxy) -> anyhow::Result<Idle> {
    let start_kb = procfs::resident_kb(proxy.pid())?;
    let mut clients = Vec::with_capacity(options.idle_clients());
    let half = options.idle_clients() / 2;
    bring(&mut clients, half, proxy)?;
    thread::sleep(options.silence());
    let half_kb = procfs::resident_kb(proxy.pid())?;
    bring(&mut clients, options.idle_clients(), proxy)?;
    thread::sleep(options.silence());
    let full_kb = procfs::resident_kb(proxy.pid())?;
    Ok(Idle {
        start_kb,
        half_kb,
        full_kb,
        clients: options.idle_clients(),
    })
}

/// Opens clients until there are `count`, in waves that read the large value side by side.
fn bring(clients: &mut Vec<TcpStream>, count: usize, proxy: &Proxy) -> anyhow::Result<()> {
    let read_blob = encode(&[b"GET", BLOB_KEY.as_bytes()]);
    let mut blob = vec![0; format!("${BLOB_LEN}\r\n").len() + BLOB_LEN + 2];
    while clients.len() < count {
        let first = clients.len();
        let wave = WAVE.min(count - first);
        for number in 0..wave {
            let client = open(proxy.addr(), proxy.target().speaks_hello())
                .with_context(|| format!("client {}", first + number + 1))?;
            clients.push(client);
        }
        let newcomers = clients.get_mut(first..).unwrap_or_default();
        for client in newcomers.iter_mut() {
            client.write_all(&read_blob)?;
        }
        for client in newcomers {
            client.read_exact(&mut blob).context("the large value")?;
            ensure!(
                blob.ends_with(b"x\r\n"),
                "the large value came back damaged"
            );
        }
    }
    Ok(())
}

fn open(addr: SocketAddr, hello: bool) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(REPLY_DEADLINE))?;
    stream.set_nodelay(true)?;
    if hello {
        stream.write_all(&encode(&[b"HELLO", b"3"]))?;
        stream.write_all(&encode(&[b"CLIENT", b"SETINFO", b"LIB-NAME", b"compare"]))?;
        stream.write_all(&encode(&[b"PING"]))?;
        read_until_pong(&mut stream)?;
    }
    Ok(stream)
}

/// The replies to HELLO and SETINFO differ from server to server (Redis 7.0 refuses SETINFO);
/// the one to PING does not, and comes last.
fn read_until_pong(stream: &mut TcpStream) -> anyhow::Result<()> {
    let mut got = Vec::new();
    let mut scratch = [0; 4096];
    while !got.ends_with(b"+PONG\r\n") {
        let len = stream
            .read(&mut scratch)
            .context("HELLO 3, CLIENT SETINFO, PING")?;
        ensure!(len > 0, "closed after {}", got.escape_ascii());
        got.extend(&scratch[..len]);
    }
    ensure!(
        got.starts_with(b"%"),
        "HELLO 3 answered {}",
        got.escape_ascii()
    );
    Ok(())
}
