//! Floor 3. Redis's own errors in the words that they had before 7.0, where these were others.
//! Must not know what the server is.

use crate::resp::{Request, encode};
use crate::session::Reject;
use crate::session::reject::{QUOTED_MAX, start};

impl Reject<'_> {
    /// Appends the error line to `request` as a server before Redis 7.0 words it.
    pub fn write_before_7(&self, request: &Request<'_>, out: &mut Vec<u8>) {
        match *self {
            Self::UnknownCommand { command } => unknown(command, request, out),
            Self::UnknownSubcommand { container, .. } => misspelt(container, request, out),
            Self::WrongArity { name } if let Some((container, _)) = name.split_once('|') => {
                misspelt(container, request, out);
            }
            Self::Subscribed { name } => {
                let name = name.split('|').next().unwrap_or_default();
                let text = format!(
                    "ERR Can't execute '{name}': only (P)SUBSCRIBE / (P)UNSUBSCRIBE / PING / QUIT \
                     / RESET are allowed in this context"
                );
                encode::error(out, &text);
            }
            _ => self.write(out),
        }
    }
}

/// Redis 6.2 server.c, `processCommand`.
fn unknown(command: &[u8], request: &Request<'_>, out: &mut Vec<u8>) {
    let mut excerpt = Vec::new();
    for arg in request.args().skip(1) {
        if excerpt.len() >= QUOTED_MAX {
            break;
        }
        let room = QUOTED_MAX - excerpt.len();
        excerpt.extend_from_slice(&[b"`", start(arg, room), b"`, "].concat());
    }
    let line = [
        b"ERR unknown command `",
        start(command, QUOTED_MAX),
        b"`, with args beginning with: ",
        &excerpt[..],
    ];
    encode::error_bytes(out, &line.concat());
}

/// Redis 6.2 networking.c, `addReplySubcommandSyntaxError`: it knows no subcommand by itself, nor
/// how many arguments one takes.
fn misspelt(container: &str, request: &Request<'_>, out: &mut Vec<u8>) {
    let container = container.to_uppercase();
    let text = [
        b"ERR Unknown subcommand or wrong number of arguments for '",
        start(request.arg1().unwrap_or_default(), QUOTED_MAX),
        b"'. Try ",
        container.as_bytes(),
        b" HELP.",
    ];
    encode::error_bytes(out, &text.concat());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_words_of_old_servers() {
        let check = |reject: Reject<'_>, words: &[&[u8]], want: &str| {
            let (mut raw, mut out) = (Vec::new(), Vec::new());
            encode::request(&mut raw, words);
            reject.write_before_7(&Request::from_raw(&raw).unwrap(), &mut out);
            assert_eq!(out, format!("-ERR {want}\r\n").as_bytes());
        };
        let command = b"FOO";
        let unknown = "unknown command `FOO`, with args beginning with: ";
        check(Reject::UnknownCommand { command }, &[command], unknown);
        check(
            Reject::UnknownCommand { command },
            &[command, b"bar", b"with space"],
            &format!("{unknown}`bar`, `with space`, "),
        );
        let name = "client|setname";
        let misspelt = "Unknown subcommand or wrong number of arguments for 'SetName'. Try CLIENT \
                        HELP.";
        check(
            Reject::WrongArity { name },
            &[b"client", b"SetName"],
            misspelt,
        );
        let (container, sub) = ("client", &b"SetName"[..]);
        let unknown = Reject::UnknownSubcommand { container, sub };
        check(unknown, &[b"client", sub], misspelt);
        check(
            Reject::Subscribed { name: "config|get" },
            &[b"config", b"get", b"x"],
            "Can't execute 'config': only (P)SUBSCRIBE / (P)UNSUBSCRIBE / PING / QUIT / \
             RESET are allowed in this context",
        );
        let name = "get";
        let arity = "wrong number of arguments for 'get' command";
        check(Reject::WrongArity { name }, &[b"get"], arity);
    }
}
