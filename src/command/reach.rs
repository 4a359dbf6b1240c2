//! Floor 1. How far a request reaches: which data it may read, or change.
//! Must not know what is done with a key, nor whether anybody keeps account of it.

use crate::command::{Class, Command, Flags, KeySpec, Leased, Problem, Spec};

/// Data that a request reads or changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reach {
    /// None.
    Nothing,
    /// Its keys, in its client's database.
    Keys(KeySpec),
    /// Its keys, and one of them in a database that it names too: `COPY … DB`, `MOVE`.
    OtherDatabase(KeySpec),
    /// The keys that it declares. A script may use others all the same: Redis does not check.
    Declared(KeySpec),
    /// Its client's database.
    Database,
    /// Anything.
    Everything,
}

impl Command<'_> {
    /// What a read reads, or what anything else may change.
    #[inline]
    pub fn reach(&self) -> Reach {
        let Some(spec) = self.spec else {
            return Reach::Everything;
        };
        if self.problem.is_some_and(Problem::is_unknown) {
            return Reach::Everything;
        }
        match self.class {
            Class::Read => read(spec.flags, spec.keys),
            Class::Write if !spec.flags.intersects(Flags::UNUSUAL) => changed(spec.keys),
            Class::Write | Class::Admin | Class::Leased(_) => other(self.class, spec),
            // It keeps in its key what it has counted.
            Class::MasterRead if spec.flags.contains(Flags::MAY_REPLICATE) => changed(spec.keys),
            Class::MasterRead | Class::Local(_) | Class::Refused => Reach::Nothing,
        }
    }
}

/// What a read reads. One that names no key where its kind does may read any.
#[inline]
const fn read(flags: Flags, keys: KeySpec) -> Reach {
    match keys {
        KeySpec::None => Reach::Nothing,
        KeySpec::Any => Reach::Everything,
        keys if flags.contains(Flags::SCRIPT) => Reach::Declared(keys),
        keys => Reach::Keys(keys),
    }
}

/// What a write changes. One that names no key changes what no key names: functions.
#[inline]
const fn changed(keys: KeySpec) -> Reach {
    match keys {
        KeySpec::None | KeySpec::Any => Reach::Everything,
        keys => Reach::Keys(keys),
    }
}

/// What is changed by writes that differ from the others, and by what is no plain write.
#[cold]
fn other(class: Class, spec: &Spec) -> Reach {
    let is = |flag| spec.flags.contains(flag);
    match spec.keys {
        _ if is(Flags::ANYTHING) => Reach::Everything,
        _ if is(Flags::PUBSUB) => Reach::Nothing,
        // It counts as a write because it must not be done twice.
        _ if class == Class::Write && is(Flags::READONLY) && !is(Flags::WRITE) => Reach::Nothing,
        _ if is(Flags::DATABASE) => Reach::Database,
        keys if is(Flags::OTHER_DATABASE) => Reach::OtherDatabase(keys),
        // `SCRIPT LOAD` and `SCRIPT FLUSH` change no data.
        KeySpec::None if is(Flags::SCRIPT) => Reach::Nothing,
        keys if is(Flags::SCRIPT) => Reach::Declared(keys),
        keys if is(Flags::WRITE) || class == Class::Write => changed(keys),
        _ if is(Flags::READONLY) || class != Class::Leased(Leased::Blocking) => Reach::Nothing,
        _ => Reach::Everything,
    }
}
