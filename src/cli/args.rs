//! Floor 7. What was typed → what to do. Values are checked by `config`, with the file's.

use std::ffi::OsString;
use std::fmt;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::cli::EXIT_USAGE;
use crate::config::Inputs;
use crate::config::keys::{self, Key};
use crate::demo::story::{Colour, DemoOptions};
use crate::types::{NodeAddr, Secret};

/// What to do.
#[derive(Clone, Debug)]
pub enum Command {
    /// Serve clients.
    Run(Inputs),
    /// Say what is wrong with the configuration, or what is in force.
    Check(Inputs),
    /// Show what a running Switchman sees.
    Status(StatusArgs),
    /// Fail over without losing a write.
    Switchover(SwitchoverArgs),
    /// Show a failover.
    Demo(DemoOptions),
}

/// Arguments of `status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusArgs {
    /// Admin address of the running Switchman.
    pub admin: NodeAddr,
    /// How to print.
    pub print: Print,
    /// When to succeed.
    pub demand: Demand,
}

/// When `status` succeeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// When Switchman answers.
    Answer,
    /// When besides it is ready, as `/readyz` says: for health checks without an HTTP client.
    Ready,
}

/// Arguments of `switchover`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwitchoverArgs {
    /// Admin address of the running Switchman.
    pub admin: NodeAddr,
    /// The group; it need not be named where there is only one.
    pub master_name: Option<String>,
    /// Where the token is.
    pub token: Token,
}

/// Where the token for orders is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// In this file.
    File(PathBuf),
    /// Here.
    Given(Secret),
    /// Nowhere.
    None,
}

/// How `status` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Print {
    /// For people.
    Table,
    /// As the admin server sent it.
    Json,
}

/// A command line that cannot be obeyed, or that only asks for help.
pub struct Misuse(clap::Error);

/// Reads `args`, the program's name first, and the environment `env`.
pub fn parse(
    args: impl IntoIterator<Item = OsString>,
    env: Vec<(String, String)>,
) -> Result<Command, Misuse> {
    let typed = Typed::try_parse_from(args).map_err(Misuse)?;
    Ok(match typed.command.unwrap_or(Subcommands::Run(typed.run)) {
        Subcommands::Run(flags) => Command::Run(flags.into_inputs(env)),
        Subcommands::Check(flags) => Command::Check(flags.into_inputs(env)),
        Subcommands::Status(status) => Command::Status(StatusArgs {
            admin: status
                .admin
                .map_or_else(|| admin_of(&env), Ok)
                .map_err(Misuse)?,
            print: if status.json {
                Print::Json
            } else {
                Print::Table
            },
            demand: if status.ready {
                Demand::Ready
            } else {
                Demand::Answer
            },
        }),
        Subcommands::Switchover(switchover) => Command::Switchover(SwitchoverArgs {
            admin: switchover
                .admin
                .map_or_else(|| admin_of(&env), Ok)
                .map_err(Misuse)?,
            master_name: switchover.master_name,
            token: switchover
                .token_file
                .map_or_else(|| token_of(&env), Token::File),
        }),
        Subcommands::Demo(demo) => Command::Demo(demo.into_options()),
    })
}

/// The environment of this process. A value that is no UTF-8 shows its faulty parts as `U+FFFD`,
/// and is refused for it if it matters.
pub fn environment() -> Vec<(String, String)> {
    let text = |text: OsString| text.to_string_lossy().into_owned();
    std::env::vars_os()
        .map(|(name, value)| (text(name), text(value)))
        .collect()
}

impl Misuse {
    /// Prints the message or the help, and gives the exit code.
    pub fn report(&self) -> ExitCode {
        // A terminal that is gone cannot be told so.
        let _ = self.0.print();
        ExitCode::from(self.code())
    }

    fn code(&self) -> u8 {
        if self.0.use_stderr() { EXIT_USAGE } else { 0 }
    }
}

impl fmt::Debug for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A Sentinel-aware Redis proxy: one fixed address for clients that know nothing of Sentinel.
#[derive(Debug, Parser)]
#[command(name = "switchman", version, args_conflicts_with_subcommands = true)]
#[command(after_help = "Every setting: switchman --help", after_long_help = all_settings())]
struct Typed {
    #[command(flatten)]
    run: Flags,
    #[command(subcommand)]
    command: Option<Subcommands>,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// Serve clients; the default.
    Run(Flags),
    /// Check the configuration and show what is in force, and where it came from.
    Check(Flags),
    /// Show what a running Switchman sees.
    Status(Status),
    /// Fail over to another master as planned, without losing a write.
    Switchover(Switchover),
    /// Start Redis nodes and Sentinels on loopback, Switchman before them, and show a failover.
    Demo(Demo),
}

