//! Identifiers of the causes of faults.

use std::fmt;

use bytestring::ByteString;

/// A stable identifier of the cause of a fault, in upper snake case, such as `BODY_TOO_LARGE`.
///
/// Code that decides by a reason compares it with the constant that made it: reasons are not comparable with text, and a reason that a service
/// sent equals none of the gateway, whatever its text.
///
/// ```
/// use crossdock_message::{Code, Fault, Reason};
///
/// const MAINTENANCE: Reason = Reason::new("MAINTENANCE");
/// let fault = Fault::new(Code::Unavailable, MAINTENANCE, "the service is being maintained");
/// assert!(fault.reason == MAINTENANCE);
/// assert!(Reason::of_service("MAINTENANCE".into()) != MAINTENANCE);
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Reason(Source);

#[derive(Clone, PartialEq, Eq)]
enum Source {
    Gateway(&'static str),
    Service(ByteString),
}

impl Reason {
    /// No route matches the request.
    pub const NO_ROUTE: Self = Self::new("NO_ROUTE");

    /// A reason of the gateway.
    #[must_use]
    pub const fn new(text: &'static str) -> Self {
        Self(Source::Gateway(text))
    }

    /// A reason that a service sent.
    #[must_use]
    pub const fn of_service(text: ByteString) -> Self {
        Self(Source::Service(text))
    }

    /// The text, as callers see it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Source::Gateway(text) => text,
            Source::Service(text) => text,
        }
    }

    /// The text, without copying it.
    #[must_use]
    pub fn to_text(&self) -> ByteString {
        match &self.0 {
            Source::Gateway(text) => ByteString::from_static(text),
            Source::Service(text) => text.clone(),
        }
    }
}

impl From<&'static str> for Reason {
    fn from(text: &'static str) -> Self {
        Self::new(text)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}
