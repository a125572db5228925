//! One request head, parsed strictly (RFC 9112).
//!
//! What two parsers could read in two ways is refused: that is how requests are smuggled past a gateway.

use std::ops::Range;

use bytes::Bytes;
use crossdock_adapter_api::Fields;

use crate::request::{
    HeadRefusal, REFUSED_METHOD, RequestHead, TARGET_TOO_LONG, TOO_MANY_HEADERS, UNKNOWN_EXPECTATION, is_authority,
    is_refused_method, is_target, is_token,
};

/// Limits on one head.
#[expect(clippy::struct_field_names, reason = "each is a limit, and says so as limits everywhere do")]
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadLimits {
    /// Bytes up to and with the empty line.
    pub(crate) head_len_max: usize,
    /// Header lines.
    pub(crate) headers_max: usize,
    /// Bytes of the target.
    pub(crate) target_len_max: usize,
}

/// How the body's end is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is no body.
    None,
    /// Its length was announced.
    Length(u64),
    /// It comes in chunks.
    Chunked,
}

/// A request head that was accepted. All ranges are of `raw`.
#[derive(Debug, Clone)]
pub(crate) struct ParsedHead {
    raw: Bytes,
    method: Range<usize>,
    path: Range<usize>,
    query: Option<Range<usize>>,
    headers: Vec<(Range<usize>, Range<usize>)>,
    /// Which authority the request is for.
    host: Range<usize>,
    pub(crate) framing: Framing,
    /// HTTP/1.0.
    pub(crate) old_version: bool,
    pub(crate) keep_alive: bool,
    /// `Expect: 100-continue`.
    pub(crate) expects_continue: bool,
}

fn bad(problem: &'static str) -> HeadRefusal {
    HeadRefusal::bad(problem)
}

impl ParsedHead {
    /// Method, target and host are checked to be ASCII.
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
        let is = move |range: &Range<usize>| self.raw[range.clone()].eq_ignore_ascii_case(name.as_bytes());
        self.headers.iter().filter(move |(key, _)| is(key)).map(|(_, value)| self.raw.slice(value.clone()))
    }
}

impl Fields for ParsedHead {
    fn get(&self, name: &str) -> Option<&[u8]> {
        if name == "host" {
            return (!self.host.is_empty()).then(|| &self.raw[self.host.clone()]);
        }
        let is = |range: &Range<usize>| self.raw[range.clone()].eq_ignore_ascii_case(name.as_bytes());
        self.headers.iter().find(|(key, _)| is(key)).map(|(_, value)| &self.raw[value.clone()])
    }

    fn is_repeated(&self, name: &str) -> bool {
        let is = |range: &Range<usize>| self.raw[range.clone()].eq_ignore_ascii_case(name.as_bytes());
        self.headers.iter().filter(|(key, _)| is(key)).nth(1).is_some()
    }
}

/// Where the head in `buffer` ends, empty line included; `scanned` bytes were looked at before. An empty line before the
/// request line is passed over by the caller.
///
/// # Errors
/// [`HeadRefusal`] for a bare CR or LF, and for a head over its limit.
pub(crate) fn find_end(buffer: &[u8], scanned: usize, limits: &HeadLimits) -> Result<Option<usize>, HeadRefusal> {
    let mut from = scanned.saturating_sub(3);
    while let Some(found) = memchr::memchr2(b'\r', b'\n', &buffer[from..]) {
        let at = from + found;
        if buffer[at] == b'\n' {
            // Each good line feed is passed over together with its carriage return.
            if at == 0 || buffer[at - 1] != b'\r' {
                return Err(bad("a line ends with a bare line feed"));
            }
            from = at + 1;
            continue;
        }
        match buffer.get(at + 1) {
            None => break,
            Some(b'\n') => {}
            Some(_) => return Err(bad("a carriage return stands alone")),
        }
        let end = at + 2;
        if buffer[..at].ends_with(b"\r\n") {
            return if end <= limits.head_len_max { Ok(Some(end)) } else { Err(too_large(buffer)) };
        }
        from = end;
    }
    if buffer.len() >= limits.head_len_max { Err(too_large(buffer)) } else { Ok(None) }
}

/// A head without its end is too large for its target or for its headers.
fn too_large(buffer: &[u8]) -> HeadRefusal {
    if memchr::memchr(b'\n', buffer).is_none() {
        return TARGET_TOO_LONG;
    }
    HeadRefusal { status: 431, problem: "the head is too large" }
}

