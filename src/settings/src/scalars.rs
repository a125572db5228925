//! Scalars, lists and maps of names.

use std::fmt;
use std::ops::Deref;

use serde_json::json;

use crate::{FromNode, Kind, Node, Reader, Span};

/// A value with its span, for checks after reading.
#[derive(Clone, PartialEq)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Its place in the file.
    pub span: Span,
}

/// Omits the span, so that equal settings print alike wherever they are in a file.
impl<T: fmt::Debug> fmt::Debug for Spanned<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

impl<T> Deref for Spanned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: FromNode> FromNode for Spanned<T> {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self { value: T::from_node(node, reader)?, span: node.span })
    }

    fn schema() -> serde_json::Value {
        T::schema()
    }
}

/// A duration, written `250ms`, `5s`, `2m` or `24h`; the unit is required.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(pub std::time::Duration);

/// A number of bytes, written `512B`, `64KiB`, `1MiB` or `2GiB`; the unit is required.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// Text that never appears in errors, dumps or logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    text: String,
    /// Whether it is written in the file itself rather than as a placeholder.
    pub literal: bool,
}

impl Secret {
    /// One that does not come from settings.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self { text, literal: false }
    }

    /// The text. Do not print it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl FromNode for Secret {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let (text, resolved) = reader.text(node)?;
        Some(Self { text, literal: !resolved })
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string" })
    }
}

impl FromNode for String {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        reader.text(node).map(|(text, _)| text)
    }

    fn schema() -> serde_json::Value {
        json!({ "type": ["string", "number", "boolean"] })
    }
}

impl FromNode for bool {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        match (node.text(), &node.kind) {
            (Some("true"), Kind::Scalar { plain: true, .. }) => Some(true),
            (Some("false"), Kind::Scalar { plain: true, .. }) => Some(false),
            _ => {
                reader.wrong_kind(node, "true or false", "write `true` or `false`, without quotes");
                None
            }
        }
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "boolean" })
    }
}

macro_rules! whole_numbers {
    ($($number:ty),*) => {$(
        impl FromNode for $number {
            fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
                let (text, _) = match node.kind {
                    Kind::Scalar { plain: true, .. } => reader.text(node)?,
                    _ => {
                        reader.wrong_kind(node, "an integer", "write the digits without quotes");
                        return None;
                    }
                };
                match text.parse() {
                    Ok(number) => Some(number),
                    Err(_) => {
                        let message = format!("`{text}` is not an integer from {} to {}", <$number>::MIN, <$number>::MAX);
                        reader.error("number", node.span, message, "write digits only");
                        None
                    }
                }
            }

            fn schema() -> serde_json::Value {
                or_placeholder(&json!({ "type": "integer", "minimum": <$number>::MIN, "maximum": <$number>::MAX }))
            }
        }
    )*};
}

whole_numbers!(u8, i32, u16, u32, u64, usize);

/// Also allows a placeholder, as for any scalar that is read from text.
#[doc(hidden)]
#[must_use]
pub fn or_placeholder(schema: &serde_json::Value) -> serde_json::Value {
    json!({ "anyOf": [schema, { "type": "string", "pattern": "\\$\\{(env|file):" }] })
}

/// Splits `250ms` into 250 and `ms`.
fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    Some((text[..digits].parse().ok()?, text[digits..].trim_start()))
}

impl Duration {
    /// Parses `250ms`, `5s`, `2m` or `24h`; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (number, unit) = number_and_unit(text)?;
        let millis = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        number.checked_mul(millis).map(|millis| Self(std::time::Duration::from_millis(millis)))
    }
}

impl FromNode for Duration {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let (text, _) = reader.text(node)?;
        let parsed = Self::parse(&text);
        if parsed.is_none() {
            let help = match text.parse::<u64>() {
                Ok(number) => format!("write the unit: `{number}ms`, `{number}s`, `{number}m` or `{number}h`"),
                Err(_) => "write an integer and its unit: `250ms`, `5s`, `2m`, `24h`".to_owned(),
            };
            reader.error("duration", node.span, format!("`{text}` is not a duration"), help);
        }
        parsed
    }

    fn schema() -> serde_json::Value {
        or_placeholder(&json!({ "type": "string", "pattern": "^[0-9]+ ?(ms|s|m|h)$" }))
    }
}

