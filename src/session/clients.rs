//! Floor 3. `CLIENT INFO`, `LIST`, `KILL` and `UNBLOCK`: which of Switchman's clients they mean.
//! Knows neither where these are, nor what is done with them.
//!
//! Whether a command is well-formed is the master's to say, whose options are those of its version:
//! it gets a form that has no effect, and what it says against that is said to the client.

use std::collections::BTreeSet;

use crate::command::Local;
use crate::resp::{Request, encode};
use crate::session::{Ends, Portrait, Reject, words};

const SYNTAX: Reject<'static> = Reject::Redis("ERR syntax error");
const NO_INTEGER: Reject<'static> = Reject::Redis("ERR value is not an integer or out of range");

/// Redis networking.c, `clientCommand`.
const NO_REASON: Reject<'static> =
    Reject::Redis("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR");

/// What ends no client: no address looks like that.
const NOBODY: [&[u8]; 2] = [b"ADDR", b"?"];

/// A command about Switchman's clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AboutClients {
    /// `CLIENT INFO`: who asks.
    #[default]
    Info,
    /// `CLIENT LIST`.
    List(Choice),
    /// `CLIENT KILL` with options: the reply is a number.
    Kill(Choice),
    /// `CLIENT KILL address`: the reply is `OK` or an error.
    KillOne(Choice),
    /// `CLIENT UNBLOCK`.
    Unblock {
        /// Whom.
        id: u64,
        /// Whether it hears an error, and not that its time is over.
        error: bool,
    },
    /// `CLIENT TRACKING … REDIRECT`: the client with this number.
    Target(u64),
    /// `ACL DELUSER`, which the master has carried out: who was one of these users is closed (Redis
    /// acl.c, `ACLFreeUserAndKillClients`).
    Deleted(Choice),
}

/// Some clients: those to whom all applies that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Their numbers.
    pub ids: Option<Vec<u64>>,
    /// Whether they have subscriptions.
    kind: Option<Kind>,
    /// Their own address, and the one to which they have connected.
    ends: [Option<Box<[u8]>>; 2],
    users: Option<BTreeSet<Box<[u8]>>>,
    /// Seconds for which they are connected at least.
    age: u64,
    /// Whether who asks is left out.
    others_only: bool,
}

/// What servers tell apart (`TYPE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any client.
    Normal,
    /// One with subscriptions.
    Pubsub,
    /// One that has become a replica.
    Replica,
    /// A master: none of Switchman's clients.
    Master,
}

/// Which errors of the master stand against a request of which it got a form without effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weighs {
    /// That its user may not use it.
    Denials,
    /// All.
    Errors,
}

impl AboutClients {
    /// Reads a command of right arity. An `Err` is what it is answered.
    pub fn read<'r>(local: Local, request: &Request<'r>) -> Result<Self, Reject<'r>> {
        let words: Vec<&[u8]> = request.args().skip(2).collect();
        let not_offered = |option| Reject::NotOffered {
            command: request.name(),
            sub: option,
        };
        match local {
            Local::ClientList => list(&words).map(Self::List).map_err(|wrong| match wrong {
                Wrong::Unknown(option) => not_offered(option),
                Wrong::Dangling(_) | Wrong::Value => SYNTAX,
            }),
            Local::ClientKill => match words[..] {
                [addr] => Ok(Self::KillOne(Choice {
                    ends: [Some(Box::from(addr)), None],
                    ..Choice::default()
                })),
                _ => kill(&words).map(Self::Kill).map_err(|wrong| match wrong {
                    Wrong::Unknown(option) => not_offered(option),
                    Wrong::Dangling(_) | Wrong::Value => SYNTAX,
                }),
            },
            Local::ClientUnblock => unblock(&words),
            _ => Ok(Self::Info),
        }
    }

    /// What the master is asked before, and what of its answer stands against it.
    pub fn question(local: Local, request: &Request<'_>) -> (Vec<u8>, Weighs) {
        let mut all: Vec<&[u8]> = request.args().collect();
        let words: Vec<&[u8]> = all.iter().skip(2).copied().collect();
        let weighs = match (local, &words[..]) {
            (Local::ClientKill, [_, _, ..]) => {
                if let Err(Wrong::Dangling(at)) = kill(&words) {
                    // It would take what follows for its value.
                    all.truncate(2 + at);
                }
                all.extend(NOBODY);
                Weighs::Errors
            }
            (Local::ClientKill, _) => {
                all.truncate(2);
                all.extend([&b"?"[..], b"?"]);
                Weighs::Denials
            }
            // It lists, and does nothing: the master may word what is wrong with it.
            (Local::ClientList, words) if list(words).is_err() => Weighs::Errors,
            (Local::ClientUnblock, [_, _, _, ..]) => {
                // Nobody has this number. Valkey 9 does not mind the words behind the reason.
                all.splice(2..3, [&b"0"[..]]);
                Weighs::Errors
            }
            _ => {
                all.truncate(2);
                all.push(b"?");
                Weighs::Denials
            }
        };
        let mut raw = Vec::new();
        encode::request(&mut raw, &all);
        (raw, weighs)
    }
}

