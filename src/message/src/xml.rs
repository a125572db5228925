//! Converts XML 1.0 with namespaces, without document types, to and from [`Value`](crate::Value).
//!
//! **Reading** yields a fixed view. Its shape does not depend on how often an element occurs:
//!
//! - an element is a record;
//! - an attribute is the text field `@name`;
//! - child elements with the same name are one field, *always a list* of records in document order;
//! - the character data of an element is `$text`; it is omitted if it is only white space and the element has children;
//! - a name is `local` if its namespace is that of the parent element (for an attribute: none), otherwise `{namespace}local`;
//! - the record of the root element starts with `$root`, its name as `{namespace}local` or `local`.
//!
//! The view omits prefixes, comments, processing instructions and the order between children of different names. Because of this loss, a view is
//! never written back as XML.
//!
//! **Writing** accepts a tree made by a route: records become elements in field order, lists repeat the element, `@name` is an attribute, `$text`
//! is character data.
//!
//! Document types are rejected unread, so that only the five predefined entities and character references are ever resolved.

mod encoding;
mod name;
mod read;
mod write;

pub use name::ExpandedName;
pub use read::{XmlError, XmlErrorKind, read};
pub use write::{XmlWriteError, write};

#[cfg(test)]
mod tests;
