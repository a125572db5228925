//! YAML settings, read with their places into typed structs.
//!
//! A file is parsed into [`Node`]s that keep where they stand, and a struct declared by [`settings!`] is filled from
//! them. Nothing stops at the first error: each goes into [`Diagnostics`] with its code, place and what to write
//! instead, and reading goes on. The same declaration yields the JSON Schema that editors check against, so that the
//! two never differ.
//!
//! Strict on purpose: unknown and repeated keys, anchors, aliases, tags and several documents are errors; only an
//! unquoted `true` or `false` is a boolean; a duration or size needs its unit; text keeps its spelling (`085`, `no`).
//!
//! `${env:NAME}` and `${file:PATH}` in a text are replaced after parsing, by a [`Resolve`] that the caller passes in.

mod diagnostics;
mod node;
mod parse;
mod reader;
mod scalars;
mod structs;

pub use diagnostics::{Diagnostic, Diagnostics, Severity, SourceId, Span, nearest};
pub use node::{Key, Kind, Node};
pub use parse::parse;
pub use reader::{Fields, FromNode, Reader, Resolve};
#[doc(hidden)]
pub use scalars::or_placeholder;
pub use scalars::{Duration, Named, OneOrMany, Secret, Size, Spanned};
#[doc(hidden)]
pub use serde_json;
