//! XML 1.0 with namespaces, without a document type, to and from [`Value`](crate::Value).
//!
//! **Reading** gives one fixed view, whose shape does not depend on how often something stands in the document:
//!
//! - an element is a record;
//! - an attribute is the field `@name`, text;
//! - the children of one name are one field, *always a list* of records, in document order;
//! - the element's own character data is `$text`: there where it is more than white space, and in every element without children;
//! - a name is its local name where its namespace is that of the parent element (for an attribute: none), else `{namespace}local`;
//! - the root element's record starts with `$root`, its name as `{namespace}local` or `local`.
//!
//! Prefixes, comments, processing instructions and the order between children of different names are not part of the
//! view. What cannot be told from it is never written back: a view is read, and never sent as XML.
//!
//! **Writing** takes a tree that a route gave: records become elements in the order of their fields, lists repeat the
//! element, `@name` is an attribute, `$text` character data.
//!
//! Document types are refused before anything in them is looked at, so that no entity is ever declared or resolved
//! beyond the five of XML and character references.

mod encoding;
mod name;
mod read;
mod write;

pub use name::ExpandedName;
pub use read::{XmlError, XmlErrorKind, read};
pub use write::{XmlWriteError, write};

#[cfg(test)]
mod tests;