/// Parses a complete head.
///
/// # Errors
/// [`HeadRefusal`] for everything that RFC 9112 does not allow and that is open to two readings.
pub(crate) fn parse(raw: Bytes, limits: &HeadLimits) -> Result<ParsedHead, HeadRefusal> {
    let line_end = memchr::memchr(b'\r', &raw).ok_or(bad("the head has no lines"))?;
    let request_line = request_line(&raw[..line_end], limits)?;
    let mut headers = Vec::with_capacity(16);
    let mut at = line_end + 2;
    while at + 2 < raw.len() {
        let end = at + memchr::memchr(b'\r', &raw[at..]).ok_or(bad("a header line does not end"))?;
        if headers.len() == limits.headers_max {
            return Err(TOO_MANY_HEADERS);
        }
        headers.push(header_line(&raw, at, end)?);
        at = end + 2;
    }
    let facts = Facts::collect(&raw, &headers, request_line.old_version)?;
    let host = match (&request_line.authority, facts.host) {
        // The target's authority wins over the Host header (RFC 9112 §3.2.2).
        (Some(authority), _) => authority.clone(),
        (None, Some(host)) => host,
        (None, None) if request_line.old_version => 0..0,
        (None, None) => return Err(bad("the Host header is missing")),
    };
    let missing_as_allowed = host.is_empty() && request_line.old_version;
    if !missing_as_allowed && !is_authority(&raw[host.clone()]) {
        return Err(bad("the Host header is not an authority"));
    }
    let RequestLine { method, path, query, old_version, .. } = request_line;
    if facts.upgrade {
        return Err(HeadRefusal { status: 405, problem: "this connection cannot be upgraded to another protocol" });
    }
    Ok(ParsedHead {
        method,
        path,
        query,
        headers,
        host,
        framing: facts.framing,
        old_version,
        keep_alive: if old_version { facts.keep_alive && !facts.close } else { !facts.close },
        expects_continue: facts.expects_continue && !old_version,
        raw,
    })
}

struct RequestLine {
    method: Range<usize>,
    path: Range<usize>,
    query: Option<Range<usize>>,
    authority: Option<Range<usize>>,
    old_version: bool,
}

fn request_line(line: &[u8], limits: &HeadLimits) -> Result<RequestLine, HeadRefusal> {
    let method_end = memchr::memchr(b' ', line).ok_or(bad("the request line has no target"))?;
    let target_end =
        method_end + 1 + memchr::memchr(b' ', &line[method_end + 1..]).ok_or(bad("the request line has no version"))?;
    let (method, target) = (0..method_end, method_end + 1..target_end);
    if method.is_empty() || !line[method.clone()].iter().copied().all(is_token) {
        return Err(bad("the method is not a token"));
    }
    let old_version = match &line[target_end + 1..] {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        other if other.len() == 8 && other.starts_with(b"HTTP/") && other[5].is_ascii_digit() && other[6] == b'.' => {
            return Err(HeadRefusal { status: 505, problem: "only HTTP/1.1 and HTTP/1.0 are spoken here" });
        }
        _ => return Err(bad("the version cannot be read")),
    };
    if target.len() > limits.target_len_max {
        return Err(TARGET_TOO_LONG);
    }
    let text = &line[target.clone()];
    if !is_target(text) {
        return Err(bad("the target has a character that has no place there"));
    }
    if is_refused_method(&line[method.clone()]) {
        return Err(REFUSED_METHOD);
    }
    let (authority, path_start) = authority_of(text, target.start, &line[method.clone()])?;
    let path_end = memchr::memchr(b'?', &line[path_start..target.end]).map_or(target.end, |at| path_start + at);
    let query = (path_end < target.end).then_some(path_end + 1..target.end);
    Ok(RequestLine { method, path: path_start..path_end, query, authority, old_version })
}

/// The authority of an absolute target, and where the path starts.
fn authority_of(target: &[u8], start: usize, method: &[u8]) -> Result<(Option<Range<usize>>, usize), HeadRefusal> {
    if target.starts_with(b"/") || (target == b"*" && method == b"OPTIONS") {
        return Ok((None, start));
    }
    let scheme = if target.len() >= 8 && target[..8].eq_ignore_ascii_case(b"https://") {
        8
    } else if target.len() >= 7 && target[..7].eq_ignore_ascii_case(b"http://") {
        7
    } else {
        return Err(bad("the target is neither a path nor an http address"));
    };
    let len = target[scheme..].iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(target.len() - scheme);
    let authority = start + scheme..start + scheme + len;
    Ok((Some(authority.clone()), authority.end))
}

fn header_line(raw: &[u8], start: usize, end: usize) -> Result<(Range<usize>, Range<usize>), HeadRefusal> {
    let line = &raw[start..end];
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(bad("a header is folded over two lines"));
    }
    let colon = memchr::memchr(b':', line).ok_or(bad("a header line has no colon"))?;
    let name = &line[..colon];
    // An underscore is a hyphen to many services behind us, so that it would give a header a second spelling.
    if name.is_empty() || !name.iter().all(|byte| is_token(*byte) && *byte != b'_') {
        return Err(bad("a header's name has a character that has no place there"));
    }
    let mut value = start + colon + 1..end;
    while value.start < value.end && matches!(raw[value.start], b' ' | b'\t') {
        value.start += 1;
    }
    while value.start < value.end && matches!(raw[value.end - 1], b' ' | b'\t') {
        value.end -= 1;
    }
    let control = |byte: &u8| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f;
    if raw[value.clone()].iter().any(control) {
        return Err(bad("a header's value has a control character"));
    }
    Ok((start..start + colon, value))
}

