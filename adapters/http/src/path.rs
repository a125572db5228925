//! Normalises, decodes and escapes paths and queries.

use std::borrow::Cow;

use crossdock_message::{ByteString, Code, Fault};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// All but the unreserved characters of RFC 3986.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

fn bad(problem: &'static str) -> Fault {
    Fault::caller(Code::InvalidArgument, "PATH", problem)
}

/// The normal form of a path (RFC 3986 §6.2.2): unreserved characters are decoded, other escapes are in upper case, and dot
/// segments and empty segments are removed. What a service could interpret differently is rejected: an escaped slash,
/// backslash, NUL or `#`, a bare backslash, and a path that leaves the root.
///
/// # Errors
/// INVALID_ARGUMENT for such a path and for a malformed escape.
pub(crate) fn normalize(path: &str) -> Result<Cow<'_, str>, Fault> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_~/!$&'()*+,;=:@".contains(&byte);
    let has_empty_segment = path.len() > 1 && (path.contains("//") || path.ends_with('/'));
    if path.starts_with('/') && !has_empty_segment && path.bytes().all(is_plain) {
        return Ok(Cow::Borrowed(path));
    }
    let unescaped = normalize_escapes(path)?;
    let mut segments: Vec<&str> = Vec::new();
    for segment in unescaped.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop().ok_or_else(|| bad("the path leaves the root"))?;
            }
            other => segments.push(other),
        }
    }
    Ok(Cow::Owned(format!("/{}", segments.join("/"))))
}

fn normalize_escapes(path: &str) -> Result<String, Fault> {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find(['%', '\\']) {
        out.push_str(&rest[..at]);
        if rest.as_bytes()[at] == b'\\' {
            return Err(bad("a path must not contain a backslash"));
        }
        let digits = rest.get(at + 1..at + 3).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let byte = digits
            .and_then(|digits| u8::from_str_radix(digits, 16).ok())
            .ok_or_else(|| bad("`%` in a path must be followed by two hex digits"))?;
        match byte {
            b'/' | b'\\' | 0 | b'#' => return Err(bad("a path must not contain an escaped `/`, `\\`, `#` or NUL")),
            byte if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
        rest = &rest[at + 3..];
    }
    out.push_str(rest);
    Ok(out)
}

/// Decodes a captured part of a normalised path.
///
/// # Errors
/// INVALID_ARGUMENT if it is not UTF-8.
pub(crate) fn decode(part: &str) -> Result<ByteString, Fault> {
    if !part.contains('%') {
        return Ok(part.into());
    }
    let text = percent_decode_str(part).decode_utf8().map_err(|_| bad("the path is not valid UTF-8"))?;
    Ok(text.as_ref().into())
}

/// Appends a segment to a path. All reserved characters are escaped, slashes too.
///
/// # Errors
/// INVALID_ARGUMENT for an empty segment and for `.` and `..`, which cannot be escaped.
pub(crate) fn append_segment(out: &mut String, text: &str) -> Result<(), Fault> {
    if matches!(text, "" | "." | "..") {
        return Err(bad("a path segment must not be empty, `.` or `..`"));
    }
    out.extend(utf8_percent_encode(text, ESCAPED));
    Ok(())
}

/// Appends `name=value` to a query.
pub(crate) fn append_query(out: &mut String, name: &str, value: &str) {
    out.push(if out.contains('?') { '&' } else { '?' });
    out.extend(utf8_percent_encode(name, ESCAPED));
    out.push('=');
    out.extend(utf8_percent_encode(value, ESCAPED));
}

/// The decoded names and values of a query, in order; `+` is a space (application/x-www-form-urlencoded).
///
/// # Errors
/// INVALID_ARGUMENT for a malformed escape and for text that is not UTF-8.
pub(crate) fn query_pairs(query: &str) -> impl Iterator<Item = Result<(ByteString, ByteString), Fault>> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Ok((form_decode(name)?, form_decode(value)?))
    })
}

fn form_decode(text: &str) -> Result<ByteString, Fault> {
    if !text.contains(['%', '+']) {
        return Ok(text.into());
    }
    let bytes = text.as_bytes();
    let is_valid = |at: usize| bytes.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
    if bytes.iter().enumerate().any(|(at, byte)| *byte == b'%' && !is_valid(at)) {
        return Err(Fault::caller(Code::InvalidArgument, "QUERY", "`%` in a query must be followed by two hex digits"));
    }
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8();
    let decoded = decoded.map_err(|_| Fault::caller(Code::InvalidArgument, "QUERY", "the query is not valid UTF-8"))?;
    Ok(decoded.as_ref().into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_normalised() {
        for (path, normal) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a//b/", "/a/b"),
            ("/a/./b/../c", "/a/c"),
            ("/%61/%2e%2e/b", "/b"),
            ("/a%2Eb/%7e", "/a.b/~"),
            ("/a%c3%a9%20b", "/a%C3%A9%20b"),
            ("/a;x=1/b", "/a;x=1/b"),
            ("/a/..", "/"),
            ("", "/"),
        ] {
            assert_eq!(normalize(path).as_deref(), Ok(normal), "{path}");
        }
    }

    #[test]
    fn ambiguous_paths_are_rejected() {
        for path in
            ["/a%2fb", "/a%2Fb", "/a%5cb", "/a\\b", "/a%00", "/a%23", "/..", "/a/%2e%2e/..", "/a%", "/a%g0", "/a%2"]
        {
            assert!(normalize(path).is_err(), "{path}");
        }
    }

    #[test]
    fn query_pairs_are_decoded() {
        let pairs: Result<Vec<_>, _> = query_pairs("a=1&b=x+y%26z&&c&a=%C3%A9").collect();
        let pairs = pairs.expect("a valid query");
        let shown: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(shown, [("a", "1"), ("b", "x y&z"), ("c", ""), ("a", "\u{e9}")]);
        for query in ["a=%", "a=%zz", "a=%ff"] {
            assert!(query_pairs(query).any(|pair| pair.is_err()), "{query}");
        }
    }

    proptest! {
        #[test]
        fn normalisation_is_idempotent(path in "/[a-zA-Z0-9%./;=\\\\~ -]{0,40}") {
            if let Ok(normal) = normalize(&path) {
                prop_assert_eq!(normalize(&normal).expect("a normalised path").into_owned(), normal.clone().into_owned());
                prop_assert!(!normal.contains("//") && !normal.split('/').any(|part| part == ".." || part == "."));
            }
        }

        #[test]
        fn a_segment_stays_one_segment(text in "\\PC{1,20}") {
            let mut path = String::from("/x/");
            if append_segment(&mut path, &text).is_ok() {
                prop_assert_eq!(path.matches('/').count(), 2);
                prop_assert!(!path.contains(['?', '#', ' ']));
                prop_assert_eq!(decode(&path[3..]).expect("UTF-8"), text);
            }
        }
    }
}
