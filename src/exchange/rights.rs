//! Floor 4. Commands that are answered here, from clients with a login of their own: whether such a
//! user may use them only the master knows, at each moment.
//!
//! PING and ECHO go from database 0 to the master as they are, save those of a RESP2 subscriber,
//! which has another answer. Of the others a form is sent that is refused or changes nothing:
//! access is looked at before arguments are (Redis server.c, `processCommand`). `-NOPERM` is passed
//! on; after anything else the command is answered here. RESET takes a right before Redis 7.0 only,
//! and has no such form: the link on which it is sent is left.
//!
//! The default user may do all this unless an operator takes it away, and is not asked about. Nor
//! is the master while there is none: a PING does not wait for the end of a failover. What is about
//! other clients is asked for everybody, and waits for a master.

use crate::command::{Class, Leased, Local};
use crate::exchange::client::{Client, Numbered, Verdict, Wait};
use crate::exchange::dispatch::{Job, Kind, Placed};
use crate::exchange::lease::{Lease, Watch};
use crate::exchange::node::Group;
use crate::exchange::session_commands::Proof;
use crate::exchange::ticket::{Effect, Purpose, Ticket};
use crate::exchange::{ClientKey, Exchange, LinkKey};
use crate::resp::{Request, encode};
use crate::session::{AboutClients, Login, Weighs};

/// The user whom everybody is who has no other name.
const DEFAULT: &[u8] = b"default";

impl Exchange {
    /// Has the master say whether a client may use a command that is answered here. `None` if it
    /// may; `scratch` is as it was then.
    pub(super) fn ask_for_rights(
        &mut self,
        job: Job,
        request: &Request<'_>,
        local: Local,
    ) -> Option<Placed> {
        let client = self.clients.get_mut(job.key)?;
        let group = self.groups.get(client.group)?;
        if !group.has_name(client) && !local.is_about_others() {
            self.have_master_count(job, request, local);
            return None;
        }
        let group_master = group.writable;
        let group_has_no_master = group_master.is_none();
        let asks = !group_has_no_master && job.again.is_none();
        match local {
            // The server looks at no rights for these, or says the answer itself.
            Local::Reset if !group.table.is_before_7() => return None,
            Local::Auth
            | Local::Hello
            | Local::Quit
            | Local::AclWhoami
            | Local::ClientCapa
            | Local::ClientHelp => return None,
            // The shared link is no subscriber's: it would say +PONG.
            Local::Ping | Local::Echo
                if client.session.database == 0 && !client.is_restricted_subscriber() =>
            {
                let kind = Kind::shared(Class::MasterRead);
                return (!group_has_no_master).then(|| self.place_on_master(job, request, kind));
            }
            _ if client.permission() => return None,
            _ => {}
        }
        if let Some(Proof::Settled(denied)) = self.verdict(job) {
            return Some(denied);
        }
        if local.is_about_others() && group_has_no_master && job.again.is_none() {
            return Some(self.hold(job));
        }
        if !asks {
            return None;
        }
        if let Some(waits) = self.wait_for_answers(job) {
            return Some(waits);
        }
        let client = self.clients.get(job.key)?;
        // To come into another database takes the right to SELECT.
        let database = selected(local, request).unwrap_or(0);
        let settings = (database, client.session.protocol);
        let (identity, node) = (client.session.identity, group_master?);
        let found = if self.has_only_its_own(job, node) {
            self.lease_link(job)
                .map_or_else(Proof::Settled, Proof::Given)
        } else {
            self.ask(job, identity, settings)
        };
        match found {
            Proof::Settled(placed) => Some(placed),
            Proof::Given(link) => {
                let placed = self.send_question(link, job, question(local, request));
                if local == Local::Reset {
                    // It is no link with this login any more.
                    self.close_when_idle(link, job.now);
                }
                Some(placed)
            }
        }
    }

    /// Whether a client's rights were asked for, as there is a master, by a login that it takes no
    /// more.
    pub(super) fn has_asked(&self, key: ClientKey) -> bool {
        let client = self.clients.get(key);
        client.is_some_and(|client| {
            let group = self.groups.get(client.group);
            let identity = client.session.identity;
            group.is_some_and(|group| {
                let kept_out = |node| group.keeps_out((node, identity));
                group.has_name(client) && group.writable.is_some_and(kept_out)
            })
        })
    }

