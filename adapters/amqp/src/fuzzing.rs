//! Entry points for fuzzing.

use std::sync::Arc;

use lapin::protocol::basic::parse_properties;
use lapin::protocol::parse_class;

use crate::frames::{Filter, Returns};

/// Feeds bytes through the frame filter: lapin's parser must survive all filtered frames and must parse all filtered content headers.
///
/// # Panics
/// If lapin cannot parse a filtered content header.
pub fn frames(bytes: &[u8]) {
    let returns = Arc::new(Returns::default());
    let mut filter = Filter::new(Arc::clone(&returns));
    let mut out = Vec::new();
    // The input determines the chunk size.
    let size = bytes.first().map_or(1, |first| usize::from(*first) + 1);
    if bytes.chunks(size).try_for_each(|part| filter.push(part, &mut out)).is_err() {
        return;
    }
    let mut rest = &out[..];
    if rest.starts_with(b"AMQP") {
        return;
    }
    while let Some((head, behind)) = rest.split_at_checked(7) {
        let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
        let Some((payload, behind)) = behind.split_at_checked(size) else { return };
        rest = behind.get(1..).unwrap_or_default();
        match head[0] {
            1 => drop(parse_class(payload)),
            2 => {
                let (left, _) = parse_properties(&payload[12..]).expect("parseable properties");
                assert!(left.is_empty(), "no bytes remain after the properties");
            }
            _ => {}
        }
    }
}
