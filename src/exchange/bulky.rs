//! Floor 4. Keys with large values. While the master sends one, replies behind it on the same
//! connection wait; and what writes cannot be asked twice, as reads can.
//!
//! ```text
//!   GET b   passes with megabytes, or SET b comes with them     b is bulky from now on
//!   GET b   of a client with nothing in flight at the master    goes over a link for such reads
//!   SET a   of others                                           goes over theirs, as ever
//!   SET a   of the same client, before that reply               follows it there, in order
//! ```
//!
//! What is bulky is known to all workers, for some minutes after it was last seen to be, and only
//! nearly: keys share places in a small table. One that is taken for bulky in vain is read over
//! another connection than it would have been, and is not asked twice behind a long reply.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::command::{Class, Reach};
use crate::exchange::client::Client;
use crate::exchange::dispatch::Job;
use crate::exchange::link::{LaneId, NodeId, Role};
use crate::exchange::node::Group;
use crate::exchange::overtaking::hash;
use crate::exchange::ticket::Effect;
use crate::exchange::{Exchange, LinkKey};
use crate::resp::Request;
use crate::types::Time;

/// How long a key counts as bulky after its value was last seen to be large.
const KEEP: Duration = Duration::from_secs(600);

/// Places for keys, a power of two, and where the best bits of a hash begin of which there are as
/// many.
const PLACES: usize = 4096;
const PLACES_SHIFT: u32 = u64::BITS - PLACES.trailing_zeros();

/// Which keys of one group have large values.
#[derive(Debug)]
pub struct Bulky {
    /// For each place the second, since the start of the process, from which its keys are not bulky
    /// any more; 0 if none ever was.
    places: Box<[AtomicU32]>,
    /// The highest of these. 0 if none is bulky, as is mostly so: then nothing is looked up.
    last: AtomicU32,
}

impl Default for Bulky {
    fn default() -> Self {
        Self::with(PLACES)
    }
}

impl Bulky {
    /// None is known, and there are so many places, a power of two and no more than usual.
    pub(super) fn with(places: usize) -> Self {
        Self {
            places: (0..places).map(|_| AtomicU32::new(0)).collect(),
            last: AtomicU32::new(0),
        }
    }

    fn place(&self, key: &[u8]) -> Option<&AtomicU32> {
        let bits = usize::try_from(hash(key) >> PLACES_SHIFT).unwrap_or_default();
        self.places.get(bits & (self.places.len() - 1))
    }

    /// The value of `key` is large.
    fn note(&self, key: &[u8], now: Time) {
        let until = second(now + KEEP);
        if let Some(place) = self.place(key) {
            place.fetch_max(until, Ordering::Relaxed);
        }
        self.last.fetch_max(until, Ordering::Relaxed);
    }

    /// With the last key that was bulky nothing is looked up any more.
    pub(super) fn expire(&self, now: Time) {
        let last = self.last.load(Ordering::Relaxed);
        if last != 0 && last <= second(now) {
            // Where another worker has just noted one, that stays.
            let order = Ordering::Relaxed;
            let _ = self.last.compare_exchange(last, 0, order, order);
        }
    }

    /// Whether no key had a large value of late.
    #[inline]
    fn is_empty(&self) -> bool {
        self.last.load(Ordering::Relaxed) == 0
    }

    /// Whether the value of `key` was large of late, or that of another in its place.
    fn has(&self, key: &[u8], now: Time) -> bool {
        let now = second(now);
        now < self.last.load(Ordering::Relaxed)
            && self
                .place(key)
                .is_some_and(|until| now < until.load(Ordering::Relaxed))
    }
}

fn second(time: Time) -> u32 {
    u32::try_from(time.since_start().as_secs()).unwrap_or(u32::MAX)
}

impl Group {
    /// Whether any key had a large value of late.
    #[inline]
    pub(super) fn has_bulky(&self) -> bool {
        !self.settings.bulky.is_empty()
    }

    /// Whether a request may bring a large value.
    pub(super) fn is_bulky(&self, reach: Reach, request: &Request<'_>, now: Time) -> bool {
        let bulky = &self.settings.bulky;
        only_key(reach, request).is_some_and(|key| bulky.has(key, now))
    }

    /// The value is large that a request reads, or sets.
    pub(super) fn note_bulky(&self, reach: Reach, request: &Request<'_>, now: Time) {
        if let Some(key) = only_key(reach, request) {
            self.settings.bulky.note(key, now);
        }
    }
}

