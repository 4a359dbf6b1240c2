//! Floor 4. Links that are one client's alone: from the pool or new, and back when nothing sticks
//! to them.
//!
//! ```text
//!   pool ──► leased: blocking command ──reply──────────────────► pool
//!                    MULTI … EXEC / DISCARD ──reply────────────► pool
//!                    WATCH … EXEC / DISCARD / UNWATCH ──reply──► pool
//!                    CONFIG SET, DEBUG, … a while ─────────────► pool
//!                    CLIENT TRACKING ON … OFF ────────── client gone ─► closed; or sooner, where
//!                                                        links are short
//!                    MONITOR, CLIENT NO-TOUCH, … ─────── client gone ─► closed
//! ```

use crate::command::{Class, Leased, Local, Problem};
use crate::exchange::client::{Client, Numbered, Wait};
use crate::exchange::dispatch::{Job, Kind, Placed};
use crate::exchange::fencing::Waits;
use crate::exchange::inside::Inside;
use crate::exchange::kept::{Kept, Renewal};
use crate::exchange::link::{Link, State, Usage};
use crate::exchange::marks::{Gathered, Marks};
use crate::exchange::redirection::{self, Told};
use crate::exchange::ticket::{Effect, Purpose};
use crate::exchange::tracking::Tracking;
use crate::exchange::warm::Wanted;
use crate::exchange::{ClientKey, Exchange, LinkKey, Role};
use crate::resp::Request;
use crate::session::{Piece, Reject, Seq};
use crate::telemetry::RequestClass;
use crate::types::Time;

/// Idle links kept for each kind of lane.
const POOL_MAX: usize = 64;

/// A client's own link, and what sticks to it.
#[derive(Debug, Default)]
pub(super) struct Lease {
    /// The link; `None` after it was lost, until another takes its place.
    pub(super) link: Option<LinkKey>,
    pub(super) multi: Multi,
    pub(super) watch: Watch,
    /// What is queued, as far as replies tell.
    pub(super) kept: Kept,
    /// Whether that has to be begun anew.
    pub(super) renewal: Renewal,
    /// What was said of the connection between MULTI and EXEC.
    pub(super) inside: Inside,
    /// What the transaction changes whose replies are coming.
    pub(super) gathered: Gathered,
    /// Something stays on the link that cannot be undone.
    pub(super) sticky: bool,
    /// Commands without a reply that may have that effect.
    pub(super) sticking: u32,
    /// The latest MULTI without a reply.
    pub(super) opening: Option<Seq>,
    /// The DISCARD without a reply, and how the transaction stood before it.
    pub(super) discarding: Option<(Seq, Multi)>,
    /// A change of the session's settings without a reply.
    pub(super) setting: Option<(Local, Box<[u8]>)>,
    /// What is tracked for it.
    pub(super) tracking: Tracking,
    /// To whom that is told.
    pub(super) told: Told,
    /// Whether that has to be made again on the next link.
    pub(super) unmade: bool,
    /// Whether an administrator's command is queued.
    pub(super) administers: bool,
    /// Since when its client attends to the master.
    pub(super) attends: Option<Time>,
    /// What the link is called, if not as all are.
    pub(super) called: Option<Box<[u8]>>,
}

/// How a client stands between MULTI and EXEC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Multi {
    /// It does not.
    #[default]
    No,
    /// Commands are queued.
    Open,
    /// One was refused here: EXEC must not execute the others.
    Aborted,
    /// The link is lost: nothing of it is executed any more.
    Broken,
    /// A busy master has let nobody in for it: what is sent is refused, and EXEC too.
    Denied,
    /// MULTI itself was refused at this time. What the client had sent by then belongs to it.
    Refused(Time),
}

/// Whether keys are watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Watch {
    /// None.
    #[default]
    No,
    /// Some, on the link.
    Kept,
    /// Some were, on a link that is lost: the next EXEC must not succeed.
    Stale,
}

/// Why a client cannot have a link of its own now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoLease {
    /// The client is not there any more.
    Gone,
    /// It has requests in flight on another link to the master, or one that waits at the server.
    Order,
    /// There is no writable master.
    NoMaster,
    /// All leased links are in use.
    Full,
}

