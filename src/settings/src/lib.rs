//! Reads YAML settings into typed structs and reports all errors with their positions.
//!
//! A file is parsed into [`Node`]s, which keep their [`Span`]s. A struct declared by [`settings!`] is read from them. Reading continues after
//! an error; each one is added to [`Diagnostics`] with a code, a span and what to write instead. The same declaration yields the JSON Schema
//! for editors, so that the two never differ.
//!
//! Parsing is strict: unknown and duplicate keys, anchors, aliases, tags and multiple documents are errors; only an unquoted `true` or `false`
//! is a boolean; a duration or size needs a unit; text keeps its spelling (`085`, `no`).
//!
//! `${env:NAME}` and `${file:PATH}` in text are replaced after parsing, by a [`Resolve`] that the caller passes in.

mod diagnostics;
mod node;
mod parse;
mod reader;
mod scalars;
mod structs;

pub use diagnostics::{Diagnostic, Diagnostics, Severity, SourceId, Span, nearest};
pub use node::{Key, Kind, Node};
pub use parse::parse;
pub use reader::{Fields, FromNode, NoPlaceholders, Reader, Resolve, Settings, described};
#[doc(hidden)]
pub use scalars::or_placeholder;
pub use scalars::{Duration, Named, OneOrMany, Secret, Size, Spanned};
#[doc(hidden)]
pub use serde_json;
