//! Floor 1. The few operations on shared numbers that stamps need, so that the real ones can be
//! exchanged for those of a model checker. All are sequentially consistent, see the module.

use std::fmt::Debug;
use std::ops::Deref;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::consistency::pages::Pages;

/// A family of shared numbers.
pub trait Atomics: Debug {
    /// 32 bits.
    type U32: Atomic<u32>;
    /// 64 bits.
    type U64: Atomic<u64>;
    /// Many of 32 bits.
    type Table: Deref<Target = [Self::U32]> + Debug;

    /// So many of 32 bits, all 0.
    fn table(count: usize) -> Self::Table;
}

/// One shared number.
pub trait Atomic<T>: Debug {
    /// A number that begins as `value`.
    fn new(value: T) -> Self;
    /// What it is.
    fn load(&self) -> T;
    /// Adds `count`; returns what it was.
    fn fetch_add(&self, count: T) -> T;
    /// Raises it to `value` if it is less; returns what it was.
    fn fetch_max(&self, value: T) -> T;
    /// Makes it `next` if it is `present`; otherwise the error is what it is.
    fn compare_exchange(&self, present: T, next: T) -> Result<T, T>;
}

/// Those of the processor.
#[derive(Clone, Copy, Debug)]
pub struct Std;

impl Atomics for Std {
    type U32 = AtomicU32;
    type U64 = AtomicU64;
    type Table = Pages;

    fn table(count: usize) -> Pages {
        Pages::new(count)
    }
}

macro_rules! atomic {
    ($atomic:ty, $value:ty) => {
        impl Atomic<$value> for $atomic {
            fn new(value: $value) -> Self {
                Self::new(value)
            }

            #[inline]
            fn load(&self) -> $value {
                self.load(Ordering::SeqCst)
            }

            #[inline]
            fn fetch_add(&self, count: $value) -> $value {
                self.fetch_add(count, Ordering::SeqCst)
            }

            #[inline]
            fn fetch_max(&self, value: $value) -> $value {
                self.fetch_max(value, Ordering::SeqCst)
            }

            #[inline]
            fn compare_exchange(&self, present: $value, next: $value) -> Result<$value, $value> {
                self.compare_exchange(present, next, Ordering::SeqCst, Ordering::SeqCst)
            }
        }
    };
}

atomic!(AtomicU32, u32);
atomic!(AtomicU64, u64);
