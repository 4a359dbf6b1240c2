//! Keys whose value grows with each write, so that a read tells which writes it has seen. All of
//! them together use most ways in which a command may write a key.

use switchman::demo::client::Reply;

/// Seconds of a time to live that stand for one version: far more than any test takes.
const VERSION_TTL: i64 = 100_000;

/// How a key is written and read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Set,
    /// The master chooses the version.
    Incr,
    Mset,
    Hash,
    /// There at odd versions, deleted at even ones.
    Presence,
    Transaction,
    Script,
    Copy,
    /// From database 0 to database 1.
    CopyAcross,
    /// The master chooses the version.
    Append,
    Expire,
}

impl Kind {
    /// All but scripts, of which there are to be few: they unsettle everything.
    pub(super) const MANY: [Self; 10] = [
        Self::Set,
        Self::Incr,
        Self::Mset,
        Self::Hash,
        Self::Presence,
        Self::Transaction,
        Self::Copy,
        Self::CopyAcross,
        Self::Append,
        Self::Expire,
    ];

    /// Commands that read such keys.
    pub(super) const READS: [&str; 6] = ["get", "mget", "hget", "exists", "strlen", "ttl"];

    /// Whether the reply to a write tells its version.
    pub(super) fn is_counted(self) -> bool {
        matches!(self, Self::Incr | Self::Append)
    }
}

/// A key that one client writes.
#[derive(Clone, Debug)]
pub(super) struct Record {
    kind: Kind,
    key: String,
    database: usize,
    /// Newest version that was acknowledged. 0 before the first.
    acknowledged: i64,
    /// Newest version that was sent.
    sent: i64,
}

/// What a write brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    Acknowledged,
    /// The master counts from before what it acknowledged.
    Lost,
    /// Some reply is an error.
    Failed,
}

