//! Parses a request head strictly (RFC 9112).
//!
//! Whatever two parsers could interpret differently is rejected, because it allows request smuggling (RFC 9112 §11.2).

use std::ops::Range;

use bytes::Bytes;
use crossdock_ports::Fields;

use crate::request::{
    HeadError, RequestHead, TARGET_TOO_LONG, TOO_MANY_HEADERS, UNSUPPORTED_EXPECTATION, UNSUPPORTED_METHOD,
    is_authority, is_target, is_token, is_unsupported_method,
};

/// Limits of a head.
#[expect(clippy::struct_field_names, reason = "limits end with `_max` everywhere")]
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadLimits {
    /// Length in bytes, including the empty line.
    pub(crate) head_len_max: usize,
    /// Number of header fields.
    pub(crate) headers_max: usize,
    /// Length of the target in bytes.
    pub(crate) target_len_max: usize,
}

/// How the body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is no body.
    None,
    /// By Content-Length, in bytes.
    Length(u64),
    /// By the chunked transfer coding.
    Chunked,
}

/// A valid request head. All ranges are in `raw`.
#[derive(Debug, Clone)]
pub(crate) struct ParsedHead {
    raw: Bytes,
    method: Range<usize>,
    path: Range<usize>,
    query: Option<Range<usize>>,
    headers: Vec<(Range<usize>, Range<usize>)>,
    /// The authority of the target or, without one, of the Host header; empty if HTTP/1.0 omits it.
    host: Range<usize>,
    pub(crate) framing: Framing,
    pub(crate) is_http10: bool,
    pub(crate) keep_alive: bool,
    /// `Expect: 100-continue`.
    pub(crate) expects_continue: bool,
}

fn bad(problem: &'static str) -> HeadError {
    HeadError::bad(problem)
}

impl ParsedHead {
    /// The text of a range of the method, target or host, which are ASCII.
    fn text(&self, range: &Range<usize>) -> &str {
        std::str::from_utf8(&self.raw[range.clone()]).unwrap_or("")
    }
}

impl RequestHead for ParsedHead {
    fn method(&self) -> &str {
        self.text(&self.method)
    }

    fn path(&self) -> &str {
        self.text(&self.path)
    }

    fn query(&self) -> Option<&str> {
        self.query.as_ref().map(|range| self.text(range))
    }

    fn values<'s>(&'s self, name: &'s str) -> impl Iterator<Item = Bytes> + 's {
        let matches = move |range: &Range<usize>| self.raw[range.clone()].eq_ignore_ascii_case(name.as_bytes());
        self.headers.iter().filter(move |(key, _)| matches(key)).map(|(_, value)| self.raw.slice(value.clone()))
    }

    fn with_prefix<'s>(&'s self, prefix: &'s str) -> impl Iterator<Item = (&'s [u8], Bytes)> + 's {
        self.headers.iter().filter_map(move |(key, value)| {
            let (start, rest) = self.raw[key.clone()].split_at_checked(prefix.len())?;
            start.eq_ignore_ascii_case(prefix.as_bytes()).then(|| (rest, self.raw.slice(value.clone())))
        })
    }
}

impl Fields for ParsedHead {
    fn get(&self, name: &str) -> Option<&[u8]> {
        if name == "host" {
            return (!self.host.is_empty()).then(|| &self.raw[self.host.clone()]);
        }
        let matches = |range: &Range<usize>| self.raw[range.clone()].eq_ignore_ascii_case(name.as_bytes());
        self.headers.iter().find(|(key, _)| matches(key)).map(|(_, value)| &self.raw[value.clone()])
    }

    fn is_repeated(&self, name: &str) -> bool {
        let matches = |range: &Range<usize>| self.raw[range.clone()].eq_ignore_ascii_case(name.as_bytes());
        self.headers.iter().filter(|(key, _)| matches(key)).nth(1).is_some()
    }
}

