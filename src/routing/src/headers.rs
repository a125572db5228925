//! Headers that routes carry and set: which may be named, and what they can hold.

use crossdock_message::ByteString;
use crossdock_settings::{Kind, Node, Reader, Span, Spanned};

/// Headers that the gateway or the protocol speaks for; a list never carries them.
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

/// Checks the name of a header that may be carried or set.
pub(super) fn header_name(name: &str, span: Span, reader: &mut Reader<'_>) -> Option<ByteString> {
    let lower = name.to_ascii_lowercase();
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^`|~".contains(&byte);
    if lower.is_empty() || !lower.bytes().all(token) {
        reader.error("header-name", span, format!("`{name}` is not a name of a header"), "use letters, digits and `-`");
        return None;
    }
    if is_reserved(&lower) {
        let message = format!("`{name}` is set by the gateway or the protocol itself");
        reader.error("header-reserved", span, message, "leave it out");
        return None;
    }
    Some(lower.into())
}

/// The headers that a message of a route may have: those that it carries either way, and those that its steps set.
pub(super) fn headers_of_route(route: &Node) -> Vec<ByteString> {
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

/// The reader has bounded the depth.
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

/// Checks a header's text that is always the same.
pub(super) fn check_header_value(name: &str, text: &str, span: Span, reader: &mut Reader<'_>) {
    if text.bytes().any(|byte| !(b' '..=b'~').contains(&byte) && byte != b'\t') {
        let message = format!("`{name}` holds what no header can carry");
        reader.error("header-value", span, message, "write printable ASCII");
        return;
    }
    let base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte);
    if name.ends_with("-bin") && !text.bytes().all(base64) {
        let message = format!("`{name}` is binary metadata of gRPC, and this is not base64");
        reader.error("header-value", span, message, "write base64, or take a name that does not end with `-bin`");
    }
}

/// Checks the names of headers that are carried; gives all of them, and those that may have several values (`name...`).
pub(super) fn header_names(names: &[Spanned<String>], reader: &mut Reader<'_>) -> (Vec<ByteString>, Vec<ByteString>) {
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
