//! Attributes as values of HTTP headers and gRPC metadata (HTTP Protocol Binding for CloudEvents 1.0.2, §3.1.3.2).

use std::borrow::Cow;

use crossdock_message::{ByteString, Fault, Value};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode, utf8_percent_encode};

use crate::received::not_an_event;

/// Besides all bytes outside printable ASCII.
const ESCAPED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

/// The text of an attribute: in percent-encoding where it is not printable ASCII. Nothing for values that attributes cannot have.
#[must_use]
pub fn encode_header(value: &Value) -> ByteString {
    match value {
        Value::Text(text) => Cow::from(utf8_percent_encode(text, ESCAPED)).as_ref().into(),
        other => other.scalar_text().unwrap_or_default(),
    }
}

/// The attribute that a header has. Quoted strings are unescaped first.
///
/// # Errors
/// INVALID_ARGUMENT for bytes that are not UTF-8, and for a quoted string without an end.
pub fn decode_header(name: &str, value: &[u8]) -> Result<Value, Fault> {
    let unquoted =
        unquote(value).ok_or_else(|| not_an_event(format!("the header of `{name}` has an unbalanced quote")))?;
    let text = percent_decode(&unquoted).decode_utf8();
    let text = text.map_err(|_| not_an_event(format!("the header of `{name}` is not UTF-8")))?;
    Ok(Value::Text(text.as_ref().into()))
}

/// The content of a quoted string (RFC 9110 §5.6.4), or the value itself.
fn unquote(value: &[u8]) -> Option<Cow<'_, [u8]>> {
    let Some(inner) = value.strip_prefix(b"\"") else { return Some(value.into()) };
    let mut out = Vec::with_capacity(inner.len());
    let mut rest = inner.iter();
    loop {
        match rest.next()? {
            b'\\' => out.push(*rest.next()?),
            b'"' => return rest.next().is_none().then_some(out.into()),
            other => out.push(*other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(value: &[u8]) -> Option<String> {
        match decode_header("a", value).ok()? {
            Value::Text(text) => Some(text.to_string()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn texts_round_trip() {
        for (text, header) in [
            ("Euro € 😀", "Euro%20%E2%82%AC%20%F0%9F%98%80"),
            ("a\"b%c", "a%22b%25c"),
            ("/plain?x=1&y[]=~", "/plain?x=1&y[]=~"),
            ("", ""),
        ] {
            assert_eq!(encode_header(&Value::Text(text.into())), *header);
            assert_eq!(decode(header.as_bytes()).as_deref(), Some(text));
        }
        assert_eq!(encode_header(&Value::Int(-5)), *"-5");
        assert_eq!(encode_header(&Value::Bool(true)), *"true");
    }

    #[test]
    fn older_and_invalid_forms_are_known() {
        assert_eq!(decode(br#""a \"b\" \\ %C3%A4""#).as_deref(), Some("a \"b\" \\ ä"));
        assert_eq!(decode(b"a%c3%a4%61").as_deref(), Some("aäa"), "lower case, and without need");
        assert_eq!(decode(b"100%").as_deref(), Some("100%"));
        assert_eq!(decode("ä".as_bytes()).as_deref(), Some("ä"));
        for invalid in [&b"%C0%A0"[..], b"\xff", b"\"a", b"\"a\"b", b"\"a\\"] {
            assert_eq!(decode(invalid), None, "{invalid:?}");
        }
    }
}
