//! `headers`: which headers a route forwards, and which it may set.

use std::sync::Arc;

use crossdock_message::ByteString;
use crossdock_settings::{Kind, Node, Reader, Span, Spanned, settings};

settings! {
    /// the headers of a route
    pub(crate) struct HeaderSettings {
        /// Forwarded from the caller to services. A header that is sent several times is refused, except for those that are lists by their
        /// definition (`accept`, `cookie`, …) and those written `name...`.
        pub(crate) request: Vec<Spanned<String>>,
        /// Forwarded from a service's reply to the caller.
        pub(crate) answer: Vec<Spanned<String>>,
    }
}

/// The headers that a route forwards, in lower case.
#[derive(Debug, Clone, Default)]
pub struct HeaderPlan {
    /// From the caller to services.
    pub request: Arc<[ByteString]>,
    /// Those of them that may have several values, besides those that are lists by their definition.
    pub repeatable: Vec<ByteString>,
    /// From a service's reply to the caller.
    pub response: Arc<[ByteString]>,
}

impl HeaderPlan {
    /// Checks the names; those with errors are reported and left out.
    pub(crate) fn check(settings: &HeaderSettings, reader: &mut Reader<'_>) -> Self {
        let (request, repeatable) = header_names(&settings.request, reader);
        let (response, _) = header_names(&settings.answer, reader);
        Self { request: request.into(), repeatable, response: response.into() }
    }
}

/// Headers that belong to the gateway or the protocol; they are never forwarded.
const RESERVED: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "host",
    "content-length",
    "content-type",
    "content-encoding",
    "accept-encoding",
    "expect",
    "date",
    "traceparent",
    "tracestate",
];

fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name)
        || name.starts_with("crossdock-")
        || name.starts_with("grpc-")
        || name.starts_with("x-forwarded-")
        || name == "forwarded"
}

/// Checks the name of a header that is forwarded or set.
pub(crate) fn header_name(name: &str, span: Span, reader: &mut Reader<'_>) -> Option<ByteString> {
    let lower = name.to_ascii_lowercase();
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^`|~".contains(&byte);
    if lower.is_empty() || !lower.bytes().all(token) {
        reader.error("header-name", span, format!("`{name}` is not a header name"), "use letters, digits and `-`");
        return None;
    }
    if is_reserved(&lower) {
        let message = format!("`{name}` is set by the gateway or the protocol");
        reader.error("header-reserved", span, message, "remove it");
        return None;
    }
    Some(lower.into())
}

/// The headers that a message of a route may have: those that are forwarded in either direction, and those that steps set.
pub(crate) fn headers_of_route(route: &Node) -> Vec<ByteString> {
    let mut names = Vec::new();
    if let Some(headers) = route.get("headers") {
        for (_, list) in headers.entries() {
            let items = if let Kind::List(items) = &list.kind { items.as_slice() } else { &[] };
            names.extend(items.iter().filter_map(Node::text).map(lower));
        }
    }
    if let Some(steps) = route.get("steps") {
        set_below(steps, &mut names);
    }
    names
}

fn lower(name: &str) -> ByteString {
    name.strip_suffix("...").unwrap_or(name).to_ascii_lowercase().into()
}

/// Recursion is bounded by the parser, which limits the depth of a file.
fn set_below(node: &Node, names: &mut Vec<ByteString>) {
    if let Kind::List(items) = &node.kind {
        for item in items {
            set_below(item, names);
        }
    }
    for (key, value) in node.entries() {
        if key.name == "set" {
            names.extend(value.entries().iter().map(|(header, _)| lower(&header.name)));
        }
        set_below(value, names);
    }
}

/// Checks the value of a header that is constant.
pub(crate) fn check_header_value(name: &str, text: &str, span: Span, reader: &mut Reader<'_>) {
    if text.bytes().any(|byte| !(b' '..=b'~').contains(&byte) && byte != b'\t') {
        let message = format!("the value of `{name}` is not a valid header value");
        reader.error("header-value", span, message, "write printable ASCII");
        return;
    }
    let base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte);
    if name.ends_with("-bin") && !text.bytes().all(base64) {
        let message = format!("`{name}` is binary metadata of gRPC, and its value is not base64");
        reader.error("header-value", span, message, "write base64, or use a name that does not end with `-bin`");
    }
}

/// Checks the names of forwarded headers; returns all of them, and those that may have several values (`name...`).
fn header_names(names: &[Spanned<String>], reader: &mut Reader<'_>) -> (Vec<ByteString>, Vec<ByteString>) {
    let (mut checked, mut lists) = (Vec::new(), Vec::new());
    for name in names {
        let list = name.value.strip_suffix("...");
        if let Some(name) = header_name(list.unwrap_or(&name.value), name.span, reader) {
            lists.extend(list.map(|_| name.clone()));
            checked.push(name);
        }
    }
    (checked, lists)
}
