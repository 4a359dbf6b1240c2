//! Floor 6. The listeners of a group, plain addresses and those with a section of their own, and
//! what must not be the same in two groups.

use crate::config::check::{Lookup, Noted};
use crate::config::keys::{self, Key};
use crate::config::layers::Listener;
use crate::config::{Consistency, Effective, ListenerSettings, values};
use crate::net::ListenAddr;
use crate::types::{ListenerRole, MasterName};

/// What earlier groups have taken.
pub(super) struct Taken {
    names: Vec<MasterName>,
    /// Each with the key that has taken it.
    listeners: Vec<(ListenAddr, &'static str)>,
}

impl Taken {
    /// The address of the operators' server, if it is known.
    pub(super) fn by_admin(admin: Option<&ListenAddr>) -> Self {
        let admin = admin.map(|addr| (addr.clone(), keys::ADMIN_LISTEN.path));
        Self {
            names: Vec::new(),
            listeners: admin.into_iter().collect(),
        }
    }

    pub(super) fn name(&mut self, lookup: &mut Lookup<'_>, name: Option<&MasterName>) {
        let Some(name) = name else { return };
        if self.names.contains(name) {
            let twice = format!("another group is called {name} too; names must differ");
            lookup.wrong(&keys::MASTER_NAME, twice);
        }
        self.names.push(name.clone());
    }

    /// Takes an address that `key` gives.
    fn address(&mut self, lookup: &mut Lookup<'_>, key: &'static Key, addr: &ListenAddr) {
        let mut listeners = self.listeners.iter();
        if let Some((other, by)) = listeners.find(|(other, _)| collide(addr, other)) {
            let taken = format!("{addr} is taken by {by} {other}; choose another");
            lookup.wrong(key, taken);
        }
        self.listeners.push((addr.clone(), key.path));
    }
}

/// The listeners of the group that `lookup` reads: those of `listen`, then those of `tables`.
///
/// Where there are tables, `listen` has no default.
pub(super) fn listeners(
    lookup: &mut Lookup<'_>,
    tables: &[&Listener],
    consistency: Result<Consistency, Noted>,
    taken: &mut Taken,
) -> Result<Vec<ListenerSettings>, Noted> {
    let given = lookup
        .layers
        .iter()
        .any(|layer| layer.get(&keys::LISTEN).is_some());
    let mut plain = lookup.list(&keys::LISTEN, values::parsed::<ListenAddr>);
    if let Ok(addrs) = &mut plain
        && !given
        && !tables.is_empty()
    {
        addrs.clear();
        lookup.show(&keys::LISTEN, "(none)".to_owned());
    }
    if let Ok([]) = plain.as_deref()
        && tables.is_empty()
    {
        lookup.wrong(&keys::LISTEN, "at least one address is needed".to_owned());
    }
    for addr in plain.iter().flatten() {
        taken.address(lookup, &keys::LISTEN, addr);
    }
    let mut with_section = Vec::new();
    for table in tables {
        with_section.push(listener(lookup, table, consistency, taken));
    }
    let (plain, consistency) = (plain?, consistency?);
    let plain = plain.into_iter().map(|addr| {
        Ok(ListenerSettings {
            addr,
            role: ListenerRole::Split,
            consistency,
        })
    });
    plain.chain(with_section).collect()
}

/// A listener with a section of its own in a group with this consistency.
fn listener(
    group: &mut Lookup<'_>,
    section: &Listener,
    inherited: Result<Consistency, Noted>,
    taken: &mut Taken,
) -> Result<ListenerSettings, Noted> {
    let shown = group.findings.effective.len();
    let mut lookup = Lookup {
        layers: vec![&section.layer],
        group: group.group.clone(),
        place: section.source.clone(),
        findings: &mut *group.findings,
    };
    let addr = lookup.maybe(&keys::LISTENER_ADDRESS, values::parsed::<ListenAddr>);
    let role = lookup.one(&keys::LISTENER_ROLE, values::listener_role);
    let own = lookup.maybe(&keys::LISTENER_CONSISTENCY, values::consistency);
    // They are shown in one line.
    lookup.findings.effective.truncate(shown);
    match &addr {
        Ok(Some(addr)) => taken.address(&mut lookup, &keys::LISTENER_ADDRESS, addr),
        Ok(None) => {
            let needed = "an address is needed: host:port, or unix: and a path";
            lookup.wrong(&keys::LISTENER_ADDRESS, needed.to_owned());
        }
        Err(Noted) => {}
    }
    let (addr, role, own) = (addr?.ok_or(Noted)?, role?, own?);
    let consistency = match (role, own) {
        (ListenerRole::Master, None | Some(Consistency::Master)) => Consistency::Master,
        (ListenerRole::Master, Some(other)) => {
            let problem = format!(
                "{} sends reads to replicas, which a listener of the role master does not; \
                 leave this out",
                other.word()
            );
            lookup.wrong(&keys::LISTENER_CONSISTENCY, problem);
            return Err(Noted);
        }
        (_, own) => own.map_or(inherited, Ok)?,
    };
    if role == ListenerRole::Replica && consistency == Consistency::Master {
        let problem = "master sends no read to a replica, for which a listener of the role \
                       replica is there; give it another consistency";
        lookup.wrong(&keys::LISTENER_CONSISTENCY, problem.to_owned());
        return Err(Noted);
    }
    lookup.findings.effective.push(Effective {
        group: lookup.group.clone(),
        key: keys::LISTENER_ADDRESS.path,
        value: format!(
            "{addr} (role {}, consistency {})",
            role.word(),
            consistency.word()
        ),
        source: section.source.clone(),
    });
    Ok(ListenerSettings {
        addr,
        role,
        consistency,
    })
}

/// Whether two listeners cannot both be bound.
fn collide(one: &ListenAddr, other: &ListenAddr) -> bool {
    let wildcard = |host: &str| host == "0.0.0.0" || host == "::";
    match (one, other) {
        (ListenAddr::Tcp { port: 0, .. }, _) => false,
        (
            ListenAddr::Tcp { host, port },
            ListenAddr::Tcp {
                host: other,
                port: taken,
            },
        ) => port == taken && (host == other || wildcard(host) || wildcard(other)),
        (one, other) => one == other,
    }
}
