//! Settings as validated: no later code validates them again.

mod entry;
mod listener;
mod service;

use crossdock_ports::{PathTemplate, WriteFormat, xml_root};
use crossdock_settings::{Node, Reader, Span, Spanned};

use super::BodyFormat;

pub(crate) use self::entry::{Entry, TypedBody, TypedEntry, UnlistedQuery};
pub(crate) use self::listener::Listener;
pub(crate) use self::service::{Operation, Service};

/// The supported methods, in the order of the `paths` of [`method_and_path`].
const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

/// The only method with a path, and that path.
fn method_and_path(
    paths: [&Option<Spanned<String>>; 5],
    node: &Node,
    reader: &mut Reader<'_>,
) -> Option<(&'static str, PathTemplate)> {
    let given: Vec<_> =
        METHODS.into_iter().zip(paths).filter_map(|(method, path)| Some((method, path.as_ref()?))).collect();
    let [(method, path)] = given.as_slice() else {
        let message = if given.is_empty() { "the method and path are missing" } else { "only one method is allowed" };
        reader.error("method", node.span, message, "write one of `get: /path`, `post:`, `put:`, `patch:`, `delete:`");
        return None;
    };
    let path_node = node.get(&method.to_ascii_lowercase());
    match PathTemplate::parse(&path.value) {
        Ok(template) => Some((method, template)),
        Err(error) => {
            let span = path_node.map_or(path.span, |node| node.span_of(error.range));
            reader.error("path", span, error.problem, error.help);
            None
        }
    }
}

fn write_format(
    format: BodyFormat,
    root: Option<&Spanned<String>>,
    span: Span,
    reader: &mut Reader<'_>,
) -> Option<WriteFormat> {
    let root = xml_root(format == BodyFormat::Xml, root, span, reader)?;
    Some(match (format, root) {
        (_, Some(root)) => WriteFormat::xml(root),
        (BodyFormat::Raw, None) => WriteFormat::raw(),
        (BodyFormat::Json | BodyFormat::Xml, None) => WriteFormat::json(),
    })
}
