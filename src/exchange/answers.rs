//! Floor 4. Bytes of nodes: cut into replies, given to the clients that wait for them.

use std::time::Duration;

use crate::exchange::client::Ending;
use crate::exchange::gate::Verdict;
use crate::exchange::inside::Carried;
use crate::exchange::intake::offset;
use crate::exchange::link::{Lending, NodeId, State, Usage};
use crate::exchange::marks::Marks;
use crate::exchange::node::Group;
use crate::exchange::ticket::{Purpose, Ticket, Undo};
use crate::exchange::waiting::is_null;
use crate::exchange::{Action, ClientKey, Exchange, GroupIndex, LinkKey, Role, Stopping};
use crate::resp::{ReplyError, ReplyKind, Request, Scan};
use crate::route::NoReplica;
use crate::telemetry::Target;
use crate::topology::ReportKind;
use crate::types::Time;

/// Bytes of a reply that is not whole above which they are passed on without waiting for the rest.
const STREAM_ABOVE: usize = 32 * 1024;

/// What a master says to the read-only form of what may write.
const MAY_WRITE: &[u8] = b"-ERR Can not execute a script with write flag using *_ro command.\r\n";

/// Why a link cannot be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// What came is no reply.
    #[error("the node's bytes are no reply: {0}")]
    Syntax(#[from] ReplyError),
    /// A reply that nobody asked for.
    #[error("the node sent a reply that nobody asked for")]
    Unasked,
}

impl Group {
    /// Counts a request that its client hears the reply to.
    #[inline]
    pub(super) fn count_answered(&mut self, ticket: Ticket, target: Target, now: Time) {
        self.counts.request(ticket.class, target, 1);
        let durations = self.counts.request_duration(ticket.class, target);
        durations.record(now.since(ticket.arrived));
    }
}

impl Exchange {
    /// A node has sent `data`. After an `Err` the caller reports the link as lost.
    pub fn link_bytes(&mut self, key: LinkKey, data: &[u8], now: Time) -> Result<(), Violation> {
        let Some(link) = self.links.get_mut(key) else {
            return Ok(());
        };
        link.heard_at = now;
        link.suspected = false;
        let group = link.group;
        self.load_generation(key);
        if let Some(group) = self.groups.get_mut(group) {
            group.counts.upstream_received_bytes += offset(data.len());
        }
        let Some(link) = self.links.get(key) else {
            return Ok(());
        };
        let (tunnel, nothing_waits) = (link.state == State::Tunnel, link.input.is_empty());
        let result = if tunnel && self.pass_through(key, data, now) {
            Ok(())
        } else if nothing_waits {
            self.scan(key, data, 0, now).map(|(used, scanned)| {
                let rest = data.get(used..).unwrap_or_default();
                if let Some(link) = self.links.get_mut(key)
                    && !rest.is_empty()
                {
                    link.input.extend_from_slice(rest);
                    link.scanned = scanned;
                }
            })
        } else {
            let Some(link) = self.links.get_mut(key) else {
                return Ok(());
            };
            let mut input = std::mem::take(&mut link.input);
            let scanned = std::mem::take(&mut link.scanned);
            input.extend_from_slice(data);
            self.scan(key, &input, scanned, now).map(|(used, scanned)| {
                if used == input.len() {
                    self.spares.keep(input);
                } else if let Some(link) = self.links.get_mut(key) {
                    input.drain(..used);
                    link.input = input;
                    link.scanned = scanned;
                }
            })
        };
        self.settle(now);
        self.after_answers(key, group, now);
        result
    }

    /// Cuts `bytes`, of which the scanner knows the first `scanned`, into replies. Returns how many
    /// bytes are done with, and how many behind them the scanner knows.
    fn scan(
        &mut self,
        key: LinkKey,
        bytes: &[u8],
        scanned: usize,
        now: Time,
    ) -> Result<(usize, usize), Violation> {
        let (mut begin, mut at) = (0, scanned);
        while let Some(rest) = bytes.get(at..)
            && !rest.is_empty()
        {
            let Some(link) = self.links.get_mut(key) else {
                return Ok((bytes.len(), 0));
            };
            match link.scanner.scan(rest)? {
                Scan::Complete { len, kind } => {
                    at += len;
                    let frame = bytes.get(begin..at).unwrap_or_default();
                    begin = at;
                    self.frame(key, frame, kind, now)?;
                }
                Scan::Partial { len, .. } => {
                    at += len;
                    if at - begin > STREAM_ABOVE && self.may_stream(key) {
                        let piece = bytes.get(begin..at).unwrap_or_default();
                        begin = at;
                        self.piece(key, piece, now)?;
                    }
                    break;
                }
            }
        }
        Ok((begin, at - begin))
    }

