//! Floor 3. One client's conversation: what it has set, what it may ask, and its replies in order.
//! Knows no sockets, no nodes and no other client.
//!
//! ```text
//!             bytes                 frames                      commands
//!  client ───────────► RequestDecoder ───────► Session::local ───────────► (placed by `exchange`)
//!                                                  │ answered here             │
//!  client ◄─────────── Replies ◄───────────────────┴───────────────────────────┘ by a node
//! ```

mod before_7;
mod clients;
mod hello;
mod local;
mod outflow;
mod portrait;
mod reject;
mod replies;
mod state;
mod subscriptions;
mod words;

pub use clients::{AboutClients, Choice, Kind, Weighs};
pub use hello::{HelloFacts, HelloRequest, HelloStep};
pub use local::{Login, LoginBy, Outcome};
pub use portrait::{Ends, Portrait};
pub use reject::Reject;
pub use replies::{Parked, Piece, Replies, Seq};
pub use state::{IdentityId, Session, Speech};
pub use subscriptions::{Announcement, Subscriptions};
