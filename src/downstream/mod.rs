//! Floor 4. The way in for clients: listeners, one acceptor, a limit, and the worker that has the
//! fewest. Knows no protocol beyond the one line that turns a client away.

mod acceptor;
mod limit;

pub use acceptor::{Acceptor, Door, Entrance, NewClient};
pub use limit::{ClientLimit, client_limit};