    /// One whole reply or push (or the last piece of one).
    #[inline]
    fn frame(
        &mut self,
        key: LinkKey,
        frame: &[u8],
        kind: ReplyKind,
        now: Time,
    ) -> Result<(), Violation> {
        let Some(link) = self.links.get(key) else {
            return Ok(());
        };
        let counts = link.counting > 0
            && kind != ReplyKind::Push
            && link.pipeline.oldest_ticket().is_some_and(|it| it.counts);
        if link.usage == Usage::Hub {
            if self.heard_on_hub(key, (frame, kind), now) {
                return Ok(());
            }
        } else if let Usage::Leased(Some(owner)) = link.usage {
            if kind == ReplyKind::Error && self.refused_by_demoted(key, owner, frame, now) {
                return Ok(());
            }
            if kind != ReplyKind::Push {
                self.gather_queued(key, owner, frame);
                self.keep_queued(key, owner, frame);
            }
        }
        if kind == ReplyKind::Push {
            self.pass_unasked(self.usage(key), frame);
            return Ok(());
        }
        if counts {
            self.complete_counted(key, frame, kind, now);
            return Ok(());
        }
        if self.complete(key, frame, kind, now) {
            Ok(())
        } else {
            self.unasked(key, frame)
        }
    }

    /// A reply without a request: MONITOR lines are that, everything else ends the link.
    fn unasked(&mut self, key: LinkKey, frame: &[u8]) -> Result<(), Violation> {
        if let Usage::Leased(Some(owner)) = self.usage(key)
            && let Some(client) = self.clients.get(owner)
            && client.lease.as_ref().is_some_and(|lease| lease.sticky)
            && self
                .links
                .get(key)
                .is_some_and(|link| link.pipeline.is_empty())
        {
            self.pass_push(owner, frame);
            return Ok(());
        }
        Err(Violation::Unasked)
    }

    /// The oldest request of a link has its reply. False if there is none.
    #[inline]
    pub(super) fn complete(
        &mut self,
        key: LinkKey,
        frame: &[u8],
        kind: ReplyKind,
        now: Time,
    ) -> bool {
        if kind == ReplyKind::Error
            && (self.bounce(key, frame, now) || self.refuse_upload(key, frame))
        {
            return true;
        }
        let Some(link) = self.links.get_mut(key) else {
            return true;
        };
        let Some(oldest) = link.pipeline.oldest_ticket() else {
            return false;
        };
        let ends = oldest.caching.ends();
        if oldest.marks != Marks::None
            && let Some(group) = self.groups.get(link.group)
        {
            group.mark_answered(link, &self.clients, self.generation);
        }
        if ends {
            self.seen.answered(link, frame);
        }
        let Some(done) = link.pipeline.complete() else {
            return false;
        };
        let ticket = done.ticket;
        let (role, node) = (link.lane.role, link.lane.node);
        let Some(group) = self.groups.get_mut(link.group) else {
            return true;
        };
        let took = now.since(done.written_at);
        if let Some(node) = group.nodes.get_mut(node.0) {
            node.replied(ticket.class, took);
        }
        let Some(client) = self.clients.get_mut(ticket.client) else {
            self.nobodys(key, done, (frame, kind), now);
            return true;
        };
        let target = target(role);
        group.counts.upstream_duration(target).record(took);
        if group.gate.is_armed && role == Role::Master {
            let begun = client.replies.is_begun(ticket.seq);
            match group
                .gate
                .verdict((key, node), ticket, (frame, kind), begun)
            {
                Verdict::Pass => {}
                Verdict::Keep => {
                    self.keep_back(key, ticket, frame, now);
                    return true;
                }
                Verdict::Doubt => {
                    self.doubt_now(key, ticket, frame);
                    return true;
                }
            }
        }
        client.answered(role, ticket.effect);
        group.count_answered(ticket, target, now);
        if ticket.spoken {
            self.spares.lend(&mut client.replies, ticket.seq);
        }
        if !client.touched {
            client.touched = true;
            self.touched.push(ticket.client);
        }
        if ticket.purpose == Purpose::Plain && ticket.spoken {
            client.reply(&ticket, (frame, kind));
        } else {
            self.deliver_special(key, ticket, (frame, kind), now);
        }
        true
    }