impl Lease {
    /// Whether the link is as it was when it came from the pool, once it has no requests in flight.
    pub(super) fn is_clean(&self) -> bool {
        self.is_unbound() && !self.tracking.was_on()
    }

    /// Whether nothing that the client has begun needs the link.
    pub(super) fn is_unbound(&self) -> bool {
        self.multi == Multi::No
            && self.watch == Watch::No
            && !self.sticky
            && self.sticking == 0
            && !self.tracking.is_on()
            && !self.tracking.is_choosing()
    }

    /// Whether `CLIENT CACHING` may have something to say of what comes next. With RESP2 only the
    /// server knows.
    const fn may_choose(&self) -> bool {
        self.tracking.is_choosing() || self.sticky || self.sticking > 0
    }

    /// Whether the link brings what becomes invalid.
    const fn hears_invalidations(&self) -> bool {
        self.tracking.is_on() && self.link.is_some()
    }

    /// Whether commands of every kind have to travel on the link.
    pub(super) fn binds_all(&self) -> bool {
        self.watch == Watch::Kept || self.sticky || self.sticking > 0 || self.tracking.is_on()
    }
}

impl Client {
    /// Whether what a request of this class means depends on a reply that has not come; `new`: it
    /// was never placed.
    pub(super) fn is_undecided(&mut self, new: bool, class: Class) -> bool {
        // In which database it is, in which protocol it is answered; whether it is still between
        // MULTI and EXEC.
        let unsettled =
            self.is_selecting() || self.is_setting() || self.is_resetting() || self.is_discarding();
        (new && unsettled)
            // Whether it is allowed, and in which form it is answered.
            || (self.is_changing_subscriptions() && !changes_subscriptions(class))
    }

    /// Whether a change of its settings has no reply yet.
    fn is_setting(&self) -> bool {
        let lease = self.lease.as_ref();
        self.replies.outstanding() > 0 && lease.is_some_and(|lease| lease.setting.is_some())
    }

    /// Whether what it reads is tracked for it.
    pub(super) fn is_tracked(&self) -> bool {
        let lease = self.lease.as_ref();
        lease.is_some_and(|lease| lease.tracking.is_on())
    }

    /// Who is told what becomes invalid of what it reads: the client with this number, itself if
    /// that is 0; `None` if that is not tracked.
    pub(super) fn redirects_to(&self) -> Option<u64> {
        let whom = self.lease.as_ref().and_then(|lease| lease.told.whom());
        whom.or_else(|| self.is_tracked().then_some(0))
    }

    /// Whether it waits for replies of others than its own link.
    pub(super) fn is_answered_elsewhere(&self) -> bool {
        self.is_answered_beside(self.lease.as_ref().and_then(|lease| lease.link))
    }

    /// Whether its lease has a link with requests in flight.
    pub(super) fn is_lease_busy(&self) -> bool {
        let link = self.lease.as_ref().and_then(|lease| lease.link);
        link.is_some() && self.master_out > 0 && self.master_link == link
    }
}

impl Exchange {
    /// A request against which nothing stands, of a client that may have a lease or subscriptions;
    /// `plain`: it has nothing to do with them. `fails`: it is sure to.
    pub(super) fn dispatch_stateful(
        &mut self,
        job: Job,
        request: &Request<'_>,
        class: Class,
        (plain, fails, problem): (bool, bool, Option<Problem>),
    ) -> Placed {
        let Some(client) = self.clients.get(job.key) else {
            return Placed::Answered;
        };
        let (in_multi, leased) = (client.is_in_multi(), client.lease.is_some());
        if client.is_subscriber()
            && !in_multi
            && class == Class::Write
            && publishes(request)
            && let Some(placed) = self.publish_on_hub(job, request.raw(), Kind::shared(class))
        {
            return placed;
        }
        if plain || !leased {
            self.dispatch_unshared(job, request, class)
        } else if fails && in_multi {
            self.place_wrong_in_multi(job, request, (class, problem))
        } else {
            self.dispatch_with_lease(job, request, class)
        }
    }

