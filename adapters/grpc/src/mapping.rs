//! Maps canonical messages to and from metadata. Pure functions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossdock_message::{ByteString, Code, Deadline, Fault, Headers, Message, RequestContext, TraceContext};
use crossdock_ports::{Admission, Fields, header_twice};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Metadata that the adapter interprets; callers must not repeat it.
const SINGLE: [&str; 4] = ["content-type", "grpc-encoding", "grpc-timeout", "traceparent"];

/// Metadata as header fields.
pub(crate) struct Metadata<'a>(pub(crate) &'a HeaderMap);

impl Fields for Metadata<'_> {
    fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.get(name).map(HeaderValue::as_bytes)
    }

    fn is_repeated(&self, name: &str) -> bool {
        self.0.get_all(name).iter().nth(1).is_some()
    }
}

fn text(value: &HeaderValue) -> Option<ByteString> {
    value.to_str().ok().map(ByteString::from)
}

/// The message of a call, without its body.
///
/// # Errors
/// INVALID_ARGUMENT if the timeout or listed metadata is malformed.
pub(crate) fn request(
    metadata: &HeaderMap,
    admission: &Admission,
    source: &ByteString,
    context: &Arc<RequestContext>,
) -> Result<Message, Fault> {
    if let Some(name) = SINGLE.into_iter().find(|name| Metadata(metadata).is_repeated(name)) {
        return Err(header_twice(name));
    }
    let mut message = Message::new(context.id.clone(), source.clone());
    message.context = Some(Arc::clone(context));
    message.headers = carried(metadata, &admission.request_headers)?;
    if let Some(value) = metadata.get("grpc-timeout") {
        let wait = value.to_str().ok().and_then(parse_timeout).ok_or_else(|| {
            Fault::caller(Code::InvalidArgument, "TIMEOUT", "grpc-timeout must be one to eight digits and a unit")
        })?;
        message.deadline = context.received_at.checked_add(wait).map(Deadline::at);
    }
    Ok(message)
}

/// The W3C trace context of a call.
pub(crate) fn trace(metadata: &HeaderMap) -> Option<TraceContext> {
    let parent = metadata.get("traceparent").and_then(text)?;
    let states: Option<Vec<ByteString>> = metadata.get_all("tracestate").iter().map(text).collect();
    let state = states.filter(|states| !states.is_empty()).map(|states| states.join(",").into());
    Some(TraceContext { parent, state })
}

/// The listed metadata. Binary metadata (`-bin`) keeps its base64 form.
pub(crate) fn carried(metadata: &HeaderMap, carry: &[ByteString]) -> Result<Headers, Fault> {
    let mut headers = Headers::new();
    for name in carry {
        for value in metadata.get_all(&**name) {
            let appended = text(value).map(|value| headers.append(name.clone(), value));
            if !matches!(appended, Some(Ok(()))) {
                let message =
                    format!("metadata `{name}` contains non-ASCII characters; such a name must end with -bin");
                return Err(Fault::caller(Code::InvalidArgument, "HEADER", message).with_detail("header", name.clone()));
            }
        }
    }
    Ok(headers)
}

/// Appends headers as metadata, except names reserved by gRPC.
pub(crate) fn append(headers: &Headers, metadata: &mut HeaderMap) {
    for (name, value) in headers.iter() {
        if name.starts_with("grpc-") || matches!(&**name, "te" | "content-type" | "user-agent" | "content-length") {
            continue;
        }
        let name = HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_maybe_shared(value.clone().into_bytes())) {
            metadata.append(name, value);
        }
    }
}

/// Parses `grpc-timeout`: one to eight digits and a unit.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// Formats `grpc-timeout` in the smallest unit that fits in eight digits.
pub(crate) fn timeout_text(left: Duration) -> String {
    const DIGITS_MAX: u128 = 99_999_999;
    let units = [(left.as_nanos(), 'n'), (left.as_micros(), 'u'), (left.as_millis(), 'm')];
    match units.into_iter().find(|(number, _)| *number <= DIGITS_MAX) {
        Some((number, unit)) => format!("{number}{unit}"),
        None => format!("{}S", u128::from(left.as_secs()).min(DIGITS_MAX)),
    }
}

/// The metadata of a call to a service.
pub(crate) fn call_metadata(
    message: &Message,
    static_headers: &[(HeaderName, HeaderValue)],
    now: Instant,
) -> HeaderMap {
    let mut metadata = HeaderMap::with_capacity(12 + message.headers.len());
    metadata.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    metadata.insert(http::header::TE, HeaderValue::from_static("trailers"));
    metadata.insert(
        http::header::USER_AGENT,
        HeaderValue::from_static(concat!("grpc-crossdock/", env!("CARGO_PKG_VERSION"))),
    );
    metadata.insert("grpc-accept-encoding", HeaderValue::from_static(crate::framing::Encoding::ACCEPTED));
    if let Some(deadline) = message.deadline
        && let Ok(value) = HeaderValue::from_str(&timeout_text(deadline.left(now)))
    {
        metadata.insert("grpc-timeout", value);
    }
    append(&message.headers, &mut metadata);
    let mut insert = |name: &'static str, value: &ByteString| {
        if let Ok(value) = HeaderValue::from_maybe_shared(value.clone().into_bytes()) {
            metadata.insert(name, value);
        }
    };
    if !message.id.is_empty() {
        insert("x-request-id", &message.id);
    }
    if let Some(trace) = message.trace() {
        insert("traceparent", &trace.parent);
        if let Some(state) = &trace.state {
            insert("tracestate", state);
        }
    }
    for (name, value) in static_headers {
        metadata.insert(name.clone(), value.clone());
    }
    metadata
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_round_trip_and_malformed_ones_are_rejected() {
        for (text, millis) in
            [("1H", 3_600_000), ("2M", 120_000), ("3S", 3_000), ("40m", 40), ("5000u", 5), ("99999999n", 99)]
        {
            assert_eq!(parse_timeout(text).map(|wait| wait.as_millis()), Some(millis), "{text}");
        }
        for text in ["", "S", "1", "123456789S", "1s", "-1S", "1.5S", " 1S"] {
            assert_eq!(parse_timeout(text), None, "{text:?}");
        }
        for millis in [0, 1, 50, 99_999, 5_000_000, 86_400_000, 99_999_999_000] {
            let left = Duration::from_millis(millis);
            let read = parse_timeout(&timeout_text(left)).expect("readable");
            assert!(left.checked_sub(read).is_some_and(|lost| lost < Duration::from_secs(1)), "{millis}");
        }
    }
}
