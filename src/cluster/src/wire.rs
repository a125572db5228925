//! Messages as bytes: `schemas/cluster.proto`.

mod convert;
mod schema;

use bytes::{Buf as _, Bytes, BytesMut};
use prost::Message as _;

pub(crate) use self::schema::{Alive, Frame, Hello, Kind, SnapshotPart};

/// The versions that this release speaks.
///
/// A connection speaks the highest that both ends know. A release that brings a version keeps the one before, so that instances can be
/// brought to it one after another; what is new is said only on connections of the new version.
pub(crate) const VERSIONS: std::ops::RangeInclusive<u32> = 1..=1;
/// The bytes of a frame.
pub(crate) const FRAME_LEN_MAX: usize = 80 << 20;
const LENGTH: usize = 4;

impl Frame {
    pub(crate) fn of(kind: Kind) -> Self {
        Self { kind: Some(kind) }
    }

    /// Appends the frame with its length.
    pub(crate) fn write(&self, out: &mut BytesMut) {
        let len = u32::try_from(self.encoded_len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&len.to_be_bytes());
        // A buffer that grows takes every message.
        let _ = self.encode(out);
    }

    /// Takes a frame of up to `len_max` bytes from the beginning of `bytes`; nothing where it is not whole yet.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub(crate) fn take(bytes: &mut BytesMut, len_max: usize) -> Result<Option<Self>, &'static str> {
        let Some(prefix) = bytes.get(..LENGTH) else { return Ok(None) };
        let len = prefix.try_into().map_or(u32::MAX, u32::from_be_bytes) as usize;
        if len > len_max {
            return Err("a frame is too long");
        }
        if bytes.len() < LENGTH + len {
            return Ok(None);
        }
        bytes.advance(LENGTH);
        let frame: Bytes = bytes.split_to(len).freeze();
        Self::decode(frame).map(Some).map_err(|_| "a frame cannot be read")
    }
}
