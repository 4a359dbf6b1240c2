//! Floor 4. One client as the switchboard sees it: its session, and where it stands.

use std::collections::VecDeque;
use std::time::Duration;

use crate::exchange::hello::Done;
use crate::exchange::lease::Lease;
use crate::exchange::link::MaybeNode;
use crate::exchange::overtaking::Sketch;
use crate::exchange::pubsub::Heard;
use crate::exchange::ticket::Effect;
use crate::exchange::upload::Upload;
use crate::exchange::{GroupIndex, LinkKey, Place, Role, Settings};
use crate::resp::RequestDecoder;
use crate::route::Access;
use crate::session::{Replies, Seq, Session};
use crate::types::Time;

/// Key of a client; never names a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientKey(Place);

impl From<Place> for ClientKey {
    fn from(place: Place) -> Self {
        Self(place)
    }
}

impl From<ClientKey> for Place {
    fn from(key: ClientKey) -> Self {
        key.0
    }
}

impl ClientKey {
    /// No client's.
    pub(super) const NOBODY: Self = Self(Place::NOWHERE);

    /// The place, for tables of the worker that run in parallel.
    pub const fn index(self) -> usize {
        self.0.index()
    }
}

/// Why the next request of a client is not placed yet.
///
/// A wait ends in one place only: an input that brings what was waited for makes it `Over`, and
/// `Exchange::settle`, at the end of that input, lets the client go on. So nothing is placed while
/// something else is being placed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Wait {
    /// It does not wait.
    #[default]
    No,
    /// It need not wait any longer; it goes on at the end of the present input.
    Over,
    /// For the replies of its requests on another link to the master.
    Order,
    /// For the replies of its requests at replicas.
    Reads,
    /// For all its replies.
    Answers,
    /// For fewer requests in flight, or less output.
    Room,
    /// For this link to have room.
    Link(LinkKey),
    /// For this link to open, or to be refused: the answer to a question to the master, or the
    /// link of a command whose time runs meanwhile.
    Proof(LinkKey),
    /// For its transaction to be begun anew on another link.
    Renewal,
    /// For fewer logins being proven, or fewer questions about clients being answered, at once.
    Turn,
    /// For a writable master. Released by a snapshot, or by the end of the hold time.
    Master,
}

/// How far the end of a client has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Ending {
    /// Not at all.
    #[default]
    No,
    /// It reads no more; what was placed is answered, then it is closed.
    AfterReplies,
    /// It is closed at once.
    Now,
}

/// The place of a request among its client's requests, once it has one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbered {
    pub(super) seq: Seq,
    /// Whether the client hears the reply (`CLIENT REPLY`).
    pub(super) spoken: bool,
    /// How often a node has refused it as not the one to ask.
    pub(super) bounces: u8,
    /// How many connections broke when its reply was the next one due.
    pub(super) breaks: u8,
    pub(super) origin: Origin,
    /// Since when the time runs for which it is to wait at a server, if it has waited already.
    pub(super) waits_since: Option<Time>,
}

impl Numbered {
    /// For a request that has not been placed before.
    #[inline]
    pub(super) const fn new(seq: Seq, spoken: bool) -> Self {
        Self {
            seq,
            spoken,
            bounces: 0,
            breaks: 0,
            origin: Origin::Any,
            waits_since: None,
        }
    }
}

/// Where a request was before it has to be placed anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// On a shared link, to which it returns, whatever its client began since.
    Shared,
    /// On a replica's. What may write and is in flight now came after it.
    Replica,
    /// On its client's own link, outside of a transaction.
    Leased,
    /// There, in a transaction, or nowhere yet.
    Any,
}

/// The line with which a node has refused what a client asked. Boxed twice, as few have one.
#[derive(Debug)]
pub(super) struct Verdict(pub(super) Box<[u8]>);

/// Links throttled because of one client. Boxed, as few ever are.
#[derive(Debug, Default)]
pub(super) struct Throttled(Option<Box<Links>>);

#[derive(Debug, Default)]
struct Links(Vec<LinkKey>);

impl Throttled {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Adds a link. False if it was there.
    pub(super) fn add(&mut self, link: LinkKey) -> bool {
        let links = &mut self.0.get_or_insert_default().0;
        let is_new = !links.contains(&link);
        if is_new {
            links.push(link);
        }
        is_new
    }

    pub(super) fn remove(&mut self, link: LinkKey) {
        if let Some(links) = &mut self.0 {
            links.0.retain(|other| *other != link);
        }
        self.0.take_if(|links| links.0.is_empty());
    }

    pub(super) fn take(&mut self) -> Vec<LinkKey> {
        self.0.take().map_or_else(Vec::new, |links| links.0)
    }
}

/// A request that has its number and has to be placed anew.
#[derive(Debug)]
pub(super) struct Again {
    pub(super) number: Numbered,
    pub(super) arrived: Time,
    pub(super) raw: Box<[u8]>,
}

