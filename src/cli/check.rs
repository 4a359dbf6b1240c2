//! Floor 7. `switchman check`: what is wrong with the configuration, or what is in force.

use std::process::ExitCode;

use crate::cli::{EXIT_USAGE, Out};
use crate::config::{self, Effective, Inputs, Loaded, Problem};

/// Loads the settings, telling every mistake and every warning on standard error. The error is the
/// exit code.
pub fn load(inputs: &Inputs) -> Result<Loaded, ExitCode> {
    match config::load(inputs) {
        Ok(loaded) => {
            tell("warning", &loaded.warnings);
            Ok(loaded)
        }
        Err(errors) => {
            tell("error", &errors.problems);
            tell("warning", &errors.warnings);
            Err(ExitCode::from(EXIT_USAGE))
        }
    }
}

/// Checks the configuration and prints what is in force and where it came from.
pub fn check(inputs: &Inputs) -> ExitCode {
    match load(inputs) {
        Ok(loaded) => {
            for line in table(&loaded.effective) {
                Out::Stdout.line(line);
            }
            ExitCode::SUCCESS
        }
        Err(code) => code,
    }
}

fn tell(severity: &str, problems: &[Problem]) {
    for problem in problems {
        Out::Stderr.line(format_args!("{severity}: {problem}"));
    }
}

/// Key, value and source in columns; each group below its name.
fn table(effective: &[Effective]) -> Vec<String> {
    let width = |text: fn(&Effective) -> &str| {
        effective
            .iter()
            .map(|row| text(row).chars().count())
            .max()
            .unwrap_or(0)
    };
    let (keys, values) = (width(|row| row.key), width(|row| &row.value));
    let mut lines = Vec::new();
    let mut group = &None;
    for row in effective {
        if let Some(name) = row.group.as_ref().filter(|_| row.group != *group) {
            lines.push(String::new());
            lines.push(format!("group {name}"));
        }
        group = &row.group;
        lines.push(format!(
            "{:keys$}  {:values$}  {}",
            row.key, row.value, row.source
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys;

    #[test]
    fn what_is_in_force_is_told_with_its_source_and_without_secrets() {
        let inputs = Inputs {
            flags: vec![(&keys::SENTINELS, vec!["a".to_owned()])],
            env: vec![("SWITCHMAN_PASSWORD".to_owned(), "hunter2".to_owned())],
            ..Inputs::default()
        };
        let lines = table(&config::load(&inputs).unwrap().effective);
        let words = |line: &str| {
            line.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let has = |want: &[&str]| lines.iter().any(|line| words(line) == want);
        assert!(has(&["log.format", "text", "default"]), "{lines:#?}");
        assert!(has(&["group", "mymaster"]), "{lines:#?}");
        assert!(has(&["sentinels", "a", "--sentinel"]), "{lines:#?}");
        assert!(
            has(&["password", "(hidden)", "SWITCHMAN_PASSWORD"]),
            "{lines:#?}"
        );
        assert_eq!(lines.len(), keys::KEYS.len() + 2);
        assert!(!lines.concat().contains("hunter2"));
    }
}
