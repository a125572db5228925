//! The one error model, and the one table that maps it to protocols.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;

use crate::Headers;

/// The canonical error codes: those of `google.rpc.Code`, with its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Code {
    /// The caller went away.
    Cancelled = 1,
    /// No better code is known.
    Unknown = 2,
    /// The request is wrong, whatever state the service is in.
    InvalidArgument = 3,
    /// The time was spent before an answer came.
    DeadlineExceeded = 4,
    /// What was asked for does not exist.
    NotFound = 5,
    /// What was to be made exists.
    AlreadyExists = 6,
    /// The caller is known and may not.
    PermissionDenied = 7,
    /// A quota or queue is full.
    ResourceExhausted = 8,
    /// The service is not in the state that the request needs.
    FailedPrecondition = 9,
    /// A concurrent change got in the way; the whole exchange may be tried again.
    Aborted = 10,
    /// Past the end of what there is.
    OutOfRange = 11,
    /// Nobody does that here.
    Unimplemented = 12,
    /// Something is broken on the serving side.
    Internal = 13,
    /// The service cannot be reached or does not take requests now.
    Unavailable = 14,
    /// Data was lost for good.
    DataLoss = 15,
    /// The caller is not known.
    Unauthenticated = 16,
}

impl Code {
    /// All codes, by number.
    pub const ALL: [Self; 16] = [
        Self::Cancelled,
        Self::Unknown,
        Self::InvalidArgument,
        Self::DeadlineExceeded,
        Self::NotFound,
        Self::AlreadyExists,
        Self::PermissionDenied,
        Self::ResourceExhausted,
        Self::FailedPrecondition,
        Self::Aborted,
        Self::OutOfRange,
        Self::Unimplemented,
        Self::Internal,
        Self::Unavailable,
        Self::DataLoss,
        Self::Unauthenticated,
    ];

    /// The name as route files, logs and problem documents write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::Unknown => "unknown",
            Self::InvalidArgument => "invalid_argument",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::PermissionDenied => "permission_denied",
            Self::ResourceExhausted => "resource_exhausted",
            Self::FailedPrecondition => "failed_precondition",
            Self::Aborted => "aborted",
            Self::OutOfRange => "out_of_range",
            Self::Unimplemented => "unimplemented",
            Self::Internal => "internal",
            Self::Unavailable => "unavailable",
            Self::DataLoss => "data_loss",
            Self::Unauthenticated => "unauthenticated",
        }
    }

    /// The code of that number of `google.rpc.Code`; nothing for 0, which is no error.
    #[must_use]
    pub fn from_number(number: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|code| i32::from(*code as u8) == number)
    }

    /// The code of that [name](Code::name).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.name() == name)
    }

    /// The HTTP status that a caller gets for this code.
    #[must_use]
    pub fn to_http(self) -> u16 {
        match self {
            Self::InvalidArgument | Self::OutOfRange | Self::FailedPrecondition => 400,
            Self::Unauthenticated => 401,
            Self::PermissionDenied => 403,
            Self::NotFound => 404,
            Self::AlreadyExists | Self::Aborted => 409,
            Self::ResourceExhausted => 429,
            Self::Cancelled => 499,
            Self::Internal | Self::Unknown | Self::DataLoss => 500,
            Self::Unimplemented => 501,
            Self::Unavailable => 503,
            Self::DeadlineExceeded => 504,
        }
    }

    /// The code of an HTTP service's answer with that status; nothing for an answer that is not an error.
    ///
    /// Redirects are never followed, so that a 3xx is an answer that nobody asked for: `unknown`.
    #[must_use]
    pub fn from_http(status: u16) -> Option<Self> {
        Some(match status {
            200..=299 => return None,
            400 | 422 => Self::InvalidArgument,
            401 => Self::Unauthenticated,
            403 => Self::PermissionDenied,
            404 | 410 => Self::NotFound,
            405 | 501 => Self::Unimplemented,
            408 | 504 => Self::DeadlineExceeded,
            409 => Self::Aborted,
            412 => Self::FailedPrecondition,
            429 => Self::ResourceExhausted,
            499 => Self::Cancelled,
            502 | 503 => Self::Unavailable,
            413 | 414 | 415 | 416 | 431 => Self::InvalidArgument,
            500 => Self::Internal,
            _ => Self::Unknown,
        })
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether the same request may be sent once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It would fail again, or it may have been carried out.
    Never,
    /// It was not carried out: another try may succeed at once.
    Same,
    /// As `Same`, after this time.
    After(Duration),
}

/// Who found the error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The caller's request or message.
    Caller,
    /// The gateway itself.
    Gateway,
    /// The service of that name.
    Service(ByteString),
}

