//! Floor 1. Tests: Every order in which two or three threads can touch the numbers that they share,
//! by loom. What runs over the network between them is a lock: whoever comes later sees what came
//! earlier.

use loom::sync::atomic::Ordering::SeqCst;
use loom::sync::atomic::{AtomicU32, AtomicU64};
use loom::sync::{Arc, Mutex};
use loom::thread;

use crate::consistency::atomics::{Atomic, Atomics};
use crate::consistency::{Settled, Stamps};

#[derive(Debug)]
struct Loom;

/// One whose maximum is a mere store.
#[derive(Debug)]
struct Stores;

#[derive(Debug)]
struct Plain(AtomicU32);

impl Atomics for Loom {
    type U32 = AtomicU32;
    type U64 = AtomicU64;
    type Table = Box<[AtomicU32]>;

    fn table(count: usize) -> Self::Table {
        (0..count).map(|_| Atomic::new(0)).collect()
    }
}

impl Atomics for Stores {
    type U32 = Plain;
    type U64 = AtomicU64;
    type Table = Box<[Plain]>;

    fn table(count: usize) -> Self::Table {
        (0..count).map(|_| Atomic::new(0)).collect()
    }
}

macro_rules! atomic {
    ($atomic:ty, $value:ty, $load:expr) => {
        impl Atomic<$value> for $atomic {
            fn new(value: $value) -> Self {
                Self::new(value)
            }

            fn load(&self) -> $value {
                $load(self)
            }

            fn fetch_add(&self, count: $value) -> $value {
                self.fetch_add(count, SeqCst)
            }

            fn fetch_max(&self, value: $value) -> $value {
                self.fetch_max(value, SeqCst)
            }

            fn compare_exchange(&self, present: $value, next: $value) -> Result<$value, $value> {
                self.compare_exchange(present, next, SeqCst, SeqCst)
            }
        }
    };
}

atomic!(AtomicU32, u32, |it: &AtomicU32| it.load(SeqCst));
// Loom tries orders around the last access to a number only: a load that writes nothing, before an
// exchange by the same thread, would hide those around the other thread's.
atomic!(AtomicU64, u64, |it: &AtomicU64| it.fetch_add(0, SeqCst));

impl Atomic<u32> for Plain {
    fn new(value: u32) -> Self {
        Self(Atomic::new(value))
    }

    fn load(&self) -> u32 {
        Atomic::load(&self.0)
    }

    fn fetch_add(&self, count: u32) -> u32 {
        Atomic::fetch_add(&self.0, count)
    }

    fn fetch_max(&self, value: u32) -> u32 {
        let was = Atomic::load(&self.0);
        self.0.store(value, SeqCst);
        was
    }

    fn compare_exchange(&self, present: u32, next: u32) -> Result<u32, u32> {
        Atomic::compare_exchange(&self.0, present, next)
    }
}

/// Whether `model` holds in every order.
fn holds(model: impl Fn() + Sync + Send + 'static) -> bool {
    let checked = std::panic::AssertUnwindSafe(move || loom::model(model));
    std::panic::catch_unwind(checked).is_ok()
}

/// Two workers mark one key, one of them with the generation of long ago.
fn two_workers<A: Atomics + 'static>() -> bool
where
    A::U32: Send + Sync,
    A::U64: Send + Sync,
{
    holds(|| {
        let stamps = Arc::new(Small::<A>::new());
        let slow = Arc::clone(&stamps);
        let slow = thread::spawn(move || slow.mark(1));
        stamps.mark(2);
        slow.join().unwrap();
        assert_eq!(stamps.stamp(), 2);
    })
}

/// A worker writes and then reads, while the control plane samples: what the replica had when it
/// was asked must be enough for what it may serve. `raise_first`: the right order.
fn write_and_sample(raise_first: bool) -> bool {
    holds(move || {
        let stamps = Arc::new(Small::<Loom>::new());
        let settled = Arc::new(Settled::<Loom>::new());
        // The offset of the master. The replica never has more than what the sample says.
        let master = Arc::new(Mutex::new(0));
        let control = {
            let (stamps, settled) = (Arc::clone(&stamps), Arc::clone(&settled));
            let master = Arc::clone(&master);
            thread::spawn(move || {
                if raise_first {
                    stamps.raise();
                }
                let offset = *master.lock().unwrap();
                let generation = if raise_first { 2 } else { stamps.raise() };
                settled.publish(0, generation - 1);
                offset
            })
        };
        *master.lock().unwrap() += 1;
        stamps.mark(stamps.generation());
        let served = stamps.stamp() <= settled.settled();
        let has = control.join().unwrap();
        assert!(!served || has == 1, "the replica may lack the write");
    })
}

/// A worker opens a link to a process that has nothing, while the answer of the former one is on
/// its way. `checked`: it is published only for the incarnation for which it was asked.
fn renewed_while_asked(checked: bool) -> bool {
    holds(move || {
        let settled = Arc::new(Settled::<Loom>::new());
        // Which process answers.
        let process = Arc::new(Mutex::new(0));
        let control = {
            let (settled, process) = (Arc::clone(&settled), Arc::clone(&process));
            thread::spawn(move || {
                let mut incarnation = settled.incarnation();
                let has = *process.lock().unwrap() == 0;
                if !checked {
                    incarnation = settled.incarnation();
                }
                if has {
                    settled.publish(incarnation, 1);
                }
            })
        };
        *process.lock().unwrap() = 1;
        settled.renew();
        assert_eq!(settled.settled(), 0, "the new process has nothing");
        control.join().unwrap();
        assert_eq!(settled.settled(), 0, "the new process has nothing");
    })
}

/// The stamp of one key, as `Stamps` keep it: so few numbers that loom sees every order.
struct Small<A: Atomics>(Stamps<A>);

impl<A: Atomics> Small<A> {
    fn new() -> Self {
        Self(Stamps::of(1, 1, 0))
    }

    fn mark(&self, generation: u32) {
        self.0.mark(self.0.slot(0, b"k"), generation);
    }

    fn stamp(&self) -> u32 {
        self.0.stamp(self.0.slot(0, b"k"))
    }

    fn generation(&self) -> u32 {
        self.0.generation()
    }

    fn raise(&self) -> u32 {
        self.0.advance().unwrap()
    }
}

#[test]
fn a_slow_worker_does_not_lower_a_stamp_in_any_order() {
    assert!(two_workers::<Loom>());
    assert!(!two_workers::<Stores>(), "a plain store must be noticed");
}

#[test]
fn a_write_is_covered_by_the_sample_that_settles_it_in_any_order() {
    assert!(write_and_sample(true));
    assert!(!write_and_sample(false), "the wrong order must be noticed");
}

#[test]
fn a_sample_of_a_process_that_is_gone_settles_nothing_in_any_order() {
    assert!(renewed_while_asked(true));
    assert!(
        !renewed_while_asked(false),
        "the lack of a check must be noticed"
    );
}
