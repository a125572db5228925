//! YAML values with their spans.

use crate::Span;

/// A value of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its place in the file.
    pub span: Span,
    /// The value.
    pub kind: Kind,
}

/// The kind and content of a [`Node`].
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// A scalar as text.
    Scalar {
        /// The text after escapes and line folding.
        text: String,
        /// Whether it is written without quotes, so that it may be a number or boolean.
        plain: bool,
        /// Where the text starts in the file, if it is spelled there byte for byte.
        verbatim_from: Option<usize>,
    },
    /// Values in order.
    List(Vec<Node>),
    /// Entries in order, with unique keys.
    Map(Vec<(Key, Node)>),
}

/// A key of a map.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    /// Its place in the file.
    pub span: Span,
    /// Its text.
    pub name: String,
}

impl Node {
    /// The value of a key; `None` if it is absent or the node is not a map.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Node> {
        self.entries().iter().find(|(key, _)| key.name == name).map(|(_, value)| value)
    }

    /// The entries of a map; empty if the node is not a map.
    #[must_use]
    pub fn entries(&self) -> &[(Key, Node)] {
        match &self.kind {
            Kind::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The text of a scalar; `None` if the node is not a scalar.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// Whether the node is null: an unquoted `~` or `null`, or no value at all.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar { text, plain: true, .. } if matches!(text.as_str(), "" | "~" | "null"))
    }

    /// The span of a byte range of the scalar's text; the span of the whole scalar if its spelling differs from its text.
    #[must_use]
    pub fn span_of(&self, part: std::ops::Range<usize>) -> Span {
        match self.kind {
            Kind::Scalar { verbatim_from: Some(from), .. } => {
                Span { source: self.span.source, start: from + part.start, end: from + part.end }
            }
            _ => self.span,
        }
    }

    /// The kind of node, for error messages.
    #[must_use]
    pub fn kind_name(&self) -> &'static str {
        match &self.kind {
            Kind::Scalar { .. } if self.is_null() => "nothing",
            Kind::Scalar { .. } => "a scalar",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a map",
        }
    }
}