impl Weighs {
    /// Whether the master's reply is such an error.
    pub fn is_objection(self, reply: &[u8]) -> bool {
        match self {
            Self::Denials => reply.starts_with(b"-NOPERM "),
            Self::Errors => reply.starts_with(b"-"),
        }
    }
}

/// What is wrong with the options of a command.
enum Wrong<'r> {
    /// This one is not known here.
    Unknown(&'r [u8]),
    /// The last one, at this place, has no value.
    Dangling(usize),
    /// A value.
    Value,
}

/// `[TYPE type | ID id …]`.
fn list<'r>(words: &[&'r [u8]]) -> Result<Choice, Wrong<'r>> {
    let mut choice = Choice::default();
    match words {
        [] => {}
        [option, kind] if words::is(option, "type") => {
            choice.kind = Some(Kind::read(kind).ok_or(Wrong::Value)?);
        }
        [option, ids @ ..] if words::is(option, "id") && !ids.is_empty() => {
            let ids: Option<Vec<_>> = ids.iter().map(|id| words::integer(id)).collect();
            let ids = ids.ok_or(Wrong::Value)?.into_iter();
            choice.ids = Some(ids.filter_map(|id| u64::try_from(id).ok()).collect());
        }
        [option, ..] => return Err(Wrong::Unknown(option)),
    }
    Ok(choice)
}

/// `option value …`, of which several apply together. Valkey takes several numbers behind `ID`.
fn kill<'r>(words: &[&'r [u8]]) -> Result<Choice, Wrong<'r>> {
    let mut choice = Choice {
        others_only: true,
        ..Choice::default()
    };
    let number = |word| {
        let number = words::integer(word)?;
        u64::try_from(number).ok()
    };
    let mut rest = words.iter().copied().enumerate().peekable();
    while let Some((at, option)) = rest.next() {
        let is = |name| words::is(option, name);
        let known = ["id", "type", "addr", "laddr", "user", "skipme", "maxage"];
        if !known.into_iter().any(is) {
            return Err(Wrong::Unknown(option));
        }
        let (_, value) = rest.next().ok_or(Wrong::Dangling(at))?;
        let [peer, own] = &mut choice.ends;
        if is("id") {
            let mut ids = vec![number(value).ok_or(Wrong::Value)?];
            while let Some(id) = rest.peek().and_then(|(_, word)| number(word)) {
                ids.push(id);
                rest.next();
            }
            choice.ids = Some(ids);
        } else if is("type") {
            choice.kind = Some(Kind::read(value).ok_or(Wrong::Value)?);
        } else if is("addr") {
            *peer = Some(Box::from(value));
        } else if is("laddr") {
            *own = Some(Box::from(value));
        } else if is("user") {
            choice.users = Some(BTreeSet::from([Box::from(value)]));
        } else if is("maxage") {
            choice.age = number(value).ok_or(Wrong::Value)?;
        } else if words::is(value, "yes") || words::is(value, "no") {
            choice.others_only = words::is(value, "yes");
        } else {
            return Err(Wrong::Value);
        }
    }
    Ok(choice)
}

/// `id [TIMEOUT | ERROR]`.
fn unblock(words: &[&[u8]]) -> Result<AboutClients, Reject<'static>> {
    let error = match words {
        [_, how] if words::is(how, "error") => true,
        [_, how] if !words::is(how, "timeout") => return Err(NO_REASON),
        // With more words, which only Valkey 9 takes, it looks at none of them.
        _ => false,
    };
    let id = words.first().and_then(|id| words::integer(id));
    // Nobody has a negative number.
    let id = u64::try_from(id.ok_or(NO_INTEGER)?).unwrap_or(0);
    Ok(AboutClients::Unblock { id, error })
}

impl Kind {
    /// Redis networking.c, `getClientTypeByName`.
    fn read(word: &[u8]) -> Option<Self> {
        let kinds = [
            ("normal", Self::Normal),
            ("pubsub", Self::Pubsub),
            ("master", Self::Master),
            ("replica", Self::Replica),
            ("slave", Self::Replica),
        ];
        let mut kinds = kinds.into_iter();
        kinds.find_map(|(name, kind)| words::is(word, name).then_some(kind))
    }
}

