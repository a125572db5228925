//! Validates a request head (RFC 9113 §8). h2 has already rejected what is malformed in HTTP/2: connection-specific fields,
//! misplaced or repeated pseudo-header fields, an invalid Content-Length.

use bytes::Bytes;
use crossdock_ports::Fields;
use http::header::{CONTENT_LENGTH, COOKIE, EXPECT, HOST};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method};

use crate::http1::HeadLimits;
use crate::request::{
    HeadError, RequestHead, TARGET_TOO_LONG, TOO_MANY_HEADERS, UNSUPPORTED_EXPECTATION, UNSUPPORTED_METHOD,
    is_authority, is_target, is_unsupported_method,
};

/// A valid request head.
#[derive(Debug)]
pub(super) struct CheckedHead {
    method: Method,
    target: http::uri::PathAndQuery,
    host: Bytes,
    headers: HeaderMap,
}

/// Validates a head.
///
/// # Errors
/// [`HeadError`] for a head that exceeds a limit or is ambiguous, here or to a service.
pub(super) fn check(parts: Parts, limits: &HeadLimits) -> Result<CheckedHead, HeadError> {
    let bad = HeadError::bad;
    let Parts { method, uri, mut headers, .. } = parts;
    if is_unsupported_method(method.as_str().as_bytes()) {
        return Err(UNSUPPORTED_METHOD);
    }
    let uri = uri.into_parts();
    if uri.scheme.as_ref().is_some_and(|scheme| !matches!(scheme.as_str(), "http" | "https")) {
        return Err(bad("the scheme is neither http nor https"));
    }
    let target = uri.path_and_query.ok_or(bad("the request has no path"))?;
    if target.as_str().len() > limits.target_len_max {
        return Err(TARGET_TOO_LONG);
    }
    let is_path = target.as_str().starts_with('/') || (target == "*" && method == Method::OPTIONS);
    if !is_path || !is_target(target.as_str().as_bytes()) {
        return Err(bad("the request target has an invalid character"));
    }
    join_cookies(&mut headers);
    if headers.len() > limits.headers_max {
        return Err(TOO_MANY_HEADERS);
    }
    for (name, value) in &headers {
        // Many servers treat `_` as `-`, which would give a field a second spelling.
        if name.as_str().contains('_') {
            return Err(bad("a header name has an invalid character"));
        }
        let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
        if is_blank(value.as_bytes().first()) || is_blank(value.as_bytes().last()) {
            return Err(bad("a header value begins or ends with whitespace"));
        }
    }
    for (name, problem) in
        [(HOST, "there are several Host fields"), (CONTENT_LENGTH, "there are several Content-Length fields")]
    {
        if headers.get_all(name).iter().nth(1).is_some() {
            return Err(bad(problem));
        }
    }
    let host = headers.get(HOST).map(|host| Bytes::copy_from_slice(host.as_bytes()));
    let host = match (uri.authority, host) {
        (Some(authority), Some(host)) if !host.eq_ignore_ascii_case(authority.as_str().as_bytes()) => {
            return Err(bad("the Host header and the authority differ"));
        }
        (Some(authority), _) => Bytes::copy_from_slice(authority.as_str().as_bytes()),
        (None, Some(host)) => host,
        (None, None) => return Err(bad("the authority is missing")),
    };
    if !is_authority(&host) {
        return Err(bad("the authority is malformed"));
    }
    let is_supported = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if !headers.get_all(EXPECT).iter().all(is_supported) {
        return Err(UNSUPPORTED_EXPECTATION);
    }
    Ok(CheckedHead { method, target, host, headers })
}

/// Joins a split Cookie field (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let all: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

impl Fields for CheckedHead {
    fn get(&self, name: &str) -> Option<&[u8]> {
        if name == "host" {
            return Some(&self.host);
        }
        self.headers.get(name).map(HeaderValue::as_bytes)
    }

