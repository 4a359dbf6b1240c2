//! Floor 4. Calling back what waits at a master that was left: that master is asked to end the
//! waits (`CLIENT UNBLOCK … ERROR`), so that it says of each whether something came of it.
//!
//! Nobody tells an old master of a planned failover for about ten seconds, and when Sentinel does,
//! it ends the connections without a word.

use crate::exchange::link::{LaneId, Link, Usage};
use crate::exchange::ticket::{Effect, Purpose, Ticket};
use crate::exchange::{Exchange, LinkKey};
use crate::resp::encode;
use crate::telemetry::RequestClass;
use crate::types::{Protocol, Time};

impl Exchange {
    /// Asks the masters of these links, which were left, for their last words. One connection
    /// serves all clients of a user; who may not do this hears nothing, as if it were not asked.
    pub(super) fn call_back(&mut self, keys: &[LinkKey], now: Time) {
        let mut callers: Vec<(LaneId, LinkKey)> = Vec::new();
        for key in keys {
            let Some(link) = self.links.get(*key) else {
                continue;
            };
            let Some(id) = link.connection.as_ref().map(|connection| connection.id) else {
                // Its node has not told what it calls it.
                continue;
            };
            let lane = LaneId {
                database: 0,
                protocol: Protocol::Resp2,
                bulky: false,
                ..link.lane
            };
            let (index, known) = (link.group, callers.iter().find(|(of, _)| *of == lane));
            let caller = if let Some((_, caller)) = known {
                *caller
            } else {
                let login = self
                    .groups
                    .get(index)
                    .and_then(|it| it.login(lane.identity).cloned());
                let caller = Link::new(index, lane, Usage::Leased(None), now);
                let caller = self.open(caller, login);
                self.leave_later(caller, now);
                callers.push((lane, caller));
                caller
            };
            self.ask_to_unblock(caller, id, now);
        }
    }

    fn ask_to_unblock(&mut self, caller: LinkKey, id: u64, now: Time) {
        let Some(link) = self.links.get_mut(caller) else {
            return;
        };
        let ticket = Ticket {
            effect: Effect::Writes,
            ..Ticket::nobodys(RequestClass::Leased, Purpose::Internal, now)
        };
        let mut raw = Vec::new();
        let id = id.to_string();
        encode::request(&mut raw, &[b"CLIENT", b"UNBLOCK", id.as_bytes(), b"ERROR"]);
        link.pipeline.push(ticket, &raw);
        let group = self.groups.get_mut(link.group);
        if let Some(node) = group.and_then(|group| group.nodes.get_mut(link.lane.node.0)) {
            node.in_flight += 1;
        }
    }
}
