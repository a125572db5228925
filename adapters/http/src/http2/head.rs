//! One request head, checked (RFC 9113 §8). h2 has refused what is malformed in HTTP/2's own terms: fields that concern
//! a connection, pseudo-fields in a wrong place or number, a length that is none.

use bytes::Bytes;
use crossdock_adapter_api::Fields;
use http::header::{CONTENT_LENGTH, COOKIE, EXPECT, HOST};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method};

use crate::front::HeadLimits;
use crate::request::{
    HeadRefusal, REFUSED_METHOD, RequestHead, TARGET_TOO_LONG, TOO_MANY_HEADERS, UNKNOWN_EXPECTATION, is_authority,
    is_refused_method, is_target,
};

/// A request head that was accepted.
#[derive(Debug)]
pub(super) struct CheckedHead {
    method: Method,
    target: http::uri::PathAndQuery,
    host: Bytes,
    headers: HeaderMap,
}

/// Checks a head.
///
/// # Errors
/// [`HeadRefusal`] for what is too much, and for what could be read in two ways here or behind the gateway.
pub(super) fn check(parts: Parts, limits: &HeadLimits) -> Result<CheckedHead, HeadRefusal> {
    let bad = HeadRefusal::bad;
    let Parts { method, uri, mut headers, .. } = parts;
    if is_refused_method(method.as_str().as_bytes()) {
        return Err(REFUSED_METHOD);
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
        return Err(bad("the target has a character that has no place there"));
    }
    join_cookies(&mut headers);
    if headers.len() > limits.headers_max {
        return Err(TOO_MANY_HEADERS);
    }
    for (name, value) in &headers {
        // An underscore is a hyphen to many services behind us, so that it would give a header a second spelling.
        if name.as_str().contains('_') {
            return Err(bad("a header's name has a character that has no place there"));
        }
        let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
        if blank(value.as_bytes().first()) || blank(value.as_bytes().last()) {
            return Err(bad("a header's value begins or ends with a blank"));
        }
    }
    for (name, problem) in [(HOST, "there are two Host headers"), (CONTENT_LENGTH, "there are two Content-Lengths")] {
        if headers.get_all(name).iter().nth(1).is_some() {
            return Err(bad(problem));
        }
    }
    let named = headers.get(HOST).map(|host| Bytes::copy_from_slice(host.as_bytes()));
    let host = match (uri.authority, named) {
        (Some(authority), Some(host)) if !host.eq_ignore_ascii_case(authority.as_str().as_bytes()) => {
            return Err(bad("the Host header and the authority differ"));
        }
        (Some(authority), _) => Bytes::copy_from_slice(authority.as_str().as_bytes()),
        (None, Some(host)) => host,
        (None, None) => return Err(bad("the authority is missing")),
    };
    if !is_authority(&host) {
        return Err(bad("the authority is none"));
    }
    let met = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if !headers.get_all(EXPECT).iter().all(met) {
        return Err(UNKNOWN_EXPECTATION);
    }
    Ok(CheckedHead { method, target, host, headers })
}

/// Cookies may come one by one, and are one field elsewhere (RFC 9113 §8.2.3).
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
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { head_len_max: 4096, headers_max: 8, target_len_max: 100 };

    fn head(method: &str, target: &str, headers: &[(&str, &str)]) -> Result<CheckedHead, HeadRefusal> {
        let mut request = http::Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        check(request.body(()).expect("a request").into_parts().0, &LIMITS)
    }

    fn status(method: &str, target: &str, headers: &[(&str, &str)]) -> u16 {
        head(method, target, headers).expect_err("refused").status
    }

    #[test]
    fn a_good_head_is_read() {
        let headers = [("x-a", "one"), ("x-a", "two"), ("cookie", "a=1"), ("cookie", "b=2"), ("host", "EXAMPLE:80")];
        let head = head("GET", "http://example:80/a/b?c=d", &headers).expect("good");
        assert_eq!((head.method(), head.path(), head.query()), ("GET", "/a/b", Some("c=d")));
        assert_eq!(head.get("host"), Some(&b"example:80"[..]));
        assert_eq!(head.values("x-a").collect::<Vec<_>>(), ["one", "two"]);
        assert_eq!(head.values("cookie").collect::<Vec<_>>(), ["a=1; b=2"]);
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
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
    fn limits_hold_to_the_unit() {
        let target = |len: usize| format!("http://h/{}", "a".repeat(len - 1));
        assert!(head("GET", &target(100), &[]).is_ok());
        assert_eq!(status("GET", &target(101), &[]), 414);
        let many: Vec<(&str, &str)> = vec![("x", "y"); 9];
        assert!(head("GET", "http://h/a", &many[..8]).is_ok());
        assert_eq!(status("GET", "http://h/a", &many), 431);
        let crumbs: Vec<(&str, &str)> = vec![("cookie", "a=b"); 20];
        assert!(head("GET", "http://h/a", &crumbs).is_ok(), "cookies are one field");
    }
}
