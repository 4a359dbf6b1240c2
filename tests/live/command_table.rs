//! The built-in command table against what a real server says of itself.

use switchman::command::Described;
use switchman::command::Flags;
use switchman::command::Table;
use switchman::demo::client::Reply;
use switchman::demo::deployment::Deployment;
use switchman::demo::deployment::DeploymentError;
use switchman::demo::deployment::Plan;

use crate::version::is_before_7;

/// The commands that a server describes, as `COMMAND` gives them.
fn commands_of_a_server() -> Result<Vec<Described>, DeploymentError> {
    let alone = Plan {
        replicas: 0,
        sentinels: 0,
        ..Plan::default()
    };
    let deployment = Deployment::start(&alone)?;
    let reply = deployment.node(0).command(&["COMMAND"])?;
    Ok(reply.items().iter().filter_map(described).collect())
}

/// One element of a `COMMAND` reply.
fn described(reply: &Reply) -> Option<Described> {
    let [name, arity, flags, first, last, step, rest @ ..] = reply.items() else {
        return None;
    };
    let subcommands = rest.get(3).map(Reply::items).unwrap_or_default();
    Some(Described {
        name: name.text()?,
        arity: arity.int()?,
        flags: flags.items().iter().filter_map(Reply::text).collect(),
        first_key: first.int()?,
        last_key: last.int()?,
        step: step.int()?,
        subcommands: subcommands.iter().filter_map(described).collect(),
    })
}

/// Arities that the table has from younger servers, and what they were before; or from older ones,
/// and what they are since.
const OTHER_ARITIES: [(&str, i64); 12] = [
    ("cluster|replicate", -3),
    ("command|getkeys", -4),
    ("command|getkeysandflags", -4),
    ("expire", 3),
    ("expireat", 3),
    ("pexpire", 3),
    ("pexpireat", 3),
    ("pfdebug", -3),
    ("script|debug", -3),
    ("xsetid", 3),
    ("zrank", 3),
    ("zrevrank", 3),
];

/// Commands of Redis 6.2 that went with 7.0, and words that it tells as if they were commands.
const FORMER: [&str; 3] = ["stralgo", "post", "host:"];

/// Whether this is the arity of the table, or one that another server may tell. Those of vector
/// sets, which are a module's, are told as "any" by Redis 8.0.
fn is_arity(name: &str, ours: i64, said: i64) -> bool {
    let of_vectors = name.starts_with('v') && said == -1;
    ours == said || of_vectors || OTHER_ARITIES.contains(&(name, said))
}

/// The flags that all servers tell alike.
///
/// `may_replicate` is not in the reply of Redis 7.0; blocking commands were `noscript` until 7.2,
/// and `WAIT` was not called blocking. Expiring fields takes no memory before Redis 8.2. Valkey has
/// commands that are refused in transactions, and some that a busy server takes, of its own. What
/// 7.0 told first is not asked of older ones.
fn comparable(flags: Flags, name: &str) -> Vec<&'static str> {
    let blocking = Table::builtin()
        .get(name)
        .is_some_and(|spec| spec.flags.contains(Flags::BLOCKING));
    let told = Flags::WORDS.iter().filter(|(word, flag)| {
        let varies = match *word {
            "may_replicate" => true,
            "noscript" => blocking,
            "blocking" => name == "wait" || is_before_7(),
            "denyoom" => ["hexpire", "hpexpire", "hexpireat", "hpexpireat"].contains(&name),
            "no_multi" => ["multi", "watch", "client|reply"].contains(&name) || is_before_7(),
            "allow_busy" => name == "select" || name.starts_with("client|") || is_before_7(),
            "no_auth" => is_before_7(),
            _ => false,
        };
        flags.contains(*flag) && !varies
    });
    told.map(|(word, _)| *word).collect()
}

#[test]
fn the_built_in_table_is_what_a_server_says() {
    let table = Table::builtin();
    let commands = commands_of_a_server().unwrap();
    assert!(commands.len() > 200, "{} commands", commands.len());
    for said in commands
        .iter()
        .flat_map(|command| [command].into_iter().chain(&command.subcommands))
    {
        let name = &said.name.to_lowercase();
        let name = name.as_str();
        if is_before_7() && FORMER.contains(&name) {
            continue;
        }
        let ours = table
            .get(name)
            .unwrap_or_else(|| panic!("{name} is not in the table"));
        let arity = i64::from(ours.arity);
        let alike = is_arity(name, arity, said.arity);
        assert!(alike, "{name}: {arity}, not {}", said.arity);
        if is_before_7() && ours.flags.contains(Flags::CONTAINER) {
            // It has the flags of all its subcommands there.
            continue;
        }
        let flags = Flags::from_words(said.flags.iter().map(String::as_str));
        assert_eq!(
            comparable(ours.flags, name),
            comparable(flags, name),
            "{name}"
        );
    }
}

#[test]
fn a_servers_description_of_known_commands_changes_no_class() {
    let builtin = Table::builtin();
    let told = commands_of_a_server().unwrap();
    let overlaid = builtin.overlay(&told);
    assert_eq!(overlaid.is_before_7(), is_before_7());
    let mut known: Vec<_> = overlaid.specs().iter().collect();
    known.retain(|spec| !FORMER.contains(&spec.name.as_ref()));
    assert_eq!(known.len(), builtin.specs().len());
    for spec in known {
        let before = builtin.get(&spec.name).unwrap();
        assert_eq!(spec.class, before.class, "{}", spec.name);
    }
    let of_server = told.iter().find(|it| it.name == "zrank").unwrap().arity;
    assert_eq!(i64::from(overlaid.get("zrank").unwrap().arity), of_server);
}
