//! Readers of this crate, for fuzzing: each takes any bytes and panics where a law is broken.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::config::Faults;
use crate::framing::{Coding, unpack};
use crate::settle;

/// A packed message: what it unpacks to stays below the limit, whatever it says.
pub fn packed(bytes: &[u8]) {
    const LEN_MAX: usize = 1 << 20;
    let message = Bytes::copy_from_slice(bytes);
    for coding in [Coding::Gzip, Coding::Deflate] {
        if let Ok(unpacked) = unpack(&message, coding, LEN_MAX) {
            assert!(unpacked.len() <= LEN_MAX);
        }
    }
}

/// The trailers of a service: a status is a fault that can be told to a caller.
pub fn status(bytes: &[u8]) {
    let mut metadata = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n').take(20) {
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let name = HeaderName::from_bytes(&line[..colon]);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(line.get(colon + 1..).unwrap_or_default())) {
            metadata.append(name, value);
        }
    }
    if let Some(Err(code)) = settle::status_of(&metadata) {
        for faults in [Faults::All, Faults::Safe] {
            let fault = settle::service_fault(code, &metadata, &["x-a".into()], faults);
            let mut told = HeaderMap::new();
            settle::status(&fault, &mut told);
            assert_eq!(settle::status_of(&told), Some(Err(code)), "the code survives");
        }
    }
}