impl Choice {
    /// The client with this number.
    pub fn of(id: u64) -> Self {
        Self {
            ids: Some(vec![id]),
            ..Self::default()
        }
    }

    /// The clients of these users.
    pub fn of_users(users: BTreeSet<Box<[u8]>>) -> Self {
        Self {
            users: Some(users),
            ..Self::default()
        }
    }

    /// Whether a user's clients may be among them.
    pub fn names(&self, user: &[u8]) -> bool {
        let users = self.users.as_ref();
        users.is_none_or(|users| users.contains(user))
    }

    /// Whether a client is among them, as far as its connection's ends do not decide. `asker` is
    /// the number of who asks.
    pub fn takes(&self, client: &Portrait<'_>, asker: u64) -> bool {
        let kind = if client.flags.contains('S') {
            Kind::Replica
        } else if client.subscriptions == [0, 0, 0] {
            Kind::Normal
        } else {
            Kind::Pubsub
        };
        self.ids.as_ref().is_none_or(|it| it.contains(&client.id))
            && self.kind.is_none_or(|it| it == kind)
            && self
                .users
                .as_ref()
                .is_none_or(|it| it.contains(client.user))
            && self.age <= client.age
            && !(self.others_only && client.id == asker)
    }

    /// Whether one with these ends is.
    pub fn takes_ends(&self, ends: &Ends) -> bool {
        let is = |want: &Option<Box<[u8]>>, end: &str| {
            let want = want.as_deref();
            want.is_none_or(|want| words::c_text(want) == end.as_bytes())
        };
        let [peer, own] = &self.ends;
        is(peer, &ends.peer) && is(own, &ends.own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Protocol;

    fn raw(line: &str) -> Vec<u8> {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let mut raw = Vec::new();
        encode::request(&mut raw, &words);
        raw
    }

    fn read(local: Local, line: &str) -> Result<AboutClients, String> {
        let raw = raw(line);
        AboutClients::read(local, &Request::from_raw(&raw).unwrap()).map_err(|reject| {
            let mut out = Vec::new();
            reject.write(&mut out);
            String::from_utf8(out).unwrap()
        })
    }

    fn killed(line: &str) -> Choice {
        match read(Local::ClientKill, line).unwrap() {
            AboutClients::Kill(choice) | AboutClients::KillOne(choice) => choice,
            other => panic!("{other:?}"),
        }
    }

    fn client<'a>() -> Portrait<'a> {
        Portrait {
            id: 7,
            name: Some(b"web"),
            age: 60,
            idle: 3,
            flags: "xP".to_owned(),
            database: 2,
            subscriptions: [1, 0, 0],
            queued: Some(4),
            unread: 5,
            unwritten: 6,
            command: "client|list",
            user: b"app",
            redirects_to: Some(0),
            protocol: Protocol::Resp3,
            library: [Some(b"lib"), None],
        }
    }

    #[test]
    fn all_that_is_given_has_to_apply() {
        for (line, want) in [
            ("CLIENT KILL ID 7", true),
            ("CLIENT KILL ID 7 USER app TYPE pubsub MAXAGE 60", true),
            ("CLIENT KILL ID 8", false),
            ("CLIENT KILL ID 8 9 7 MAXAGE 1", true),
            ("CLIENT KILL ID 8 ID 7", true),
            ("CLIENT KILL MAXAGE 61", false),
            ("CLIENT KILL TYPE normal", false),
            ("CLIENT KILL type MASTER", false),
            ("CLIENT KILL USER default", false),
            ("CLIENT KILL LADDR a:1 skipme No", true),
        ] {
            assert_eq!(killed(line).takes(&client(), 1), want, "{line}");
        }
        let replica = Portrait {
            flags: "S".to_owned(),
            subscriptions: [0, 0, 0],
            ..client()
        };
        for (kind, want) in [("replica", true), ("slave", true), ("normal", false)] {
            let line = format!("CLIENT KILL TYPE {kind}");
            assert_eq!(killed(&line).takes(&replica, 1), want, "{line}");
        }
        assert!(!killed("CLIENT KILL TYPE replica").takes(&client(), 1));
        assert!(!killed("CLIENT KILL ID 7").takes(&client(), 7), "itself");
        assert!(killed("CLIENT KILL ID 7 SKIPME no").takes(&client(), 7));
        let ends = |peer: &str, own: &str| Ends {
            peer: peer.to_owned(),
            own: own.to_owned(),
            file: 8,
        };
        let choice = killed("CLIENT KILL ADDR a:1 LADDR b:2");
        assert!(choice.takes_ends(&ends("a:1", "b:2")));
        assert!(!choice.takes_ends(&ends("a:1", "b:3")));
        assert!(!killed("CLIENT KILL a:1").takes_ends(&ends("a:2", "b:2")));
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        let syntax = Err("-ERR syntax error\r\n".to_owned());
        for line in [
            "CLIENT KILL ID 7 USER",
            "CLIENT KILL ID x SKIPME no",
            "CLIENT KILL ID 7 SKIPME perhaps",
            "CLIENT KILL TYPE x SKIPME no",
        ] {
            assert_eq!(read(Local::ClientKill, line), syntax, "{line}");
        }
        assert_eq!(read(Local::ClientList, "CLIENT LIST ID x"), syntax);
        for line in ["CLIENT LIST ID", "CLIENT LIST FLAGS P", "CLIENT LIST x"] {
            let refused = read(Local::ClientList, line).unwrap_err();
            assert!(refused.contains("is not offered"), "{refused}");
        }
    }

    #[test]
    fn what_the_master_is_asked_ends_nobody() {
        use Local::{ClientKill, ClientList, ClientUnblock};
        use Weighs::{Denials, Errors};
        let check = |local, line: &str, want: &str, weighs| {
            let raw = raw(line);
            let asked = AboutClients::question(local, &Request::from_raw(&raw).unwrap());
            let words = Request::from_raw(&asked.0).unwrap();
            let words: Vec<_> = words.args().map(String::from_utf8_lossy).collect();
            assert_eq!((words.join(" "), asked.1), (want.to_owned(), weighs));
        };
        check(ClientKill, "client kill a:1", "client kill ? ?", Denials);
        check(
            ClientKill,
            "CLIENT KILL ID 7",
            "CLIENT KILL ID 7 ADDR ?",
            Errors,
        );
        check(
            ClientKill,
            "CLIENT KILL ADDR a:1 ADDR",
            "CLIENT KILL ADDR a:1 ADDR ?",
            Errors,
        );
        check(ClientList, "CLIENT LIST", "CLIENT LIST ?", Denials);
        check(ClientList, "CLIENT LIST ID 7", "CLIENT LIST ?", Denials);
        check(ClientList, "CLIENT LIST ID x", "CLIENT LIST ID x", Errors);
        check(
            ClientUnblock,
            "CLIENT UNBLOCK 7",
            "CLIENT UNBLOCK ?",
            Denials,
        );
        check(
            ClientUnblock,
            "CLIENT UNBLOCK 7 ERROR x",
            "CLIENT UNBLOCK 0 ERROR x",
            Errors,
        );
        assert!(Denials.is_objection(b"-NOPERM x") && !Denials.is_objection(b"-ERR x"));
        assert!(Errors.is_objection(b"-ERR x") && !Errors.is_objection(b":0"));
    }

    #[test]
    fn a_line_is_as_a_server_writes_it() {
        let ends = Ends {
            peer: "10.0.0.1:40000".to_owned(),
            own: "10.0.0.2:6379".to_owned(),
            file: 9,
        };
        let mut out = Vec::new();
        client().write(&ends, &mut out);
        let want = "id=7 addr=10.0.0.1:40000 laddr=10.0.0.2:6379 fd=9 name=web age=60 idle=3 \
                    flags=xP db=2 sub=1 psub=0 ssub=0 multi=4 qbuf=5 qbuf-free=0 argv-mem=0 \
                    multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem=6 tot-mem=11 events=r \
                    cmd=client|list user=app redir=0 resp=3 lib-name=lib lib-ver=\n";
        assert_eq!(String::from_utf8(out).unwrap(), want);
    }

    /// Without one of these, valkey-py's `client_info` fails.
    #[test]
    fn a_line_has_the_numbers_that_libraries_read() {
        let mut out = Vec::new();
        client().write(&Ends::default(), &mut out);
        let line = String::from_utf8(out).unwrap();
        let read = "id age idle db sub psub multi qbuf qbuf-free obl argv-mem oll omem tot-mem";
        for name in read.split(' ') {
            let mut fields = line.split_whitespace().filter_map(|it| it.split_once('='));
            let value = fields.find_map(|(field, value)| (field == name).then_some(value));
            assert!(value.is_some_and(|it| it.parse::<i64>().is_ok()), "{name}");
        }
    }
}