    /// A reply that means something to the session, or is not spoken.
    fn deliver_special(
        &mut self,
        key: LinkKey,
        ticket: Ticket,
        (frame, kind): (&[u8], ReplyKind),
        now: Time,
    ) {
        let failed = kind == ReplyKind::Error;
        let orders = self.orders(key, ticket, frame);
        let carried = match ticket.purpose {
            Purpose::Setting => self.set((key, ticket), frame, now),
            Purpose::Multi | Purpose::Queued => self.note_inside((key, ticket), frame, now),
            _ => {
                let index = self.links.get(key).map_or(0, |link| link.group);
                self.carry_out((index, key, ticket), orders, frame, now)
            }
        };
        if let Carried::Later = carried {
            // It is in flight again.
            return self.count_again(ticket);
        }
        match ticket.purpose {
            // A transaction that the server did not end must not be the next client's.
            Purpose::Exec if failed && !frame.starts_with(b"-EXECABORT ") => self.retire(key),
            Purpose::Undo(_) if failed => self.retire(key),
            Purpose::Renewal => self.renew_queue(key, ticket, frame, now),
            Purpose::Slow => self.note_change(key),
            Purpose::Exec if self.administers(ticket.client) => self.note_change(key),
            Purpose::Rights(weighs) => self.rights_told(ticket, weighs, frame),
            // It would rely on news that never come.
            Purpose::Retracking if failed => self.end(ticket.client, Ending::Now),
            // Others may have read for it meanwhile what changed since.
            Purpose::Retracking => self.invalidate_everything(ticket.client),
            Purpose::Leaving | Purpose::Left => return self.left(ticket, frame, now),
            Purpose::Reset => return self.was_reset(ticket, now),
            Purpose::Waits(_) if self.is_left(key) && !is_null(frame) => {
                return self.last_word(ticket);
            }
            _ => {}
        }
        let bytes: &[u8] = match ticket.purpose {
            Purpose::Exec | Purpose::Queued | Purpose::Setting | Purpose::Slow => {
                carried.words().unwrap_or(frame)
            }
            Purpose::Undo(undo @ (Undo::StaleWatch | Undo::Aborted | Undo::Misspelt)) => {
                self.compose_undone(ticket.client, undo);
                &self.scratch
            }
            Purpose::Internal | Purpose::Rights(_) | Purpose::Renewal | Purpose::Retracking => &[],
            Purpose::Redirected => {
                self.name_target(ticket.client, frame);
                &self.scratch
            }
            _ => frame,
        };
        // Confirmations are pushes, which `CLIENT REPLY` does not silence (Redis pubsub.c,
        // CLIENT_PUSHING).
        let confirms = matches!(ticket.purpose, Purpose::Subscription(it) if it.asked) && !failed;
        let bytes = if ticket.spoken || confirms || carried.words().is_some() {
            bytes
        } else {
            &[]
        };
        if let Some(client) = self.clients.get_mut(ticket.client) {
            client.reply(&ticket, (bytes, kind));
        }
    }