impl Again {
    /// The same for a request that was waiting at a server until `now`: what it may still wait for
    /// a master is another matter than what is left of its time there.
    pub(super) fn after_waiting(mut self, now: Time) -> Self {
        self.number.waits_since = Some(std::mem::replace(&mut self.arrived, now));
        self
    }
}

/// One client.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "marks that are independent of each other, in the largest table of a worker"
)]
pub(super) struct Client {
    pub(super) session: Session,
    pub(super) replies: Replies,
    pub(super) decoder: RequestDecoder,
    /// Bytes read and not decoded; empty and without memory while nothing waits.
    pub(super) input: Vec<u8>,
    /// When the first byte of `input` was read, or a command before it had waited at a server.
    pub(super) arrived: Time,
    /// What came while the client waited: from which offset of `input`, and when.
    pub(super) later: Vec<(usize, Time)>,
    pub(super) group: GroupIndex,
    /// When it connected, in seconds since the start of the process.
    pub(super) joined: u32,
    /// Its last command, by its number in the table; [`NO_COMMAND`] if there is none.
    pub(super) command: u16,
    /// What its listener and its own words let it have.
    pub(super) access: Access,
    /// Whether it is let in, as far as a login goes.
    pub(super) admitted: bool,
    pub(super) wait: Wait,
    pub(super) ending: Ending,
    /// Whether its last byte was read. What it has sent by then is still placed.
    pub(super) said_all: bool,
    /// Since when its next request is held, for the metric.
    pub(super) held_since: Option<Time>,
    /// When its next request, which is to wait at a server and has not been sent, has waited long
    /// enough by its own words.
    pub(super) until: Option<Time>,
    /// Whether a command of its own may wait at a server.
    pub(super) blocks: bool,
    /// Whether it is in its group's list of held clients.
    pub(super) listed: bool,
    /// Requests in flight to the master.
    pub(super) master_out: u32,
    /// Those among them that may write.
    pub(super) writes_out: u32,
    /// The last request that may write.
    pub(super) last_write: Seq,
    /// Requests in flight to replicas.
    pub(super) replica_out: u32,
    /// What they read; left as it was when there are none.
    pub(super) asked: Sketch,
    /// The link of the `master_out` requests, if there are any.
    pub(super) master_link: Option<LinkKey>,
    /// Where the last request for the master went: spares a look-up.
    pub(super) master_lane: Option<LinkKey>,
    /// Where the last read for a replica went.
    pub(super) replica_lane: Option<LinkKey>,
    /// The replica that it keeps for its reads.
    pub(super) reader: MaybeNode,
    /// The link that is this client's alone.
    pub(super) lease: Option<Box<Lease>>,
    /// What it has subscribed to.
    pub(super) heard: Option<Box<Heard>>,
    /// A request that is passed on while it comes; nothing else is decoded meanwhile.
    pub(super) upload: Option<Box<Upload>>,
    /// Requests to be placed anew, before anything else, by number.
    pub(super) again: VecDeque<Again>,
    /// A link that proves a login or a database, while it opens.
    pub(super) proof: Option<LinkKey>,
    /// What the node said against it.
    pub(super) verdict: Option<Box<Verdict>>,
    /// How far its HELLO has come, while that waits.
    pub(super) hello: Done,
    /// Links throttled because this client does not read.
    pub(super) throttled: Throttled,
    /// Whether it had more unread output than allowed when its socket took nothing more, and still
    /// has, or throttles links because of it.
    pub(super) stalled: bool,
    /// When it last took output.
    pub(super) took_at: Time,
    pub(super) touched: bool,
    pub(super) dirty: bool,
}

impl Client {
    pub(super) fn new(session: Session, group: GroupIndex, access: Access, now: Time) -> Self {
        Self {
            session,
            replies: Replies::default(),
            decoder: RequestDecoder::default(),
            input: Vec::new(),
            arrived: now,
            later: Vec::new(),
            group,
            joined: u32::try_from(now.since_start().as_secs()).unwrap_or(u32::MAX),
            command: NO_COMMAND,
            access,
            admitted: false,
            wait: Wait::No,
            ending: Ending::No,
            said_all: false,
            held_since: None,
            until: None,
            blocks: false,
            listed: false,
            master_out: 0,
            writes_out: 0,
            last_write: Seq::MAX,
            replica_out: 0,
            asked: Sketch::EMPTY,
            master_link: None,
            master_lane: None,
            replica_lane: None,
            reader: MaybeNode::default(),
            lease: None,
            heard: None,
            upload: None,
            again: VecDeque::new(),
            proof: None,
            verdict: None,
            hello: Done::default(),
            throttled: Throttled::default(),
            stalled: false,
            took_at: now,
            touched: false,
            dirty: false,
        }
    }

    /// Forgets cached links, because the session's user, database or protocol changed.
    pub(super) fn forget_lanes(&mut self) {
        self.master_lane = None;
        self.replica_lane = None;
    }

