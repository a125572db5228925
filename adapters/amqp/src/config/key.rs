//! Routing keys: as written, or with fields of the message in them.

use crossdock_adapter_api::address_field;
use crossdock_message::{ByteString, Code, Fault, Message};
use crossdock_settings::{Reader, Spanned};
use lapin::types::ShortString;

use crate::error::too_long;

/// A routing key. `orders.{region}` takes one word from the message; `{place=**}` takes one or more, with dots between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RoutingKey {
    text: String,
    parts: Vec<Part>,
    params: Vec<ByteString>,
    /// The key where no field is in it.
    constant: Option<ShortString>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Word(ByteString),
    Words(ByteString),
}

impl RoutingKey {
    /// A key without fields.
    pub(crate) fn constant(key: ShortString) -> Self {
        Self { text: key.to_string(), parts: Vec::new(), params: Vec::new(), constant: Some(key) }
    }

    /// Reads a key; nothing where an error was reported.
    pub(crate) fn read(text: &Spanned<String>, reader: &mut Reader<'_>) -> Option<Self> {
        let parts = match parse(&text.value) {
            Ok(parts) => parts,
            Err(problem) => {
                let help = "write a field in braces, such as `orders.{region}`, or `{place=**}` for one that has dots";
                reader.error("routing-key", text.span, problem, help);
                return None;
            }
        };
        let name = |part: &Part| match part {
            Part::Literal(_) => None,
            Part::Word(name) | Part::Words(name) => Some(name.clone()),
        };
        let params: Vec<ByteString> = parts.iter().filter_map(name).collect();
        let constant = if params.is_empty() { ShortString::try_new(text.value.as_str()).ok() } else { None };
        if params.is_empty() && constant.is_none() {
            reader.error("name", text.span, "a routing key has up to 255 bytes", "");
            return None;
        }
        Some(Self { text: text.value.clone(), parts, params, constant })
    }

    /// The fields in it.
    pub(crate) fn params(&self) -> &[ByteString] {
        &self.params
    }

    /// As written.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// The key of a message.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for a field that is missing, empty, or would make other words of the key than the route has.
    pub(crate) fn of(&self, message: &Message) -> Result<ShortString, Fault> {
        if let Some(constant) = &self.constant {
            return Ok(constant.clone());
        }
        let mut key = String::with_capacity(self.text.len() + 32);
        for part in &self.parts {
            match part {
                Part::Literal(text) => key.push_str(text),
                Part::Word(name) | Part::Words(name) => {
                    let value =
                        address_field(message, name).ok_or_else(|| refused(name, "is missing or has no text"))?;
                    let mut words = value.split('.');
                    if words.any(str::is_empty) {
                        return Err(refused(name, "is empty, or has nothing between two dots"));
                    }
                    if matches!(part, Part::Word(_)) && value.contains('.') {
                        return Err(refused(name, "has a dot in it, and stands for one word"));
                    }
                    key.push_str(&value);
                }
            }
        }
        ShortString::try_new(key).map_err(|_| too_long("routing key"))
    }
}

fn refused(name: &ByteString, problem: &str) -> Fault {
    let message = format!("the routing key needs the field `{name}`, which {problem}");
    Fault::caller(Code::InvalidArgument, "ADDRESS_FIELD", message).with_detail("field", name.clone())
}

fn parse(text: &str) -> Result<Vec<Part>, &'static str> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((literal, behind)) = rest.split_once('{') {
        if literal.contains('}') {
            return Err("a brace is closed that was not opened");
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.to_owned()));
        }
        let (inner, behind) = behind.split_once('}').ok_or("a brace is not closed")?;
        let (name, words) = match inner.split_once('=') {
            None => (inner, false),
            Some((name, "*")) => (name, false),
            Some((name, "**")) => (name, true),
            Some(_) => return Err("behind `=` stands `*` or `**`"),
        };
        let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
        if !first || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err("a name in braces has letters, digits and `_`");
        }
        parts.push(if words { Part::Words(name.into()) } else { Part::Word(name.into()) });
        rest = behind;
    }
    if rest.contains('}') {
        return Err("a brace is closed that was not opened");
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
        key.of(&message).map(|key| key.to_string()).map_err(|_| "refused")
    }

    #[test]
    fn fields_stand_for_words() {
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
    fn what_is_no_key_is_refused() {
        for text in ["a{b", "a}b", "{}", "{1a}", "{a-b}", "{a=***}", "{a}b}"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(parse("orders.placed"), Ok(vec![Part::Literal("orders.placed".into())]));
    }
}
