//! Floor 4. A slab whose keys never name a later tenant of the same place.

use std::marker::PhantomData;

/// Values with keys. A key of a removed value finds nothing, even when its place is taken again.
#[derive(Debug)]
pub(super) struct Slab<K, V> {
    entries: Vec<Entry<V>>,
    free: Vec<u32>,
    keys: PhantomData<K>,
}

#[derive(Debug)]
struct Entry<V> {
    generation: u32,
    value: Option<V>,
}

/// Place and tenancy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    index: u32,
    generation: u32,
}

impl Place {
    /// A place that no slab has.
    pub(super) const NOWHERE: Self = Self {
        index: u32::MAX,
        generation: 0,
    };

    /// The place, for tables of the shell that run in parallel.
    #[expect(
        clippy::as_conversions,
        reason = "usize has at least 32 bits wherever tokio runs"
    )]
    pub const fn index(self) -> usize {
        self.index as usize
    }
}

impl<K: Copy + From<Place> + Into<Place>, V> Slab<K, V> {
    pub(super) const fn new() -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            keys: PhantomData,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub(super) fn insert(&mut self, value: V) -> K {
        if let Some(index) = self.free.pop() {
            let place = Place {
                index,
                generation: 0,
            };
            if let Some(entry) = self.entries.get_mut(place.index()) {
                entry.value = Some(value);
                return K::from(Place {
                    index,
                    generation: entry.generation,
                });
            }
        }
        let index = u32::try_from(self.entries.len()).expect("fewer clients than 2^32");
        self.entries.push(Entry {
            generation: 0,
            value: Some(value),
        });
        K::from(Place {
            index,
            generation: 0,
        })
    }

    #[inline]
    pub(super) fn get(&self, key: K) -> Option<&V> {
        let place: Place = key.into();
        let entry = self.entries.get(place.index())?;
        if entry.generation == place.generation {
            entry.value.as_ref()
        } else {
            None
        }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, key: K) -> Option<&mut V> {
        let place: Place = key.into();
        let entry = self.entries.get_mut(place.index())?;
        if entry.generation == place.generation {
            entry.value.as_mut()
        } else {
            None
        }
    }

    pub(super) fn remove(&mut self, key: K) -> Option<V> {
        let place: Place = key.into();
        let entry = self.entries.get_mut(place.index())?;
        if entry.generation != place.generation {
            return None;
        }
        let value = entry.value.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(place.index);
        Some(value)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        self.entries
            .iter()
            .enumerate()
            .filter_map(|(index, entry)| {
                let index = u32::try_from(index).ok()?;
                let key = K::from(Place {
                    index,
                    generation: entry.generation,
                });
                Some((key, entry.value.as_ref()?))
            })
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (K, &mut V)> {
        self.entries
            .iter_mut()
            .enumerate()
            .filter_map(|(index, entry)| {
                let index = u32::try_from(index).ok()?;
                let key = K::from(Place {
                    index,
                    generation: entry.generation,
                });
                Some((key, entry.value.as_mut()?))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_never_finds_a_later_tenant() {
        let mut slab: Slab<Place, char> = Slab::new();
        let first = slab.insert('a');
        assert_eq!(slab.remove(first), Some('a'));
        let second = slab.insert('b');
        assert_eq!(first.index(), second.index());
        assert_eq!((slab.get(first), slab.get(second)), (None, Some(&'b')));
        assert_eq!(slab.remove(first), None);
        assert_eq!((slab.len(), slab.iter().count()), (1, 1));
    }
}
