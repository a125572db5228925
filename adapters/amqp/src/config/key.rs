//! Routing keys: constants, or templates with fields of the message.

use crossdock_message::{ByteString, Code, Event, Fault, Message};
use crossdock_ports::address_field;
use crossdock_settings::{Reader, Spanned};
use lapin::types::ShortString;

use crate::error::too_long;

/// A routing key. `orders.{region}` inserts one word from the message; `{place=**}` inserts one or more words, separated by dots;
/// `{event.type=**}` inserts an attribute of the event that is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RoutingKey {
    text: String,
    parts: Vec<Part>,
    params: Vec<ByteString>,
    /// The key if it contains no fields.
    constant: Option<ShortString>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Word(Source),
    Words(Source),
}

/// What a part of a key is taken from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Field(ByteString),
    /// An attribute of the event.
    Attribute(ByteString),
}

impl Source {
    fn name(&self) -> &ByteString {
        let (Self::Field(name) | Self::Attribute(name)) = self;
        name
    }

    fn text(&self, message: &Message) -> Option<ByteString> {
        match self {
            Self::Field(name) => address_field(message, name),
            Self::Attribute(name) => message.event.as_ref()?.get(name)?.scalar_text(),
        }
    }
}

impl RoutingKey {
    /// A key without fields.
    pub(crate) fn constant(key: ShortString) -> Self {
        Self { text: key.to_string(), parts: Vec::new(), params: Vec::new(), constant: Some(key) }
    }

    /// Reads a key; `None` if an error was reported.
    pub(crate) fn read(text: &Spanned<String>, reader: &mut Reader<'_>) -> Option<Self> {
        let parts = match parse(&text.value) {
            Ok(parts) => parts,
            Err(problem) => {
                let help = "write a field in braces, such as `orders.{region}`, or `{place=**}` if it contains dots";
                reader.error("routing-key", text.span, problem, help);
                return None;
            }
        };
        let name = |part: &Part| match part {
            Part::Word(Source::Field(name)) | Part::Words(Source::Field(name)) => Some(name.clone()),
            _ => None,
        };
        let params: Vec<ByteString> = parts.iter().filter_map(name).collect();
        let is_constant = parts.iter().all(|part| matches!(part, Part::Literal(_)));
        let constant = if is_constant { ShortString::try_new(text.value.as_str()).ok() } else { None };
        if is_constant && constant.is_none() {
            reader.error("name", text.span, "a routing key must not exceed 255 bytes", "");
            return None;
        }
        Some(Self { text: text.value.clone(), parts, params, constant })
    }

    /// The names of its fields.
    pub(crate) fn params(&self) -> &[ByteString] {
        &self.params
    }

    /// The key as written.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Evaluates the key for a message.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for a field that is missing, has empty words, or has dots where one word is expected.
    pub(crate) fn evaluate(&self, message: &Message) -> Result<ShortString, Fault> {
        if let Some(constant) = &self.constant {
            return Ok(constant.clone());
        }
        let mut key = String::with_capacity(self.text.len() + 32);
        for part in &self.parts {
            match part {
                Part::Literal(text) => key.push_str(text),
                Part::Word(source) | Part::Words(source) => {
                    let name = source.name();
                    let value = source.text(message).ok_or_else(|| refused(name, "is missing or not a scalar"))?;
                    let mut words = value.split('.');
                    if words.any(str::is_empty) {
                        return Err(refused(name, "must not contain empty words"));
                    }
                    if matches!(part, Part::Word(_)) && value.contains('.') {
                        return Err(refused(name, "must be a single word without dots"));
                    }
                    key.push_str(&value);
                }
            }
        }
        ShortString::try_new(key).map_err(|_| too_long("routing key"))
    }
}

fn refused(name: &ByteString, problem: &str) -> Fault {
    let message = format!("the field `{name}` of the routing key {problem}");
    Fault::caller(Code::InvalidArgument, "ADDRESS_FIELD", message).with_detail("field", name.clone())
}

fn parse(text: &str) -> Result<Vec<Part>, &'static str> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((literal, after)) = rest.split_once('{') {
        if literal.contains('}') {
            return Err("`}` without `{`");
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.to_owned()));
        }
        let (inner, after) = after.split_once('}').ok_or("`{` without `}`")?;
        let (name, words) = match inner.split_once('=') {
            None => (inner, false),
            Some((name, "*")) => (name, false),
            Some((name, "**")) => (name, true),
            Some(_) => return Err("`=` must be followed by `*` or `**`"),
        };
        let attribute = name.strip_prefix("event.");
        if attribute.is_some_and(|attribute| !Event::is_name(attribute)) {
            return Err("the name of an attribute consists of lower-case letters and digits");
        }
        let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
        let is_field = first && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if attribute.is_none() && !is_field {
            return Err("a name in braces must consist of letters, digits and `_`");
        }
        let source = attribute.map_or_else(|| Source::Field(name.into()), |name| Source::Attribute(name.into()));
        parts.push(if words { Part::Words(source) } else { Part::Word(source) });
        rest = after;
    }
    if rest.contains('}') {
        return Err("`}` without `{`");
    }
    if !rest.is_empty() {
        parts.push(Part::Literal(rest.to_owned()));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use crossdock_message::{Body, Record, Value};

    use super::*;

    fn key(text: &str, fields: &[(&'static str, Value)]) -> Result<String, &'static str> {
        let parts = parse(text)?;
        let key = RoutingKey { text: text.to_owned(), parts, params: Vec::new(), constant: None };
        let mut message = Message::new("1".into(), "test".into());
        let fields = fields.iter().map(|(name, value)| (ByteString::from_static(name), value.clone()));
        message.body = Body::Value(Value::Record(fields.collect::<Record>()));
        key.evaluate(&message).map(|key| key.to_string()).map_err(|_| "refused")
    }

    #[test]
    fn fields_are_inserted_as_words() {
        let field = |text: &'static str| [("region", Value::from(text))];
        assert_eq!(key("orders.{region}", &field("eu")), Ok("orders.eu".into()));
        assert_eq!(key("orders.{region}.v{region}", &field("eu")), Ok("orders.eu.veu".into()));
        assert_eq!(key("{region=**}", &field("eu.north")), Ok("eu.north".into()));
        assert_eq!(key("orders.{number}", &[("number", Value::Int(-7))]), Ok("orders.-7".into()));
        for refused in ["", "eu.north", ".", "a..b"] {
            assert_eq!(key("orders.{region}", &field(refused)), Err("refused"), "{refused:?}");
        }
        assert_eq!(key("{region=**}", &field("eu.")), Err("refused"));
        assert_eq!(key("orders.{other}", &field("eu")), Err("refused"));
        let long: &'static str = Box::leak("x".repeat(255).into_boxed_str());
        assert_eq!(key("{region}", &field(long)), Ok(long.into()));
        assert_eq!(key("o{region}", &field(long)), Err("refused"));
    }

    #[test]
    fn malformed_keys_are_rejected() {
        for text in ["a{b", "a}b", "{}", "{1a}", "{a-b}", "{a=***}", "{a}b}"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(parse("orders.placed"), Ok(vec![Part::Literal("orders.placed".into())]));
    }
}
