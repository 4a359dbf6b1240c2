//! Floor 3. Commands that Switchman answers itself: the client's own connection state.
//!
//! Where a node has to be asked first (AUTH, SELECT, HELLO), the outcome says what to ask.

use std::fmt;

use crate::command::Local;
use crate::resp::{Request, encode};
use crate::session::{HelloRequest, Session, Speech, words};
use crate::types::{Credentials, Protocol};

/// A user name and password that a client has sent; bytes, as Redis takes them. Never printed.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Login {
    username: Option<Box<[u8]>>,
    password: Box<[u8]>,
}

impl Login {
    /// `AUTH username password`, or `AUTH password` for the default user.
    pub fn new(username: Option<&[u8]>, password: &[u8]) -> Self {
        Self {
            username: username.map(Box::from),
            password: Box::from(password),
        }
    }

    /// The user; `None` for `AUTH password`.
    pub fn username(&self) -> Option<&[u8]> {
        self.username.as_deref()
    }

    /// Appends the command.
    pub fn write(&self, out: &mut Vec<u8>, by: LoginBy, protocol: Protocol) {
        let password: &[u8] = &self.password;
        match (by, &self.username) {
            (LoginBy::Hello(name), Some(username)) => {
                let version = protocol.version();
                encode::request(out, &[&name, version, b"AUTH", username, password]);
            }
            (LoginBy::Auth(name), Some(username)) => {
                encode::request(out, &[&name, username, password]);
            }
            (LoginBy::Auth(name), None) => encode::request(out, &[&name, password]),
            (LoginBy::Hello(_), None) => encode::request(out, &[b"AUTH", password]),
        }
    }
}

impl From<&Credentials> for Login {
    fn from(own: &Credentials) -> Self {
        let username = own.username.as_deref().map(str::as_bytes);
        Self::new(username, own.password.reveal().as_bytes())
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(…)")
    }
}

/// The command by which a client has logged in, and a node is asked about that, in the letters in
/// which it came: `MONITOR` and `ACL LOG` show it so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginBy {
    /// `AUTH`.
    Auth([u8; 4]),
    /// The option of `HELLO`; with the protocol of the connection.
    Hello([u8; 5]),
}

impl LoginBy {
    /// The command of this name; `AUTH` if it is neither.
    pub fn named(name: &[u8]) -> Self {
        let hello = name.try_into().map(Self::Hello);
        hello.unwrap_or_else(|_| Self::Auth(name.try_into().unwrap_or(*b"AUTH")))
    }
}

impl Default for LoginBy {
    fn default() -> Self {
        Self::Auth(*b"AUTH")
    }
}

/// What became of a local command.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The reply is written.
    Replied,
    /// The reply is written and, by `CLIENT REPLY`, not spoken.
    Unspoken,
    /// The reply is written; the conversation ends after it.
    Quit,
    /// Undo everything, then `+RESET`.
    Reset,
    /// Prove this login on the master, then `+OK`.
    Auth(Login),
    /// See that the master has this database, then `+OK`.
    Select(u32),
    /// Ask the master, then answer.
    Hello(HelloRequest),
    /// See what family the master is of; if it takes the command, replicas may serve reads.
    ReadOnly,
    /// The same; the master is to serve them.
    ReadWrite,
    /// The name of the present user.
    WhoAmI,
    /// The master words the answer.
    Forward,
    /// Ask all workers about their clients.
    Clients,
}

impl Session {
    /// Handles a local command of right arity; replies go to `out`.
    pub fn local(&mut self, local: Local, request: &Request<'_>, out: &mut Vec<u8>) -> Outcome {
        match local {
            Local::Auth => auth(request, out),
            Local::Hello => Outcome::Hello(HelloRequest::read(request)),
            Local::Select => select(request, out),
            Local::Reset => Outcome::Reset,
            Local::Quit => {
                encode::simple(out, "OK");
                Outcome::Quit
            }
            Local::Ping => ping(request, out),
            Local::Echo => {
                encode::bulk(out, request.arg1().unwrap_or_default());
                Outcome::Replied
            }
            Local::AclWhoami => Outcome::WhoAmI,
            Local::Readonly => Outcome::ReadOnly,
            Local::Readwrite => Outcome::ReadWrite,
            Local::ClientCapa | Local::ClientHelp => Outcome::Forward,
            Local::ClientInfo | Local::ClientKill | Local::ClientList | Local::ClientUnblock => {
                Outcome::Clients
            }
            _ => self.client_state(local, request, out),
        }
    }

