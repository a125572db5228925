//! Structured mode: the JSON event format (JSON Event Format for CloudEvents 1.0.2).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use crossdock_message::json::{self, Cursor, JsonError, JsonErrorKind, Token};
use crossdock_message::{ByteString, Code, Event, Fault, Format, Limits, Value};

use crate::attributes::{Attributes, VERSION};
use crate::received::{Data, Received, not_an_event};

/// The media type of an event in structured mode.
pub(crate) const STRUCTURED: &str = "application/cloudevents+json";
/// The media type of data whose event does not state one.
const DATA_DEFAULT: &str = "application/json";

/// Whether a message with this media type has an event in structured mode.
pub(crate) fn is_structured(media_type: &str) -> bool {
    const PREFIX: &[u8] = b"application/cloudevents";
    media_type.as_bytes().get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
}

/// Reads an event in structured mode. JSON data stays the bytes that were received.
///
/// # Errors
/// INVALID_ARGUMENT, with the position, for a document that is not JSON or not an event; with the HTTP status 415 for other event formats.
pub(crate) fn read_structured(content_type: &str, document: &Bytes, limits: &Limits) -> Result<Received, Fault> {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case(STRUCTURED) {
        let problem = format!("the event format must be {STRUCTURED}, one event at a time");
        return Err(not_an_event(problem).with_http_status(415));
    }
    let at = |error: &JsonError| {
        let problem =
            format!("the event is not valid JSON: {} (line {}, column {})", error.kind, error.line, error.column);
        not_an_event(problem)
            .with_detail("line", error.line.to_string())
            .with_detail("column", error.column.to_string())
    };
    let text = ByteString::try_from(document.clone()).map_err(|_| not_an_event("the event is not UTF-8"))?;
    let mut cursor = Cursor::new(&text, limits);
    let members = read_members(&mut cursor, limits);
    let (members, data) = members.map_err(|kind| at(&JsonError::at(document, cursor.offset(), kind)))?;
    let mut attributes = Attributes::default();
    let mut base64 = None;
    for (name, value) in members {
        match (&*name, value) {
            // Like a missing attribute.
            (_, Value::Null) => {}
            ("data_base64", Value::Text(text)) => base64 = Some(text),
            ("data_base64", _) => return Err(not_an_event("`data_base64` must be a text")),
            (name, _) if name.bytes().any(|byte| byte.is_ascii_uppercase()) => {
                return Err(not_an_event(format!("`{name}` is not the name of an attribute: names are in lower case")));
            }
            (name, value) => attributes.add(name, value)?,
        }
    }
    let (event, content_type) = attributes.finish(None)?;
    // A null is JSON data only where nothing says that the data is something else.
    let is_text = content_type.as_ref().is_some_and(|content_type| !is_json(content_type));
    let data = data.filter(|raw| **raw != *b"null" || !(is_text || base64.is_some()));
    let (data, content_type) = match (data, base64) {
        (Some(_), Some(_)) => return Err(not_an_event("`data` and `data_base64` exclude one another")),
        (None, None) => (Data::None, content_type),
        (None, Some(text)) => {
            let data = STANDARD.decode(&*text).map_err(|_| not_an_event("`data_base64` is not valid base64"))?;
            (Data::Bytes(data.into()), content_type)
        }
        (Some(raw), None) => {
            let content_type = content_type.unwrap_or(ByteString::from_static(DATA_DEFAULT));
            let data = if is_json(&content_type) { raw } else { text_data(&raw, limits)? };
            (Data::Bytes(data), Some(content_type))
        }
    };
    Ok(Received { event, content_type, data })
}

type Members = (Vec<(ByteString, Value)>, Option<Bytes>);

/// The members of the document, and the bytes of `data`.
fn read_members(cursor: &mut Cursor<'_>, limits: &Limits) -> Result<Members, JsonErrorKind> {
    if cursor.token()? != Token::Object {
        return Err(JsonErrorKind::Expected("an object"));
    }
    let (mut members, mut data) = (Vec::<(ByteString, Value)>::new(), None);
    let mut nodes = 0;
    let mut more = cursor.enter(b'}');
    while more {
        let key_at = cursor.offset();
        let key = cursor.key()?;
        let key = cursor.shared(key);
        let is_twice = members.iter().any(|(name, _)| *name == key) || (key == *"data" && data.is_some());
        if is_twice || members.len() > 2 * Event::ATTRIBUTES_MAX {
            cursor.rewind(key_at);
            return Err(if is_twice {
                JsonErrorKind::DuplicateKey(key.chars().take(64).collect())
            } else {
                JsonErrorKind::Keys(2 * Event::ATTRIBUTES_MAX)
            });
        }
        // Skips white space.
        cursor.token()?;
        let start = cursor.offset();
        let value = json::read_value(cursor, limits, &mut nodes)?;
        if key == *"data" {
            data = Some(cursor.document().as_bytes().slice(start..cursor.offset()));
        } else {
            members.push((key, value));
        }
        more = cursor.next(b'}')?;
    }
    cursor.finish()?;
    Ok((members, data))
}

