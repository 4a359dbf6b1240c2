//! Floor 4. What `CLIENT LIST` tells of a client, of all that is known here.

use crate::exchange::Exchange;
use crate::exchange::client::{Client, Ending};
use crate::exchange::lease::Multi;
use crate::exchange::link::Link;
use crate::session::Portrait;
use crate::types::Time;

impl Exchange {
    /// What is told of a client.
    pub(super) fn portrait<'a>(&'a self, client: &'a Client, now: Time) -> Portrait<'a> {
        let group = self.groups.get(client.group);
        let login = group.and_then(|group| group.login(client.session.identity));
        let specs = group.map_or(&[][..], |group| group.table.specs());
        let command = specs.get(usize::from(client.command));
        let lease = client.lease.as_deref();
        let in_multi = lease.filter(|lease| matches!(lease.multi, Multi::Open | Multi::Aborted));
        let heard = client.heard.as_deref();
        let subscriptions = heard.map(|heard| heard.subscriptions.counts());
        let session = &client.session;
        Portrait {
            id: session.id,
            name: session.name(),
            age: now
                .since_start()
                .as_secs()
                .saturating_sub(client.joined.into()),
            idle: now.since(client.last_arrived()).as_secs(),
            flags: self.flags(client),
            database: session.database,
            subscriptions: subscriptions.unwrap_or_default(),
            queued: in_multi.map(|lease| lease.inside.queued()),
            unread: client.waiting_bytes(),
            unwritten: client.replies.held_bytes(),
            command: command.map_or("NULL", |spec| &spec.name),
            user: login
                .and_then(|login| login.username())
                .unwrap_or(b"default"),
            redirects_to: client.redirects_to(),
            protocol: session.protocol,
            library: [session.library_name(), session.library_version()],
        }
    }

    /// Letters, in the order of Redis networking.c, `catClientInfoString`.
    fn flags(&self, client: &Client) -> String {
        let lease = client.lease.as_deref();
        let link = lease.and_then(|lease| self.links.get(lease.link?));
        let all = [
            ('S', client.is_replica()),
            ('P', client.is_subscriber()),
            ('x', client.is_in_multi()),
            ('b', link.is_some_and(Link::is_waiting)),
            ('t', client.redirects_to().is_some()),
            ('c', client.ending == Ending::AfterReplies),
            ('r', client.access.is_read_only()),
        ];
        let flags: String = all.iter().filter(|it| it.1).map(|it| it.0).collect();
        if flags.is_empty() {
            "N".to_owned()
        } else {
            flags
        }
    }
}