    /// Puts a lost request in line by its number. Whatever the client waits for, this comes first.
    pub(super) fn try_again(&mut self, again: Again) {
        let seq = again.number.seq;
        let before = |other: &Again| other.number.seq.wrapping_sub(seq) > u32::MAX / 2;
        let at = self.again.iter().take_while(|other| before(other)).count();
        self.again.insert(at, again);
        self.wait = Wait::Over;
    }

    /// Whether no request behind `seq` changes what it would find, asked anew.
    pub(super) const fn is_last_to_matter(&self, seq: Seq, effect: Effect) -> bool {
        let behind = seq.wrapping_sub(self.last_write);
        let reads_only = matches!(effect, Effect::Reads) && behind != 0 && behind < Seq::MAX / 2;
        reads_only || self.replies.is_latest(seq)
    }

    /// The number of a request: the one it has, or the next.
    pub(super) fn number(&mut self, again: Option<Numbered>) -> Numbered {
        again.unwrap_or_else(|| Numbered::new(self.replies.begin(), self.session.speaks()))
    }

    /// Counts off a request that was answered or lost.
    #[inline]
    pub(super) const fn answered(&mut self, role: Role, effect: Effect) {
        match role {
            Role::Master => {
                self.master_out = self.master_out.saturating_sub(1);
                if matches!(effect, Effect::Writes) {
                    self.writes_out = self.writes_out.saturating_sub(1);
                }
            }
            Role::Replica => self.replica_out = self.replica_out.saturating_sub(1),
        }
    }

    /// Keeps in mind that the bytes of `input` from `offset` on came at `now`.
    pub(super) fn mark_arrival(&mut self, offset: usize, now: Time) {
        if now.since(self.last_arrived()) >= ARRIVAL_STEP {
            self.later.push((offset, now));
        }
    }

    /// When something of it was last read, or a command of its own had waited at a server.
    pub(super) fn last_arrived(&self) -> Time {
        self.later.last().map_or(self.arrived, |(_, at)| *at)
    }

    /// When the byte at `offset` of the input was read; a request is there with its last.
    #[inline]
    pub(super) fn arrived_at(&self, offset: usize) -> Time {
        let before = self.later.iter().take_while(|(from, _)| *from <= offset);
        before.last().map_or(self.arrived, |(_, at)| *at)
    }

    /// Ends the time for which its own command waited at a server. What it has sent behind that has
    /// not waited for us until now: Redis would have read it now.
    pub(super) fn unblock(&mut self, now: Time) {
        self.blocks = false;
        self.arrived = now;
        self.later = Vec::new();
    }

    /// Moves the marks of arrival along with an input of which the first `used` bytes are gone.
    pub(super) fn forget_arrivals(&mut self, used: usize) {
        self.arrived = self.arrived_at(used);
        self.later.retain_mut(|(from, _)| {
            let stays = *from > used;
            *from = from.saturating_sub(used);
            stays
        });
        if self.later.is_empty() {
            self.later = Vec::new();
        }
    }

    /// Bytes of its requests that have no place.
    pub(super) fn waiting_bytes(&self) -> usize {
        let again = self.again.iter().map(|again| again.raw.len());
        self.input.len() + again.sum::<usize>()
    }

    /// Whether its next request has waited at a server before.
    pub(super) fn has_waited_at_server(&self) -> bool {
        let next = self.again.front();
        next.is_some_and(|again| again.number.waits_since.is_some())
    }

    /// Whether its next request has waited as long as it was to wait.
    pub(super) fn is_out_of_time(&self, now: Time) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// When its next request was read.
    pub(super) fn next_arrived(&self) -> Time {
        let again = self.again.front();
        again.map_or(self.arrived, |again| again.arrived)
    }

    /// Whether it has as many requests in flight, or as much output, as it may.
    #[inline]
    pub(super) fn is_full(&self, settings: &Settings) -> bool {
        self.replies.outstanding() >= settings.pipeline_max
            || self.replies.held_bytes() > settings.output_high
    }

    /// Whether what it waits for has come, as far as its own replies tell.
    pub(super) fn may_go_on(&self, pipeline_max: u32, output_high: usize) -> bool {
        match self.wait {
            Wait::Over => true,
            Wait::Order => self.master_out == 0,
            Wait::Reads => self.replica_out == 0,
            Wait::Answers => self.replies.outstanding() == 0,
            Wait::Room => {
                self.replies.outstanding() <= pipeline_max / 2
                    && self.replies.held_bytes() <= output_high / 2
            }
            Wait::No
            | Wait::Link(_)
            | Wait::Proof(_)
            | Wait::Renewal
            | Wait::Turn
            | Wait::Master => false,
        }
    }
}

/// The number of no command.
pub(super) const NO_COMMAND: u16 = u16::MAX;

/// Times of arrival that differ by less are not told apart. With the hold time it bounds how many
/// there are.
const ARRIVAL_STEP: Duration = Duration::from_millis(10);