/// What the headers say about the connection and the body.
struct Facts {
    framing: Framing,
    host: Option<Range<usize>>,
    keep_alive: bool,
    close: bool,
    upgrade: bool,
    expects_continue: bool,
}

impl Facts {
    fn collect(raw: &[u8], headers: &[(Range<usize>, Range<usize>)], old_version: bool) -> Result<Self, HeadRefusal> {
        let (mut length, mut coded) = (None, false);
        let mut facts = Self {
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
                    return Err(bad("there are two Content-Lengths"));
                }
                length = Some(content_length(value)?);
            } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
                if coded {
                    return Err(bad("there are two Transfer-Encodings"));
                }
                if !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(HeadRefusal {
                        status: 501,
                        problem: "the only Transfer-Encoding spoken here is chunked",
                    });
                }
                coded = true;
            } else if name.eq_ignore_ascii_case(b"host") {
                if facts.host.is_some() {
                    return Err(bad("there are two Host headers"));
                }
                facts.host = Some(value_range.clone());
            } else if name.eq_ignore_ascii_case(b"connection") {
                facts.connection(value);
            } else if name.eq_ignore_ascii_case(b"upgrade") {
                // An offer to speak HTTP/2 may be passed over (RFC 9110 §7.8), and common clients make it with every call.
                facts.upgrade |= !value.eq_ignore_ascii_case(b"h2c");
            } else if name.eq_ignore_ascii_case(b"expect") {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(UNKNOWN_EXPECTATION);
                }
                facts.expects_continue = true;
            }
        }
        facts.framing = match (coded, length) {
            (true, Some(_)) => return Err(bad("Content-Length and Transfer-Encoding exclude one another")),
            (true, None) if old_version => return Err(bad("HTTP/1.0 has no Transfer-Encoding")),
            (true, None) => Framing::Chunked,
            (false, None | Some(0)) => Framing::None,
            (false, Some(length)) => Framing::Length(length),
        };
        Ok(facts)
    }

    fn connection(&mut self, value: &[u8]) {
        for option in value.split(|byte| *byte == b',') {
            let option = option.trim_ascii();
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }
}

/// Digits and nothing else: no sign, no list, no hexadecimal.
fn content_length(value: &[u8]) -> Result<u64, HeadRefusal> {
    let refusal = bad("the Content-Length is not a number");
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return Err(refusal);
    }
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).ok_or(refusal)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { head_len_max: 4096, headers_max: 8, target_len_max: 100 };

    fn read(text: &str) -> Result<ParsedHead, HeadRefusal> {
        let end = find_end(text.as_bytes(), 0, &LIMITS)?.ok_or(bad("incomplete"))?;
        parse(Bytes::copy_from_slice(&text.as_bytes()[..end]), &LIMITS)
    }

    fn with(lines: &str) -> Result<ParsedHead, HeadRefusal> {
        read(&format!("POST /a HTTP/1.1\r\nHost: h\r\n{lines}\r\n"))
    }

    #[test]
    fn a_good_head_is_read() {
        let head = read("GET /a/b?c=d HTTP/1.1\r\nHost: example:80\r\nX-A:  one \r\nx-a: two\r\n\r\n").expect("good");
        assert_eq!((head.method(), head.path(), head.query()), ("GET", "/a/b", Some("c=d")));
        assert_eq!(head.get("host"), Some(&b"example:80"[..]));
        assert_eq!(head.get("x-a"), Some(&b"one"[..]));
        assert_eq!(head.values("x-a").collect::<Vec<_>>(), ["one", "two"]);
        assert_eq!((head.framing, head.keep_alive), (Framing::None, true));
    }

    #[test]
    fn framing_that_can_be_read_in_two_ways_is_refused() {
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
            assert_eq!(with(lines).map(|_| ()).map_err(|refusal| refusal.status), Err(status), "{lines:?}");
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
            assert_eq!(read(text).map(|_| ()).map_err(|refusal| refusal.status), Err(status), "{text:?}");
        }
    }

    #[test]
    fn the_authority_of_an_absolute_target_is_the_host() {
        let head = read("GET http://real/x?y HTTP/1.1\r\nHost: other\r\n\r\n").expect("good");
        assert_eq!((head.get("host"), head.path(), head.query()), (Some(&b"real"[..]), "/x", Some("y")));
        let head = read("GET http://real HTTP/1.1\r\nHost: other\r\n\r\n").expect("good");
        assert_eq!((head.get("host"), head.path()), (Some(&b"real"[..]), ""));
    }

    #[test]
    fn limits_hold_to_the_unit() {
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
    fn the_end_is_found_however_the_bytes_arrive() {
        let text = b"GET / HTTP/1.1\r\nHost: h\r\n\r\nrest";
        let mut scanned = 0;
        for len in 0..=text.len() {
            let found = find_end(&text[..len], scanned, &LIMITS).expect("good");
            assert_eq!(found.is_some(), len == text.len() - 4, "at {len}");
            if found.is_some() {
                return;
            }
            scanned = len;
        }
    }
}
