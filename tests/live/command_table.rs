//! The built-in command table against what a real server says of itself.

use switchman::command::Described;
use switchman::command::Flags;
use switchman::command::Table;
use switchman::demo::client::Reply;
use switchman::demo::deployment::Deployment;
use switchman::demo::deployment::DeploymentError;
use switchman::demo::deployment::Plan;

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

/// Arities that the table has from younger servers, and what they were before.
const FORMER_ARITIES: [(&str, i64); 4] = [
    ("zrank", 3),
    ("zrevrank", 3),
    ("command|getkeys", -4),
    ("command|getkeysandflags", -4),
];

/// The flags that all servers tell alike.
///
/// `may_replicate` is not in the reply of Redis 7.0; blocking commands were `noscript` until 7.2,
/// and `WAIT` was not called blocking.
fn comparable(flags: Flags, name: &str) -> Vec<&'static str> {
    let blocking = Table::builtin()
        .get(name)
        .is_some_and(|spec| spec.flags.contains(Flags::BLOCKING));
    let told = Flags::WORDS.iter().filter(|(word, flag)| {
        let varies = match *word {
            "may_replicate" => true,
            "noscript" => blocking,
            "blocking" => name == "wait",
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
        let name = said.name.as_str();
        let ours = table
            .get(name)
            .unwrap_or_else(|| panic!("{name} is not in the table"));
        let arity = i64::from(ours.arity);
        let former = FORMER_ARITIES.contains(&(name, said.arity));
        assert!(
            arity == said.arity || former,
            "{name}: {arity}, not {}",
            said.arity
        );
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
    let overlaid = builtin.overlay(&commands_of_a_server().unwrap());
    assert_eq!(overlaid.specs().len(), builtin.specs().len());
    for spec in overlaid.specs() {
        let before = builtin.get(&spec.name).unwrap();
        assert_eq!(spec.class, before.class, "{}", spec.name);
    }
    assert_eq!(overlaid.get("zrank").unwrap().arity, 3);
}
