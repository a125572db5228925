//! What one document may cost before it is refused.

/// Limits on reading one document. Each is tested at limit − 1, limit and limit + 1.
///
/// A document over a limit is refused with the place where the limit was passed; nothing is cut off silently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Levels of arrays, objects or elements inside one another. At most [`Limits::DEPTH_CEILING`] is honoured.
    pub depth: usize,
    /// Keys of one JSON object.
    pub keys: usize,
    /// Values of one JSON document, or elements of one XML document: bounds the memory that a small body unfolds to.
    pub nodes: usize,
    /// Bytes of one number's text.
    pub number_len: usize,
    /// Attributes of one XML element, namespace declarations not counted.
    pub attributes: usize,
    /// XML namespace declarations in scope at once.
    pub namespaces: usize,
    /// Bytes of one XML namespace's name.
    pub namespace_len: usize,
    /// Bytes of all names that a document's view spells with their namespace: a short prefix stands for a long name.
    pub qualified_len: usize,
    /// Bytes of one XML name, prefix included.
    pub name_len: usize,
    /// Bytes of one text run or attribute value in XML.
    pub text_len: usize,
    /// Bytes of a body that a route makes, as it is written. What only passes through has the limits of its entry and service.
    pub written_len: usize,
}

impl Limits {
    /// The deepest nesting that is ever accepted: readers recurse, and a stack of 2 MiB must hold them.
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
