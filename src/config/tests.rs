//! Floor 6. Tests of the whole way from text to settings.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use crate::config::keys::{self, KEYS, Key, LISTENER_KEYS};
use crate::config::{
    ConfigErrors, Consistency, Discovery, Hold, Inputs, ListenerSettings, Loaded, NoReplica,
    Problem, ReplicaChoice, Spread, load,
};

/// What is loaded from a file with `text`, and these flags and variables.
fn load_with(
    text: &str,
    flags: &[(&'static Key, &str)],
    env: &[(&str, &str)],
) -> Result<Loaded, ConfigErrors> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    load(&Inputs {
        config: Some(file.path().to_owned()),
        flags: flags
            .iter()
            .map(|(key, value)| (*key, vec![(*value).to_owned()]))
            .collect(),
        env: env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
    })
}

/// The problems of a file with `text`: its lines and what is said of them.
fn problems(text: &str) -> Vec<String> {
    let errors = load_with(text, &[], &[]).expect_err("the file has mistakes");
    errors.problems.iter().map(place_free).collect()
}

/// A problem without the path of the temporary file.
fn place_free(problem: &Problem) -> String {
    let text = problem.to_string();
    text.split_once(':').map_or(text.clone(), |(path, rest)| {
        if path.starts_with('/') {
            rest.to_owned()
        } else {
            text.clone()
        }
    })
}

#[track_caller]
fn refused(text: &str, message: &str) {
    let problems = problems(text);
    assert!(
        problems.iter().any(|found| found == message),
        "{message}\nnot in\n{problems:#?}"
    );
}

#[test]
fn a_sidecar_needs_nothing_but_its_sentinels() {
    let inputs = Inputs {
        flags: vec![(&keys::SENTINELS, vec!["a,b:1".to_owned(), "c".to_owned()])],
        ..Inputs::default()
    };
    let Loaded {
        settings, warnings, ..
    } = load(&inputs).unwrap();
    assert_eq!(warnings, []);
    let [group] = settings.groups.as_slice() else {
        panic!("{settings:?}")
    };
    assert_eq!(group.master_name.as_str(), "mymaster");
    assert_eq!(group.listen[0].addr.to_string(), "127.0.0.1:6379");
    assert_eq!(
        (group.hold, group.consistency),
        (Hold::Auto, Consistency::OwnWrites)
    );
    assert_eq!(group.no_replica, NoReplica::Master);
    let Discovery::Sentinels {
        addrs,
        credentials: None,
    } = &group.discovery
    else {
        panic!("{group:?}")
    };
    assert_eq!(
        addrs.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["a:26379", "b:1", "c:26379"]
    );
    assert_eq!(settings.admin.listen.to_string(), "127.0.0.1:9379");
    assert_eq!(settings.limits.client_output_limit, 32 << 20);
    assert_eq!(settings.limits.script_cache, 4 << 20);
    assert_eq!(settings.upstream.suspect_after, Duration::from_millis(500));
}

#[test]
fn flags_beat_environment_beats_file_beats_default() {
    let text = "workers = 2\nhold = \"2s\"\n[log]\nlevel = \"warn\"\nformat = \"json\"\n\
                [[group]]\nsentinels = [\"f\"]\nhold = \"3s\"\nmaster-name = \"file\"\n";
    let flags = [(&keys::WORKERS, "4"), (&keys::MASTER_NAME, "flag")];
    let env = [
        ("SWITCHMAN_WORKERS", "3"),
        ("SWITCHMAN_LOG_LEVEL", "debug"),
        ("SWITCHMAN_MASTER_NAME", "env"),
        ("SWITCHMAN_LISTEN", ""),
        ("OTHER", "x"),
    ];
    let loaded = load_with(text, &flags, &env).unwrap();
    let settings = &loaded.settings;
    assert_eq!(settings.workers.get(), 4);
    assert_eq!(settings.log.level.to_string(), "debug");
    assert_eq!(settings.log.format.to_string(), "json");
    assert_eq!(settings.groups[0].master_name.as_str(), "flag");
    assert_eq!(settings.groups[0].hold, Hold::Fixed(Duration::from_secs(3)));
    let source = |path: &str| {
        let found = loaded
            .effective
            .iter()
            .find(|value| value.key == path)
            .unwrap();
        found.source.to_string()
    };
    assert_eq!(source("workers"), "--workers");
    assert_eq!(source("log.level"), "SWITCHMAN_LOG_LEVEL");
    assert!(source("log.format").ends_with(":5"));
    assert!(source("hold").ends_with(":8"));
    assert_eq!(source("listen"), "default");
}

#[test]
fn five_mistakes_give_five_messages_with_their_lines() {
    let found = problems(
        "wokers = 2\n[upstream]\nconnect-timeout = 500\nsuspect-after = \"2m\"\n\
         [[group]]\nlisten = [\"127.0.0.1\"]\nsentinels = [\"a\", \"b:0\"]\n",
    );
    assert_eq!(
        found,
        [
            "1: wokers: no such key; did you mean workers?",
            "3: upstream.connect-timeout: a time in quotes is needed, such as \"500ms\" or \"2s\"",
            "4: upstream.suspect-after: this must be shorter than upstream.reply-timeout",
            "6: listen of group \"mymaster\": \
             \"127.0.0.1\" has no port from 1 to 65535; write host:port",
            "7: sentinels of group \"mymaster\": \
             \"b:0\" has no port from 1 to 65535; write host:port",
        ]
    );
}

#[test]
fn groups_must_not_share_what_is_unique() {
    let text = "[[group]]\nsentinels = [\"a\"]\n\
                [[group]]\nsentinels = [\"a\"]\nlisten = [\"0.0.0.0:6379\", \"0.0.0.0:9379\"]\n";
    refused(
        text,
        "3: master-name of group \"mymaster\": \
         another group is called mymaster too; names must differ",
    );
    for (port, by) in [(6379, "listen"), (9379, "admin.listen")] {
        let taken = format!("0.0.0.0:{port} is taken by {by} 127.0.0.1:{port}; choose another");
        refused(text, &format!("5: listen of group \"mymaster\": {taken}"));
    }
}

/// The listeners of the only group: address, role and consistency of each.
fn listeners(text: &str, flags: &[(&'static Key, &str)]) -> Vec<String> {
    let loaded = load_with(text, flags, &[]).unwrap();
    let listen = loaded.settings.groups[0].listen.iter();
    let words = |it: &ListenerSettings| {
        let (role, consistency) = (it.role.word(), it.consistency.word());
        format!("{} {role} {consistency}", it.addr)
    };
    listen.map(words).collect()
}

#[test]
fn a_listener_may_have_a_role_and_a_consistency_of_its_own() {
    let tables = "[[group.listener]]\naddress = \"a:1\"\n\
                  [[group.listener]]\naddress = \"a:2\"\nrole = \"master\"\n\
                  [[group.listener]]\naddress = \"unix:/s\"\nrole = \"replica\"\n\
                  consistency = \"eventual\"\n";
    let want = [
        "a:1 split master",
        "a:2 master master",
        "unix:/s replica eventual",
    ];
    let group = "[[group]]\nsentinels = [\"s\"]\nconsistency = \"master\"\n";
    assert_eq!(listeners(&format!("{group}{tables}"), &[]), want);
    let plain = "a:9 split master";
    let with_plain = format!("{group}listen = [\"a:9\"]\n{tables}");
    let all: Vec<&str> = [plain].into_iter().chain(want).collect();
    assert_eq!(listeners(&with_plain, &[]), all);
    let alone = "sentinels = [\"s\"]\nconsistency = \"master\"\n".to_owned();
    let at_top = alone + &tables.replace("group.", "");
    assert_eq!(listeners(&at_top, &[]), want);
    assert_eq!(listeners(&at_top, &[(&keys::LISTEN, "a:9")]), all);
}

#[test]
fn what_is_in_force_names_each_listener_with_its_line() {
    let text = "sentinels = [\"s\"]\n[[listener]]\naddress = \"a:1\"\nrole = \"replica\"\n";
    let loaded = load_with(text, &[], &[]).unwrap();
    let shown = |path: &str| {
        let found = loaded.effective.iter().find(|it| it.key == path).unwrap();
        (found.value.clone(), found.source.to_string())
    };
    let (value, source) = shown("listener.address");
    assert!(
        value.starts_with("a:1 (role replica, consistency "),
        "{value}"
    );
    assert!(source.ends_with(":2"), "{source}");
    assert_eq!(shown("listen").0, "(none)");
}

#[test]
fn mistakes_in_listeners_are_told_with_their_lines() {
    let text = "[[group]]\nsentinels = [\"s\"]\nlisten = [\"127.0.0.1:1\"]\n\
                [[group.listener]]\nadress = \"a:1\"\n\
                [[group.listener]]\naddress = \"a\"\nrole = \"reader\"\n\
                [[group.listener]]\naddress = \"0.0.0.0:1\"\nrole = \"master\"\n\
                consistency = \"eventual\"\n\
                [[group.listener]]\naddress = \"a:2\"\nrole = \"replica\"\n\
                consistency = \"master\"\n";
    let found = problems(text);
    let of = "of group \"mymaster\"";
    let want = [
        "5: listener.adress: no such key; did you mean address?".to_owned(),
        format!("4: listener.address {of}: an address is needed: host:port, or unix: and a path"),
        format!("8: listener.role {of}: \"reader\" is not known; write split, master or replica"),
        format!(
            "10: listener.address {of}: \
             0.0.0.0:1 is taken by listen 127.0.0.1:1; choose another"
        ),
        format!(
            "12: listener.consistency {of}: eventual sends reads to replicas, which a listener of \
             the role master does not; leave this out"
        ),
        format!(
            "16: listener.consistency {of}: master sends no read to a replica, for which a \
             listener of the role replica is there; give it another consistency"
        ),
    ];
    for line in &want {
        assert!(found.contains(line), "{line}\nnot in\n{found:#?}");
    }
    assert!(
        found.iter().any(|it| it.starts_with("7: listener.address")),
        "{found:#?}"
    );
    assert_eq!(found.len(), want.len() + 1, "{found:#?}");
    refused(
        "[listener]\naddress = \"a:1\"\n",
        "1: listener: write [[listener]], in double brackets",
    );
    refused(
        "[[group]]\n[[group]]\nmaster-name = \"b\"\n[[listener]]\naddress = \"a:1\"\n",
        "4: listener: the file has 2 groups, and this cannot say which one it means; \
         write [[group.listener]] behind its [[group]]",
    );
}

#[test]
fn a_group_has_sentinels_or_a_master() {
    refused(
        "[[group]]\nsentinels = [\"a\"]\nmaster = \"b:1\"\n",
        "3: master of group \"mymaster\": sentinels are given too; \
         a group has either these or a fixed master",
    );
    refused(
        "[[group]]\nmaster-name = \"orders\"\n",
        "1: group \"orders\": there is neither a Sentinel nor a fixed master; \
         give --sentinel HOST:PORT, SWITCHMAN_SENTINELS, or sentinels or master in the file",
    );
    refused(
        "[[group]]\nsentinels = [\"a\"]\nreplicas = [\"b:1\"]\n",
        "3: replicas of group \"mymaster\": Sentinels know the replicas; \
         leave this out, or give master, not sentinels",
    );
    refused(
        "[[group]]\nsentinels = [\"a\", \"a:26379\"]\n",
        "2: sentinels of group \"mymaster\": a:26379 is given twice",
    );
    let text = "[[group]]\nmaster = \"m:1\"\nreplicas = [\"r:1\"]\n";
    let loaded = load_with(text, &[], &[]).unwrap();
    let Discovery::Static { master, replicas } = &loaded.settings.groups[0].discovery else {
        panic!("{loaded:?}")
    };
    assert_eq!((master.to_string(), replicas.len()), ("m:1".to_owned(), 1));
}

#[test]
fn flags_and_variables_cannot_mean_one_of_several_groups() {
    let text = "[[group]]\nsentinels = [\"a\"]\n\
                [[group]]\nsentinels = [\"a\"]\nmaster-name = \"b\"\nlisten = [\"127.0.0.1:2\"]\n";
    assert_eq!(load_with(text, &[], &[]).unwrap().settings.groups.len(), 2);
    let errors =
        load_with(text, &[(&keys::LISTEN, "a:1")], &[("SWITCHMAN_HOLD", "2s")]).unwrap_err();
    let said: Vec<String> = errors.problems.iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 2, "{said:#?}");
    assert!(
        said[0].starts_with("--listen: the file has 2 groups"),
        "{said:#?}"
    );
    assert!(
        said[1].starts_with("SWITCHMAN_HOLD: the file has 2 groups"),
        "{said:#?}"
    );
}

#[test]
fn group_keys_at_the_top_are_defaults_for_all_groups() {
    let text = "hold = \"7s\"\nsentinels = [\"s\"]\n\
                [[group]]\nmaster-name = \"a\"\n\
                [[group]]\nmaster-name = \"b\"\nlisten = [\"127.0.0.1:2\"]\nhold = \"8s\"\n";
    let groups = load_with(text, &[], &[]).unwrap().settings.groups;
    let holds: Vec<Hold> = groups.iter().map(|group| group.hold).collect();
    assert_eq!(
        holds,
        [7, 8].map(|secs| Hold::Fixed(Duration::from_secs(secs)))
    );
}

#[test]
fn secrets_come_from_files_and_are_never_shown() {
    let mut secret = tempfile::NamedTempFile::new().unwrap();
    secret.write_all(b"hunter2\n").unwrap();
    let path = secret.path().display();
    let text = format!(
        "[[group]]\nsentinels = [\"a\"]\nusername = \"u\"\npassword-file = \"{path}\"\n\
         sentinel-password = \"hunter3\"\n"
    );
    let loaded = load_with(&text, &[], &[]).unwrap();
    assert_eq!(loaded.warnings, []);
    let credentials = loaded.settings.groups[0].credentials.as_ref().unwrap();
    assert_eq!(
        (
            credentials.username.as_deref(),
            credentials.password.reveal()
        ),
        (Some("u"), "hunter2")
    );
    assert!(!format!("{loaded:?}").contains("hunter"));

    let public = std::fs::Permissions::from_mode(0o644);
    secret.as_file().set_permissions(public).unwrap();
    let warnings = load_with(&text, &[], &[]).unwrap().warnings;
    assert!(
        warnings[0].to_string().contains("chmod o-r"),
        "{warnings:?}"
    );
}

#[test]
fn half_a_login_is_refused() {
    let group = "[[group]]\nsentinels = [\"a\"]\n";
    refused(
        &format!("{group}username = \"u\"\n"),
        "3: username of group \"mymaster\": a user needs a password; \
         give password or password-file",
    );
    refused(
        &format!("{group}password = \"p\"\npassword-file = \"/p\"\n"),
        "4: password-file of group \"mymaster\": password is given too; \
         give password or password-file",
    );
    refused(
        &format!("{group}password-file = \"/no/such/file\"\n"),
        "3: password-file of group \"mymaster\": cannot read /no/such/file: \
         No such file or directory (os error 2)",
    );
}

#[test]
fn what_looks_like_a_mistake_is_a_warning() {
    let text =
        "[commands]\nrefuse = [\"flushal\", \"config|set\"]\n[[group]]\nsentinels = [\"a\"]\n";
    let env = [
        ("SWITCHMAN_SENTINEL", "a"),
        ("SWITCHMAN_SERVICE_HOST", "10.0.0.1"),
        ("SWITCHMAN_PORT", "tcp://10.0.0.1:6379"),
        ("SWITCHMAN_PORT_6379_TCP_ADDR", "10.0.0.1"),
    ];
    let warnings = load_with(text, &[], &env).unwrap().warnings;
    let said: Vec<String> = warnings.iter().map(place_free).collect();
    assert_eq!(
        said,
        [
            "SWITCHMAN_SENTINEL: no such variable; did you mean SWITCHMAN_SENTINELS?",
            "2: commands.refuse: \"flushal\" is no command of Redis; \
             a module's command, or misspelt?",
        ]
    );
}

#[test]
fn a_misspelt_variable_is_told_beside_what_it_causes() {
    let env = vec![("SWITCHMAN_SENTINEL".to_owned(), "a".to_owned())];
    let errors = load(&Inputs {
        env,
        ..Inputs::default()
    })
    .unwrap_err();
    assert!(
        errors.problems[0]
            .to_string()
            .contains("neither a Sentinel"),
        "{errors}"
    );
    assert!(
        errors.warnings[0]
            .to_string()
            .contains("SWITCHMAN_SENTINELS"),
        "{errors:?}"
    );
}

#[test]
fn a_file_that_is_not_there_is_named_and_nothing_else() {
    let inputs = Inputs {
        config: Some("/no/such/file".into()),
        ..Inputs::default()
    };
    let said = load(&inputs).unwrap_err().to_string();
    assert!(
        said.starts_with("--config: cannot read /no/such/file"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
}

/// Lines of the documented file that hold a key or a section, without their `# `.
fn documented() -> Vec<String> {
    let text = include_str!("../../config/switchman.toml");
    let is_code = |line: &&str| {
        line.starts_with('[')
            || line
                .split_once(" = ")
                .is_some_and(|(name, _)| !name.contains(' '))
    };
    text.lines()
        .filter_map(|line| line.strip_prefix("# "))
        .filter(is_code)
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_documented_file_says_nothing_but_defaults() {
    let text = include_str!("../../config/switchman.toml");
    let loaded = load_with(text, &[(&keys::SENTINELS, "a")], &[]).unwrap();
    assert_eq!(loaded.warnings, []);

    let mut section = String::new();
    let mut found = Vec::new();
    for line in documented() {
        if line.starts_with('[') {
            let name = line.trim_matches(['[', ']']).replace("group", "");
            name.trim_start_matches('.').clone_into(&mut section);
            continue;
        }
        let (name, value) = line.split_once(" = ").unwrap();
        let path = if section.is_empty() {
            name.to_owned()
        } else {
            format!("{section}.{name}")
        };
        let key = keys::find(&path).unwrap_or_else(|| panic!("{path} is no key"));
        if !key.default.is_empty() {
            let plain = value.trim_matches(['[', ']']).replace('"', "");
            assert_eq!(plain, key.default, "{path}");
        }
        found.push(key.path);
    }
    let known = KEYS.iter().chain(LISTENER_KEYS).map(|key| key.path);
    let known: Vec<&str> = known.collect();
    assert_eq!(found, known, "each key once, in the order of the table");
}

#[test]
fn the_documented_file_is_right_when_its_defaults_are_uncommented() {
    let one_way = |line: &&String| {
        !["master = ", "replicas = "]
            .iter()
            .any(|key| line.starts_with(key))
            && !line.ends_with("\"\"")
    };
    let text: Vec<String> = documented().iter().filter(one_way).cloned().collect();
    let loaded = load_with(&text.join("\n"), &[], &[]).unwrap();
    assert_eq!(loaded.warnings, []);
}

#[test]
fn leased_connections_are_shared_out_among_many_workers() {
    let leased = |text: &str| {
        let loaded = load_with(text, &[], &[]).unwrap();
        let shown = loaded
            .effective
            .iter()
            .find(|it| it.key == "upstream.max-leased");
        let shown = shown.unwrap().value.clone();
        (loaded.settings.upstream.max_leased.get(), shown)
    };
    let text = |workers: usize, more: &str| {
        format!("sentinels = [\"a\"]\nworkers = {workers}\n[upstream]\n{more}")
    };
    for (workers, want) in [(1, 512), (8, 512), (20, 204), (1024, 4)] {
        let (each, shown) = leased(&text(workers, ""));
        assert_eq!(each, want, "{workers} workers");
        assert_eq!(shown, format!("{want} (at most 4096 for all workers)"));
    }
    let given = leased(&text(20, "max-leased = 700\n"));
    assert_eq!(given, (700, "700".to_owned()));
    refused(
        "[upstream]\nmax-leased = 0\n",
        "2: upstream.max-leased: 0 is out of bounds; give 1 to 100000, or auto",
    );
}

#[test]
fn how_replicas_are_chosen_is_read_from_a_group() {
    let text = "sentinels = [\"a\"]\nreplica-fallback-limit = 500\nspread = \"request\"\n\
                replica-choice = \"nearest\"\nreplica-weights = [\"r:6379=0\"]\nzone = \"a\"\n\
                node-zones = [\"r:6379=b\"]\nmax-replica-lag = \"1MiB\"\n\
                max-replica-lag-time = \"5s\"\n";
    let replicas = load_with(text, &[], &[])
        .unwrap()
        .settings
        .groups
        .remove(0)
        .replicas;
    let node: crate::types::NodeAddr = "r:6379".parse().unwrap();
    assert_eq!(replicas.fallback_limit, Some(500));
    assert_eq!(replicas.spread, Spread::Request);
    assert_eq!(replicas.choice, ReplicaChoice::Nearest);
    assert_eq!(replicas.weights, [(node.clone(), 0)]);
    assert_eq!(replicas.zone.as_deref(), Some("a"));
    assert_eq!(replicas.node_zones, [(node, "b".to_owned())]);
    assert_eq!(replicas.max_lag, Some(1 << 20));
    assert_eq!(replicas.max_lag_time, Some(Duration::from_secs(5)));
    refused(
        "sentinels = [\"a\"]\nreplica-weights = [\"r:1=1\", \"r:1=2\"]\n",
        "2: replica-weights of group \"mymaster\": r:1 is given twice",
    );
}
