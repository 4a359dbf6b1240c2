//! Floor 6. Every configuration key there is. Flags, variables, help, checks and the documentation
//! derive from this one table.

/// One key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Path in the file: `name` at the top or in a `[[group]]`, or `section.name`, of which
    /// `listener` is one of `[[listener]]` and `[[group.listener]]`.
    pub path: &'static str,
    /// Of the process, or of each group.
    pub scope: Scope,
    /// What a value looks like.
    pub shape: Shape,
    /// Its flag, if it has one.
    pub flag: Option<&'static str>,
    /// The value where nobody gives one, as text; empty is none.
    pub default: &'static str,
    /// What it decides, in a sentence.
    pub meaning: &'static str,
}

/// To what a key belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// To the process.
    Process,
    /// To each group; at the top of the file it is the default for all groups.
    Group,
    /// To one listener of a group; only the file has these.
    Listener,
}

/// What a value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A whole number.
    Number,
    /// A number, or the word `auto`.
    NumberOrAuto,
    /// A number, or the word `off`.
    NumberOrOff,
    /// A text.
    Text,
    /// A text that is never shown.
    Secret,
    /// Several texts; with commas between them in a flag or a variable.
    List,
    /// A number of bytes, such as `32MiB`.
    Size,
    /// A time, such as `500ms`.
    Duration,
}

impl Key {
    /// Its environment variable, unless it is a listener's: `SWITCHMAN_` and the path in capitals.
    pub fn env(&self) -> String {
        format!(
            "SWITCHMAN_{}",
            self.path.replace(['.', '-'], "_").to_uppercase()
        )
    }

    /// Its section in the file, or `None` at the top and in groups.
    pub fn section(&self) -> Option<&'static str> {
        self.path.split_once('.').map(|(section, _)| section)
    }

    /// Its name within its section.
    pub fn name(&self) -> &'static str {
        self.path
            .split_once('.')
            .map_or(self.path, |(_, name)| name)
    }
}

/// The key with this path.
pub fn find(path: &str) -> Option<&'static Key> {
    let all = KEYS.iter().chain(LISTENER_KEYS);
    all.copied().find(|key| key.path == path)
}

/// What `--help` says of all keys: path, variable, default and meaning.
pub fn reference() -> String {
    let mut text = String::new();
    for key in KEYS {
        let default = match key.default {
            "" => String::new(),
            default => format!(" [default: {default}]"),
        };
        let line = format!(
            "  {}  ({}){default}\n      {}\n",
            key.path,
            key.env(),
            key.meaning
        );
        text.push_str(&line);
    }
    for key in LISTENER_KEYS {
        let line = format!(
            "  {}  (in the file: [[listener]] or [[group.listener]])\n      {}\n",
            key.path, key.meaning
        );
        text.push_str(&line);
    }
    text
}

