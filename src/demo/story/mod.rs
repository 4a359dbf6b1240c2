//! Floor 6. `switchman demo`: a deployment, Switchman before it, one plain client, a dead master,
//! told as it happens and judged at the end. Knows Switchman by its command line only.

mod account;
mod caller;
mod interrupt;
mod ledger;
mod proxy;
mod scenes;
mod traffic;

use std::io;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use crate::demo::client::ClientError;
use crate::demo::deployment::DeploymentError;
use crate::demo::process::ProcessError;
use crate::demo::story::account::Account;
use crate::demo::story::interrupt::Interrupt;
use crate::demo::story::scenes::Stage;

pub use crate::demo::story::account::Colour;
pub use crate::demo::story::proxy::ProxyError;

/// How to tell the story.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    /// Length of each scene in which nothing breaks.
    pub quiet: Duration,
    /// Whether to use colours; a question of where the account goes.
    pub colour: Colour,
    /// The Switchman to show; without it this very executable.
    pub switchman: Option<PathBuf>,
    /// The Redis server to use; a bare name is looked for in `PATH`.
    pub redis_server: PathBuf,
}

impl Default for DemoOptions {
    fn default() -> Self {
        Self {
            quiet: Duration::from_secs(4),
            colour: Colour::Never,
            switchman: None,
            redis_server: PathBuf::from("redis-server"),
        }
    }
}

/// Why the story has no good end; worded for the person at the terminal.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// Something that was promised did not happen.
    #[error("{failed} of {all} expectations failed")]
    Failed {
        /// So many did not hold.
        failed: usize,
        /// Of so many.
        all: usize,
    },
    /// Ctrl-C or SIGTERM.
    #[error("interrupted; everything that was started has been ended")]
    Interrupted,
    /// The client's one connection has ended, and with it the story.
    #[error("the client has lost its connection: {0}")]
    Broken(String),
    /// Redis or Sentinel did not do their part, so there is nothing to show.
    #[error("waited {} s for {what}", .after.as_secs())]
    Late {
        /// What was waited for.
        what: String,
        /// How long.
        after: Duration,
    },
    /// The deployment.
    #[error(transparent)]
    Deployment(#[from] DeploymentError),
    /// One of its processes.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// Switchman.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// A connection that the story itself needs.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The account cannot be written, or a thread or directory cannot be had.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Plays the whole story and writes the account to `out` as it happens.
///
/// Takes about half a minute. Everything that it starts has ended when it returns, after Ctrl-C
/// and SIGTERM too; the handlers of these signals stay, so the process should end afterwards.
pub fn run(options: &DemoOptions, out: &mut dyn Write) -> Result<(), DemoError> {
    let interrupt = Interrupt::listen()?;
    let mut account = Account::new(out, options.colour);
    let mut stage = Stage::set(options, &interrupt, &mut account)?;
    stage.all_is_well()?;
    let new_master = stage.the_master_dies()?;
    stage.the_old_master_returns(new_master)?;
    let expectations = stage.the_end(new_master)?;
    account.scene("Expectations")?;
    for expectation in &expectations {
        account.expectation(expectation)?;
    }
    let failed = expectations.iter().filter(|each| !each.held).count();
    let all = expectations.len();
    if failed > 0 {
        return Err(DemoError::Failed { failed, all });
    }
    account.scene(&format!("All {all} expectations held."))?;
    Ok(())
}