#[derive(Debug, Args)]
struct Demo {
    /// Length of each scene in which nothing breaks
    #[arg(long, value_name = "SECONDS", default_value_t = 4,
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Show it in a hurry: scenes of one second
    #[arg(long, conflicts_with = "seconds")]
    fast: bool,
    /// The Redis server to use; a bare name is looked for in PATH
    #[arg(long, value_name = "FILE", default_value = "redis-server")]
    redis_server: PathBuf,
}

impl Demo {
    fn into_options(self) -> DemoOptions {
        let seconds = if self.fast { 1 } else { self.seconds };
        DemoOptions {
            quiet: Duration::from_secs(seconds),
            colour: if std::io::stdout().is_terminal() {
                Colour::Always
            } else {
                Colour::Never
            },
            redis_server: self.redis_server,
            ..DemoOptions::default()
        }
    }
}

#[derive(Debug, Args)]
struct Flags {
    #[arg(
        long,
        value_name = "FILE",
        help = "File with the configuration. [env: SWITCHMAN_CONFIG]"
    )]
    config: Option<PathBuf>,
    #[arg(long, value_name = "ADDR", help = help(&keys::LISTEN))]
    listen: Vec<String>,
    #[arg(long, value_name = "ADDR,…", help = help(&keys::SENTINELS))]
    sentinel: Vec<String>,
    #[arg(long, value_name = "NAME", help = help(&keys::MASTER_NAME))]
    master_name: Option<String>,
    #[arg(long, value_name = "ADDR", help = help(&keys::ADMIN_LISTEN))]
    admin_listen: Option<String>,
    #[arg(long, value_name = "N", help = help(&keys::WORKERS))]
    workers: Option<String>,
    #[arg(long, value_name = "FORMAT", help = help(&keys::LOG_FORMAT))]
    log_format: Option<String>,
    #[arg(long, value_name = "LEVEL", help = help(&keys::LOG_LEVEL))]
    log_level: Option<String>,
}

#[derive(Debug, Args)]
struct Status {
    #[arg(long, value_name = "ADDR", value_parser = clap::value_parser!(NodeAddr),
          help = admin_help())]
    admin: Option<NodeAddr>,
    /// Print JSON as the admin server sends it
    #[arg(long)]
    json: bool,
    /// Exit with 1 unless it is ready, as /readyz says; for health checks
    #[arg(long)]
    ready: bool,
}

#[derive(Debug, Args)]
struct Switchover {
    /// Its admin address [env: `SWITCHMAN_ADMIN_LISTEN`] [default: 127.0.0.1:9379]
    #[arg(long, value_name = "ADDR", value_parser = clap::value_parser!(NodeAddr))]
    admin: Option<NodeAddr>,
    /// The group, where there are several
    #[arg(long, value_name = "NAME")]
    master_name: Option<String>,
    /// File with its admin.token [env: `SWITCHMAN_ADMIN_TOKEN_FILE`, `SWITCHMAN_ADMIN_TOKEN`]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl Flags {
    fn into_inputs(self, env: Vec<(String, String)>) -> Inputs {
        let one = |value: Option<String>| value.into_iter().collect();
        let flags: [(&'static Key, Vec<String>); 7] = [
            (&keys::LISTEN, self.listen),
            (&keys::SENTINELS, self.sentinel),
            (&keys::MASTER_NAME, one(self.master_name)),
            (&keys::ADMIN_LISTEN, one(self.admin_listen)),
            (&keys::WORKERS, one(self.workers)),
            (&keys::LOG_FORMAT, one(self.log_format)),
            (&keys::LOG_LEVEL, one(self.log_level)),
        ];
        let flags = flags
            .into_iter()
            .filter(|(_, values)| !values.is_empty())
            .collect();
        Inputs {
            config: self.config,
            flags,
            env,
        }
    }
}

fn help(key: &Key) -> String {
    let default = match key.default {
        "" => String::new(),
        default => format!(" [default: {default}]"),
    };
    format!("{} [env: {}]{default}", key.meaning, key.env())
}

fn admin_help() -> String {
    let Key { default, .. } = keys::ADMIN_LISTEN;
    let env = keys::ADMIN_LISTEN.env();
    format!("Its admin address. [env: {env}] [default: {default}]")
}

fn all_settings() -> String {
    format!(
        "Every setting, as it is called in the file, with its variable:\n\n{}",
        keys::reference()
    )
}

/// The value of a key in this environment.
fn given<'a>(env: &'a [(String, String)], key: &Key) -> Option<&'a str> {
    let name = key.env();
    let mut given = env.iter().filter(|(_, value)| !value.is_empty());
    given
        .find(|(known, _)| *known == name)
        .map(|(_, value)| value.as_str())
}