macro_rules! keys {
    ($(#[$about:meta])* $list:ident;
        $($id:ident $scope:ident $shape:ident $path:literal [$($flag:literal)?] $default:literal
        $meaning:literal)+) => {
        $(
            #[doc = $meaning]
            pub const $id: Key = Key {
                path: $path,
                scope: Scope::$scope,
                shape: Shape::$shape,
                flag: keys!(@flag $($flag)?),
                default: $default,
                meaning: $meaning,
            };
        )+

        $(#[$about])*
        pub const $list: &[&Key] = &[$(&$id),+];
    };
    (@flag) => { None };
    (@flag $flag:literal) => { Some($flag) };
}

keys! {
    /// Every key that has a variable, in the order of the documentation.
    KEYS;
    WORKERS Process Number "workers" ["--workers"] "0"
        "Threads that serve clients; 0 is one for each processor, container quotas counted."
    LOG_FORMAT Process Text "log.format" ["--log-format"] "text"
        "Shape of log lines: text for people, json for machines."
    LOG_LEVEL Process Text "log.level" ["--log-level"] "info"
        "Which lines are written: error, warn, info, debug, trace, off, or a list of module=level."
    ADMIN_LISTEN Process Text "admin.listen" ["--admin-listen"] "127.0.0.1:9379"
        "Address of /metrics, /livez, /readyz, the status page and its JSON."
    ADMIN_TOKEN Process Secret "admin.token" [] ""
        "Token for what changes something: POST /api/v1/switchover; without one that is off."
    ADMIN_TOKEN_FILE Process Text "admin.token-file" [] ""
        "File with that token."
    MAX_CLIENTS Process NumberOrAuto "limits.max-clients" [] "auto"
        "Most clients at once, all groups together; auto derives it from the limit of open files."
    CLIENT_OUTPUT_LIMIT Process Size "limits.client-output-limit" [] "32MiB"
        "Output that a client may leave unread before what feeds it is throttled."
    CLIENT_WRITE_TIMEOUT Process Duration "limits.client-write-timeout" [] "30s"
        "A client above that limit that takes nothing for so long is closed."
    SCRIPT_CACHE Process Size "limits.script-cache" [] "4MiB"
        "Bodies of scripts kept to give them to a new master; 0 is none."
    CONNECT_TIMEOUT Process Duration "upstream.connect-timeout" [] "1s"
        "Longest time to resolve and connect to a node, and again for the handshake with it."
    REPLY_TIMEOUT Process Duration "upstream.reply-timeout" [] "60s"
        "Longest wait for a reply, save that of a command that blocks by itself."
    SUSPECT_AFTER Process Duration "upstream.suspect-after" [] "500ms"
        "A node that owes replies and is silent for so long is suspected; new commands are held."
    MAX_LEASED Process NumberOrAuto "upstream.max-leased" [] "auto"
        "Most connections, per worker, lent to one client each; auto: 512, or 4096 for all workers."
    IDLE_TIMEOUT Process Duration "upstream.idle-timeout" [] "60s"
        "A connection to a node that nobody uses for so long is closed, save those kept ready."
    SHUTDOWN_DRAIN_TIMEOUT Process Duration "shutdown.drain-timeout" [] "10s"
        "From SIGTERM until what is still in flight is abandoned."
    COMMANDS_REFUSE Process List "commands.refuse" [] ""
        "Commands to refuse besides those refused by default, such as flushall or config|set."
    COMMANDS_ALLOW Process List "commands.allow" [] ""
        "Commands to let through although they are refused by default."
    MASTER_NAME Group Text "master-name" ["--master-name"] "mymaster"
        "Name under which the Sentinels monitor the master."
    LISTEN Group List "listen" ["--listen"] "127.0.0.1:6379"
        "Addresses for clients: host:port, or unix: and a path."
    SENTINELS Group List "sentinels" ["--sentinel"] ""
        "Addresses of the Sentinels, host or host:port; port 26379 where none is given."
    SENTINEL_USERNAME Group Text "sentinel-username" [] ""
        "User of Switchman at the Sentinels; none is the default user."
    SENTINEL_PASSWORD Group Secret "sentinel-password" [] ""
        "Password of Switchman at the Sentinels."
    SENTINEL_PASSWORD_FILE Group Text "sentinel-password-file" [] ""
        "File with the password of Switchman at the Sentinels."
    MASTER Group Text "master" [] ""
        "A fixed master, host:port, for a Redis without Sentinels."
    REPLICAS Group List "replicas" [] ""
        "Fixed replicas of a fixed master."
    USERNAME Group Text "username" [] ""
        "User of Switchman itself at the nodes; none is the default user."
    PASSWORD Group Secret "password" [] ""
        "Password of Switchman itself at the nodes."
    PASSWORD_FILE Group Text "password-file" [] ""
        "File with the password of Switchman itself at the nodes."
    HOLD Group Text "hold" [] "auto"
        "How long commands wait for a writable master; auto follows down-after-milliseconds."
    STRICT_QUORUM Group Text "strict-quorum" [] "off"
        "Commands for the master wait when no majority of the Sentinels has answered for so long."
    DRAIN_TIMEOUT Group Duration "drain-timeout" [] "500ms"
        "From the first sign of a switch until what is in flight to the old master is abandoned."
    CONSISTENCY Group Text "consistency" [] "own-writes"
        "Which reads go to replicas: own-writes, eventual for all that may, master for none."
    SCRIPTS Group Text "scripts" [] "any"
        "Keys that a script may read and change: any, or only those that it has declared."
    SETTLE_INTERVAL Group Duration "settle-interval" [] "100ms"
        "Least time between two questions to one node about how far it is, for own-writes."
    NO_REPLICA Group Text "no-replica" [] "master"
        "Reads when no replica is healthy: to the master, or an error."
    REPLICA_FALLBACK_LIMIT Group NumberOrOff "replica-fallback-limit" [] "off"
        "Most reads per second that go to the master because no replica is healthy."
    SPREAD Group Text "spread" [] "client"
        "Whether each client keeps its replica (client), or each read may go to another (request)."
    REPLICA_CHOICE Group Text "replica-choice" [] "load"
        "Which replicas read: all by their load, or the nearest only, by how quickly they answer."
    REPLICA_WEIGHTS Group List "replica-weights" [] ""
        "Shares of replicas, each host:port=weight, 0 to 100; 100 where none is given."
    ZONE Group Text "zone" [] ""
        "The zone of this Switchman; replicas in the same zone are preferred."
    NODE_ZONES Group List "node-zones" [] ""
        "Zones of nodes that do not tell theirs (Valkey does), each host:port=zone."
    MAX_REPLICA_LAG Group Size "max-replica-lag" [] "off"
        "Bytes of replication by which a replica may be behind and serve reads."
    MAX_REPLICA_LAG_TIME Group Duration "max-replica-lag-time" [] "off"
        "How long ago a replica that serves reads may have had all that the master had."
    HEDGE_READS Group Text "hedge-reads" [] "off"
        "Whether a read that a replica does not answer in time is sent to another too: on or off."
}

keys! {
    /// The keys of one listener; they have no variables.
    LISTENER_KEYS;
    LISTENER_ADDRESS Listener Text "listener.address" [] ""
        "Address for clients: host:port, or unix: and a path."
    LISTENER_ROLE Listener Text "listener.role" [] "split"
        "What its clients see: split is a master whose reads replicas serve; or master, or replica."
    LISTENER_CONSISTENCY Listener Text "listener.consistency" [] ""
        "Which reads of its clients go to replicas; where it is not given, as the group says."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_variables_and_flags_are_unique() {
        for (at, key) in KEYS.iter().enumerate() {
            for other in KEYS.iter().skip(at + 1) {
                assert_ne!(key.path, other.path);
                assert_ne!(key.env(), other.env());
                assert!(key.flag.is_none() || key.flag != other.flag, "{}", key.path);
            }
            assert!(key.meaning.ends_with('.'), "{}", key.path);
            assert_eq!(find(key.path), Some(*key));
        }
    }

    #[test]
    fn variables_have_the_names_that_manifests_rely_on() {
        let names = [
            (&LISTEN, "SWITCHMAN_LISTEN"),
            (&SENTINELS, "SWITCHMAN_SENTINELS"),
            (&MASTER_NAME, "SWITCHMAN_MASTER_NAME"),
            (&ADMIN_LISTEN, "SWITCHMAN_ADMIN_LISTEN"),
            (&WORKERS, "SWITCHMAN_WORKERS"),
        ];
        for (key, name) in names {
            assert_eq!(key.env(), name);
        }
    }
}
