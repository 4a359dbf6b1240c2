//! Floor 4. Links that we give up with something unanswered that may write. Their node may not have
//! read it yet, and closing the link does not keep it from doing so: the control plane is asked to
//! end the connection there.
//!
//! | why the link is given up | its requests that may write |
//! |---|---|
//! | its replies are overdue | answered when it has ended at the node, or nearly at once |
//! | its client left while it blocks | nobody waits for them |
//! | its node is not the master any more | answered at once: what that node still does is lost |
//! | the node ended it | answered at once: the node reads nothing more from it |
//!
//! A request that is answered later counts as in flight for its client, and not for the node, like
//! one whose reply is kept back (see `gate.rs`).

use crate::exchange::link::{Link, State};
use crate::exchange::ticket::{Effect, Purpose, Ticket};
use crate::exchange::{Action, Exchange, LinkKey, Role, Stopping};
use crate::fence;
use crate::mux::Sent;
use crate::session::Reject;
use crate::telemetry::FenceResult;
use crate::types::Time;

/// Requests of a link that is being ended at its node.
#[derive(Debug)]
pub(super) struct Fencing {
    link: LinkKey,
    /// When they are answered at the latest.
    until: Time,
    tickets: Vec<Ticket>,
}

/// Whether a request waits for the end of its connection at the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waits {
    Yes,
    No,
}

impl Exchange {
    /// Has a link that was just taken out ended at its node, if something on it may still be
    /// executed there. Returns whether requests may wait for that.
    pub(super) fn fence(&mut self, key: LinkKey, link: &Link, waits: Waits, now: Time) -> bool {
        if link.lane.role != Role::Master || link.state != State::Ready || !link.may_still_write() {
            return false;
        }
        let group = self.groups.get(link.group);
        let node = group.and_then(|group| group.nodes.get(link.lane.node.0));
        let (Some(node), Some(connection)) = (node, &link.connection) else {
            return false;
        };
        let request = fence::Request {
            node: node.addr.clone(),
            connection: fence::Connection::clone(connection),
            opened: link.opened_at,
        };
        let waiting = waits == Waits::Yes;
        let who = waiting.then_some(key);
        self.actions
            .push_back(Action::Fence(link.group, request, who));
        if waiting {
            self.fencing.push(Fencing {
                link: key,
                until: now + self.settings.fence_wait,
                tickets: Vec::new(),
            });
        }
        waiting
    }

    /// A lost request is answered when its connection has ended at the node.
    pub(super) fn answer_after_fence(&mut self, key: LinkKey, ticket: Ticket) {
        let mut all = self.fencing.iter_mut();
        if let Some(fencing) = all.find(|fencing| fencing.link == key) {
            fencing.tickets.push(ticket);
        }
    }

    /// What came of ending a link at its node.
    pub fn fenced(&mut self, key: LinkKey, result: FenceResult, now: Time) {
        let mut all = self.fencing.iter();
        let Some(at) = all.position(|fencing| fencing.link == key) else {
            // Its requests were answered without waiting any longer.
            return;
        };
        let fencing = self.fencing.swap_remove(at);
        let reject = match result {
            FenceResult::Killed | FenceResult::Gone => Reject::UncertainEnded,
            FenceResult::Forbidden | FenceResult::Expired | FenceResult::Dropped => {
                Reject::UncertainSilent
            }
        };
        self.answer_fenced(&fencing, reject);
        self.settle(now);
    }

    /// Nobody is kept waiting for a node that does not answer, or when all is given up.
    pub(super) fn expire_fencing(&mut self, now: Time) {
        let all = self.stopping == Stopping::Abandoning;
        let late = |fencing: &mut Fencing| all || fencing.until <= now;
        let late: Vec<_> = self.fencing.extract_if(.., late).collect();
        for fencing in late {
            self.answer_fenced(&fencing, Reject::UncertainSilent);
        }
    }

    fn answer_fenced(&mut self, fencing: &Fencing, reject: Reject<'_>) {
        for ticket in &fencing.tickets {
            let Some(client) = self.clients.get_mut(ticket.client) else {
                continue;
            };
            client.answered(Role::Master, ticket.effect);
            // Who hears that looks what came of it.
            self.mark_ended(*ticket);
            self.tell(*ticket, reject);
            self.touch(ticket.client);
        }
    }
}

impl Link {
    /// Whether the node may still execute something on it that may write.
    fn may_still_write(&self) -> bool {
        self.pipeline.lost().any(|lost| {
            let executes = matches!(
                lost.ticket.purpose,
                Purpose::Plain | Purpose::Exec | Purpose::Slow | Purpose::Waits(_)
            );
            lost.sent == Sent::Yes && executes && lost.ticket.effect == Effect::Writes
        })
    }
}
