//! Floor 7. The command line: arguments, `check`, `status` and `switchover`. Knows nothing of how
//! the process runs; whoever calls [`parse`] does what it says.

mod args;
mod check;
mod http;
mod out;
mod status;
mod switchover;

pub use args::{Command, Demand, Misuse, StatusArgs, SwitchoverArgs, Token, environment, parse};
pub use check::{check, load};
pub use out::Out;
pub use status::status;
pub use switchover::switchover;

/// Exit code for a bad command line or configuration: `EX_USAGE` of sysexits.h.
pub const EXIT_USAGE: u8 = 64;
