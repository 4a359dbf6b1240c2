//! Floor 4. Bounds and times of a worker's switchboard.

use std::sync::Arc;
use std::time::Duration;

use crate::backoff::Backoff;
use crate::consistency::{self, Stamps};
use crate::exchange::{Audience, Bulky, Busy, Changes, Pause, ReaderSettings, Scripts};
use crate::route::NoReplica;
use crate::session::Login;
use crate::types::MasterName;

/// Bounds that hold for every client and link of the process.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Workers of the process, this one included.
    pub workers: usize,
    /// Requests one client may have in flight. Above it nothing more is read from its socket:
    /// back-pressure is the one signal that every client library understands.
    pub pipeline_max: u32,
    /// Bytes that a client which waits may have read ahead; enough to notice that it left.
    pub read_ahead: usize,
    /// Bytes of one request, all arguments together (Redis `client-query-buffer-limit`, 1 GB).
    pub request_max: usize,
    /// Bytes of output that a client may leave unread before the links that feed it are throttled.
    /// A subscriber that has left more is closed when another message comes.
    pub output_high: usize,
    /// Bytes of one reply that passes on a shared link from which on others take another one, and
    /// reads behind it are asked there too: they are there in some milliseconds, and opening a
    /// connection takes one.
    pub long_reply: usize,
    /// Bytes of a reply that make its key bulky: they are under way for about as long as a small
    /// request takes in all.
    pub bulky_reply: usize,
    /// Time in which a throttled client must take something, or it is closed.
    pub write_timeout: Duration,
    /// Bytes in flight on one shared link before its clients wait.
    pub link_bytes: usize,
    /// Leased links of one worker, idle ones in the pool included.
    pub leases_max: usize,
    /// Whether a link is kept open for whoever needs one for itself next.
    pub warm: bool,
    /// Shared links of one worker to one node, and as many more for large values.
    pub lanes_max: usize,
    /// Links that one worker opens to one node at once; others wait for their turn. All workers
    /// together should stay below the queue of the node's listener (Redis `tcp-backlog`, 511).
    pub opening_max: usize,
    /// Idle time after which a link is closed.
    pub idle: Duration,
    /// Time for a reply; after it the link is lost, and what was written is UNCERTAIN.
    pub reply_timeout: Duration,
    /// How long, after that, what was written waits to be answered until the node has ended the
    /// connection, so that it is not executed any more. A node that answers takes a few
    /// milliseconds, one that is frozen no time is enough.
    pub fence_wait: Duration,
    /// Silence of a link with requests in flight that is reported as suspicious.
    pub suspect_after: Duration,
    /// How long a node that cannot be reached is left alone.
    pub backoff: Backoff,
    /// How often times are checked while anything waits.
    pub tick: Duration,
    /// Scripts that went through the process.
    pub scripts: Arc<Scripts>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            workers: 1,
            pipeline_max: 1024,
            read_ahead: 16 * 1024,
            request_max: 1 << 30,
            output_high: 1 << 20,
            long_reply: 4 << 20,
            bulky_reply: 1 << 20,
            write_timeout: Duration::from_secs(30),
            link_bytes: 4 << 20,
            leases_max: 512,
            warm: false,
            lanes_max: 1024,
            opening_max: 32,
            idle: Duration::from_secs(60),
            reply_timeout: Duration::from_secs(60),
            fence_wait: Duration::from_millis(100),
            suspect_after: Duration::from_millis(500),
            backoff: Backoff::new(Duration::from_millis(50), Duration::from_secs(1)),
            tick: Duration::from_millis(50),
            scripts: Arc::new(Scripts::new(4 << 20)),
        }
    }
}

/// What differs between master groups.
#[derive(Clone, Debug)]
pub struct GroupSettings {
    /// Name under which Sentinel monitors it.
    pub name: MasterName,
    /// What becomes of reads when no replica may serve them.
    pub no_replica: NoReplica,
    /// Which replica reads for whom.
    pub readers: ReaderSettings,
    /// Whether a read that a replica does not answer in time is sent to another too.
    pub hedge_reads: bool,
    /// Login for clients that have not logged in themselves; `None`: they are what the node makes
    /// of a connection without AUTH.
    pub anonymous: Option<Login>,
    /// Where account is kept of what is written; `None` where nobody asks for it.
    pub stamps: Option<Arc<Stamps>>,
    /// How many clients of all workers hear what.
    pub audience: Arc<Audience>,
    /// Which keys have large values, as all workers know.
    pub bulky: Arc<Bulky>,
    /// Whether the master is busy with a script, as all workers know.
    pub busy: Arc<Busy>,
    /// Whether the master keeps writes waiting, as all workers know.
    pub pause: Arc<Pause>,
    /// How often who is let in may have changed, as all workers know.
    pub changes: Arc<Changes>,
    /// What scripts change.
    pub script_keys: consistency::Scripts,
}
