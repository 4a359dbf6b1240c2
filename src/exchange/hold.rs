//! Floor 4. Waiting for a writable master: bounded by time for each request, by bytes for each client.

use crate::exchange::client::Wait;
use crate::exchange::dispatch::{Job, Placed};
use crate::exchange::{Exchange, GroupIndex};
use crate::session::Reject;
use crate::telemetry::RequestClass;
use crate::types::Time;

impl Exchange {
    /// Leaves a request where it is until there is a writable master, or refuses it when it has
    /// waited long enough.
    pub(super) fn hold(&mut self, job: Job) -> Placed {
        let Some(client) = self.clients.get_mut(job.key) else {
            return Placed::Done;
        };
        let Some(group) = self.groups.get_mut(client.group) else {
            return Placed::Done;
        };
        let held = job.now.since(job.arrived);
        if held >= group.snapshot.hold || self.stopping {
            group.counts.held_expired += 1;
            group.counts.hold_duration.record(held);
            let name = group.settings.name.clone();
            let reject = match self.stopping {
                true => Reject::Stopping,
                false => Reject::NoMaster { name: &name, held },
            };
            return self.reject(job, RequestClass::Refused, reject);
        }
        client.wait = Wait::Master;
        client.held_since.get_or_insert(job.now);
        group.held.push(job.key);
        Placed::Waits
    }

    /// Lets every held client of a group try again, in the order in which they were held.
    pub(super) fn resume_held(&mut self, group: GroupIndex, now: Time) {
        let Some(group) = self.groups.get_mut(group) else {
            return;
        };
        for key in std::mem::take(&mut group.held) {
            self.resume(key, now);
        }
    }

    /// Lets those try again whose oldest request has waited long enough: they are refused.
    pub(super) fn expire_held(&mut self, index: GroupIndex, now: Time) {
        let Some(group) = self.groups.get_mut(index) else {
            return;
        };
        let hold = group.snapshot.hold;
        let held = std::mem::take(&mut group.held);
        for key in held {
            let Some(client) = self.clients.get(key) else {
                continue;
            };
            let oldest = client
                .again
                .front()
                .map_or(client.arrived, |again| again.arrived);
            if now.since(oldest) >= hold || self.stopping {
                self.resume(key, now);
            } else if let Some(group) = self.groups.get_mut(index) {
                group.held.push(key);
            }
        }
    }
}
