//! The error model, and the table that maps it to protocols.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;

use crate::{Headers, Reason};

/// The canonical error codes: those of `google.rpc.Code`, with its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Code {
    /// The caller cancelled the call.
    Cancelled = 1,
    /// No other code applies.
    Unknown = 2,
    /// The request is invalid, regardless of the state of the service.
    InvalidArgument = 3,
    /// The deadline expired before there was a reply.
    DeadlineExceeded = 4,
    /// The requested entity does not exist.
    NotFound = 5,
    /// The entity to create already exists.
    AlreadyExists = 6,
    /// The caller is authenticated but not authorized.
    PermissionDenied = 7,
    /// A quota is exhausted or a queue is full.
    ResourceExhausted = 8,
    /// The service is not in the state that the request requires.
    FailedPrecondition = 9,
    /// A concurrent change caused a conflict; the whole exchange may be retried.
    Aborted = 10,
    /// The operation is past the valid range.
    OutOfRange = 11,
    /// The operation is not implemented.
    Unimplemented = 12,
    /// An internal error.
    Internal = 13,
    /// The service is unreachable or does not accept requests now.
    Unavailable = 14,
    /// Unrecoverable data loss.
    DataLoss = 15,
    /// The caller is not authenticated.
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

    /// The name in route files, logs and problem documents.
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

    /// The code with this number in `google.rpc.Code`; `None` for 0 (OK) and unknown numbers.
    #[must_use]
    pub fn from_number(number: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|code| i32::from(*code as u8) == number)
    }

    /// The code with this [name](Code::name).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.name() == name)
    }

    /// The HTTP status for this code.
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

    /// The code for the HTTP status of a service; `None` for 2xx.
    ///
    /// 3xx is `unknown`, because the gateway does not follow redirects.
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

/// Whether a request may be retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// No: it would fail again, or it may have been executed.
    Never,
    /// Yes: it was not executed, and an immediate retry may succeed.
    Same,
    /// Like `Same`, but after this delay.
    After(Duration),
}

/// The side that caused or reported the error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The caller, with an invalid request or message.
    Caller,
    /// The gateway.
    Gateway,
    /// The service with this name.
    Service(ByteString),
}

/// What a fault implies for the health of the endpoint that was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointVerdict {
    /// What its code and origin imply: `unavailable`, `internal`, `unknown` and `data_loss` are failures of the endpoint; a deadline may be the
    /// caller's.
    ByCode,
    /// The endpoint could not be reached: other endpoints may be.
    Unreachable,
    /// The endpoint failed, whatever the code.
    Failed,
    /// Nothing: something else failed.
    None,
}

/// Why an exchange failed. Adapters convert it to an error of their protocol by the table of [`Code`].
///
/// The message is for the caller: it never contains internal details of a service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Fault {
    /// The canonical code.
    pub code: Code,
    /// The stable identifier of its cause.
    pub reason: Reason,
    /// A human-readable message.
    pub message: ByteString,
    /// Whether the request may be retried.
    pub retry: Retry,
    /// Machine-readable details, such as `line`, `column`, `field`, `allow`.
    pub details: Vec<(ByteString, ByteString)>,
    /// The side that caused or reported the error.
    pub origin: Origin,
    /// What it implies for the health of the endpoint that was called.
    pub endpoint_verdict: EndpointVerdict,
    /// A more specific HTTP status than that of the code, such as 413, 415 or 431.
    pub http_status: Option<u16>,
    /// The full status from a service whose protocol has the canonical codes.
    pub service: Option<Box<ServiceStatus>>,
    /// What operators need to know about it. It is logged, and never sent to a caller.
    pub cause: Option<Box<Cause>>,
}

/// Where and why a fault occurred, for operators. Never contains data of messages.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cause {
    /// The endpoint that was called.
    pub endpoint: Option<ByteString>,
    /// The error behind the fault, such as that of the operating system.
    pub text: Option<ByteString>,
}

/// The full status of a failed service call, for callers who may see it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceStatus {
    /// A `google.rpc.Status` in protobuf encoding, as received; empty if absent.
    pub status: Bytes,
    /// The headers received with it that may pass to the caller.
    pub headers: Headers,
}

impl Fault {
    /// A fault of the gateway, not to be retried.
    pub fn new(code: Code, reason: impl Into<Reason>, message: impl Into<ByteString>) -> Self {
        Self {
            code,
            reason: reason.into(),
            message: message.into(),
            retry: Retry::Never,
            details: Vec::new(),
            origin: Origin::Gateway,
            endpoint_verdict: EndpointVerdict::ByCode,
            http_status: None,
            service: None,
            cause: None,
        }
    }

    /// A fault of the caller, not to be retried.
    pub fn caller(code: Code, reason: impl Into<Reason>, message: impl Into<ByteString>) -> Self {
        Self { origin: Origin::Caller, ..Self::new(code, reason, message) }
    }

    /// Adds the error behind it, for the log.
    #[must_use]
    pub fn with_cause(mut self, text: impl Into<ByteString>) -> Self {
        self.cause.get_or_insert_default().text = Some(text.into());
        self
    }

    /// Logs its message as the cause. Only for messages without data: they may end in log files.
    #[must_use]
    pub fn logged(self) -> Self {
        let message = self.message.clone();
        self.with_cause(message)
    }

    /// Adds the endpoint where it occurred, for the log.
    #[must_use]
    pub fn at_endpoint(mut self, endpoint: impl Into<ByteString>) -> Self {
        self.cause.get_or_insert_default().endpoint = Some(endpoint.into());
        self
    }

    /// Sets whether the request may be retried.
    #[must_use]
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// Sets the origin.
    #[must_use]
    pub fn with_origin(mut self, origin: Origin) -> Self {
        self.origin = origin;
        self
    }

    /// Sets what it implies for the health of the endpoint that was called.
    #[must_use]
    pub fn with_endpoint_verdict(mut self, verdict: EndpointVerdict) -> Self {
        self.endpoint_verdict = verdict;
        self
    }

    /// Sets a more specific HTTP status.
    #[must_use]
    pub fn with_http_status(mut self, status: u16) -> Self {
        self.http_status = Some(status);
        self
    }

    /// Adds a detail.
    #[must_use]
    pub fn with_detail(mut self, name: &'static str, value: impl Into<ByteString>) -> Self {
        self.details.push((ByteString::from_static(name), value.into()));
        self
    }

    /// The detail with this name.
    #[must_use]
    pub fn detail(&self, name: &str) -> Option<&ByteString> {
        self.details.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// The HTTP status for the caller.
    #[must_use]
    pub fn to_http(&self) -> u16 {
        self.http_status.unwrap_or_else(|| self.code.to_http())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_match_google_rpc() {
        for (index, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, index + 1);
            assert_eq!(Code::from_name(code.name()), Some(code));
            assert_eq!(Code::from_number(code as i32), Some(code));
        }
        assert_eq!(Code::from_name("INTERNAL"), None);
    }

    #[test]
    fn http_statuses_map_to_codes() {
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
    fn codes_with_an_http_status_of_their_own_round_trip() {
        let distinguishable = [
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
        for code in distinguishable {
            assert_eq!(Code::from_http(code.to_http()), Some(code), "{code}");
        }
    }
}
