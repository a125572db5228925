//! Keys of messages: text with fields of the message.

use crossdock_message::{ByteString, Code, Event, Fault, Limits, Message, Value};
use crossdock_settings::{Reader, Spanned};

/// A key: `{customer}` inserts a field, `{event.partitionkey}` an attribute of the event that is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyTemplate {
    text: String,
    parts: Vec<Part>,
    fields: Vec<ByteString>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Field(ByteString),
    /// An attribute of the event.
    Attribute(ByteString),
}

impl KeyTemplate {
    /// Reads a key; `None` if an error was reported.
    pub fn read(text: &Spanned<String>, reader: &mut Reader<'_>) -> Option<Self> {
        match parse(&text.value) {
            Ok(parts) => {
                let fields = parts.iter().filter_map(|part| match part {
                    Part::Field(name) => Some(name.clone()),
                    Part::Literal(_) | Part::Attribute(_) => None,
                });
                Some(Self { text: text.value.clone(), fields: fields.collect(), parts })
            }
            Err(problem) => {
                reader.error("key", text.span, problem, "write a field in braces, such as `{customer}`");
                None
            }
        }
    }

    /// The fields that it inserts.
    #[must_use]
    pub fn fields(&self) -> &[ByteString] {
        &self.fields
    }

    /// The key as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The key of a message.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for a field that is missing or not a scalar.
    pub fn evaluate(&self, message: &Message) -> Result<ByteString, Fault> {
        let mut key = String::with_capacity(self.text.len() + 32);
        for part in &self.parts {
            match part {
                Part::Literal(text) => key.push_str(text),
                Part::Field(name) => key.push_str(&field(message, name).ok_or_else(|| {
                    let problem = format!("the field `{name}` of the key is missing or not a scalar");
                    Fault::caller(Code::InvalidArgument, "ADDRESS_FIELD", problem).with_detail("field", name.clone())
                })?),
                Part::Attribute(name) => {
                    let value = message.event.as_ref().and_then(|event| event.get(name)).and_then(Value::scalar_text);
                    key.push_str(&value.ok_or_else(|| {
                        let problem = format!("the attribute `{name}` of the event, which the key needs, is missing");
                        Fault::caller(Code::InvalidArgument, "ADDRESS_FIELD", problem)
                            .with_detail("field", name.clone())
                    })?);
                }
            }
        }
        Ok(key.into())
    }
}

/// A parameter of the message or a field of its body, as text. The body may have any format with fields.
fn field(message: &Message, name: &str) -> Option<ByteString> {
    let of_body = || message.body.value(&Limits::default()).ok().flatten()?.get(name);
    message.params.get(name).or_else(of_body).and_then(Value::scalar_text)
}

fn parse(text: &str) -> Result<Vec<Part>, &'static str> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (literal, from_brace) = rest.split_at(at);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.to_owned()));
        }
        let inner = from_brace.strip_prefix('{').ok_or("`}` without `{`")?;
        let (name, after) = inner.split_once('}').ok_or("`{` without `}`")?;
        if let Some(attribute) = name.strip_prefix("event.") {
            if !Event::is_name(attribute) {
                return Err("the name of an attribute consists of lower-case letters and digits");
            }
            parts.push(Part::Attribute(attribute.into()));
            rest = after;
            continue;
        }
        let is_start = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
        let mut bytes = name.bytes();
        if !bytes.next().is_some_and(is_start) || !bytes.all(|byte| is_start(byte) || byte.is_ascii_digit()) {
            return Err("a name in braces must consist of letters, digits and `_`");
        }
        parts.push(Part::Field(name.into()));
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(Part::Literal(rest.to_owned()));
    }
    if parts.is_empty() { Err("a key must not be empty; leave `key` out for none") } else { Ok(parts) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_inserted_and_malformed_keys_rejected() {
        let fields = |names: &[&str]| names.iter().map(|name| Part::Field((*name).into())).collect::<Vec<_>>();
        assert_eq!(parse("{customer}"), Ok(fields(&["customer"])));
        let mixed = [Part::Literal("eu-".into()), Part::Field("a_1".into()), Part::Literal("!".into())];
        assert_eq!(parse("eu-{a_1}!").as_deref(), Ok(&mixed[..]));
        let of_event = [Part::Literal("a-".into()), Part::Attribute("partitionkey".into())];
        assert_eq!(parse("a-{event.partitionkey}").as_deref(), Ok(&of_event[..]));
        for malformed in
            ["{event.}", "{event.A}", "{event.data}", "", "{", "}", "a}b{", "{}", "{1a}", "{a.b}", "{a", "{a{b}}"]
        {
            assert!(parse(malformed).is_err(), "{malformed}");
        }
    }
}