/// The length of the head in `buffer`, including the empty line; `None` if it is incomplete. The first `scanned` bytes were
/// searched before. The caller skips an empty line before the request line.
///
/// # Errors
/// [`HeadError`] for a bare CR or LF, and for a head over its limit.
pub(crate) fn find_end(buffer: &[u8], scanned: usize, limits: &HeadLimits) -> Result<Option<usize>, HeadError> {
    let mut from = scanned.saturating_sub(3);
    while let Some(found) = memchr::memchr2(b'\r', b'\n', &buffer[from..]) {
        let at = from + found;
        if buffer[at] == b'\n' {
            // A valid LF is skipped with its CR, unless the search starts between the two.
            if at == 0 || buffer[at - 1] != b'\r' {
                return Err(bad("a line ends with a bare LF"));
            }
            from = at + 1;
            continue;
        }
        match buffer.get(at + 1) {
            None => break,
            Some(b'\n') => {}
            Some(_) => return Err(bad("a CR is not followed by LF")),
        }
        let end = at + 2;
        if buffer[..at].ends_with(b"\r\n") {
            return if end <= limits.head_len_max { Ok(Some(end)) } else { Err(too_large(buffer)) };
        }
        from = end;
    }
    if buffer.len() >= limits.head_len_max { Err(too_large(buffer)) } else { Ok(None) }
}

/// The error for a head over its limit: 414 if the request line is incomplete, else 431.
fn too_large(buffer: &[u8]) -> HeadError {
    if memchr::memchr(b'\n', buffer).is_none() {
        return TARGET_TOO_LONG;
    }
    HeadError { status: 431, problem: "the head is too large" }
}

/// Parses a complete head.
///
/// # Errors
/// [`HeadError`] for a head that is malformed, ambiguous or over a limit.
pub(crate) fn parse(raw: Bytes, limits: &HeadLimits) -> Result<ParsedHead, HeadError> {
    let line_end = memchr::memchr(b'\r', &raw).ok_or(bad("the head has no CRLF"))?;
    let request_line = parse_request_line(&raw[..line_end], limits)?;
    let mut headers = Vec::with_capacity(16);
    let mut at = line_end + 2;
    while at + 2 < raw.len() {
        let end = at + memchr::memchr(b'\r', &raw[at..]).ok_or(bad("a header line has no CRLF"))?;
        if headers.len() == limits.headers_max {
            return Err(TOO_MANY_HEADERS);
        }
        headers.push(parse_header_line(&raw, at, end)?);
        at = end + 2;
    }
    let fields = FramingFields::collect(&raw, &headers, request_line.is_http10)?;
    let host = match (&request_line.authority, fields.host) {
        // The target's authority takes precedence over Host (RFC 9112 §3.2.2).
        (Some(authority), _) => authority.clone(),
        (None, Some(host)) => host,
        (None, None) if request_line.is_http10 => 0..0,
        (None, None) => return Err(bad("the Host header is missing")),
    };
    let is_omitted = host.is_empty() && request_line.is_http10;
    if !is_omitted && !is_authority(&raw[host.clone()]) {
        return Err(bad("the Host header is malformed"));
    }
    let RequestLine { method, path, query, is_http10, .. } = request_line;
    if fields.upgrade {
        return Err(HeadError { status: 405, problem: "protocol upgrades are not supported" });
    }
    Ok(ParsedHead {
        method,
        path,
        query,
        headers,
        host,
        framing: fields.framing,
        is_http10,
        keep_alive: if is_http10 { fields.keep_alive && !fields.close } else { !fields.close },
        expects_continue: fields.expects_continue && !is_http10,
        raw,
    })
}

struct RequestLine {
    method: Range<usize>,
    path: Range<usize>,
    query: Option<Range<usize>>,
    authority: Option<Range<usize>>,
    is_http10: bool,
}

