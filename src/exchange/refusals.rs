//! Floor 4. Links that could not be opened: a node that refuses what was asked of it, or cannot be
//! reached. Knows no requests; what becomes of those on the link is decided with all other losses.

use crate::exchange::client::{Client, Ending, Verdict, Wait};
use crate::exchange::link::{Link, Usage};
use crate::exchange::lookup::UNPROVEN;
use crate::exchange::losses::End;
use crate::exchange::{Action, ClientKey, Exchange, GroupIndex, LinkKey, OpenFailure, Role};
use crate::route::NoReplica;
use crate::session::IdentityId;
use crate::telemetry::ConnectStage;
use crate::topology::ReportKind;
use crate::types::Time;

impl Exchange {
    /// A link could not be opened.
    pub fn link_refused(&mut self, key: LinkKey, failure: OpenFailure, now: Time) {
        let group = self
            .links
            .get(key)
            .and_then(|link| self.groups.get_mut(link.group));
        let (was_trial, was_warm) = group.map_or((false, false), |group| {
            (group.trial_over(key), group.end_warming(key))
        });
        let Some(link) = self.discard(key) else {
            return;
        };
        let failure = self.without_greeting(&link, failure);
        match failure {
            OpenFailure::Refused(stage, words) if !is_passing(&words) => {
                self.refused(key, &link, (stage, &words), now);
            }
            OpenFailure::Refused(..) if was_warm => {
                // Nobody waits for it, and the node is not to be spared for its sake.
                self.dispose(key, &link, End::Unopened, now);
            }
            failure => {
                if matches!(failure, OpenFailure::Refused(..)) {
                    self.give_up_spares(link.group, link.lane.node);
                }
                self.unreachable(&link, &failure, now);
                self.dispose(key, &link, End::Unopened, now);
                self.give_up_turns(link.group, link.lane.node, now);
            }
        }
        if was_trial {
            self.trial_failed(link.group, now);
        }
        self.after_loss(key, &link, now);
    }

    /// Keeps what a node that wants a login says to `HELLO`; to all else it says the same.
    fn without_greeting(&mut self, link: &Link, failure: OpenFailure) -> OpenFailure {
        match failure {
            OpenFailure::LoginWanted {
                said,
                said_to_hello,
            } => {
                if let Some(group) = self.groups.get_mut(link.group) {
                    group.hello_objection = Some(said_to_hello);
                }
                OpenFailure::Refused(ConnectStage::Auth, said)
            }
            failure => failure,
        }
    }

    /// The node does not want this login, protocol or database: those who asked hear its words.
    fn refused(
        &mut self,
        key: LinkKey,
        link: &Link,
        (stage, words): (ConnectStage, &[u8]),
        now: Time,
    ) {
        let (index, lane) = (link.group, link.lane);
        let Some(group) = self.groups.get_mut(index) else {
            return;
        };
        let is_masters = lane.role == Role::Master;
        let may_ask_master = group.settings.no_replica == NoReplica::Master;
        let no_login = words.starts_with(b"-NOAUTH");
        let of_login = no_login || stage == ConnectStage::Auth;
        let bare = lane.identity == IdentityId::ANONYMOUS && group.settings.anonymous.is_none();
        let locks_out = is_masters && bare && no_login;
        if locks_out {
            // For a while it is us who say so, after what Redis looks at first.
            group.door_told(false, link.changes, now);
        } else if let Some(node) = group.nodes.get(lane.node.0) {
            group.counts.at(node.index).connect_failed(stage);
        }
        if !is_masters && may_ask_master && of_login {
            // Users and passwords are not replicated: this says nothing of the other nodes.
            group.keep_out((lane.node, lane.identity), now);
            return self.dispose(key, link, End::Declined, now);
        }
        // Redis closes the connections of a user that is deleted (acl.c, DELUSER), and leaves those
        // of one that is turned off or has another password, and those from before there was one.
        let was_let_in = is_masters && of_login && lane.identity != UNPROVEN;
        let lives_on = was_let_in && self.has_another((index, lane.node, lane.identity));
        if lives_on || locks_out {
            if let Some(group) = self.groups.get_mut(index) {
                group.keep_out((lane.node, lane.identity), now);
            }
            self.regain((index, lane.node, lane.identity), now);
            if !lives_on {
                self.lock_out(index);
                if link.usage == Usage::Hub {
                    self.hub_refused(link, words, now);
                }
            }
            return self.dispose(key, link, End::Unopened, now);
        }
        for waiter in &link.waiters {
            self.object_to(*waiter, key, words);
        }
        self.dispose(key, link, End::Refused(words), now);
        if was_let_in && lane.identity != IdentityId::ANONYMOUS {
            self.end_all_with((index, lane.identity));
        }
    }

    /// What a client waits for over a link is refused with these words.
    pub(super) fn object_to(&mut self, waiter: ClientKey, key: LinkKey, words: &[u8]) {
        if let Some(client) = self.clients.get_mut(waiter)
            && client.wait == Wait::Proof(key)
        {
            client.verdict = Some(Box::new(Verdict(Box::from(words))));
        }
    }

    /// A login that was proven is refused, and no connection with it is left.
    fn end_all_with(&mut self, (index, identity): (GroupIndex, IdentityId)) {
        let of_user =
            |client: &Client| (client.group, client.session.identity) == (index, identity);
        let clients = self.clients.iter();
        let keys: Vec<_> = clients
            .filter_map(|(key, client)| of_user(client).then_some(key))
            .collect();
        for key in keys {
            self.end(key, Ending::AfterReplies);
        }
    }

    /// The node is left alone for a while that grows; the control plane hears of it. Links that are
    /// open are used meanwhile: a server that takes no further connection serves those that it has.
    fn unreachable(&mut self, link: &Link, failure: &OpenFailure, now: Time) {
        let dice = self.dice.roll();
        let Some(group) = self.groups.get_mut(link.group) else {
            return;
        };
        let Some(node) = group.nodes.get_mut(link.lane.node.0) else {
            return;
        };
        node.failures = node.failures.saturating_add(1);
        let pause = Some(now + self.settings.backoff.delay(node.failures, dice));
        let changed = matches!(failure, OpenFailure::WrongRole | OpenFailure::NotReady);
        if node.open > 0 && !changed {
            node.open_at = pause;
        } else {
            node.retry_at = pause;
        }
        let stage = match failure {
            OpenFailure::Unreachable(stage) => *stage,
            _ => ConnectStage::Handshake,
        };
        group.counts.at(node.index).connect_failed(stage);
        let addr = node.addr.clone();
        let wrong_master = *failure == OpenFailure::WrongRole && link.lane.role == Role::Master;
        let report = if wrong_master {
            ReportKind::Demoted { node: addr }
        } else {
            ReportKind::ConnectFailed { node: addr }
        };
        self.actions.push_back(Action::Report(link.group, report));
        group.refresh(now);
        self.reader_failed(link.group, link.lane.node, now);
    }
}

/// Whether an error line to a new connection speaks of the node's present state, and not of what
/// was asked of it. `-BUSY` is not among them: it is what clients are to hear.
fn is_passing(words: &[u8]) -> bool {
    const PASSING: [&[u8]; 3] = [
        b"-ERR max number of clients reached",
        b"-DENIED ",
        b"-LOADING ",
    ];
    PASSING.iter().any(|text| words.starts_with(text))
}
