//! A node that shakes hands like a master and then says what a real server never would.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// What becomes of the connection after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    Stay,
    Close,
}

/// The answer to a command that is no part of a handshake: `heard` such commands came before it,
/// over all connections.
type Lie = dyn Fn(&[String], usize) -> (Vec<u8>, Then) + Send + Sync;

/// What becomes of a connection at this command of a handshake; it may take its time.
type Greeting = dyn Fn(&[String]) -> Then + Send + Sync;

/// A listening liar. Its threads end with its connections.
#[derive(Debug)]
pub(crate) struct Liar {
    addr: SocketAddr,
    heard: Arc<AtomicUsize>,
}

impl Liar {
    pub(crate) fn start(
        lie: impl Fn(&[String], usize) -> (Vec<u8>, Then) + Send + Sync + 'static,
    ) -> Self {
        Self::who_greets(|_| Then::Stay, lie)
    }

    /// One that does not shake hands with everybody at once.
    pub(crate) fn who_greets(
        greeting: impl Fn(&[String]) -> Then + Send + Sync + 'static,
        lie: impl Fn(&[String], usize) -> (Vec<u8>, Then) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (heard, lie): (_, Arc<Lie>) = (Arc::new(AtomicUsize::new(0)), Arc::new(lie));
        let (count, greeting): (_, Arc<Greeting>) = (Arc::clone(&heard), Arc::new(greeting));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (lie, heard) = (Arc::clone(&lie), Arc::clone(&count));
                let greeting = Arc::clone(&greeting);
                // A connection that breaks is its peer's business.
                thread::spawn(move || {
                    converse(stream, &*greeting, &*lie, &heard).unwrap_or_default();
                });
            }
        });
        Self { addr, heard }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Commands that were no part of a handshake.
    pub(crate) fn heard(&self) -> usize {
        self.heard.load(Ordering::SeqCst)
    }
}

fn converse(
    stream: TcpStream,
    greeting: &Greeting,
    lie: &Lie,
    heard: &AtomicUsize,
) -> std::io::Result<()> {
    let mut input = BufReader::new(stream.try_clone()?);
    let mut output = stream;
    while let Some(args) = command(&mut input)? {
        if let Some(truth) = truth(&args) {
            if greeting(&args) == Then::Close {
                break;
            }
            output.write_all(truth)?;
            continue;
        }
        let (answer, then) = lie(&args, heard.fetch_add(1, Ordering::SeqCst));
        output.write_all(&answer)?;
        if then == Then::Close {
            break;
        }
    }
    Ok(())
}

fn command(input: &mut impl BufRead) -> std::io::Result<Option<Vec<String>>> {
    let mut line = String::new();
    if input.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let number = |line: &str| line.trim_end().get(1..).and_then(|text| text.parse().ok());
    let count: usize = number(&line).unwrap();
    let mut args = Vec::new();
    for _ in 0..count {
        line.clear();
        input.read_line(&mut line)?;
        let len: usize = number(&line).unwrap();
        let mut arg = vec![0; len + 2];
        input.read_exact(&mut arg)?;
        arg.truncate(len);
        args.push(String::from_utf8_lossy(&arg).into_owned());
    }
    Ok(Some(args))
}

/// The answers that make it a master.
fn truth(args: &[String]) -> Option<&'static [u8]> {
    match args.first()?.to_ascii_uppercase().as_str() {
        "HELLO" => Some(b"*4\r\n$5\r\nproto\r\n:2\r\n$4\r\nrole\r\n$6\r\nmaster\r\n"),
        "CLIENT" | "SELECT" => Some(b"+OK\r\n"),
        "PING" => Some(b"+PONG\r\n"),
        "ROLE" => Some(b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"),
        "INFO" => Some(b"$13\r\nrun_id:abcdef\r\n"),
        "COMMAND" => Some(b"*0\r\n"),
        _ => None,
    }
}