fn parse_request_line(line: &[u8], limits: &HeadLimits) -> Result<RequestLine, HeadError> {
    let method_end = memchr::memchr(b' ', line).ok_or(bad("the request line has no target"))?;
    let target_end =
        method_end + 1 + memchr::memchr(b' ', &line[method_end + 1..]).ok_or(bad("the request line has no version"))?;
    let (method, target) = (0..method_end, method_end + 1..target_end);
    if method.is_empty() || !line[method.clone()].iter().copied().all(is_token) {
        return Err(bad("the method is not a token"));
    }
    let is_http10 = match &line[target_end + 1..] {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        other if other.len() == 8 && other.starts_with(b"HTTP/") && other[5].is_ascii_digit() && other[6] == b'.' => {
            return Err(HeadError { status: 505, problem: "the supported versions are HTTP/1.1 and HTTP/1.0" });
        }
        _ => return Err(bad("the HTTP version is malformed")),
    };
    if target.len() > limits.target_len_max {
        return Err(TARGET_TOO_LONG);
    }
    let text = &line[target.clone()];
    if !is_target(text) {
        return Err(bad("the request target has an invalid character"));
    }
    if is_unsupported_method(&line[method.clone()]) {
        return Err(UNSUPPORTED_METHOD);
    }
    let (authority, path_start) = parse_authority(text, target.start, &line[method.clone()])?;
    let path_end = memchr::memchr(b'?', &line[path_start..target.end]).map_or(target.end, |at| path_start + at);
    let query = (path_end < target.end).then_some(path_end + 1..target.end);
    Ok(RequestLine { method, path: path_start..path_end, query, authority, is_http10 })
}

/// The authority of a target in absolute form, and the start of the path.
fn parse_authority(target: &[u8], start: usize, method: &[u8]) -> Result<(Option<Range<usize>>, usize), HeadError> {
    if target.starts_with(b"/") || (target == b"*" && method == b"OPTIONS") {
        return Ok((None, start));
    }
    let scheme = if target.len() >= 8 && target[..8].eq_ignore_ascii_case(b"https://") {
        8
    } else if target.len() >= 7 && target[..7].eq_ignore_ascii_case(b"http://") {
        7
    } else {
        return Err(bad("the request target is neither a path nor an http URI"));
    };
    let len = target[scheme..].iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(target.len() - scheme);
    let authority = start + scheme..start + scheme + len;
    Ok((Some(authority.clone()), authority.end))
}

fn parse_header_line(raw: &[u8], start: usize, end: usize) -> Result<(Range<usize>, Range<usize>), HeadError> {
    let line = &raw[start..end];
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(bad("a header field is folded over several lines"));
    }
    let colon = memchr::memchr(b':', line).ok_or(bad("a header field has no colon"))?;
    let name = &line[..colon];
    // Many servers treat `_` as `-`, which would give a field a second spelling.
    if name.is_empty() || !name.iter().all(|byte| is_token(*byte) && *byte != b'_') {
        return Err(bad("a header name has an invalid character"));
    }
    let mut value = start + colon + 1..end;
    while value.start < value.end && matches!(raw[value.start], b' ' | b'\t') {
        value.start += 1;
    }
    while value.start < value.end && matches!(raw[value.end - 1], b' ' | b'\t') {
        value.end -= 1;
    }
    let is_control = |byte: &u8| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f;
    if raw[value.clone()].iter().any(is_control) {
        return Err(bad("a header value has a control character"));
    }
    Ok((start..start + colon, value))
}

/// The header fields that determine the framing, the host and the connection.
struct FramingFields {
    framing: Framing,
    host: Option<Range<usize>>,
    keep_alive: bool,
    close: bool,
    upgrade: bool,
    expects_continue: bool,
}