/// Data that is not JSON: the content of a text.
fn text_data(raw: &Bytes, limits: &Limits) -> Result<Bytes, Fault> {
    match json::read(raw, limits) {
        Ok(Value::Text(text)) => Ok(text.into_bytes()),
        _ => Err(not_an_event("`data` must be a text, because `datacontenttype` is not JSON")),
    }
}

/// Whether data of this media type is a JSON value in the document (§3.1.1).
fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    Format::of_media_type(essence) == Format::Json || essence.to_ascii_lowercase().ends_with("/json")
}

/// Whether data of this media type is text in UTF-8.
fn is_text(media_type: &str) -> bool {
    let (essence, parameters) = media_type.split_once(';').unwrap_or((media_type, ""));
    let charset = parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"').to_ascii_lowercase())
    });
    let is_utf8 = charset.is_none_or(|charset| matches!(&*charset, "utf-8" | "utf8" | "us-ascii"));
    let essence = essence.trim().to_ascii_lowercase();
    is_utf8 && (essence.starts_with("text/") || Format::of_media_type(&essence) == Format::Xml)
}

/// Writes an event in structured mode. JSON data is inserted as it is; data that is neither JSON nor text in UTF-8 is written in base64.
///
/// # Errors
/// INTERNAL for an attribute that JSON cannot represent; there is none.
pub(crate) fn write_structured(
    event: &Event,
    content_type: Option<&str>,
    data: Option<&Bytes>,
    limits: &Limits,
) -> Result<Bytes, Fault> {
    let mut out = Vec::with_capacity(256 + data.map_or(0, Bytes::len));
    out.extend_from_slice(b"{\"specversion\":\"");
    out.extend_from_slice(VERSION.as_bytes());
    out.push(b'"');
    let media_type = content_type.map(|text| (ByteString::from_static("datacontenttype"), Value::Text(text.into())));
    let attributes = event.attributes().iter().map(|(name, value)| (name.clone(), value.clone()));
    for (name, value) in attributes.chain(media_type) {
        out.push(b',');
        json::append_string(&name, &mut out);
        out.push(b':');
        json::write_into(&value, &mut out).map_err(|error| Fault::new(Code::Internal, "EVENT", error.to_string()))?;
    }
    match (data, content_type) {
        (None, _) => {}
        (Some(data), Some(media_type)) if is_json(media_type) && json::read(data, limits).is_ok() => {
            out.extend_from_slice(b",\"data\":");
            out.extend_from_slice(data.trim_ascii());
        }
        (Some(data), Some(media_type)) if is_text(media_type) && str::from_utf8(data).is_ok() => {
            out.extend_from_slice(b",\"data\":");
            json::append_string(str::from_utf8(data).unwrap_or_default(), &mut out);
        }
        (Some(data), _) => {
            out.extend_from_slice(b",\"data_base64\":\"");
            out.extend_from_slice(STANDARD.encode(data).as_bytes());
            out.push(b'"');
        }
    }
    out.push(b'}');
    Ok(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Read {
        event: Event,
        content_type: Option<ByteString>,
        data: Option<Bytes>,
    }

    fn read(document: &str) -> Result<Read, String> {
        let document = Bytes::copy_from_slice(document.as_bytes());
        let read = read_structured(STRUCTURED, &document, &Limits::default());
        let Received { event, content_type, data } = read.map_err(|fault| fault.message.to_string())?;
        let data = match data {
            Data::Body => panic!("structured mode has data of its own"),
            Data::Bytes(data) => Some(data),
            Data::None => None,
        };
        Ok(Read { event, content_type, data })
    }

    /// A document with the attributes that every event needs.
    fn document(rest: &str) -> String {
        format!("{{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"/a\",\"type\":\"t\"{rest}}}")
    }

    fn write(event: &Event, content_type: Option<&str>, data: Option<&[u8]>) -> String {
        let data = data.map(Bytes::copy_from_slice);
        let written = write_structured(event, content_type, data.as_ref(), &Limits::default()).expect("an event");
        String::from_utf8(written.to_vec()).expect("text")
    }

    #[test]
    fn json_data_keeps_its_bytes() {
        let json = "{ \"n\": 12345678901234567890.10, \"t\":\"\\u00e4\" }";
        let received = read(&document(&format!(",\"data\" :\n {json} "))).expect("an event");
        assert_eq!(received.data.as_deref(), Some(json.as_bytes()));
        assert_eq!(received.content_type.as_deref(), Some("application/json"));
        let again = write(&received.event, received.content_type.as_deref(), received.data.as_deref());
        assert_eq!(again, document(&format!(",\"datacontenttype\":\"application/json\",\"data\":{json}")));
    }

    #[test]
    fn data_is_what_its_media_type_says() {
        for (rest, content_type, data) in [
            ("", None, None),
            (",\"data\":null", Some("application/json"), Some(&b"null"[..])),
            (",\"data\":\"t\"", Some("application/json"), Some(b"\"t\"")),
            (",\"datacontenttype\":\"a/b+json;x=1\",\"data\":[1]", Some("a/b+json;x=1"), Some(b"[1]")),
            (",\"datacontenttype\":\"foo/json\",\"data\":\"t\"", Some("foo/json"), Some(b"\"t\"")),
            (
                ",\"datacontenttype\":\"text/xml\",\"data\":\"<a>\\u00e4</a>\"",
                Some("text/xml"),
                Some("<a>ä</a>".as_bytes()),
            ),
            (",\"data_base64\":\"AAH/\"", None, Some(b"\x00\x01\xff")),
            (",\"data_base64\":\"\",\"subject\":null", None, Some(b"")),
            (",\"data_base64\":\"AA==\",\"data\":null", None, Some(b"\0")),
            (",\"datacontenttype\":\"text/plain\",\"data\":null", Some("text/plain"), None),
            (",\"datacontenttype\":\"text/plain\",\"data\":\"\"", Some("text/plain"), Some(b"")),
            (
                ",\"datacontenttype\":\"application/json\",\"data_base64\":\"e30=\"",
                Some("application/json"),
                Some(b"{}"),
            ),
        ] {
            let received = read(&document(rest)).unwrap_or_else(|problem| panic!("{rest}: {problem}"));
            assert_eq!(received.content_type.as_deref(), content_type, "{rest}");
            assert_eq!(received.data.as_deref(), data, "{rest}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut event = read(&document(",\"n\":-5,\"b\":true,\"subject\":\"a \\\"b\\\"\"")).expect("an event").event;
        event.set("time", Value::Text("2026-01-31T06:00:00Z".into())).expect("a time");
        for (content_type, data) in [
            (None, None),
            (None, Some(&b"\xff"[..])),
            (Some("application/json"), Some(b"{\"a\":1.50}")),
            (Some("application/json"), Some(b"{ not JSON")),
            (Some("application/json"), Some(b"{\"a\":1,\"a\":2}")),
            (Some("text/plain; charset=\"UTF-8\""), Some("ä\n".as_bytes())),
            (Some("text/plain; charset=ISO-8859-1"), Some(b"plain")),
            (Some("text/plain"), Some(b"\xe4")),
            (Some("application/protobuf"), Some(b"\x08\x01")),
            (Some("text/plain"), Some(b"")),
            (Some("text/plain"), None),
        ] {
            let written = write(&event, content_type, data);
            let received = read(&written).unwrap_or_else(|problem| panic!("{written}: {problem}"));
            assert_eq!(received.event, event, "{written}");
            assert_eq!(received.data.as_deref(), data, "{written}");
            assert_eq!(received.content_type.as_deref(), content_type, "{written}");
        }
    }

    #[test]
    fn what_is_no_event_is_refused() {
        for (document, problem) in [
            ("[]".to_owned(), "expected an object"),
            ("{}".to_owned(), "expected an event"),
            (document(",\"id\":\"2\""), "duplicate key"),
            (document(",\"data\":1,\"data\":2"), "duplicate key"),
            (document(",\"data\":1,\"data_base64\":\"\""), "exclude one another"),
            (document(",\"data_base64\":\"?\""), "not valid base64"),
            (document(",\"data_base64\":5"), "must be a text"),
            (document(",\"datacontenttype\":\"text/plain\",\"data\":{}"), "must be a text"),
            (document(",\"datacontenttype\":5"), "is not a text"),
            (document(",\"n\":1.5"), "neither a text nor an integer nor a boolean"),
            (document(",\"n\":{}"), "neither a text nor an integer nor a boolean"),
            (document(",\"myName\":\"a\""), "names are in lower case"),
            (document(",\"id\":5").replacen("\"id\":\"1\",", "", 1), "`id` is not a text"),
            (document("") + "x", "line 1"),
        ] {
            let Err(found) = read(&document) else { panic!("{document}") };
            assert!(found.to_lowercase().contains(problem), "{document}: {found}");
        }
        let batch =
            read_structured("application/cloudevents-batch+json", &Bytes::from_static(b"[]"), &Limits::default());
        assert!(batch.is_err_and(|fault| fault.to_http() == 415));
    }

    #[test]
    fn the_media_type_tells_the_mode() {
        assert!(is_structured("Application/CloudEvents+JSON; charset=utf-8"));
        assert!(is_structured("application/cloudevents-batch+json"));
        assert!(!is_structured("application/json") && !is_structured("") && !is_structured("ä"));
    }
}
