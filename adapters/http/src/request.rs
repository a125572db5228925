//! A request as both versions of HTTP give it.

use std::time::Duration;

use bytes::Bytes;
use crossdock_adapter_api::Fields;
use crossdock_message::Chunks;

/// All that a request says before its body; checked, so that nothing in it can be read in two ways.
pub(crate) trait RequestHead: Fields {
    fn method(&self) -> &str;

    /// The path as it came, escapes and all.
    fn path(&self) -> &str;

    fn query(&self) -> Option<&str>;

    /// All values of a name in order; the name is given in lower case.
    fn values<'s>(&'s self, name: &'s str) -> impl Iterator<Item = Bytes> + 's;
}

/// A request's body, which nobody has read yet.
pub(crate) trait RequestBody {
    /// What the head says of it.
    fn announced(&self) -> Announced;

    /// Reads it, up to this length.
    ///
    /// # Errors
    /// Why it cannot be had.
    async fn read(self, len_max: u64) -> Result<Chunks, BodyRefusal>;
}

/// What a head says of the body behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Announced {
    /// There is none.
    Nothing,
    /// Its length.
    Length(u64),
    /// That there is one.
    Open,
}

/// Bytes a second that a body must come with, after [`BODY_GRACE`].
pub(crate) const BODY_RATE_MIN: u64 = 512;
pub(crate) const BODY_GRACE: Duration = Duration::from_secs(5);
/// Bytes a second that a body's own share of time is reckoned with.
const BODY_RATE: u64 = 16 * 1024;
/// The length that one has the time for of which nobody has said how long it will be: that of the longest body that any
/// route takes by default.
pub(crate) const BODY_SHARE_OPEN: u64 = 1 << 20;

/// How long a body of this length may take.
pub(crate) fn body_time(base: Duration, length: u64) -> Duration {
    base + Duration::from_secs(length / BODY_RATE)
}

/// Why a body is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyRefusal {
    /// Its framing is not as it must be.
    Framing(&'static str),
    /// More bytes than the route takes.
    TooLarge,
    /// It came too slowly.
    TooSlow,
    /// There is no memory for it now.
    NoMemory,
    /// The connection ended before the body did.
    Incomplete,
}

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeadRefusal {
    pub(crate) status: u16,
    pub(crate) problem: &'static str,
}

impl HeadRefusal {
    /// What cannot be read, or can be read in two ways.
    pub(crate) fn bad(problem: &'static str) -> Self {
        Self { status: 400, problem }
    }
}

/// A character that a token may have (RFC 9110 §5.6.2).
pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// `host [":" port]`, without user information.
pub(crate) fn is_authority(text: &[u8]) -> bool {
    let good = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+,;=".contains(byte);
    !text.is_empty() && text.len() <= 255 + 6 && text.iter().all(good)
}

/// A target without what has no place in one: blanks, controls, `#`, bytes outside ASCII.
pub(crate) fn is_target(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| (0x21..0x7f).contains(byte) && *byte != b'#')
}

/// Methods that are not served, whatever routes say.
pub(crate) fn is_refused_method(method: &[u8]) -> bool {
    matches!(method, b"TRACE" | b"CONNECT")
}

pub(crate) const REFUSED_METHOD: HeadRefusal = HeadRefusal { status: 405, problem: "TRACE and CONNECT are not served" };
pub(crate) const TARGET_TOO_LONG: HeadRefusal = HeadRefusal { status: 414, problem: "the target is too long" };
pub(crate) const TOO_MANY_HEADERS: HeadRefusal = HeadRefusal { status: 431, problem: "there are too many headers" };
pub(crate) const UNKNOWN_EXPECTATION: HeadRefusal =
    HeadRefusal { status: 417, problem: "the only expectation met here is 100-continue" };