impl FramingFields {
    fn collect(raw: &[u8], headers: &[(Range<usize>, Range<usize>)], is_http10: bool) -> Result<Self, HeadError> {
        let (mut length, mut is_chunked) = (None, false);
        let mut fields = Self {
            framing: Framing::None,
            host: None,
            keep_alive: false,
            close: false,
            upgrade: false,
            expects_continue: false,
        };
        for (name, value_range) in headers {
            let (name, value) = (&raw[name.clone()], &raw[value_range.clone()]);
            if name.eq_ignore_ascii_case(b"content-length") {
                if length.is_some() {
                    return Err(bad("there are several Content-Length fields"));
                }
                length = Some(parse_content_length(value)?);
            } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
                if is_chunked {
                    return Err(bad("there are several Transfer-Encoding fields"));
                }
                if !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(HeadError { status: 501, problem: "the only supported transfer coding is chunked" });
                }
                is_chunked = true;
            } else if name.eq_ignore_ascii_case(b"host") {
                if fields.host.is_some() {
                    return Err(bad("there are several Host fields"));
                }
                fields.host = Some(value_range.clone());
            } else if name.eq_ignore_ascii_case(b"connection") {
                fields.parse_connection(value);
            } else if name.eq_ignore_ascii_case(b"upgrade") {
                // An upgrade may be ignored (RFC 9110 §7.8), and common clients offer h2c with every request.
                fields.upgrade |= !value.eq_ignore_ascii_case(b"h2c");
            } else if name.eq_ignore_ascii_case(b"expect") {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(UNSUPPORTED_EXPECTATION);
                }
                fields.expects_continue = true;
            }
        }
        fields.framing = match (is_chunked, length) {
            (true, Some(_)) => return Err(bad("Content-Length and Transfer-Encoding cannot be combined")),
            (true, None) if is_http10 => return Err(bad("Transfer-Encoding is not allowed in HTTP/1.0")),
            (true, None) => Framing::Chunked,
            (false, None | Some(0)) => Framing::None,
            (false, Some(length)) => Framing::Length(length),
        };
        Ok(fields)
    }

    fn parse_connection(&mut self, value: &[u8]) {
        for option in value.split(|byte| *byte == b',') {
            let option = option.trim_ascii();
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }
}

