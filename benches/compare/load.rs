//! Floor 4. Clients that are always busy: one thread, one epoll, no allocation per batch.
//! Knows an address and a process; not what kind of proxy it is.

use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::bail;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll;
use rustix::event::epoll::EventFlags;

use crate::procfs;
use crate::workload::Workload;

/// A read takes what is there; the largest batch of replies is a tenth of this.
const SCRATCH_LEN: usize = 64 * 1024;
/// The longest silence of all clients together before the run is given up.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Latencies for which room is made in advance, so that the window sees no reallocation.
const LATENCIES: usize = 1 << 20;

/// What to drive.
pub(crate) struct Load<'a> {
    /// Where the target listens.
    pub(crate) addr: SocketAddr,
    /// Process whose time is counted; none for the direct way.
    pub(crate) pid: Option<u32>,
    /// Clients that are busy at once.
    pub(crate) clients: usize,
    /// What they send.
    pub(crate) workload: &'a Workload,
}

/// What one window has shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Commands answered within the window.
    pub(crate) commands: u64,
    /// Its length.
    pub(crate) elapsed: Duration,
    /// Processor time of the target within it.
    pub(crate) processor: Option<Duration>,
    /// Processor time of the load generator within it.
    pub(crate) own_processor: Duration,
    /// Median latency of a batch.
    pub(crate) p50: Duration,
    /// The latency that one batch in a hundred exceeds.
    pub(crate) p99: Duration,
}

impl Load<'_> {
    /// Opens the clients, warms up, measures one window, closes the clients.
    pub(crate) fn run(&self, warm_up: Duration, window: Duration) -> anyhow::Result<Sample> {
        let mut run = Run::open(self)?;
        run.drive_until(Instant::now() + warm_up)?;
        run.latencies.clear();
        let before = Reading::take(self.pid, run.commands)?;
        run.drive_until(before.at + window)?;
        let after = Reading::take(self.pid, run.commands)?;
        run.latencies.sort_unstable();
        Ok(Sample {
            commands: after.commands - before.commands,
            elapsed: after.at - before.at,
            processor: after
                .processor
                .zip(before.processor)
                .map(|(late, early)| late.saturating_sub(early)),
            own_processor: after.own_processor.saturating_sub(before.own_processor),
            p50: percentile(&run.latencies, 50),
            p99: percentile(&run.latencies, 99),
        })
    }
}

/// Everything that is read at one end of the window.
struct Reading {
    at: Instant,
    commands: u64,
    processor: Option<Duration>,
    own_processor: Duration,
}

impl Reading {
    fn take(pid: Option<u32>, commands: u64) -> anyhow::Result<Self> {
        let processor = pid.map(procfs::processor_time).transpose()?;
        let own_processor = procfs::processor_time(std::process::id())?;
        Ok(Self {
            at: Instant::now(),
            commands,
            processor,
            own_processor,
        })
    }
}

/// The clients of one measurement.
struct Run<'a> {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    scratch: Vec<u8>,
    clients: Vec<Client<'a>>,
    commands: u64,
    commands_per_batch: u64,
    latencies: Vec<Duration>,
}

impl<'a> Run<'a> {
    fn open(load: &Load<'a>) -> anyhow::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut clients = Vec::with_capacity(load.clients);
        for number in 0..load.clients {
            let stream = TcpStream::connect(load.addr).context("no client can connect")?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let data = epoll::EventData::new_u64(u64::try_from(number)?);
            // Edge-triggered: both directions can be watched at no cost per event.
            epoll::add(
                &epoll,
                &stream,
                data,
                EventFlags::IN | EventFlags::OUT | EventFlags::ET,
            )?;
            clients.push(Client {
                stream,
                workload: load.workload,
                batch: load.workload.start_of(number, load.clients),
                written: 0,
                checked: 0,
                since: Instant::now(),
            });
        }
        for client in &mut clients {
            client.begin()?;
        }
        Ok(Self {
            epoll,
            events: Vec::with_capacity(load.clients),
            scratch: vec![0; SCRATCH_LEN],
            clients,
            commands: 0,
            commands_per_batch: u64::try_from(load.workload.pipeline())?,
            latencies: Vec::with_capacity(LATENCIES),
        })
    }

    /// Goes on until the first turn that ends after `deadline`.
    fn drive_until(&mut self, deadline: Instant) -> anyhow::Result<()> {
        let silence = Timespec::try_from(SILENCE_MAX)?;
        while Instant::now() < deadline {
            self.events.clear();
            match epoll::wait(
                &self.epoll,
                spare_capacity(&mut self.events),
                Some(&silence),
            ) {
                Ok(0) => bail!("no reply within {} s", SILENCE_MAX.as_secs()),
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            for event in &self.events {
                let client = &mut self.clients[usize::try_from(event.data.u64())?];
                if let Some(latency) = client.turn(&mut self.scratch)? {
                    self.commands += self.commands_per_batch;
                    self.latencies.push(latency);
                }
            }
        }
        Ok(())
    }
}

/// One connection with one batch on its way.
struct Client<'a> {
    stream: TcpStream,
    workload: &'a Workload,
    batch: usize,
    /// Bytes of the batch's request that are sent.
    written: usize,
    /// Bytes of the batch's reply that have come and were right.
    checked: usize,
    since: Instant,
}

impl Client<'_> {
    fn begin(&mut self) -> anyhow::Result<()> {
        self.written = 0;
        self.checked = 0;
        self.since = Instant::now();
        self.write()
    }

    fn write(&mut self) -> anyhow::Result<()> {
        let request = &self.workload.batch(self.batch).request;
        while self.written < request.len() {
            match self.stream.write(&request[self.written..]) {
                Ok(len) => self.written += len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Reads once; if the batch is complete, sends the next and tells how long this one took.
    ///
    /// A read that fills less than the scratch has emptied the socket, so that the next edge is
    /// certain; a batch of replies is always smaller.
    fn turn(&mut self, scratch: &mut [u8]) -> anyhow::Result<Option<Duration>> {
        self.write()?;
        let len = match self.stream.read(scratch) {
            Ok(0) => bail!("the target has closed a connection"),
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let expected = &self.workload.batch(self.batch).reply;
        let got = &scratch[..len];
        if expected.get(self.checked..self.checked + len) != Some(got) {
            let shown = &got[..len.min(200)];
            bail!(
                "a wrong reply after {} bytes: {}",
                self.checked,
                shown.escape_ascii()
            );
        }
        self.checked += len;
        if self.checked < expected.len() {
            return Ok(None);
        }
        let latency = self.since.elapsed();
        self.batch += 1;
        self.begin()?;
        Ok(Some(latency))
    }
}

/// The value below which `percent` in a hundred of the sorted values lie; zero if there are none.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted
        .get(sorted.len() * percent / 100)
        .copied()
        .unwrap_or_default()
}