    /// The same for EXEC, DISCARD and UNWATCH of a client that has nothing to end: the master says
    /// that itself.
    pub(super) fn have_master_object_to_end(
        &mut self,
        job: Job,
        request: &Request<'_>,
        leased: Leased,
    ) -> Option<Placed> {
        let lease = self.lease_of(job.key);
        let objects = match leased {
            Leased::Unwatch => lease.is_none_or(|lease| lease.watch == Watch::No),
            // With arguments it ends what is watched.
            Leased::Exec if request.argc() > 1 => lease.is_none_or(Lease::is_unbound),
            Leased::Exec | Leased::Discard => true,
            _ => false,
        };
        objects.then(|| self.have_master_object(job, request))?
    }

    /// Has the master say to a user with a name what is wrong with a request. One that was deleted
    /// meanwhile hears nothing more (Redis acl.c, `ACLFreeUserAndKillClients`).
    pub(super) fn have_master_object(&mut self, job: Job, request: &Request<'_>) -> Option<Placed> {
        let client = self.clients.get(job.key)?;
        let group = self.groups.get(client.group)?;
        if !group.has_name(client) || group.writable.is_none() {
            return None;
        }
        let lease = client.lease.as_deref().filter(|it| !it.is_unbound());
        let Some(lease) = lease else {
            return Some(self.place_on_master(job, request, Kind::shared(Class::MasterRead)));
        };
        let effect = Effect::Reads;
        let kind = Kind::leased(Purpose::Plain);
        let has_link = lease.link.is_some();
        has_link.then(|| self.send_on_lease(job, request.raw(), Kind { effect, ..kind }))
    }

    /// Asks for a client's rights; what it has sent waits for the reply.
    fn send_question(
        &mut self,
        link: LinkKey,
        job: Job,
        (raw, weighs): (Vec<u8>, Weighs),
    ) -> Placed {
        let Some(client) = self.clients.get_mut(job.key) else {
            return Placed::Answered;
        };
        // A number like any other, and an empty reply.
        let again = Some(Numbered::new(client.replies.begin(), false));
        let kind = Kind {
            effect: Effect::Reads,
            ..Kind::leased(Purpose::Rights(weighs))
        };
        let placed = self.send(link, Job { again, ..job }, &raw, kind);
        if placed == Placed::Sent
            && let Some(client) = self.clients.get_mut(job.key)
        {
            client.wait = Wait::Answers;
            return Placed::Waits;
        }
        placed
    }

    /// The master has said whether a client may.
    pub(super) fn rights_told(&mut self, ticket: Ticket, weighs: Weighs, reply: &[u8]) {
        let denied = weighs.is_objection(reply);
        let words: &[u8] = if denied { reply } else { &[] };
        if let Some(client) = self.clients.get_mut(ticket.client) {
            client.verdict = Some(Box::new(Verdict(Box::from(words))));
        }
    }
}

impl Client {
    /// Whether the master has just permitted the next command; used up by asking.
    fn permission(&mut self) -> bool {
        let permitted = self.verdict.as_ref().is_some_and(|it| it.0.is_empty());
        if permitted {
            self.verdict = None;
        }
        permitted
    }

    /// What a node said against what the client asked.
    pub(super) fn take_objection(&mut self) -> Option<Box<[u8]>> {
        let verdict = self.verdict.take()?;
        (!verdict.0.is_empty()).then_some(verdict.0)
    }
}

impl Group {
    /// Whether a client is another user than the default one.
    fn has_name(&self, client: &Client) -> bool {
        let login = self.login(client.session.identity);
        let name = login.and_then(Login::username);
        name.is_some_and(|name| name != DEFAULT)
    }
}

/// The database that a SELECT names: the connection on which it is asked for is in that already.
fn selected(local: Local, request: &Request<'_>) -> Option<u32> {
    let index = request.arg1().filter(|_| local == Local::Select)?;
    std::str::from_utf8(index).ok()?.parse().ok()
}

/// What asks for the right to a command and changes nothing, and what of its reply matters.
fn question(local: Local, request: &Request<'_>) -> (Vec<u8>, Weighs) {
    if local.is_about_others() {
        return AboutClients::question(local, request);
    }
    let mut words: Vec<&[u8]> = request.args().take(2).collect();
    match local {
        // A space in a name, and options that there are not.
        Local::ClientSetname => words.push(b" "),
        Local::ClientSetinfo => words.extend([&b"?"[..], b"?"]),
        Local::ClientNoEvict | Local::ClientReply => words.push(b"?"),
        _ => {}
    }
    let mut raw = Vec::new();
    encode::request(&mut raw, &words);
    (raw, Weighs::Denials)
}