/// Parses Content-Length: digits only, no sign, no list.
fn parse_content_length(value: &[u8]) -> Result<u64, HeadError> {
    let error = bad("Content-Length is not a number");
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return Err(error);
    }
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).ok_or(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { head_len_max: 4096, headers_max: 8, target_len_max: 100 };

    fn read(text: &str) -> Result<ParsedHead, HeadError> {
        let end = find_end(text.as_bytes(), 0, &LIMITS)?.ok_or(bad("incomplete"))?;
        parse(Bytes::copy_from_slice(&text.as_bytes()[..end]), &LIMITS)
    }

    fn with(lines: &str) -> Result<ParsedHead, HeadError> {
        read(&format!("POST /a HTTP/1.1\r\nHost: h\r\n{lines}\r\n"))
    }

    #[test]
    fn a_valid_head_is_parsed() {
        let head =
            read("GET /a/b?c=d HTTP/1.1\r\nHost: example:80\r\nX-A:  one \r\nx-a: two\r\n\r\n").expect("a valid head");
        assert_eq!((head.method(), head.path(), head.query()), ("GET", "/a/b", Some("c=d")));
        assert_eq!(head.get("host"), Some(&b"example:80"[..]));
        assert_eq!(head.get("x-a"), Some(&b"one"[..]));
        assert_eq!(head.values("x-a").collect::<Vec<_>>(), ["one", "two"]);
        assert_eq!((head.framing, head.keep_alive), (Framing::None, true));
    }

    #[test]
    fn malformed_and_ambiguous_heads_are_rejected() {
        for (lines, status) in [
            ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", 400),
            ("Content-Length: 1\r\nContent-Length: 1\r\n", 400),
            ("Content-Length: +5\r\n", 400),
            ("Content-Length: 0x5\r\n", 400),
            ("Content-Length: 1, 1\r\n", 400),
            ("Content-Length:\r\n", 400),
            ("Content-Length: 99999999999999999999\r\n", 400),
            ("Transfer-Encoding: gzip, chunked\r\n", 501),
            ("Transfer-Encoding: identity\r\n", 501),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400),
            ("X: a\r\n b\r\n", 400),
            ("X : a\r\n", 400),
            ("X\x01: a\r\n", 400),
            ("X_Y: a\r\n", 400),
            ("\u{e9}: a\r\n", 400),
            ("X: a\x00b\r\n", 400),
            ("X: a\nY: b\r\n", 400),
            ("X: a\rY: b\r\n", 400),
            ("Host: other\r\n", 400),
            ("Upgrade: websocket\r\nConnection: upgrade\r\n", 405),
            ("Expect: something\r\n", 417),
            (": a\r\n", 400),
            ("no colon\r\n", 400),
        ] {
            assert_eq!(with(lines).map(|_| ()).map_err(|error| error.status), Err(status), "{lines:?}");
        }
        for (text, status) in [
            ("GET /a HTTP/1.1\r\n\r\n", 400),
            ("GET /a HTTP/2.0\r\nHost: h\r\n\r\n", 505),
            ("GET /a HTTP/1.1 \r\nHost: h\r\n\r\n", 400),
            ("GET  /a HTTP/1.1\r\nHost: h\r\n\r\n", 400),
            ("GET /a\r\nHost: h\r\n\r\n", 400),
            ("G{T /a HTTP/1.1\r\nHost: h\r\n\r\n", 400),
            ("GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n", 400),
            ("GET a HTTP/1.1\r\nHost: h\r\n\r\n", 400),
            ("GET ftp://h/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
            ("TRACE / HTTP/1.1\r\nHost: h\r\n\r\n", 405),
            ("CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n", 405),
            ("GET / HTTP/1.1\nHost: h\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: h\r\n\n", 400),
            ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: u@h\r\n\r\n", 400),
        ] {
            assert_eq!(read(text).map(|_| ()).map_err(|error| error.status), Err(status), "{text:?}");
        }
    }

    #[test]
    fn the_authority_of_an_absolute_target_overrides_the_host() {
        let head = read("GET http://real/x?y HTTP/1.1\r\nHost: other\r\n\r\n").expect("a valid head");
        assert_eq!((head.get("host"), head.path(), head.query()), (Some(&b"real"[..]), "/x", Some("y")));
        let head = read("GET http://real HTTP/1.1\r\nHost: other\r\n\r\n").expect("a valid head");
        assert_eq!((head.get("host"), head.path()), (Some(&b"real"[..]), ""));
    }

    #[test]
    fn limits_are_exact() {
        let target = |len: usize| format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(len - 1));
        assert!(read(&target(99)).is_ok() && read(&target(100)).is_ok());
        assert_eq!(read(&target(101)).expect_err("long").status, 414);
        let headers = |count: usize| format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "A: b\r\n".repeat(count - 1));
        assert!(read(&headers(7)).is_ok() && read(&headers(8)).is_ok());
        assert_eq!(read(&headers(9)).expect_err("many").status, 431);
        let fixed = "GET / HTTP/1.1\r\nHost: h\r\nA: \r\n\r\n".len();
        let head = |len: usize| format!("GET / HTTP/1.1\r\nHost: h\r\nA: {}\r\n\r\n", "b".repeat(len - fixed));
        assert!(read(&head(4095)).is_ok() && read(&head(4096)).is_ok());
        assert_eq!(read(&head(4097)).expect_err("large").status, 431);
        assert_eq!(find_end(&[b'a'; 4096], 0, &LIMITS).expect_err("no line").status, 414);
    }

    #[test]
    fn the_end_is_found_in_input_of_single_bytes() {
        let text = b"GET / HTTP/1.1\r\nHost: h\r\n\r\nrest";
        let mut scanned = 0;
        for len in 0..=text.len() {
            let found = find_end(&text[..len], scanned, &LIMITS).expect("a valid head");
            assert_eq!(found.is_some(), len == text.len() - 4, "at {len}");
            if found.is_some() {
                return;
            }
            scanned = len;
        }
    }
}