    /// `CLIENT …` on the client's own connection.
    fn client_state(&mut self, local: Local, request: &Request<'_>, out: &mut Vec<u8>) -> Outcome {
        let mut args = request.args().skip(2);
        let first = args.next().unwrap_or_default();
        match local {
            Local::ClientGetname => match self.name() {
                Some(name) => encode::bulk(out, name),
                None => encode::null(out, self.protocol),
            },
            Local::ClientSetname => {
                if let Err(text) = self.set_name(first) {
                    return redis_error(out, text);
                }
                encode::simple(out, "OK");
            }
            Local::ClientSetinfo => {
                return self.set_info(first, args.next().unwrap_or_default(), out);
            }
            Local::ClientGetredir => encode::integer(out, -1),
            Local::ClientTrackinginfo => tracking_off(out, self.protocol),
            Local::ClientNoEvict => {
                if !words::is(first, "on") && !words::is(first, "off") {
                    return redis_error(out, "ERR syntax error");
                }
                encode::simple(out, "OK");
            }
            Local::ClientReply => return self.set_speech(first, out),
            _ => encode::integer(out, i64::try_from(self.id).unwrap_or(i64::MAX)),
        }
        Outcome::Replied
    }

    fn set_info(&mut self, attribute: &[u8], value: &[u8], out: &mut Vec<u8>) -> Outcome {
        let fine = if words::is(attribute, "lib-name") {
            self.set_library_name(value)
        } else if words::is(attribute, "lib-ver") {
            self.set_library_version(value)
        } else {
            let attribute = words::c_text(attribute);
            let text = [b"ERR Unrecognized option '", attribute, b"'"].concat();
            encode::error_bytes(out, &text);
            return Outcome::Replied;
        };
        if fine {
            encode::simple(out, "OK");
        } else {
            let wrong = b" cannot contain spaces, newlines or special characters.";
            encode::error_bytes(out, &[b"ERR ", attribute, wrong].concat());
        }
        Outcome::Replied
    }

    fn set_speech(&mut self, mode: &[u8], out: &mut Vec<u8>) -> Outcome {
        if words::is(mode, "on") {
            self.speech = Speech::On;
            encode::simple(out, "OK");
            return Outcome::Replied;
        }
        if words::is(mode, "off") {
            self.speech = Speech::Off;
        } else if words::is(mode, "skip") {
            if self.speech != Speech::Off {
                self.speech = Speech::SkipNext;
            }
        } else {
            return redis_error(out, "ERR syntax error");
        }
        Outcome::Unspoken
    }
}

fn redis_error(out: &mut Vec<u8>, text: &str) -> Outcome {
    encode::error(out, text);
    Outcome::Replied
}

/// `AUTH password` or `AUTH username password`.
fn auth(request: &Request<'_>, out: &mut Vec<u8>) -> Outcome {
    let mut args = request.args().skip(1);
    match (args.next(), args.next(), args.next()) {
        (Some(password), None, None) => Outcome::Auth(Login::new(None, password)),
        (Some(username), Some(password), None) => {
            Outcome::Auth(Login::new(Some(username), password))
        }
        _ => redis_error(out, "ERR syntax error"),
    }
}

/// `SELECT index`; the texts are those of Redis db.c, `selectCommand`, and object.c,
/// `getIntFromObjectOrReply`.
fn select(request: &Request<'_>, out: &mut Vec<u8>) -> Outcome {
    let index = request.arg1().and_then(words::integer);
    match index.map(|index| (i32::try_from(index), u32::try_from(index))) {
        None => redis_error(out, "ERR value is not an integer or out of range"),
        Some((Err(_), _)) => redis_error(
            out,
            "ERR value is out of range, value must between -2147483648 and 2147483647",
        ),
        Some((Ok(_), Err(_negative))) => redis_error(out, "ERR DB index is out of range"),
        Some((Ok(_), Ok(index))) => Outcome::Select(index),
    }
}

fn ping(request: &Request<'_>, out: &mut Vec<u8>) -> Outcome {
    match request.arg1() {
        Some(_) if request.argc() > 2 => {
            return redis_error(out, "ERR wrong number of arguments for 'ping' command");
        }
        Some(message) => encode::bulk(out, message),
        None => encode::simple(out, "PONG"),
    }
    Outcome::Replied
}