/// The token that the Switchman of this environment has.
fn token_of(env: &[(String, String)]) -> Token {
    let file = given(env, &keys::ADMIN_TOKEN_FILE).map(|path| Token::File(path.into()));
    let here = given(env, &keys::ADMIN_TOKEN).map(|token| Token::Given(Secret::new(token)));
    file.or(here).unwrap_or(Token::None)
}

/// Where the Switchman of this environment listens for operators.
fn admin_of(env: &[(String, String)]) -> Result<NodeAddr, clap::Error> {
    let name = keys::ADMIN_LISTEN.env();
    let text = given(env, &keys::ADMIN_LISTEN).unwrap_or(keys::ADMIN_LISTEN.default);
    text.parse().map_err(|error| {
        clap::Error::raw(
            clap::error::ErrorKind::ValueValidation,
            format!("{name}: {error}\n"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::KEYS;

    fn parse_line(line: &str) -> Result<Command, Misuse> {
        let args = std::iter::once("switchman").chain(line.split_whitespace());
        parse(args.map(OsString::from), Vec::new())
    }

    #[test]
    fn run_is_what_happens_without_a_subcommand() {
        let line = "--sentinel a,b --sentinel c --listen 127.0.0.1:1 --workers 2";
        for line in [line.to_owned(), format!("run {line}")] {
            let Ok(Command::Run(inputs)) = parse_line(&line) else {
                panic!("{line}")
            };
            let flags: Vec<_> = inputs
                .flags
                .iter()
                .map(|(key, v)| (key.path, v.join("|")))
                .collect();
            assert_eq!(
                flags,
                [
                    ("listen", "127.0.0.1:1".to_owned()),
                    ("sentinels", "a,b|c".to_owned()),
                    ("workers", "2".to_owned()),
                ]
            );
        }
    }

    #[test]
    fn every_flag_of_the_key_table_exists() {
        for key in KEYS {
            if let Some(flag) = key.flag {
                let Ok(Command::Check(inputs)) = parse_line(&format!("check {flag} x")) else {
                    panic!("{flag}")
                };
                assert_eq!(inputs.flags, [(*key, vec!["x".to_owned()])]);
            }
        }
    }

    #[test]
    fn misuse_exits_with_64_and_help_with_0() {
        for line in [
            "--listne x",
            "--workers",
            "nonsense",
            "status --admin nowhere",
        ] {
            assert_eq!(parse_line(line).unwrap_err().code(), 64, "{line}");
        }
        for line in ["--help", "--version", "check --help"] {
            assert_eq!(parse_line(line).unwrap_err().code(), 0, "{line}");
        }
    }

    #[test]
    fn status_asks_the_switchman_of_its_environment() {
        let status = |line: &str, value: &str| {
            let args = ["switchman", "status"]
                .into_iter()
                .chain(line.split_whitespace());
            let env = vec![("SWITCHMAN_ADMIN_LISTEN".to_owned(), value.to_owned())];
            match parse(args.map(OsString::from), env) {
                Ok(Command::Status(status)) => status.admin.to_string(),
                other => format!("{other:?}"),
            }
        };
        assert_eq!(status("", ""), "127.0.0.1:9379");
        assert_eq!(status("", "h:1"), "h:1");
        assert_eq!(status("--admin g:2", "h:1"), "g:2");
        assert!(status("", "h").contains("SWITCHMAN_ADMIN_LISTEN"));
    }

    #[test]
    fn a_token_is_taken_from_a_file_or_from_the_environment() {
        let token = |line: &str, env: &[(&str, &str)]| {
            let args = ["switchman", "switchover"]
                .into_iter()
                .chain(line.split_whitespace());
            let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            match parse(args.map(OsString::from), env.iter().map(own).collect()) {
                Ok(Command::Switchover(args)) => args.token,
                other => panic!("{other:?}"),
            }
        };
        let (here, file) = (
            ("SWITCHMAN_ADMIN_TOKEN", "t"),
            ("SWITCHMAN_ADMIN_TOKEN_FILE", "/f"),
        );
        assert_eq!(token("", &[]), Token::None);
        assert_eq!(token("", &[here]), Token::Given(Secret::new("t")));
        assert_eq!(token("", &[file]), Token::File("/f".into()));
        assert_eq!(token("--token-file /g", &[here]), Token::File("/g".into()));
    }

    #[test]
    fn long_help_lists_every_key_with_its_variable() {
        let help = format!("{:?}", parse_line("--help").unwrap_err());
        for key in KEYS {
            assert!(
                help.contains(key.path) && help.contains(&key.env()),
                "{}",
                key.path
            );
        }
    }
}
