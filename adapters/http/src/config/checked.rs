//! Settings as checked: nothing downstream checks them again.

mod entry;
mod listener;
mod service;

use crossdock_adapter_api::{PathTemplate, WriteFormat, xml_root};
use crossdock_settings::{Node, Reader, Span, Spanned};

use super::BodyFormat;

pub(crate) use self::entry::{Entry, QueryRest, TypedBody, TypedEntry};
pub(crate) use self::listener::Listener;
pub(crate) use self::service::{Operation, Service};

/// The methods that can be named, in the order in which their paths are handed over.
const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

/// The one method that is named, and its path.
fn method_and_path(
    paths: [&Option<Spanned<String>>; 5],
    node: &Node,
    reader: &mut Reader<'_>,
) -> Option<(&'static str, PathTemplate)> {
    let named: Vec<_> =
        METHODS.into_iter().zip(paths).filter_map(|(method, path)| Some((method, path.as_ref()?))).collect();
    let [(method, path)] = named.as_slice() else {
        let message = if named.is_empty() { "the method and path are missing" } else { "there are two methods" };
        reader.error("method", node.span, message, "write one of `get: /path`, `post:`, `put:`, `patch:`, `delete:`");
        return None;
    };
    let start = node.get(&method.to_ascii_lowercase());
    match PathTemplate::parse(&path.value) {
        Ok(template) => Some((method, template)),
        Err(error) => {
            let span = start.map_or(path.span, |node| node.span_of(error.range));
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
        (_, Some(root)) => WriteFormat::Xml { root },
        (BodyFormat::Raw, None) => WriteFormat::Raw,
        (BodyFormat::Json | BodyFormat::Xml, None) => WriteFormat::Json,
    })
}
