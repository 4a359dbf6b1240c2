//! Floor 0. The bounds of the grammar, each with its reason.
//! Knows no parser; what happens at a bound is decided where the bound is met.

/// Bytes of an inline command, or of a `*` or `$` header, that may come without their terminator.
///
/// Redis's `PROTO_INLINE_MAX_SIZE` (64 KiB). Redis lets a longer line pass if its end happens to
/// be buffered already; here the limit does not depend on how the bytes were cut.
pub const LINE_MAX: usize = 65_536;

/// Arguments an unauthenticated client may announce (Redis, since CVE-2021-32675).
pub const UNAUTHENTICATED_ARGS: usize = 10;

/// Bytes of one argument an unauthenticated client may announce (Redis, since CVE-2021-32675).
pub const UNAUTHENTICATED_BULK: usize = 16_384;

/// Text lines of a reply up to this many bytes are reported whole; longer ones pass in pieces.
///
/// Error words are looked for at the start of a whole line, which is far shorter than this. A
/// line of MONITOR shows all arguments of a command and has no bound in Redis.
pub const ATOMIC_LINE_MAX: usize = 65_536;

/// Elements (pairs, for maps) one aggregate reply may announce: Redis counts them in an `int`.
pub const AGGREGATE_MAX: u64 = 2_147_483_647;

/// Bytes one bulk reply may announce, 1 TiB: beyond any value of Redis, so surely not a length.
pub const REPLY_BULK_MAX: u64 = 1 << 40;

/// What a client may announce in one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// Arguments, the command's name included; more is `invalid multibulk length`.
    pub max_args: usize,
    /// Bytes of one argument (Redis's `proto-max-bulk-len`); more is `invalid bulk length`.
    pub max_bulk: usize,
    /// Whether the client has authenticated, or needs not to. Until then [`UNAUTHENTICATED_ARGS`]
    /// and [`UNAUTHENTICATED_BULK`] hold too, with error texts of their own.
    pub authenticated: bool,
}

impl RequestLimits {
    /// 1,048,576 arguments (Redis before 7.0) of at most 512 MiB (Redis's default).
    pub const AUTHENTICATED: Self = Self {
        max_args: 1_048_576,
        max_bulk: 536_870_912,
        authenticated: true,
    };

    /// The same for a client that has yet to authenticate: 10 arguments of at most 16 KiB.
    pub const UNAUTHENTICATED: Self = Self {
        authenticated: false,
        ..Self::AUTHENTICATED
    };

    /// No limit: for a request that was accepted before.
    pub(super) const NONE: Self = Self {
        max_args: usize::MAX,
        max_bulk: usize::MAX,
        authenticated: true,
    };

    /// Arguments, and bytes of one, that raise no error of any kind.
    #[inline]
    pub(super) fn in_force(&self) -> (usize, usize) {
        if self.authenticated {
            return (self.max_args, self.max_bulk);
        }
        (
            self.max_args.min(UNAUTHENTICATED_ARGS),
            self.max_bulk.min(UNAUTHENTICATED_BULK),
        )
    }
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self::AUTHENTICATED
    }
}