/// `CLIENT TRACKINGINFO` of a connection without tracking (Redis networking.c).
fn tracking_off(out: &mut Vec<u8>, protocol: Protocol) {
    encode::map_header(out, protocol, 3);
    encode::bulk(out, b"flags");
    encode::set_header(out, protocol, 1);
    encode::bulk(out, b"off");
    encode::bulk(out, b"redirect");
    encode::integer(out, -1);
    encode::bulk(out, b"prefixes");
    encode::array_header(out, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(session: &mut Session, local: Local, words: &[&[u8]]) -> (Outcome, String) {
        let (mut raw, mut out) = (Vec::new(), Vec::new());
        encode::request(&mut raw, words);
        let outcome = session.local(local, &Request::from_raw(&raw).unwrap(), &mut out);
        (outcome, String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_login_goes_by_the_command_that_brought_it() {
        let written = |login: &Login, by| {
            let mut out = Vec::new();
            login.write(&mut out, by, Protocol::Resp3);
            let request = Request::from_raw(&out).unwrap();
            let args: Vec<_> = request.args().map(String::from_utf8_lossy).collect();
            args.join(" ")
        };
        let named = Login::new(Some(b"u"), b"p");
        for (name, want) in [
            (&b"Auth"[..], "Auth u p"),
            (b"heLLo", "heLLo 3 AUTH u p"),
            (b"", "AUTH u p"),
        ] {
            assert_eq!(written(&named, LoginBy::named(name)), want);
        }
        // HELLO takes none without a name.
        let unnamed = Login::new(None, b"p");
        assert_eq!(written(&unnamed, LoginBy::named(b"hello")), "AUTH p");
        assert_eq!(written(&unnamed, LoginBy::default()), "AUTH p");
    }

    #[test]
    fn a_name_is_kept_until_reset_and_a_bad_one_is_refused() {
        let mut session = Session::new(7);
        let named = ask(
            &mut session,
            Local::ClientSetname,
            &[b"client", b"setname", b"web"],
        );
        assert_eq!(named, (Outcome::Replied, "+OK\r\n".to_owned()));
        let (_, bad) = ask(
            &mut session,
            Local::ClientSetname,
            &[b"client", b"setname", b"a b"],
        );
        assert!(bad.starts_with("-ERR Client names cannot contain"));
        let (_, name) = ask(&mut session, Local::ClientGetname, &[b"client", b"getname"]);
        assert_eq!(name, "$3\r\nweb\r\n");
        session.reset();
        let (_, name) = ask(&mut session, Local::ClientGetname, &[b"client", b"getname"]);
        assert_eq!(name, "$-1\r\n");
        assert_eq!(
            ask(&mut session, Local::ClientId, &[b"client", b"id"]).1,
            ":7\r\n"
        );
    }

    #[test]
    fn what_a_library_may_not_be_called_is_told_in_its_own_letters() {
        let mut session = Session::new(1);
        let mut say = |attribute: &[u8], value: &[u8]| {
            let words = [&b"client"[..], b"setinfo", attribute, value];
            ask(&mut session, Local::ClientSetinfo, &words).1
        };
        assert_eq!(say(b"LIB-NAME", b"lib"), "+OK\r\n");
        for attribute in ["LIB-NAME", "lib-ver"] {
            let wrong = "cannot contain spaces, newlines or special characters.";
            let want = format!("-ERR {attribute} {wrong}\r\n");
            assert_eq!(say(attribute.as_bytes(), b"a b"), want);
        }
        assert_eq!(say(b"Foo", b"x"), "-ERR Unrecognized option 'Foo'\r\n");
    }

    #[test]
    fn client_reply_off_and_skip_silence_what_redis_silences() {
        let mut session = Session::new(1);
        let off = ask(
            &mut session,
            Local::ClientReply,
            &[b"client", b"reply", b"off"],
        );
        assert_eq!(off, (Outcome::Unspoken, String::new()));
        assert!(!session.speaks() && !session.speaks());
        let on = ask(
            &mut session,
            Local::ClientReply,
            &[b"client", b"reply", b"on"],
        );
        assert_eq!(on.1, "+OK\r\n");
        ask(
            &mut session,
            Local::ClientReply,
            &[b"client", b"reply", b"skip"],
        );
        assert!(!session.speaks() && session.speaks());
    }

    #[test]
    fn select_auth_and_ping_check_their_arguments() {
        let mut session = Session::new(1);
        assert_eq!(
            ask(&mut session, Local::Select, &[b"select", b"3"]).0,
            Outcome::Select(3)
        );
        assert_eq!(
            ask(&mut session, Local::Select, &[b"select", b"-1"]).1,
            "-ERR DB index is out of range\r\n"
        );
        for word in [
            &b"x"[..],
            b"00",
            b"+1",
            b"-0",
            b" 1",
            b"9223372036854775808",
        ] {
            assert_eq!(
                ask(&mut session, Local::Select, &[b"select", word]).1,
                "-ERR value is not an integer or out of range\r\n"
            );
        }
        for word in [&b"2147483648"[..], b"-2147483649"] {
            assert_eq!(
                ask(&mut session, Local::Select, &[b"select", word]).1,
                "-ERR value is out of range, value must between -2147483648 and 2147483647\r\n"
            );
        }
        let login = Login::new(Some(b"u"), b"p");
        assert_eq!(format!("{login:?}"), "Login(…)");
        assert_eq!(
            ask(&mut session, Local::Auth, &[b"auth", b"u", b"p"]).0,
            Outcome::Auth(login)
        );
        assert_eq!(
            ask(&mut session, Local::Ping, &[b"ping", b"x"]).1,
            "$1\r\nx\r\n"
        );
    }
}
