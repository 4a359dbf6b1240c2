//! Floor 6. The file, the environment and the flags, read and handed to the check.
//! The only file of this module that touches the file system.

use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::available_parallelism;

use crate::config::check::{Findings, SecretFile, Surroundings, check};
use crate::config::keys::{KEYS, Key};
use crate::config::layers::{Given, Layer, Layers};
use crate::config::suggest::nearest;
use crate::config::{ConfigErrors, Loaded, Problem, Source, document};

/// Start of the names of our environment variables.
const PREFIX: &str = "SWITCHMAN_";
/// The variable that names the file.
const CONFIG_ENV: &str = "SWITCHMAN_CONFIG";
/// Bits of a file's mode that let everybody read it.
const OTHERS_READ: u32 = 0o004;

/// What the person or the manifest said.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// The value of `--config`.
    pub config: Option<PathBuf>,
    /// Flags that were given, by their key, each with its values in order.
    pub flags: Vec<(&'static Key, Vec<String>)>,
    /// The environment; other variables than ours are skipped.
    pub env: Vec<(String, String)>,
}

/// Settings from flags over environment over file over defaults.
pub fn load(inputs: &Inputs) -> Result<Loaded, ConfigErrors> {
    let mut findings = Findings::default();
    let mut layers = Layers {
        flags: flags(inputs),
        ..Layers::default()
    };
    let mut config = inputs
        .config
        .clone()
        .map(|path| (path, Source::Flag("--config")));
    for (name, value) in inputs.env.iter().filter(|(_, value)| !value.is_empty()) {
        let source = Source::Env(name.clone());
        if name == CONFIG_ENV {
            config.get_or_insert_with(|| (PathBuf::from(value), source));
        } else if let Some(key) = KEYS.iter().find(|key| key.env() == *name) {
            layers.env.insert(key, Given::from_text(key, value, source));
        } else if name.starts_with(PREFIX) && !is_service_variable(name) {
            findings.warnings.push(unknown_variable(name, source));
        }
    }
    if let Some((path, source)) = config {
        match read(&path) {
            Ok(SecretFile { text, public }) => match document::read(&Arc::from(path), &text) {
                Ok((mut file, problems)) => {
                    file.public = public;
                    findings.problems.extend(problems);
                    layers.file = Some(file);
                }
                Err(problems) => {
                    let warnings = findings.warnings;
                    return Err(ConfigErrors { problems, warnings });
                }
            },
            Err(error) => {
                let problem = format!("cannot read {}: {error}", path.display());
                let problem = Problem {
                    source,
                    key: "config".to_owned(),
                    problem,
                };
                // What it might have said is not missed on top of that.
                return Err(ConfigErrors {
                    problems: vec![problem],
                    warnings: findings.warnings,
                });
            }
        }
    }
    let processors = available_parallelism().unwrap_or(NonZeroUsize::MIN);
    check(
        &layers,
        &Surroundings {
            processors,
            read: &read,
        },
        findings,
    )
}

fn flags(inputs: &Inputs) -> Layer {
    let mut layer = Layer::default();
    for (key, values) in &inputs.flags {
        let source = Source::Flag(key.flag.unwrap_or(key.path));
        layer.insert(key, Given::from_text(key, &values.join(","), source));
    }
    layer
}

/// Kubernetes describes each Service to each container by variables such as
/// `SWITCHMAN_SERVICE_HOST`, `SWITCHMAN_PORT` and `SWITCHMAN_PORT_6379_TCP_ADDR`.
fn is_service_variable(name: &str) -> bool {
    name.contains("_SERVICE_") || name.ends_with("_PORT") || name.contains("_PORT_")
}

fn unknown_variable(name: &str, source: Source) -> Problem {
    let known: Vec<String> = KEYS
        .iter()
        .map(|key| key.env())
        .chain([CONFIG_ENV.to_owned()])
        .collect();
    let remedy = match nearest(name, known.iter().map(String::as_str)) {
        Some(meant) => format!("did you mean {meant}?"),
        None => "switchman --help lists all".to_owned(),
    };
    Problem {
        source,
        key: name.to_owned(),
        problem: format!("no such variable; {remedy}"),
    }
}

fn read(path: &Path) -> io::Result<SecretFile> {
    let public = fs::metadata(path)?.permissions().mode() & OTHERS_READ != 0;
    Ok(SecretFile {
        text: fs::read_to_string(path)?,
        public,
    })
}
