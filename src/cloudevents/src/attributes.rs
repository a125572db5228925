//! Attributes of events in binary mode, one by one.

use crossdock_message::{ByteString, Event, Fault, Value};

use crate::received::not_an_event;

/// The only version of CloudEvents that is read and written.
pub const VERSION: &str = "1.0";

/// Collects the attributes of a received event.
#[derive(Debug, Default)]
pub struct Attributes {
    event: Event,
    has_version: bool,
    content_type: Option<ByteString>,
}

impl Attributes {
    /// Adds an attribute. `name` has no prefix and may have any case.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for an attribute that occurs twice, one that CloudEvents does not allow, and another version than 1.0.
    pub fn add(&mut self, name: &str, value: Value) -> Result<(), Fault> {
        let name = name.to_ascii_lowercase();
        let twice = || not_an_event(format!("the attribute `{name}` occurs twice"));
        match (&*name, &value) {
            ("specversion", Value::Text(version)) if *version == VERSION => {
                if std::mem::replace(&mut self.has_version, true) {
                    return Err(twice());
                }
            }
            ("specversion", _) => return Err(not_an_event("the attribute `specversion` must be 1.0")),
            ("datacontenttype", Value::Text(media_type)) => {
                check_media_type(media_type)?;
                if self.content_type.replace(media_type.clone()).is_some() {
                    return Err(twice());
                }
            }
            ("datacontenttype", _) => return Err(not_an_event("the attribute `datacontenttype` is not a text")),
            _ if self.event.get(&name).is_some() => return Err(twice()),
            _ => self.event.set(name, value).map_err(|error| not_an_event(error.to_string()))?,
        }
        Ok(())
    }

    /// The event, and the media type of its data, which is `content_type` in binary mode.
    ///
    /// # Errors
    /// INVALID_ARGUMENT if an attribute is missing that every event has, or the media type of the data is stated in two ways.
    pub fn finish(self, content_type: Option<&ByteString>) -> Result<(Event, Option<ByteString>), Fault> {
        if let Some(media_type) = content_type {
            check_media_type(media_type)?;
        }
        if self.event.is_empty() && !self.has_version {
            return Err(not_an_event(
                "expected an event of CloudEvents: its attributes in headers, or a body of type application/cloudevents+json",
            ));
        }
        if !self.has_version {
            return Err(not_an_event("the attribute `specversion` is missing"));
        }
        self.event.check().map_err(|error| not_an_event(error.to_string()))?;
        match (self.content_type, content_type) {
            (Some(attribute), Some(header)) if attribute != *header => {
                Err(not_an_event("the attribute `datacontenttype` differs from the content type"))
            }
            (attribute, header) => Ok((self.event, attribute.or_else(|| header.cloned()))),
        }
    }
}

/// A media type (RFC 2046), as far as headers of any protocol have to be able to carry it.
fn check_media_type(text: &str) -> Result<(), Fault> {
    let is_printable = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if is_printable && text.contains('/') {
        return Ok(());
    }
    Err(not_an_event("the attribute `datacontenttype` is not a media type"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &'static str) -> Value {
        Value::Text(ByteString::from_static(text))
    }

    fn collect(
        pairs: &[(&str, Value)],
        content_type: Option<&'static str>,
    ) -> Result<(Event, Option<ByteString>), String> {
        let mut attributes = Attributes::default();
        let content_type = content_type.map(ByteString::from_static);
        let added = pairs.iter().try_for_each(|(name, value)| attributes.add(name, value.clone()));
        let finished = added.and_then(|()| attributes.finish(content_type.as_ref()));
        finished.map_err(|fault| fault.message.to_string())
    }

    const NEEDED: [(&str, &str); 4] = [("specversion", "1.0"), ("id", "1"), ("source", "/a"), ("type", "t")];

    fn with(extra: &[(&'static str, Value)]) -> Vec<(&'static str, Value)> {
        NEEDED.iter().map(|(name, value)| (*name, text(value))).chain(extra.iter().cloned()).collect()
    }

    #[test]
    fn an_event_needs_its_attributes() {
        assert!(collect(&[], None).is_err_and(|problem| problem.starts_with("expected an event")));
        for missing in 0..NEEDED.len() {
            let mut pairs = with(&[]);
            let (name, _) = pairs.remove(missing);
            assert_eq!(collect(&pairs, None), Err(format!("the attribute `{name}` is missing")));
        }
        let (event, content_type) = collect(&with(&[("X1", Value::Int(5))]), Some("text/plain")).expect("an event");
        assert_eq!(event.get("x1"), Some(&Value::Int(5)));
        assert_eq!(content_type.as_deref(), Some("text/plain"));
    }

    #[test]
    fn ambiguous_attributes_are_refused() {
        for extra in [("id", text("2")), ("ID", text("1")), ("specversion", text("1.0"))] {
            let problem = collect(&with(&[extra]), None).expect_err("twice");
            assert!(problem.ends_with("occurs twice"), "{problem}");
        }
        let media_type = || [("datacontenttype", text("text/plain"))];
        assert_eq!(collect(&with(&media_type()), None).map(|(_, found)| found), Ok(Some("text/plain".into())));
        assert!(collect(&with(&media_type()), Some("text/plain")).is_ok());
        assert!(collect(&with(&media_type()), Some("text/html")).is_err());
        assert!(collect(&[("specversion", text("0.3"))], None).is_err());
        for malformed in ["", "text", "text/plain\r\nx: 1", "text/ä"] {
            assert!(collect(&with(&[("datacontenttype", text(malformed))]), None).is_err(), "{malformed:?}");
            assert!(collect(&with(&[]), Some(malformed)).is_err(), "{malformed:?}");
        }
    }
}
