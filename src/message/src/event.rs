//! The context attributes of an event (CloudEvents 1.0.2 §3).

use bytestring::ByteString;

use crate::{Record, Time, Value};

/// Attributes that every event has, besides `specversion`.
const REQUIRED: [&str; 3] = ["id", "source", "type"];
/// Names that are not attributes of their own: the version is fixed, the media type is that of the message, and data is its body.
const RESERVED: [&str; 4] = ["specversion", "datacontenttype", "data", "data_base64"];

/// A violation of CloudEvents.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// A name has other characters than lower-case letters and digits, or is too long.
    #[error("`{0}` is not the name of an attribute: names have 1 to {max} lower-case letters and digits", max = Event::NAME_LEN_MAX)]
    Name(String),
    /// The attribute is not one of its own: the version is fixed, and the message has the data and its media type.
    #[error("`{0}` cannot be set")]
    Reserved(ByteString),
    /// A value is none that an attribute can have.
    #[error("the attribute `{0}` {1}")]
    Value(ByteString, &'static str),
    /// An attribute that every event has is missing.
    #[error("the attribute `{0}` is missing")]
    Missing(&'static str),
    /// Too many attributes.
    #[error("an event can have at most {max} attributes", max = Event::ATTRIBUTES_MAX)]
    TooMany,
}

/// The attributes of an event in the order in which they were set: booleans, 32-bit integers and texts. URIs, times and bytes are texts, in the form
/// that CloudEvents gives them.
///
/// ```
/// use crossdock_message::{Event, Value};
///
/// let mut event = Event::default();
/// event.set("type", Value::Text("order.placed".into())).expect("a text");
/// assert_eq!(event.check().expect_err("not complete").to_string(), "the attribute `id` is missing");
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Event(Record);

impl Event {
    /// The longest name of an attribute, in bytes. CloudEvents recommends at most 20.
    pub const NAME_LEN_MAX: usize = 64;
    /// The maximum number of attributes.
    pub const ATTRIBUTES_MAX: usize = 64;

    /// Sets an attribute.
    ///
    /// # Errors
    /// [`EventError`] for a name or value that CloudEvents does not allow, and above [`Self::ATTRIBUTES_MAX`].
    pub fn set(&mut self, name: impl Into<ByteString>, value: Value) -> Result<(), EventError> {
        let name = name.into();
        if RESERVED.contains(&&*name) {
            return Err(EventError::Reserved(name));
        }
        if !Self::is_name(&name) {
            return Err(EventError::Name(name.chars().take(Self::NAME_LEN_MAX).collect()));
        }
        if let Err(problem) = check_value(&name, &value) {
            return Err(EventError::Value(name, problem));
        }
        if self.0.len() == Self::ATTRIBUTES_MAX && !self.0.has(&name) {
            return Err(EventError::TooMany);
        }
        self.0.set(name, value);
        Ok(())
    }

    /// Whether it can be the name of an attribute: 1 to [`Self::NAME_LEN_MAX`] lower-case letters and digits, and not reserved.
    #[must_use]
    pub fn is_name(name: &str) -> bool {
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let is_token = (1..=Self::NAME_LEN_MAX).contains(&name.len()) && name.bytes().all(is_plain);
        is_token && !RESERVED.contains(&name)
    }

    /// Takes over all attributes of another event, in place of its own of the same names. It may have up to twice as many as
    /// [`Self::ATTRIBUTES_MAX`] then.
    pub fn extend(&mut self, other: &Self) {
        for (name, value) in other.0.iter() {
            self.0.set(name.clone(), value.clone());
        }
    }

    /// The value of an attribute.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// All attributes.
    #[must_use]
    pub fn attributes(&self) -> &Record {
        &self.0
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Checks that it has all attributes that an event needs.
    ///
    /// # Errors
    /// [`EventError::Missing`].
    pub fn check(&self) -> Result<(), EventError> {
        REQUIRED.into_iter().find(|name| !self.0.has(name)).map_or(Ok(()), |name| Err(EventError::Missing(name)))
    }
}

/// The types and restrictions of CloudEvents 1.0.2 §3, "Type System" and "Context Attributes".
fn check_value(name: &str, value: &Value) -> Result<(), &'static str> {
    let is_defined = REQUIRED.contains(&name) || matches!(name, "subject" | "time" | "dataschema");
    match value {
        Value::Text(text) if text.chars().any(char::is_control) => Err("contains a control character"),
        Value::Text(text) if is_defined && text.is_empty() => Err("is empty"),
        Value::Text(text) if name == "time" && !is_time(text) => Err("is not a time of RFC 3339"),
        Value::Text(_) => Ok(()),
        _ if is_defined => Err("is not a text"),
        Value::Bool(_) => Ok(()),
        Value::Int(number) if i32::try_from(*number).is_ok() => Ok(()),
        Value::Int(_) | Value::UInt(_) => Err("is not a 32-bit integer"),
        _ => Err("is neither a text nor an integer nor a boolean"),
    }
}

/// Whether a text is a time of RFC 3339 §5.6, also with letters in lower case and with a leap second.
fn is_time(text: &str) -> bool {
    let upper = text.to_ascii_uppercase();
    let is_leap_second = upper.get(16..19) == Some(":60");
    Time::parse(&upper).is_some() || (is_leap_second && Time::parse(&upper.replacen(":60", ":59", 1)).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, value: Value) -> Result<(), EventError> {
        Event::default().set(name, value)
    }

    #[test]
    fn names_are_lower_case_letters_and_digits() {
        let text = || Value::Text("x".into());
        for name in ["a", "traceparent", "x9", &"a".repeat(64)] {
            assert_eq!(set(name, text()), Ok(()), "{name}");
        }
        for name in ["", "A", "a_b", "a-b", "ä", &"a".repeat(65)] {
            assert!(matches!(set(name, text()), Err(EventError::Name(_))), "{name}");
        }
        for name in RESERVED {
            assert_eq!(set(name, text()), Err(EventError::Reserved(name.into())));
        }
    }

    #[test]
    fn values_have_the_types_of_cloudevents() {
        assert_eq!(set("n", Value::Int(i64::from(i32::MIN))), Ok(()));
        assert_eq!(set("n", Value::Bool(false)), Ok(()));
        assert_eq!(set("n", Value::Text(ByteString::new())), Ok(()), "an extension may be empty");
        for time in ["2026-01-31T06:00:00.1234567+01:00", "2026-01-31t06:00:00z", "2016-12-31T23:59:60Z"] {
            assert_eq!(set("time", Value::Text(time.into())), Ok(()), "{time}");
        }
        for (name, value) in [
            ("n", Value::Int(1 << 31)),
            ("n", Value::Null),
            ("n", Value::List(Vec::new())),
            ("n", Value::Text("a\nb".into())),
            ("n", Value::Text("a\u{85}b".into())),
            ("id", Value::Int(1)),
            ("id", Value::Text(ByteString::new())),
            ("time", Value::Text("today".into())),
            ("time", Value::Text("2016-12-31T23:60:00Z".into())),
        ] {
            assert!(matches!(set(name, value.clone()), Err(EventError::Value(..))), "{name} {value:?}");
        }
    }

    #[test]
    fn attributes_are_limited_in_number() {
        let mut event = Event::default();
        for index in 0..Event::ATTRIBUTES_MAX {
            event.set(format!("a{index}"), Value::Int(0)).expect("below the limit");
        }
        assert_eq!(event.set("a0", Value::Int(1)), Ok(()), "it is replaced");
        assert_eq!(event.set("b", Value::Int(1)), Err(EventError::TooMany));
    }
}