    /// A request of a client that has a lease: the lease, or where it would go without one.
    pub(super) fn dispatch_with_lease(
        &mut self,
        job: Job,
        request: &Request<'_>,
        class: Class,
    ) -> Placed {
        self.end_attendance(job.key, job.now);
        let attends = self.attends_on_link(job.key);
        let Some(client) = self.clients.get(job.key) else {
            return Placed::Answered;
        };
        let Some(lease) = client.lease.as_deref() else {
            return Placed::Answered;
        };
        let kind = Kind {
            effect: Kind::shared(class).effect,
            ..Kind::leased(Purpose::Plain)
        };
        match class {
            Class::Local(Local::Quit | Local::Reset) => self.dispatch_unshared(job, request, class),
            _ if lease.multi != Multi::No => self.place_in_multi(job, request, class),
            // What the link has of it only the server knows.
            Class::Local(Local::ClientTrackinginfo | Local::ClientGetredir)
                if lease.tracking.is_on() || lease.sticky || lease.sticking > 0 =>
            {
                let effect = Effect::Reads;
                let redirected = Kind::leased(Purpose::Redirected);
                let kind = if lease.told.is_named() {
                    redirected
                } else {
                    kind
                };
                self.send_on_lease(job, request.raw(), Kind { effect, ..kind })
            }
            // A choice of `CLIENT CACHING` is over with whatever comes next; and only the server
            // knows whether what has become invalid comes before it or behind it.
            Class::Local(Local::Ping | Local::Echo)
                if (lease.may_choose() || lease.hears_invalidations() || attends)
                    && !client.is_restricted_subscriber() =>
            {
                let effect = Effect::Reads;
                self.send_on_lease(job, request.raw(), Kind { effect, ..kind })
            }
            Class::Local(local @ (Local::Select | Local::Auth | Local::Hello))
                if !lease.is_clean() =>
            {
                self.change_settings_of_lease(job, request, local)
            }
            Class::Read | Class::MasterRead | Class::Write if lease.binds_all() => {
                self.send_on_lease(job, request.raw(), kind)
            }
            Class::Read | Class::MasterRead | Class::Write if attends => {
                self.send_on_lease(job, request.raw(), Kind::shared(class))
            }
            _ => self.dispatch_unshared(job, request, class),
        }
    }

    /// A command that needs a link of its own.
    pub(super) fn place_leased(
        &mut self,
        job: Job,
        request: &Request<'_>,
        leased: Leased,
    ) -> Placed {
        if let Some(placed) = self.have_master_object_to_end(job, request, leased) {
            return placed;
        }
        let raw = request.raw();
        let missing = |text| Reject::Redis(text);
        match leased {
            Leased::Multi => self.begin_multi(job, raw),
            Leased::Exec => {
                self.reject(job, RequestClass::Leased, missing("ERR EXEC without MULTI"))
            }
            Leased::Discard => self.reject(
                job,
                RequestClass::Leased,
                missing("ERR DISCARD without MULTI"),
            ),
            Leased::Watch => self.watch(job, raw),
            Leased::Unwatch => self.unwatch(job, raw),
            Leased::Wait => self.place_wait(job, request),
            Leased::Tracking => match redirection::target_of(request) {
                Some(target) => self.place_redirected(job, request, target),
                None => self.place_tracking(job, raw),
            },
            Leased::ConnectionState => self.place_connection_state(job, request),
            Leased::Monitor => {
                let wanted = Wanted {
                    watches: true,
                    ..Wanted::default()
                };
                let taken = self.take_lease_in(job, wanted);
                let placed = match self.lease_or_wait(job, taken) {
                    Ok(link) => self.send(link, job, raw, Kind::leased(Purpose::Plain)),
                    Err(placed) => placed,
                };
                self.on_lease(job.key, placed, |lease| lease.sticky = true);
                placed
            }
            Leased::Blocking => self.place_blocking(job, request),
            _ => self.place_subscription(job, request, leased),
        }
    }

