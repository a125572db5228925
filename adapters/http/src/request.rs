//! A request, independent of the HTTP version.

use std::time::Duration;

use bytes::Bytes;
use crossdock_message::Chunks;
use crossdock_ports::Fields;

/// A validated request head: nothing in it is ambiguous to another parser.
pub(crate) trait RequestHead: Fields {
    fn method(&self) -> &str;

    /// The path as received, not percent-decoded.
    fn path(&self) -> &str;

    fn query(&self) -> Option<&str>;

    /// All values of a field in order. `name` is in lower case.
    fn values<'s>(&'s self, name: &'s str) -> impl Iterator<Item = Bytes> + 's;

    /// The fields whose names start with a prefix in lower case: the rest of each name, in any case, and its value.
    fn with_prefix<'s>(&'s self, prefix: &'s str) -> impl Iterator<Item = (&'s [u8], Bytes)> + 's;
}

/// The unread body of a request.
pub(crate) trait RequestBody {
    /// The length that the head declares.
    fn declared_length(&self) -> DeclaredLength;

    /// Reads the body, up to `len_max` bytes.
    ///
    /// # Errors
    /// [`BodyError`].
    async fn read(self, len_max: u64) -> Result<Chunks, BodyError>;
}

/// The body length that a head declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeclaredLength {
    /// The request has no body.
    NoBody,
    /// In bytes.
    Known(u64),
    /// The body is delimited by its framing.
    Unknown,
}

/// Minimum rate of a body in bytes per second, enforced after [`BODY_GRACE`].
pub(crate) const BODY_RATE_MIN: u64 = 512;
pub(crate) const BODY_GRACE: Duration = Duration::from_secs(5);
/// Rate in bytes per second by which a body's length extends its timeout.
const BODY_RATE: u64 = 16 * 1024;
/// Length in bytes by which the timeout of a body of unknown length is computed: the default `max` of an entry.
pub(crate) const BODY_LEN_ASSUMED: u64 = 1 << 20;

/// The time limit for a body of `length` bytes.
pub(crate) fn body_timeout_for(base: Duration, length: u64) -> Duration {
    base + Duration::from_secs(length / BODY_RATE)
}

/// Why a body is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// The framing is malformed.
    Framing(&'static str),
    /// The body exceeds the route's limit.
    TooLarge,
    /// The body arrived below the minimum rate or after its timeout.
    TooSlow,
    /// The memory for bodies is used up.
    NoMemory,
    /// The connection was closed before the body was complete.
    Incomplete,
}

/// Why a head is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeadError {
    pub(crate) status: u16,
    pub(crate) problem: &'static str,
}

impl HeadError {
    /// A malformed or ambiguous head.
    pub(crate) fn bad(problem: &'static str) -> Self {
        Self { status: 400, problem }
    }
}

/// Whether a byte may occur in a token (RFC 9110 §5.6.2).
pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether the text is `host [":" port]`, without user information.
pub(crate) fn is_authority(text: &[u8]) -> bool {
    let good = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+,;=".contains(byte);
    !text.is_empty() && text.len() <= 255 + 6 && text.iter().all(good)
}

/// Whether a target has only characters that a target may have: no whitespace, controls, `#` or bytes outside ASCII.
pub(crate) fn is_target(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| (0x21..0x7f).contains(byte) && *byte != b'#')
}

/// Methods that no route can serve.
pub(crate) fn is_unsupported_method(method: &[u8]) -> bool {
    matches!(method, b"TRACE" | b"CONNECT")
}

pub(crate) const UNSUPPORTED_METHOD: HeadError =
    HeadError { status: 405, problem: "TRACE and CONNECT are not supported" };
pub(crate) const TARGET_TOO_LONG: HeadError = HeadError { status: 414, problem: "the request target is too long" };
pub(crate) const TOO_MANY_HEADERS: HeadError = HeadError { status: 431, problem: "too many header fields" };
pub(crate) const UNSUPPORTED_EXPECTATION: HeadError =
    HeadError { status: 417, problem: "the only supported expectation is 100-continue" };
