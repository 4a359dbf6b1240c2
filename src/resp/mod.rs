//! Floor 0. The Redis serialization protocol: bytes to frames, values to bytes.
//! Owns the grammar and its limits. Knows no command, no connection and no buffer of its own.
//!
//! * [`RequestDecoder`] takes whole requests off a client's bytes, inline commands included.
//! * [`Upload`] follows one that is passed on before it is whole.
//! * [`ReplyScanner`] finds where each reply (or push) of a node ends, and what kind it is.
//! * [`encode`] writes the requests and replies that Switchman makes itself.
//!
//! Both readers resume where they stopped, so bytes that arrive in pieces cost linear time; neither
//! allocates per frame, recurses, or trusts a length before its bytes have come.
//!
//! ```text
//! request   *argc CRLF ( $len CRLF bytes CRLF ){argc}        or one inline line of words
//! reply     + - : , ( _ #   one line
//!           $ = !           $len CRLF bytes CRLF             $-1 is the null of RESP2
//!           * ~ >           *n CRLF value{n}                 *-1 is the null array of RESP2
//!           %               %n CRLF value{2n}
//!           |               |n CRLF value{2n} value          belongs to the value behind it
//! ```
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    expect(
        clippy::large_stack_arrays,
        reason = "tests fill lines up to their limits"
    )
)]

mod cursor;
pub mod encode;
mod inline;
mod limits;
#[cfg(test)]
mod properties;
mod reply;
mod request;
mod upload;
mod words;

pub use limits::{
    AGGREGATE_MAX, ATOMIC_LINE_MAX, LINE_MAX, REPLY_BULK_MAX, RequestLimits, UNAUTHENTICATED_ARGS,
    UNAUTHENTICATED_BULK,
};
pub use reply::{ReplyError, ReplyKind, ReplyScanner, Scan};
pub use request::{Args, Decoded, Request, RequestDecoder, RequestError};
pub use upload::Upload;
pub use words::is_word;
