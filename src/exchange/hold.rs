//! Floor 4. Waiting for a writable master: bounded by time for each request, by bytes for each
//! client.

use crate::exchange::client::{Client, Wait};
use crate::exchange::dispatch::{Job, Placed};
use crate::exchange::intake::offset;
use crate::exchange::{ClientKey, Exchange, GroupIndex, Stopping};
use crate::session::Reject;
use crate::telemetry::RequestClass;
use crate::types::Time;

impl Exchange {
    /// Leaves a request where it is until there is a writable master, or refuses it when it has
    /// waited long enough.
    pub(super) fn hold(&mut self, job: Job) -> Placed {
        let Some(client) = self.clients.get_mut(job.key) else {
            return Placed::Answered;
        };
        let Some(group) = self.groups.get_mut(client.group) else {
            return Placed::Answered;
        };
        let held = job.now.since(job.arrived);
        if held < group.snapshot.hold && self.stopping == Stopping::No {
            client.wait = Wait::Master;
            client.held_since.get_or_insert(job.now);
            if !client.listed {
                client.listed = true;
                group.held.push(job.key);
            }
            return Placed::Waits;
        }
        group.counts.expired(held);
        if self.stopping != Stopping::No {
            return self.reject(job, RequestClass::Refused, Reject::Stopping);
        }
        let (name, snapshot) = (group.settings.name.clone(), &group.snapshot);
        let name = &name;
        let reject = if snapshot.no_majority {
            Reject::NoMajority { name, held }
        } else if snapshot.name_unknown {
            Reject::UnknownName { name, held }
        } else if group.writable.is_some() {
            Reject::NoConnection { name, held }
        } else {
            Reject::NoMaster { name, held }
        };
        self.reject(job, RequestClass::Refused, reject)
    }

    /// Lets every held client of a group try again, in the order in which they were held.
    pub(super) fn resume_held(&mut self, index: GroupIndex) {
        self.sift_held(index, |_, _| true);
    }

    /// Lets those try again whose next request has waited long enough: they are refused, or hear
    /// that their own time is over.
    pub(super) fn expire_held(&mut self, index: GroupIndex, now: Time) {
        let Some(group) = self.groups.get(index) else {
            return;
        };
        let limit = group.snapshot.hold;
        let stopping = self.stopping != Stopping::No;
        self.sift_held(index, |exchange, key| {
            let client = exchange.clients.get(key);
            let is_over = |client: &Client| {
                client.is_out_of_time(now) || now.since(client.next_arrived()) >= limit
            };
            stopping || client.is_some_and(is_over)
        });
    }

    /// Ends the wait of those held clients for which `is_over` holds, and forgets those that are
    /// gone or wait no more.
    fn sift_held(&mut self, index: GroupIndex, is_over: impl Fn(&Self, ClientKey) -> bool) {
        let Some(group) = self.groups.get_mut(index) else {
            return;
        };
        let mut list = std::mem::take(&mut group.held);
        let mut freed = 0;
        list.retain(|key| {
            let waits = self.clients.get(*key).map(|client| client.wait) == Some(Wait::Master);
            let stays = waits && !is_over(self, *key);
            if !stays && let Some(client) = self.clients.get_mut(*key) {
                client.listed = false;
                freed += client.waiting_bytes();
                self.end_wait(*key, Wait::Master);
            }
            stays
        });
        if let Some(group) = self.groups.get_mut(index) {
            group.held = list;
            group.counts.held_bytes += offset(freed);
        }
    }

    /// Clients of a group that are held now.
    pub(super) fn held_count(&self, index: GroupIndex) -> usize {
        let list = self.groups.get(index).map_or(&[][..], |group| &group.held);
        let waits = |key: &&ClientKey| {
            let client = self.clients.get(**key);
            client.is_some_and(|client| client.wait == Wait::Master)
        };
        list.iter().filter(waits).count()
    }
}