    /// Deals with error replies that say "not executed, ask somebody else": the request is placed
    /// anew. False if it is a reply like any other.
    ///
    /// With a later request of its client executed, the order would be wrong, unless none of these
    /// may write and it does not either. A master that loads its data is waited for as one that
    /// cannot be reached is. A line with ` script: ` comes from within a script, of which a part
    /// was executed.
    ///
    /// A replica that says `-READONLY` to the read-only form of a script means one that says of
    /// itself that it may write. A master refuses that too, in other words (Redis script.c,
    /// `scriptPrepareForRun`); where it cannot be asked any more, they are said here.
    #[cold]
    fn bounce(&mut self, key: LinkKey, frame: &[u8], now: Time) -> bool {
        if self.unblocked(key, frame, now) {
            return true;
        }
        let Some(link) = self.links.get(key) else {
            return false;
        };
        // Or nothing binds its client to it.
        let shared = matches!(link.usage, Usage::Shared | Usage::Hub)
            || matches!(link.usage, Usage::Leased(Some(owner)) if self.only_attends(owner));
        let (index, lane) = (link.group, link.lane);
        let master = lane.role == Role::Master;
        let demoted = frame.starts_with(b"-READONLY ");
        if master {
            self.note_busy((index, lane.node), frame, now);
        }
        // That a master runs a script is for all to hear; a replica's reads others can serve.
        let not_ready = frame.starts_with(b"-LOADING ")
            || frame.starts_with(b"-MASTERDOWN ")
            || (!master && frame.starts_with(b"-BUSY "));
        let no_script = frame.starts_with(b"-NOSCRIPT ");
        if no_script && master {
            return self.heal_script(key);
        }
        let inside_script = memchr::memmem::find(frame, b" script: ").is_some();
        // What only the master could do is passed on where reads must not go there.
        let by_master = (demoted || no_script) && (master || !self.spares_master(index));
        if !(not_ready || by_master) || inside_script {
            return false;
        }
        let Some((ticket, raw)) = link.pipeline.oldest() else {
            return false;
        };
        let raw: Box<[u8]> = Box::from(raw);
        if not_ready || (demoted && master) {
            self.distrust(index, lane.node, now);
        }
        if demoted && master {
            self.report_demoted(index, lane.node);
        }
        let Some(client) = self.clients.get(ticket.client) else {
            return false;
        };
        // Behind a command that waits, it would not be sent to the master before that ends.
        let stuck = by_master && !master && client.blocks;
        let alone = client.is_last_to_matter(ticket.seq, ticket.effect) && !stuck;
        let plain = shared && ticket.purpose == Purpose::Plain;
        if plain && !alone && demoted && !master && runs_read_only(&raw) {
            return self.complete(key, MAY_WRITE, ReplyKind::Error, now);
        }
        let loads = master && frame.starts_with(b"-LOADING ");
        let patient = if loads {
            let hold = self.groups.get(index).map(|group| group.snapshot.hold);
            hold.is_some_and(|hold| now.since(ticket.arrived) < hold)
        } else {
            ticket.bounces < BOUNCES_MAX
        };
        if !plain || !alone || !patient {
            return false;
        }
        if let Some(link) = self.links.get_mut(key) {
            link.pipeline.complete();
        }
        self.uncount(ticket, key);
        if let Some(client) = self.clients.get_mut(ticket.client) {
            let bounces = ticket.bounces + u8::from(!loads);
            client.try_again(ticket.again(Usage::Shared, bounces, &raw));
        }
        if let Some(group) = self.groups.get_mut(index) {
            group.counts.resent += 1;
        }
        self.touch(ticket.client);
        true
    }

    /// Whether the master is not to serve what replicas cannot.
    pub(super) fn spares_master(&self, index: GroupIndex) -> bool {
        let group = self.groups.get(index);
        group.is_some_and(|group| group.settings.no_replica == NoReplica::Error)
    }

    /// A node says that it cannot do what it was chosen for: it is left alone for a moment.
    pub(super) fn distrust(&mut self, index: GroupIndex, id: NodeId, now: Time) {
        let Some(group) = self.groups.get_mut(index) else {
            return;
        };
        if let Some(node) = group.nodes.get_mut(id.0)
            && node.retry_at.is_none_or(|at| at <= now)
        {
            node.retry_at = Some(now + NOT_READY_PAUSE);
            group.refresh(now);
            self.reader_failed(index, id, now);
        }
    }