impl Record {
    pub(super) fn new(kind: Kind, key: String, database: usize) -> Self {
        Self {
            kind,
            key,
            database,
            acknowledged: 0,
            sent: 0,
        }
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    pub(super) fn written_in(&self) -> usize {
        match self.kind {
            Kind::CopyAcross => 0,
            _ => self.database,
        }
    }

    pub(super) fn read_in(&self) -> usize {
        match self.kind {
            Kind::CopyAcross => 1,
            _ => self.database,
        }
    }

    /// Newest version that was acknowledged.
    pub(super) fn acknowledged(&self) -> i64 {
        self.acknowledged
    }

    /// Commands that write the next version.
    pub(super) fn next(&mut self) -> Vec<Vec<String>> {
        self.sent += 1;
        let (key, version) = (&self.key, self.sent);
        let text = match self.kind {
            Kind::Set => format!("SET {key} {version}"),
            Kind::Incr => format!("INCR {key}"),
            Kind::Mset => format!("MSET {key}:1 {version} {key}:2 {version}"),
            Kind::Hash => format!("HSET {key} other x version {version}"),
            Kind::Presence if version % 2 == 1 => format!("SET {key} x"),
            Kind::Presence => format!("DEL {key}"),
            Kind::Transaction => {
                format!("MULTI|SET {key} {version}|HSET {key}:h version {version}|EXEC")
            }
            Kind::Script => {
                let script = "return(redis.call('SET',KEYS[1],ARGV[1]))";
                format!("EVAL {script} 1 {key} {version}")
            }
            Kind::Copy => format!("SET {key} {version}|COPY {key} {key}:copy REPLACE"),
            Kind::CopyAcross => {
                format!("SET {key} {version}|COPY {key} {key}:copy DB 1 REPLACE")
            }
            Kind::Append => format!("APPEND {key} x"),
            Kind::Expire => {
                let ttl = version * VERSION_TTL;
                format!("SET {key} x KEEPTTL|EXPIRE {key} {ttl}")
            }
        };
        let commands = text.split('|');
        commands.map(words).collect()
    }

    /// Takes the replies to what [`next`](Self::next) gave.
    pub(super) fn take(&mut self, replies: &[Reply]) -> Written {
        let failed = |reply: &Reply| {
            let inner = reply.items().iter().any(|it| it.error().is_some());
            inner || reply.error().is_some() || matches!(reply, Reply::Null | Reply::NullArray)
        };
        let Some(last) = replies.last().filter(|_| !replies.iter().any(failed)) else {
            return Written::Failed;
        };
        if !self.kind.is_counted() {
            self.acknowledged = self.sent;
            return Written::Acknowledged;
        }
        let count = last.int().expect("a count");
        let from_before = count <= self.acknowledged;
        (self.acknowledged, self.sent) = (count, count);
        if from_before {
            Written::Lost
        } else {
            Written::Acknowledged
        }
    }

    /// The command that reads it.
    pub(super) fn question(&self) -> Vec<String> {
        let key = &self.key;
        words(&match self.kind {
            Kind::Set | Kind::Incr | Kind::Script => format!("GET {key}"),
            Kind::Mset => format!("MGET {key}:1 {key}:2"),
            Kind::Transaction if self.acknowledged % 2 == 1 => format!("GET {key}"),
            Kind::Transaction => format!("HGET {key}:h version"),
            Kind::Hash => format!("HGET {key} version"),
            Kind::Presence => format!("EXISTS {key}"),
            Kind::Copy | Kind::CopyAcross => format!("GET {key}:copy"),
            Kind::Append => format!("STRLEN {key}"),
            Kind::Expire => format!("TTL {key}"),
        })
    }

    /// The version that a read has seen; `None` where the reply is an error.
    ///
    /// # Panics
    /// Where nobody ever wrote such a value.
    pub(super) fn seen(&self, reply: &Reply) -> Option<i64> {
        if reply.error().is_some() {
            return None;
        }
        let number = |reply: &Reply| match reply {
            Reply::Null => 0,
            other => other
                .text()
                .and_then(|text| text.parse().ok())
                .expect("a number"),
        };
        let seen = match self.kind {
            Kind::Mset => reply.items().iter().map(number).min().expect("two values"),
            Kind::Expire => (number(reply).max(0) + VERSION_TTL / 2) / VERSION_TTL,
            Kind::Presence => {
                let mut versions = self.acknowledged..=self.sent;
                let seen = versions.find(|version| version % 2 == number(reply));
                seen.unwrap_or(self.acknowledged - 1)
            }
            _ => number(reply),
        };
        assert!(seen <= self.sent, "{self:?}: {reply:?} was never written");
        Some(seen)
    }

    /// Goes on from what the new master has, where what was acknowledged is lost.
    pub(super) fn go_on_from(&mut self, version: i64) {
        self.acknowledged = version;
    }
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_of_the_version_before_is_told_from_one_of_the_last_for_every_kind() {
        let mut value = [Reply::ok(), Reply::Int(1)];
        for kind in Kind::MANY.into_iter().chain([Kind::Script]) {
            let mut record = Record::new(kind, "k".to_owned(), 0);
            for version in 1..=3 {
                assert!(!record.next().is_empty());
                value[1] = Reply::Int(version);
                assert_eq!(record.take(&value), Written::Acknowledged, "{kind:?}");
                assert_eq!(
                    record.seen(&state(kind, version)),
                    Some(version),
                    "{kind:?}"
                );
                let before = record.seen(&state(kind, version - 1));
                assert_eq!(before, Some(version - 1), "{kind:?}");
            }
        }
    }

    #[test]
    fn a_count_from_before_is_a_loss() {
        let mut record = Record::new(Kind::Incr, "k".to_owned(), 0);
        for (count, want) in [
            (7, Written::Acknowledged),
            (7, Written::Lost),
            (3, Written::Lost),
            (4, Written::Acknowledged),
        ] {
            record.next();
            assert_eq!(record.take(&[Reply::Int(count)]), want);
        }
        assert_eq!(
            record.take(&[Reply::Error("ERR".to_owned())]),
            Written::Failed
        );
    }

    /// What Redis answers at this version.
    fn state(kind: Kind, version: i64) -> Reply {
        let text = Reply::bulk(&version.to_string());
        match kind {
            _ if version == 0 && !matches!(kind, Kind::Append | Kind::Expire | Kind::Presence) => {
                match kind {
                    Kind::Mset => Reply::Array(vec![Reply::Null, Reply::Null]),
                    _ => Reply::Null,
                }
            }
            Kind::Mset => Reply::Array(vec![text.clone(), text]),
            Kind::Presence => Reply::Int(version % 2),
            Kind::Append => Reply::Int(version),
            Kind::Expire if version == 0 => Reply::Int(-2),
            Kind::Expire => Reply::Int(version * VERSION_TTL - 1),
            _ => text,
        }
    }
}