    /// Sends on the client's own link, which is taken from the pool or opened first.
    pub(super) fn send_on_lease(&mut self, job: Job, raw: &[u8], kind: Kind) -> Placed {
        match self.lease_link(job) {
            Ok(link) => self.send(link, job, raw, kind),
            Err(placed) => placed,
        }
    }

    /// The client's own link. An `Err` is what became of the request without one.
    pub(super) fn lease_link(&mut self, job: Job) -> Result<LinkKey, Placed> {
        let taken = self.take_lease(job);
        self.lease_or_wait(job, taken)
    }

    /// The link that was taken. An `Err` is what became of the request without one.
    pub(super) fn lease_or_wait(
        &mut self,
        job: Job,
        taken: Result<LinkKey, NoLease>,
    ) -> Result<LinkKey, Placed> {
        let link = taken.map_err(|why| match why {
            NoLease::Gone => Placed::Answered,
            NoLease::NoMaster => self.hold(job),
            NoLease::Full => {
                let max = self.settings.leases_max;
                self.reject(job, RequestClass::Refused, Reject::NoLease { max })
            }
            NoLease::Order => {
                if let Some(client) = self.clients.get_mut(job.key) {
                    client.wait = Wait::Order;
                }
                Placed::Waits
            }
        })?;
        self.track_again(job, link);
        let lease = self.lease_of(job.key);
        if lease.is_some_and(|lease| lease.renewal != Renewal::Done) {
            return Err(self.renew_multi(job, link));
        }
        Ok(link)
    }

    /// The link that the client has, or one from the pool, or a new one.
    pub(super) fn take_lease(&mut self, job: Job) -> Result<LinkKey, NoLease> {
        self.take_lease_in(job, Wanted::default())
    }

    /// The same; a link that is new to the client is as it is wanted.
    pub(super) fn take_lease_in(&mut self, job: Job, wanted: Wanted) -> Result<LinkKey, NoLease> {
        let client = self.clients.get(job.key).ok_or(NoLease::Gone)?;
        let own = client.lease.as_ref().and_then(|lease| lease.link);
        if client.master_out > 0 && (own.is_none() || client.master_link != own) {
            return Err(NoLease::Order);
        }
        let link = own.and_then(|own| self.links.get(own));
        if link.is_some_and(|link| link.left.is_some() || link.ends_in_wait()) {
            return Err(NoLease::Order);
        }
        let index = client.group;
        let bound = client.lease.as_ref().is_some_and(|lease| !lease.is_clean());
        let group = self.groups.get(index).ok_or(NoLease::Gone)?;
        if let Some(own) = own
            && bound
        {
            // What was begun before a switch goes on where it is until the switch is under way, but
            // not beside a master that may have been replaced unheard.
            let goes_on = !group.quiet && !group.snapshot.no_majority;
            let free = group.writable.is_some() || goes_on;
            return free.then_some(own).ok_or(NoLease::NoMaster);
        }
        let in_doubt = self.is_in_doubt(job.key);
        let node = group.writable.filter(|_| !in_doubt);
        let node = node.ok_or(NoLease::NoMaster)?;
        let mut lane = self
            .lane_of(job.key, node, Role::Master)
            .ok_or(NoLease::Gone)?;
        lane.database = wanted.database.unwrap_or(lane.database);
        if let Some(own) = own {
            if self.links.get(own).is_some_and(|link| link.lane == lane) {
                return Ok(own);
            }
            // The session has another database since: the next command needs another link.
            if self.clients.get(job.key).is_some_and(Client::is_lease_busy) {
                return Err(NoLease::Order);
            }
            self.drop_lease(job.key, job.now);
        }
        let key = self.pooled_or_new(index, lane, (job, wanted.watches))?;
        if let Some(link) = self.links.get_mut(key) {
            link.usage = Usage::Leased(Some(job.key));
        }
        if let Some(client) = self.clients.get_mut(job.key) {
            client.lease.get_or_insert_default().link = Some(key);
        }
        Ok(key)
    }

    pub(super) fn leased_count(&self) -> usize {
        self.links
            .iter()
            .filter(|(_, link)| matches!(link.usage, Usage::Leased(_) | Usage::Target(_)))
            .count()
    }