    /// The control plane hears, once for each moment of distrust, that the master is none.
    pub(super) fn report_demoted(&mut self, index: GroupIndex, id: NodeId) {
        let node = self
            .groups
            .get(index)
            .and_then(|group| group.nodes.get(id.0));
        let Some(node) = node else {
            return;
        };
        let kind = ReportKind::Demoted {
            node: node.addr.clone(),
        };
        self.actions.push_back(Action::Report(index, kind));
    }

    /// Takes a request that is answered or lost out of the counts of what is in flight.
    pub(super) fn uncount(&mut self, ticket: Ticket, key: LinkKey) {
        let Some(link) = self.links.get(key) else {
            return;
        };
        let (lane, index) = (link.lane, link.group);
        if let Some(client) = self.clients.get_mut(ticket.client) {
            client.answered(lane.role, ticket.effect);
        }
        let group = self.groups.get_mut(index);
        if let Some(node) = group.and_then(|group| group.nodes.get_mut(lane.node.0)) {
            node.in_flight = node.in_flight.saturating_sub(1);
        }
    }

    /// The end of every input: clients whose wait is over go on, in the order in which it ended,
    /// and output is written. Nothing else resumes a client, and nothing that a client does when it
    /// goes on comes back here.
    pub(super) fn settle(&mut self, now: Time) {
        let (max, high) = (self.settings.pipeline_max, self.settings.output_high);
        let mut at = 0;
        while let Some(key) = self.touched.get(at).copied() {
            at += 1;
            let Some(client) = self.clients.get_mut(key) else {
                continue;
            };
            client.touched = false;
            if client.blocks && client.master_out == 0 {
                client.unblock(now);
            }
            if !client.dirty {
                client.dirty = true;
                self.dirty_clients.push(key);
            }
            if client.lease.is_some() || client.heard.is_some() {
                self.release_lease(key, now);
                self.release_heard(key);
            }
            let Some(client) = self.clients.get(key) else {
                continue;
            };
            if client.ending == Ending::Now {
                continue;
            }
            if client.may_go_on(max, high) {
                self.resume(key, now);
            } else if client.said_all {
                self.end_if_all_said(key, now);
            }
            if self.stopping != Stopping::No {
                self.end_if_finished(key);
            }
        }
        self.touched.clear();
        self.open_next();
    }

    pub(super) fn touch(&mut self, key: ClientKey) {
        if let Some(client) = self.clients.get_mut(key)
            && !client.touched
        {
            client.touched = true;
            self.touched.push(key);
        }
    }

    /// A link that is in no list, and owes nobody anything, is closed, or somebody else's.
    fn end_if_done(&mut self, key: LinkKey, now: Time) {
        let Some(link) = self.links.get(key) else {
            return;
        };
        let is_done = link.is_done();
        if link.lending != Lending::No && self.give_back(key, now) {
            self.settle(now);
        } else if is_done {
            self.discard(key);
        }
    }

    /// What a link's progress means for those that wait for it, and for a switch.
    fn after_answers(&mut self, key: LinkKey, index: GroupIndex, now: Time) {
        if let Some(link) = self.links.get_mut(key)
            && !link.waiters.is_empty()
            && link.pipeline.pending_bytes() <= self.settings.link_bytes / 2
        {
            let waiters = std::mem::take(&mut link.waiters);
            self.end_waits(key, &waiters);
            self.settle(now);
        }
        self.end_if_done(key, now);
        self.end_of_left(key, now);
        self.check_quiet(index, now);
    }
}

/// How long a node that is not what it was chosen for is left alone.
const NOT_READY_PAUSE: Duration = Duration::from_millis(100);

/// How often one request is placed anew because of what a node answered.
const BOUNCES_MAX: u8 = 8;

/// Whose reply it is, for the metric.
pub(super) const fn target(role: Role) -> Target {
    match role {
        Role::Master => Target::Master,
        Role::Replica => Target::Replica,
    }
}

/// Whether a request is the read-only form of what runs a script or function.
fn runs_read_only(raw: &[u8]) -> bool {
    let forms = [&b"eval_ro"[..], b"evalsha_ro", b"fcall_ro"];
    let request = Request::from_raw(raw);
    request.is_some_and(|it| {
        forms
            .iter()
            .any(|form| it.name().eq_ignore_ascii_case(form))
    })
}