/// The key of a request that has one.
fn only_key<'a>(reach: Reach, request: &Request<'a>) -> Option<&'a [u8]> {
    match reach {
        Reach::Keys(keys) if keys.is_arg1() => request.arg1(),
        _ => None,
    }
}

impl Client {
    /// Whether a request is a read that may bring a large value, and it has nothing in flight at
    /// the master that this would have to follow; or writes are paused, and it is not to wait
    /// behind one, or nobody behind it.
    #[cold]
    pub(super) fn goes_apart(
        &self,
        group: &Group,
        (job, class): (&Job, Class),
        request: &Request<'_>,
    ) -> bool {
        let is_bulky = |job: &Job| group.is_bulky(job.reach, request, job.now);
        (class == Class::Read && self.master_out == 0 && is_bulky(job))
            || self.goes_apart_in_pause(group, (job, class), request)
    }
}

impl Exchange {
    /// A large reply passes on a link.
    #[cold]
    pub(super) fn note_bulky_reply(&self, key: LinkKey, now: Time) {
        let Some(link) = self.links.get(key) else {
            return;
        };
        let request = link.pipeline.oldest();
        let request = request.and_then(|(_, raw)| Request::from_raw(raw));
        if let (Some(request), Some(group)) = (request, self.groups.get(link.group)) {
            let reach = group.table.classify(&request).reach();
            group.note_bulky(reach, &request, now);
        }
    }

    /// The link to the master for a read that may bring a large value, or must not wait behind
    /// writes that are paused; or for what its client sends behind such a read. `None`: it goes
    /// where others go.
    pub(super) fn lane_apart(
        &mut self,
        job: &Job,
        node: NodeId,
        (effect, request): (Effect, &Request<'_>),
    ) -> Option<LinkKey> {
        let client = self.clients.get(job.key)?;
        if client.master_out > 0 && client.master_link == client.master_lane {
            return None;
        }
        let group = self.groups.get(client.group)?;
        let follows = client.master_out > 0;
        let bulky = effect == Effect::Reads && group.is_bulky(job.reach, request, job.now);
        let waits = self.waits_in_pause(job, effect, request) || self.is_in_doubt(job.key);
        let apart = bulky || (effect == Effect::Reads && group.is_paused(job.now));
        if waits || (!follows && !apart) {
            return None;
        }
        let (index, link) = (client.group, client.master_link);
        let lane = LaneId {
            bulky: true,
            ..self.lane_of(job.key, node, Role::Master)?
        };
        if follows {
            let key = self.fits(link, node)?;
            let link = self.links.get(key)?;
            return (link.lane == lane).then_some(key);
        }
        // Without room for one more connection it goes where others go.
        self.shared_link(index, lane, job.now).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_bulky_for_ten_minutes_and_others_are_not() {
        let bulky = Bulky::default();
        assert!(bulky.is_empty());
        bulky.note(b"large", Time::ZERO);
        assert!(!bulky.is_empty());
        assert!(bulky.has(b"large", Time::ZERO) && !bulky.has(b"k", Time::ZERO));
        let later = |seconds| Time::from_start(Duration::from_secs(seconds));
        assert!(bulky.has(b"large", later(599)) && !bulky.has(b"large", later(600)));
        bulky.expire(later(599));
        assert!(!bulky.is_empty());
        bulky.expire(later(600));
        assert!(bulky.is_empty());
        bulky.note(b"other", later(600));
        bulky.expire(later(600));
        assert!(!bulky.is_empty());
        assert!(bulky.has(b"other", later(601)) && !bulky.has(b"large", later(601)));
    }

    #[test]
    fn keys_are_spread_over_the_places() {
        let bulky = Bulky::default();
        for number in 0..400 {
            bulky.note(format!("blob:{number}").as_bytes(), Time::ZERO);
        }
        let keys = (0..10_000).map(|number| format!("user:{number}"));
        let taken = keys.filter(|key| bulky.has(key.as_bytes(), Time::ZERO));
        let in_vain = taken.count();
        assert!((500..1_500).contains(&in_vain), "{in_vain} of 10000");

        let bulky = Bulky::default();
        let short = |number| format!("{number:03}:b");
        for number in (0..400).step_by(2) {
            bulky.note(short(number).as_bytes(), Time::ZERO);
        }
        let odd = (1..400).step_by(2).map(short);
        let in_vain = odd.filter(|key| bulky.has(key.as_bytes(), Time::ZERO));
        assert!(in_vain.count() < 40);
    }
}
