//! Fuzz targets: each accepts arbitrary bytes and panics if an invariant is violated.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::config::Faults;
use crate::framing::{Encoding, decompress};
use crate::settle;

/// A decompressed message never exceeds the limit.
pub fn compressed(bytes: &[u8]) {
    const LEN_MAX: usize = 1 << 20;
    let message = Bytes::copy_from_slice(bytes);
    for encoding in [Encoding::Gzip, Encoding::Deflate] {
        if let Ok(decompressed) = decompress(&message, encoding, LEN_MAX) {
            assert!(decompressed.len() <= LEN_MAX);
        }
    }
}

/// A status in the trailers of a service maps to a fault and back.
pub fn status(bytes: &[u8]) {
    let mut metadata = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n').take(20) {
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let name = HeaderName::from_bytes(&line[..colon]);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(line.get(colon + 1..).unwrap_or_default())) {
            metadata.append(name, value);
        }
    }
    if let Some(Err(code)) = settle::parse_status(&metadata) {
        for faults in [Faults::All, Faults::Safe] {
            let fault = settle::fault_from_service(code, &metadata, &["x-a".into()], faults);
            let mut sent = HeaderMap::new();
            settle::append_fault(&fault, &mut sent);
            assert_eq!(settle::parse_status(&sent), Some(Err(code)), "the code round-trips");
        }
    }
}