    fn is_repeated(&self, name: &str) -> bool {
        self.headers.get_all(name).iter().nth(1).is_some()
    }
}

impl RequestHead for CheckedHead {
    fn method(&self) -> &str {
        self.method.as_str()
    }

    fn path(&self) -> &str {
        self.target.path()
    }

    fn query(&self) -> Option<&str> {
        self.target.query()
    }

    fn values<'s>(&'s self, name: &'s str) -> impl Iterator<Item = Bytes> + 's {
        self.headers.get_all(name).iter().map(|value| Bytes::copy_from_slice(value.as_bytes()))
    }

    fn with_prefix<'s>(&'s self, prefix: &'s str) -> impl Iterator<Item = (&'s [u8], Bytes)> + 's {
        // Names are in lower case (RFC 9113 §8.2).
        self.headers.iter().filter_map(move |(name, value)| {
            let rest = name.as_str().strip_prefix(prefix)?;
            Some((rest.as_bytes(), Bytes::copy_from_slice(value.as_bytes())))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { head_len_max: 4096, headers_max: 8, target_len_max: 100 };

    fn head(method: &str, target: &str, headers: &[(&str, &str)]) -> Result<CheckedHead, HeadError> {
        let mut request = http::Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        check(request.body(()).expect("a request").into_parts().0, &LIMITS)
    }

    fn status(method: &str, target: &str, headers: &[(&str, &str)]) -> u16 {
        head(method, target, headers).expect_err("an invalid head").status
    }

    #[test]
    fn a_valid_head_is_accepted() {
        let headers = [("x-a", "one"), ("x-a", "two"), ("cookie", "a=1"), ("cookie", "b=2"), ("host", "EXAMPLE:80")];
        let head = head("GET", "http://example:80/a/b?c=d", &headers).expect("a valid head");
        assert_eq!((head.method(), head.path(), head.query()), ("GET", "/a/b", Some("c=d")));
        assert_eq!(head.get("host"), Some(&b"example:80"[..]));
        assert_eq!(head.values("x-a").collect::<Vec<_>>(), ["one", "two"]);
        assert_eq!(head.values("cookie").collect::<Vec<_>>(), ["a=1; b=2"]);
    }

    #[test]
    fn malformed_and_ambiguous_heads_are_rejected() {
        let at = "http://h/a";
        assert_eq!(status("TRACE", at, &[]), 405);
        assert_eq!(status("GET", at, &[("host", "other")]), 400);
        assert_eq!(status("GET", "http://u@h/a", &[]), 400);
        assert_eq!(status("GET", "/a", &[]), 400);
        assert_eq!(status("GET", "/a", &[("host", "h"), ("host", "h")]), 400);
        assert_eq!(status("GET", at, &[("x_y", "a")]), 400);
        assert_eq!(status("GET", at, &[("x", " a")]), 400);
        assert_eq!(status("GET", at, &[("x", "a\t")]), 400);
        assert_eq!(status("GET", at, &[("expect", "100-continue"), ("expect", "more")]), 417);
        assert_eq!(status("GET", "ftp://h/a", &[]), 400);
        assert_eq!(status("POST", at, &[("content-length", "1"), ("content-length", "1")]), 400);
    }

    #[test]
    fn limits_are_exact() {
        let target = |len: usize| format!("http://h/{}", "a".repeat(len - 1));
        assert!(head("GET", &target(100), &[]).is_ok());
        assert_eq!(status("GET", &target(101), &[]), 414);
        let fields: Vec<(&str, &str)> = vec![("x", "y"); 9];
        assert!(head("GET", "http://h/a", &fields[..8]).is_ok());
        assert_eq!(status("GET", "http://h/a", &fields), 431);
        let crumbs: Vec<(&str, &str)> = vec![("cookie", "a=b"); 20];
        assert!(head("GET", "http://h/a", &crumbs).is_ok(), "cookies are one field");
    }
}
