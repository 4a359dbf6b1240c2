//! Floor 3. What is told of one client: its line of `CLIENT LIST`.

use crate::types::Protocol;

/// What is told of a client: the fields of a server's `CLIENT LIST`.
#[derive(Clone, Debug)]
pub struct Portrait<'a> {
    /// Its number.
    pub id: u64,
    /// Its name.
    pub name: Option<&'a [u8]>,
    /// Seconds since it connected.
    pub age: u64,
    /// Seconds since it sent something.
    pub idle: u64,
    /// Letters, as servers have them.
    pub flags: String,
    /// Its database.
    pub database: u32,
    /// Channels, patterns and shard channels it has subscribed to.
    pub subscriptions: [usize; 3],
    /// Commands queued since its MULTI.
    pub queued: Option<usize>,
    /// Bytes that it has sent and that wait, and those of what it is being told.
    pub unread: usize,
    /// Bytes that it has not read.
    pub unwritten: usize,
    /// The last command.
    pub command: &'a str,
    /// Its user.
    pub user: &'a [u8],
    /// The number of the client that is told what becomes invalid of what it reads, 0 for itself;
    /// `None` if that is not tracked.
    pub redirects_to: Option<u64>,
    /// Protocol of its replies.
    pub protocol: Protocol,
    /// The library that it uses, and its version.
    pub library: [Option<&'a [u8]>; 2],
}

/// The two ends of a client's connection, in a server's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// The client's.
    pub peer: String,
    /// Switchman's.
    pub own: String,
    /// The number of Switchman's file for it.
    pub file: i32,
}

impl Portrait<'_> {
    /// Writes its line, with the line's end.
    pub fn write(&self, ends: &Ends, out: &mut Vec<u8>) {
        let Self { id, age, idle, .. } = self;
        let [channels, patterns, shards] = self.subscriptions;
        let queued = self.queued.and_then(|it| i64::try_from(it).ok());
        let queued = queued.unwrap_or(-1);
        let protocol = match self.protocol {
            Protocol::Resp2 => 2,
            Protocol::Resp3 => 3,
        };
        let redirected = self.redirects_to.map_or(-1, i128::from);
        let [library, version] = self.library.map(Option::unwrap_or_default);
        let (unread, unwritten) = (self.unread, self.unwritten);
        let total = unread.saturating_add(unwritten);
        let parts: [(String, &[u8]); 5] = [
            (
                format!(
                    "id={id} addr={} laddr={} fd={} name=",
                    ends.peer, ends.own, ends.file
                ),
                self.name.unwrap_or_default(),
            ),
            (
                // Zeros are of a server's buffers. Some libraries (valkey-py 6.2) read them as
                // numbers, and fail where one is not there.
                format!(
                    " age={age} idle={idle} flags={} db={} sub={channels} psub={patterns} \
                     ssub={shards} multi={queued} qbuf={unread} qbuf-free=0 argv-mem=0 \
                     multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem={unwritten} tot-mem={total} \
                     events=r cmd={} user=",
                    self.flags, self.database, self.command,
                ),
                self.user,
            ),
            (
                format!(" redir={redirected} resp={protocol} lib-name="),
                library,
            ),
            (" lib-ver=".to_owned(), version),
            ("\n".to_owned(), b""),
        ];
        for (text, bytes) in parts {
            out.extend_from_slice(text.as_bytes());
            out.extend_from_slice(bytes);
        }
    }
}