impl Size {
    fn parse(text: &str) -> Option<Self> {
        let (number, unit) = number_and_unit(text)?;
        let bytes = match unit {
            "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return None,
        };
        number.checked_mul(bytes).map(Self)
    }
}

impl FromNode for Size {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let (text, _) = reader.text(node)?;
        let parsed = Self::parse(&text);
        if parsed.is_none() {
            let help = match text.parse::<u64>() {
                Ok(number) => format!("write the unit: `{number}B`, `{number}KiB` or `{number}MiB`"),
                Err(_) => "write an integer and its unit: `512B`, `64KiB`, `1MiB`, `2GiB`".to_owned(),
            };
            reader.error("size", node.span, format!("`{text}` is not a size"), help);
        }
        parsed
    }

    fn schema() -> serde_json::Value {
        or_placeholder(&json!({ "type": "string", "pattern": "^[0-9]+ ?(B|KiB|MiB|GiB)$" }))
    }
}

impl<T: FromNode> FromNode for Option<T> {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        T::from_node(node, reader).map(Some)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }

    fn schema() -> serde_json::Value {
        T::schema()
    }
}

/// Reads all items, even after an error, so that every error is reported. Returns `None` if there was one.
fn read_all<T: FromNode>(items: &[Node], reader: &mut Reader<'_>) -> Option<Vec<T>> {
    let read: Vec<Option<T>> = items.iter().map(|item| T::from_node(item, reader)).collect();
    read.into_iter().collect()
}

impl<T: FromNode> FromNode for Vec<T> {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        match &node.kind {
            Kind::List(items) => read_all(items, reader),
            _ => {
                reader.wrong_kind(node, "a list", "write `[…]`, or one item per line after `- `");
                None
            }
        }
    }

    fn absent() -> Option<Self> {
        Some(Self::new())
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "array", "items": T::schema() })
    }
}

/// A list, or a single item in place of a list of one.
#[derive(Debug, Clone, PartialEq)]
pub struct OneOrMany<T>(pub Vec<T>);

impl<T: FromNode> FromNode for OneOrMany<T> {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        match &node.kind {
            Kind::List(items) => read_all(items, reader).map(Self),
            _ => T::from_node(node, reader).map(|one| Self(vec![one])),
        }
    }

    fn schema() -> serde_json::Value {
        json!({ "anyOf": [T::schema(), { "type": "array", "items": T::schema() }] })
    }
}

/// A map from names to values, in file order.
#[derive(Debug, Clone, PartialEq)]
pub struct Named<T>(pub Vec<(Spanned<String>, T)>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Named<T> {
    /// The value of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&T> {
        self.0.iter().find(|(key, _)| key.value == name).map(|(_, value)| value)
    }

    /// The names, in file order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(key, _)| key.value.as_str())
    }
}

impl<T: FromNode> FromNode for Named<T> {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let Kind::Map(entries) = &node.kind else {
            reader.wrong_kind(node, "a map of names", "write `name: …`, one per line");
            return None;
        };
        let mut is_complete = true;
        let mut named = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let name = Spanned { value: key.name.clone(), span: key.span };
            match T::from_node(value, reader) {
                Some(value) => named.push((name, value)),
                None => is_complete = false,
            }
        }
        is_complete.then_some(Self(named))
    }

    fn absent() -> Option<Self> {
        Some(Self::default())
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "object", "additionalProperties": T::schema() })
    }
}

/// The node itself, to be read later.
impl FromNode for Node {
    fn from_node(node: &Node, _: &mut Reader<'_>) -> Option<Self> {
        Some(node.clone())
    }

    fn schema() -> serde_json::Value {
        json!({})
    }
}