    /// Sends a command of our own on a client's link; nobody hears its reply.
    pub(super) fn send_internal(&mut self, link: LinkKey, job: Job, purpose: Purpose, raw: &[u8]) {
        let Some(client) = self.clients.get_mut(job.key) else {
            return;
        };
        // It takes a number like any other so that the client's counts stay true, and gives an
        // empty reply.
        let again = Some(Numbered::new(client.replies.begin(), false));
        // With a number a request is never refused for lack of room.
        let job = Job {
            again,
            marks: Marks::None,
            ..job
        };
        let _ = self.send(link, job, raw, Kind::leased(purpose));
    }

    /// Gives a client's link back when nothing is in flight on it, nothing sticks to it, and the
    /// client does not wait for it to open.
    pub(super) fn release_lease(&mut self, key: ClientKey, now: Time) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        let waits = matches!(client.wait, Wait::Proof(_));
        let lease = client.lease.as_ref();
        let keeps = |lease: &Lease| lease.is_attending() && lease.link.is_some();
        let clean = lease.is_some_and(|lease| lease.is_clean() && !keeps(lease));
        if client.is_lease_busy() || waits || !clean {
            return;
        }
        let Some(link) = client.lease.take().and_then(|lease| lease.link) else {
            return;
        };
        self.pool_or_close(link, now);
    }

    /// Puts a clean link into the pool, or closes it.
    pub(super) fn pool_or_close(&mut self, key: LinkKey, now: Time) {
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        let (lane, index) = (link.lane, link.group);
        link.usage = Usage::Leased(None);
        link.heard_at = now;
        let fine = link.state == State::Ready
            && !link.retired
            && link.pipeline.is_empty()
            && link.input.is_empty();
        let group = self.groups.get_mut(index);
        if fine
            && let Some(group) = group
            && group.writable == Some(lane.node)
        {
            let pooled = group.pool.entry(lane).or_default();
            if pooled.len() < POOL_MAX {
                pooled.push(key);
                return self.resume_kept_out(index);
            }
        }
        if !self.clean(key, now) {
            self.discard(key);
        }
    }

    /// Ends a client's lease for good: the link is closed unless it is clean.
    pub(super) fn drop_lease(&mut self, key: ClientKey, now: Time) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        let busy = client.is_lease_busy();
        let Some(lease) = client.lease.take() else {
            return;
        };
        let Some(link) = lease.link else { return };
        if !busy && !lease.is_clean() && lease.may_be_undone() {
            self.retire(link);
            self.pool_or_close(link, now);
        } else if busy || !lease.is_clean() {
            self.forget_requests_of(link, key);
            let gone = self.discard(link);
            if let Some(gone) = gone.filter(Link::is_waiting) {
                // What it pops would be lost with nobody to hear it.
                self.fence(link, &gone, Waits::No, now);
            }
        } else {
            self.pool_or_close(link, now);
        }
    }

    /// Takes a closing link's requests out of its client's and node's counts. Nobody waits for the
    /// replies, which must not keep later ones waiting.
    fn forget_requests_of(&mut self, key: LinkKey, owner: ClientKey) {
        let Some(link) = self.links.get(key) else {
            return;
        };
        let group = self.groups.get_mut(link.group);
        let mut node = group.and_then(|group| group.nodes.get_mut(link.lane.node.0));
        let mut client = self.clients.get_mut(owner);
        for ticket in link.pipeline.tickets() {
            if let Some(client) = &mut client
                && ticket.client == owner
            {
                client.answered(link.lane.role, ticket.effect);
                client.replies.deliver(ticket.seq, &[], Piece::Last);
            }
            if let Some(node) = &mut node {
                node.in_flight = node.in_flight.saturating_sub(1);
            }
        }
    }
}

const fn changes_subscriptions(class: Class) -> bool {
    matches!(class, Class::Leased(leased) if leased.is_subscription())
}

fn publishes(request: &Request<'_>) -> bool {
    let name = request.name();
    name.eq_ignore_ascii_case(b"publish") || name.eq_ignore_ascii_case(b"spublish")
}
