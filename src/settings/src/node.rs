//! A YAML value with its place.

use crate::Span;

/// One value of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where it stands.
    pub span: Span,
    /// What it is.
    pub kind: Kind,
}

/// What a [`Node`] is.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// A text in its spelling.
    Scalar {
        /// The text, escapes and folding done.
        text: String,
        /// Written without quotes, so that it may be a number or boolean.
        plain: bool,
        /// The text's bytes stand in the file as they are, from this offset on.
        verbatim_from: Option<usize>,
    },
    /// Values in order.
    List(Vec<Node>),
    /// Keys and values in order, each key once.
    Map(Vec<(Key, Node)>),
}

/// A key of a map with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    /// Where it stands.
    pub span: Span,
    /// Its text.
    pub name: String,
}

impl Node {
    /// The value of a key; nothing where this is no map.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Node> {
        self.entries().iter().find(|(key, _)| key.name == name).map(|(_, value)| value)
    }

    /// The entries of a map; none where this is no map.
    #[must_use]
    pub fn entries(&self) -> &[(Key, Node)] {
        match &self.kind {
            Kind::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The text of a scalar.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// Whether this is a plain scalar that says nothing: `~`, `null`, or no value at all.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar { text, plain: true, .. } if matches!(text.as_str(), "" | "~" | "null"))
    }

    /// The place of a part of the scalar's text, in bytes; the whole scalar where its spelling differs from its text.
    #[must_use]
    pub fn span_of(&self, part: std::ops::Range<usize>) -> Span {
        match self.kind {
            Kind::Scalar { verbatim_from: Some(from), .. } => {
                Span { source: self.span.source, start: from + part.start, end: from + part.end }
            }
            _ => self.span,
        }
    }

    /// What a person calls this kind of node.
    #[must_use]
    pub fn kind_name(&self) -> &'static str {
        match &self.kind {
            Kind::Scalar { .. } if self.is_null() => "nothing",
            Kind::Scalar { .. } => "a single value",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a map",
        }
    }
}