/// Why a message got no answer. Every adapter turns it into its own protocol's error by the table of [`Code`].
///
/// The message is for the caller: it never carries what a service said about its inside.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Fault {
    /// The canonical code.
    pub code: Code,
    /// A stable word for programs, in upper snake case, such as `BODY_TOO_LARGE`.
    pub reason: ByteString,
    /// A sentence for people.
    pub message: ByteString,
    /// Whether the same request may be sent once more.
    pub retry: Retry,
    /// Named facts for programs, such as `line`, `column`, `field`, `allow`.
    pub details: Vec<(ByteString, ByteString)>,
    /// Who found the error.
    pub origin: Origin,
    /// The HTTP status where the rule asks for a narrower one than the code's, such as 413, 415 or 431.
    pub http_status: Option<u16>,
    /// What a service that speaks of its errors in the canonical model said beside code and message.
    pub service: Option<Box<ServiceStatus>>,
}

/// What a service said of its error beside code and message, for callers to whom it may be told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceStatus {
    /// A `google.rpc.Status` in protobuf, as it came; empty where there is none.
    pub status: Bytes,
    /// Headers that came with it and may cross.
    pub headers: Headers,
}

impl Fault {
    /// A fault of the gateway that is not to be retried.
    pub fn new(code: Code, reason: &'static str, message: impl Into<ByteString>) -> Self {
        Self {
            code,
            reason: ByteString::from_static(reason),
            message: message.into(),
            retry: Retry::Never,
            details: Vec::new(),
            origin: Origin::Gateway,
            http_status: None,
            service: None,
        }
    }

    /// A fault in what the caller sent.
    pub fn caller(code: Code, reason: &'static str, message: impl Into<ByteString>) -> Self {
        Self { origin: Origin::Caller, ..Self::new(code, reason, message) }
    }

    /// The same with a decision on retry.
    #[must_use]
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// The same with who found it.
    #[must_use]
    pub fn with_origin(mut self, origin: Origin) -> Self {
        self.origin = origin;
        self
    }

    /// The same with a narrower HTTP status.
    #[must_use]
    pub fn with_http_status(mut self, status: u16) -> Self {
        self.http_status = Some(status);
        self
    }

    /// The same with one more detail.
    #[must_use]
    pub fn with_detail(mut self, name: &'static str, value: impl Into<ByteString>) -> Self {
        self.details.push((ByteString::from_static(name), value.into()));
        self
    }

    /// The detail of that name.
    #[must_use]
    pub fn detail(&self, name: &str) -> Option<&ByteString> {
        self.details.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// The HTTP status that a caller gets.
    #[must_use]
    pub fn to_http(&self) -> u16 {
        self.http_status.unwrap_or_else(|| self.code.to_http())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_those_of_google_rpc() {
        for (index, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, index + 1);
            assert_eq!(Code::from_name(code.name()), Some(code));
            assert_eq!(Code::from_number(code as i32), Some(code));
        }
        assert_eq!(Code::from_name("INTERNAL"), None);
    }

    #[test]
    fn every_http_status_has_one_code() {
        for status in 200..300 {
            assert_eq!(Code::from_http(status), None);
        }
        let table = [
            (400, Code::InvalidArgument),
            (401, Code::Unauthenticated),
            (403, Code::PermissionDenied),
            (404, Code::NotFound),
            (405, Code::Unimplemented),
            (408, Code::DeadlineExceeded),
            (409, Code::Aborted),
            (410, Code::NotFound),
            (412, Code::FailedPrecondition),
            (422, Code::InvalidArgument),
            (429, Code::ResourceExhausted),
            (499, Code::Cancelled),
            (500, Code::Internal),
            (501, Code::Unimplemented),
            (502, Code::Unavailable),
            (503, Code::Unavailable),
            (504, Code::DeadlineExceeded),
            (302, Code::Unknown),
            (418, Code::Unknown),
            (599, Code::Unknown),
        ];
        for (status, code) in table {
            assert_eq!(Code::from_http(status), Some(code), "{status}");
        }
    }

    #[test]
    fn a_code_survives_the_way_over_http_where_http_can_tell_it() {
        let told_apart = [
            Code::InvalidArgument,
            Code::Unauthenticated,
            Code::PermissionDenied,
            Code::NotFound,
            Code::Aborted,
            Code::ResourceExhausted,
            Code::Cancelled,
            Code::Internal,
            Code::Unimplemented,
            Code::Unavailable,
            Code::DeadlineExceeded,
        ];
        for code in told_apart {
            assert_eq!(Code::from_http(code.to_http()), Some(code), "{code}");
        }
    }
}
