//! Limits on documents.

/// Limits on reading a document. Each is tested at limit − 1, limit and limit + 1.
///
/// A document over a limit is rejected with the position where it exceeds the limit; nothing is truncated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Nesting of arrays, objects or elements; at most [`Limits::DEPTH_CEILING`].
    pub depth: usize,
    /// Keys of a JSON object.
    pub keys: usize,
    /// Values of a JSON document, or elements and attributes of an XML document. Limits the memory that a small body expands to.
    pub nodes: usize,
    /// Bytes of a number.
    pub number_len: usize,
    /// Attributes of an XML element, not counting namespace declarations.
    pub attributes: usize,
    /// XML namespace declarations in scope.
    pub namespaces: usize,
    /// Bytes of an XML namespace name.
    pub namespace_len: usize,
    /// Total bytes of the names that the view qualifies with a namespace: a short prefix expands to a long name.
    pub qualified_len: usize,
    /// Bytes of an XML name, including the prefix.
    pub name_len: usize,
    /// Bytes of the text of an XML element or of an attribute value.
    pub text_len: usize,
    /// Encoded bytes of a body that a route creates. The limits of entries and services apply to bodies that only pass through.
    pub written_len: usize,
}

impl Limits {
    /// The maximum of [`Limits::depth`]: readers recurse, and must fit in a stack of 2 MiB.
    pub const DEPTH_CEILING: usize = 512;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            depth: 64,
            keys: 10_000,
            nodes: 200_000,
            number_len: 1024,
            attributes: 128,
            namespaces: 64,
            namespace_len: 2048,
            qualified_len: 4 << 20,
            name_len: 256,
            text_len: 1 << 20,
            written_len: 16 << 20,
        }
    }
}
