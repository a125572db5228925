//! Readers of this crate, for fuzzing: each takes any bytes and panics where a law is broken.

use bytes::{Bytes, BytesMut};
use crossdock_adapter_api::Fields as _;

use crate::front::{BodyDecoder, HeadLimits, find_end, parse};
use crate::request::RequestHead as _;
use crate::{http2, path as paths};

const LIMITS: HeadLimits = HeadLimits { head_len_max: 16 * 1024, headers_max: 96, target_len_max: 8 * 1024 };

/// A head and the body behind it, arriving at once and byte by byte: both have to be the same.
pub fn http1(bytes: &[u8]) {
    let Ok(Some(end)) = find_end(bytes, 0, &LIMITS) else { return };
    let mut scanned = 0;
    let found = (1..=bytes.len()).find(|len| {
        let found = find_end(&bytes[..*len], scanned, &LIMITS).expect("what is good whole is good in parts");
        scanned = *len;
        found.is_some()
    });
    assert_eq!(found, Some(end), "the end is found as soon as it is there");
    let Ok(head) = parse(Bytes::copy_from_slice(&bytes[..end]), &LIMITS) else { return };
    assert!(!head.method().is_empty() && (head.old_version || head.get("host").is_some()));
    let _ = paths::normalize(head.path());
    let decode = |step: usize| {
        let (mut decoder, mut buffer, mut body) = (BodyDecoder::new(head.framing), BytesMut::new(), Vec::new());
        for piece in bytes[end..].chunks(step) {
            buffer.extend_from_slice(piece);
            // What was refused is not looked at again.
            while let Some(data) = decoder.take(&mut buffer).ok()? {
                body.extend_from_slice(&data);
            }
        }
        Some((body, decoder.is_done()))
    };
    assert_eq!(decode(1), decode(bytes.len().max(1)), "a body is the same at every split");
}

/// Lines of a method, a target, and headers, as HTTP/2 would give them.
pub fn http2_head(bytes: &[u8]) {
    http2::fuzz_head(bytes, &LIMITS);
}

/// A path and a query: what is normal stays as it is, and parts are decoded to text or refused.
pub fn path(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    if let Ok(normal) = paths::normalize(path) {
        assert_eq!(paths::normalize(&normal).expect("a normal path is good"), normal, "twice is once");
        assert!(normal.starts_with('/') && !normal.split('/').any(|part| matches!(part, "." | "..")), "{normal}");
        for part in normal.split('/') {
            let Ok(decoded) = paths::decode(part) else { continue };
            let mut written = String::new();
            if paths::append_segment(&mut written, &decoded).is_ok() {
                assert_eq!(paths::decode(&written).expect("what was escaped"), decoded);
                assert!(!written.contains(['/', '?', '#', '\\']), "{written}");
            }
        }
    }
    for pair in paths::query_pairs(query) {
        let Ok((name, value)) = pair else { continue };
        let mut written = String::new();
        paths::append_query(&mut written, &name, &value);
        let back: Vec<_> = paths::query_pairs(&written[1..]).collect();
        let back: Vec<_> = back.into_iter().map(|pair| pair.expect("what was escaped")).collect();
        assert!(back == [(name.clone(), value.clone())] || (name.is_empty() && value.is_empty()), "{written}");
    }
}
