//! Maps faults to gRPC status, and gRPC status to faults.

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD_NO_PAD};
use bytes::Bytes;
use crossdock_message::{ByteString, Code, Fault, Reason, Retry, ServiceStatus};
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode, utf8_percent_encode};
use prost::Message as _;

use crate::config::Faults;
use crate::mapping;

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");

/// Characters to percent-encode: all but printable ASCII without `%` (gRPC over HTTP/2, "Status-Message").
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');
/// Bytes of an encoded message; a longer one might exceed header limits of the peer.
const MESSAGE_LEN_MAX: usize = 4096;
/// Bytes of status details, for the same reason.
const DETAILS_LEN_MAX: usize = 8192;

#[derive(Clone, PartialEq, prost::Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.ErrorInfo`.
#[derive(Clone, PartialEq, prost::Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
    #[prost(btree_map = "string, string", tag = "3")]
    metadata: std::collections::BTreeMap<String, String>,
}

/// The domain in `google.rpc.ErrorInfo`.
const DOMAIN: &str = "crossdock";

/// Appends the status OK.
pub(crate) fn append_ok(metadata: &mut HeaderMap) {
    metadata.insert(STATUS, HeaderValue::from_static("0"));
}

/// Appends the status of a fault. The status of a service is forwarded unchanged; a fault of the gateway carries its reason and details as
/// `google.rpc.ErrorInfo`.
pub(crate) fn append_fault(fault: &Fault, metadata: &mut HeaderMap) {
    if let Some(service) = &fault.service {
        mapping::append(&service.headers, metadata);
    }
    let code = caller_code(fault);
    metadata.insert(STATUS, HeaderValue::from(u16::from(code as u8)));
    if let Ok(value) = HeaderValue::from_str(&encode_message(&fault.message)) {
        metadata.insert(MESSAGE, value);
    }
    let details = match &fault.service {
        Some(service) => service.status.clone(),
        None => error_info(fault, code).into(),
    };
    if !details.is_empty()
        && details.len() <= DETAILS_LEN_MAX
        && let Ok(value) = HeaderValue::from_str(&STANDARD_NO_PAD.encode(&details))
    {
        metadata.insert(DETAILS, value);
    }
    if let Retry::After(wait) = fault.retry {
        metadata
            .insert("grpc-retry-pushback-ms", HeaderValue::from(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)));
    }
}

/// Percent-encodes a message; truncates a long one at a character boundary.
fn encode_message(message: &str) -> String {
    let mut text: String = utf8_percent_encode(message, ESCAPED).collect();
    if text.len() > MESSAGE_LEN_MAX {
        text.clear();
        for character in message.chars() {
            let len = text.len();
            text.extend(utf8_percent_encode(character.encode_utf8(&mut [0; 4]), ESCAPED));
            if text.len() > MESSAGE_LEN_MAX {
                text.truncate(len);
                break;
            }
        }
    }
    text
}

/// A method without a route is UNIMPLEMENTED in gRPC.
fn caller_code(fault: &Fault) -> Code {
    if fault.code == Code::NotFound && fault.reason == Reason::NO_ROUTE { Code::Unimplemented } else { fault.code }
}

fn error_info(fault: &Fault, code: Code) -> Vec<u8> {
    let metadata = fault.details.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let info = ErrorInfo { reason: fault.reason.to_string(), domain: DOMAIN.to_owned(), metadata };
    let detail = Any { type_url: "type.googleapis.com/google.rpc.ErrorInfo".to_owned(), value: info.encode_to_vec() };
    Status { code: i32::from(code as u8), message: fault.message.to_string(), details: vec![detail] }.encode_to_vec()
}

/// Parses the status in metadata; `None` if there is none.
pub(crate) fn parse_status(metadata: &HeaderMap) -> Option<Result<(), Code>> {
    let status = metadata.get(STATUS)?;
    let number: Option<i32> = status.to_str().ok().and_then(|text| text.parse().ok());
    Some(match number {
        Some(0) => Ok(()),
        Some(number) => Err(Code::from_number(number).unwrap_or(Code::Unknown)),
        None => Err(Code::Unknown),
    })
}

