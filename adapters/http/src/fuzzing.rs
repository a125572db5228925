//! Fuzz targets: each accepts arbitrary bytes and panics if an invariant is violated.

use bytes::{Bytes, BytesMut};
use crossdock_ports::Fields as _;

use crate::http1::{BodyDecoder, HeadLimits, find_end, parse};
use crate::request::RequestHead as _;
use crate::{http2, path as paths};

const LIMITS: HeadLimits = HeadLimits { head_len_max: 16 * 1024, headers_max: 96, target_len_max: 8 * 1024 };

/// Parses a head and its body, received at once and byte by byte: the results must be equal.
pub fn http1(bytes: &[u8]) {
    let Ok(Some(end)) = find_end(bytes, 0, &LIMITS) else { return };
    let mut scanned = 0;
    let found = (1..=bytes.len()).find(|len| {
        let found =
            find_end(&bytes[..*len], scanned, &LIMITS).expect("a head that is valid as a whole is valid in parts");
        scanned = *len;
        found.is_some()
    });
    assert_eq!(found, Some(end), "the end is found as soon as it is received");
    let Ok(head) = parse(Bytes::copy_from_slice(&bytes[..end]), &LIMITS) else { return };
    assert!(!head.method().is_empty() && (head.is_http10 || head.get("host").is_some()));
    let _ = paths::normalize(head.path());
    let decode = |step: usize| {
        let (mut decoder, mut buffer, mut body) = (BodyDecoder::new(head.framing), BytesMut::new(), Vec::new());
        for piece in bytes[end..].chunks(step) {
            buffer.extend_from_slice(piece);
            // The decoder is not used after an error.
            while let Some(data) = decoder.decode(&mut buffer).ok()? {
                body.extend_from_slice(&data);
            }
        }
        Some((body, decoder.is_done()))
    };
    assert_eq!(decode(1), decode(bytes.len().max(1)), "the body does not depend on how it is split");
}

/// Checks an HTTP/2 head given as lines: method, target, header fields.
pub fn http2_head(bytes: &[u8]) {
    http2::fuzz_head(bytes, &LIMITS);
}

/// Normalises and decodes a path and a query: normalisation is idempotent, and escaping inverts decoding.
pub fn path(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    if let Ok(normal) = paths::normalize(path) {
        assert_eq!(
            paths::normalize(&normal).expect("a normalised path is valid"),
            normal,
            "normalisation is idempotent"
        );
        assert!(normal.starts_with('/') && !normal.split('/').any(|part| matches!(part, "." | "..")), "{normal}");
        for part in normal.split('/') {
            let Ok(decoded) = paths::decode(part) else { continue };
            let mut written = String::new();
            if paths::append_segment(&mut written, &decoded).is_ok() {
                assert_eq!(paths::decode(&written).expect("an escaped segment is valid"), decoded);
                assert!(!written.contains(['/', '?', '#', '\\']), "{written}");
            }
        }
    }
    for pair in paths::query_pairs(query) {
        let Ok((name, value)) = pair else { continue };
        let mut written = String::new();
        paths::append_query(&mut written, &name, &value);
        let back: Vec<_> = paths::query_pairs(&written[1..]).collect();
        let back: Vec<_> = back.into_iter().map(|pair| pair.expect("an escaped pair is valid")).collect();
        assert!(back == [(name.clone(), value.clone())] || (name.is_empty() && value.is_empty()), "{written}");
    }
}
