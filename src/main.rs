//! Floor 8. The process: what was asked for, and the exit code.

use std::process::ExitCode;

use switchman::cli::{self, Command, Out};
use switchman::{app, demo};

fn main() -> ExitCode {
    let env = cli::environment();
    match cli::parse(std::env::args_os(), env) {
        Ok(Command::Run(inputs)) => match cli::load(&inputs) {
            Ok(loaded) => finish(app::run(&loaded)),
            Err(code) => code,
        },
        Ok(Command::Check(inputs)) => cli::check(&inputs),
        Ok(Command::Status(args)) => cli::status(&args),
        Ok(Command::Switchover(args)) => cli::switchover(&args),
        Ok(Command::Demo(options)) => {
            finish(demo::story::run(&options, &mut std::io::stdout()).map_err(anyhow::Error::from))
        }
        Err(misuse) => misuse.report(),
    }
}

/// 0, or 1 with the error and its causes in one line.
fn finish(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            Out::Stderr.line(format!("switchman: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