/// The fault for an error status of a service.
pub(crate) fn fault_from_service(code: Code, metadata: &HeaderMap, carry: &[ByteString], faults: Faults) -> Fault {
    let is_internal = matches!(code, Code::Unknown | Code::Internal | Code::DataLoss);
    let is_hidden = faults == Faults::Safe && is_internal;
    let text = metadata.get(MESSAGE).filter(|_| !is_hidden).and_then(|value| {
        percent_decode(value.as_bytes()).decode_utf8().ok().map(|text| ByteString::from(text.into_owned()))
    });
    let message = match text {
        Some(message) => message,
        None if is_hidden => ByteString::from_static("the service failed"),
        None => ByteString::new(),
    };
    let status = metadata.get(DETAILS).filter(|_| !is_hidden).and_then(|value| decode_binary(value.as_bytes()));
    let headers = mapping::carried(metadata, carry).unwrap_or_default();
    let pushback = metadata.get("grpc-retry-pushback-ms").and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let retry = match (code, pushback) {
        (Code::Unavailable | Code::ResourceExhausted, Some(millis)) => {
            Retry::After(std::time::Duration::from_millis(millis.min(3_600_000)))
        }
        _ => Retry::Never,
    };
    let mut fault = Fault::new(code, "SERVICE_STATUS", message).with_retry(retry);
    let status = status.unwrap_or_default();
    // Keep the status unchanged, even if empty; a hidden one becomes a fault of the gateway.
    if !is_hidden {
        fault.service = Some(Box::new(ServiceStatus { status, headers }));
    }
    fault
}

fn decode_binary(text: &[u8]) -> Option<Bytes> {
    const CONFIG: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    const LENIENT: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::STANDARD, CONFIG);
    LENIENT.decode(text).ok().map(Bytes::from)
}

/// The code for an HTTP response without gRPC status (gRPC, "HTTP to gRPC Status Code Mapping").
pub(crate) fn code_from_http(status: u16) -> Code {
    match status {
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502 | 503 | 504 => Code::Unavailable,
        _ => Code::Unknown,
    }
}

/// The code for a stream reset (gRPC over HTTP/2, "Errors").
pub(crate) fn code_from_reset(reason: h2::Reason) -> Code {
    match reason {
        h2::Reason::REFUSED_STREAM => Code::Unavailable,
        h2::Reason::CANCEL => Code::Cancelled,
        h2::Reason::ENHANCE_YOUR_CALM => Code::ResourceExhausted,
        h2::Reason::INADEQUATE_SECURITY => Code::PermissionDenied,
        _ => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_truncated_at_a_character_boundary() {
        for text in ["x".repeat(5000), "\u{e9}".repeat(5000), format!("x{}", "%".repeat(5000))] {
            let mut metadata = HeaderMap::new();
            append_fault(&Fault::new(Code::Internal, "TEST", text), &mut metadata);
            let encoded = metadata["grpc-message"].as_bytes();
            assert!((MESSAGE_LEN_MAX - 6..=MESSAGE_LEN_MAX).contains(&encoded.len()), "{}", encoded.len());
            assert!(
                percent_decode(encoded).decode_utf8().is_ok_and(|read| !read.ends_with("%C3")),
                "characters are not split"
            );
        }
    }

    #[test]
    fn every_code_round_trips_over_grpc() {
        for code in Code::ALL {
            let fault = Fault::caller(code, "TEST", "caf\u{e9} 100%\n").with_detail("field", "a.b");
            let mut metadata = HeaderMap::new();
            append_fault(&fault, &mut metadata);
            assert_eq!(parse_status(&metadata), Some(Err(code)));
            assert_eq!(metadata["grpc-message"], "caf%C3%A9 100%25%0A");
            let read = fault_from_service(code, &metadata, &[], Faults::All);
            assert_eq!((read.code, &*read.message), (code, "caf\u{e9} 100%\n"));
            let details = Status::decode(read.service.expect("a status").status).expect("a status");
            let info = ErrorInfo::decode(&*details.details[0].value).expect("an ErrorInfo");
            assert_eq!((info.reason.as_str(), info.metadata["field"].as_str()), ("TEST", "a.b"));
            let hidden = fault_from_service(code, &metadata, &[], Faults::Safe);
            assert_eq!(hidden.code, code);
            assert_eq!(hidden.service.is_none(), matches!(code, Code::Unknown | Code::Internal | Code::DataLoss));
        }
    }
}
