//! The wire format of `schemas/cluster.proto`.

mod convert;
mod schema;

use bytes::{Buf as _, Bytes, BytesMut};
use prost::Message as _;

pub(crate) use self::schema::{
    Alive, ClusterChange, Envelope, Frame, Hello, Kind, MachineVersion, Membership, Numbered, Refused, SnapshotPart,
};

/// The protocol versions of this release.
///
/// A connection uses the highest version that both ends support. A release that adds a version keeps the previous one,
/// so that instances can be upgraded one by one; new messages are sent only on connections of the new version.
pub(crate) const VERSIONS: std::ops::RangeInclusive<u32> = 2..=2;
/// Maximum length of a frame in bytes.
pub(crate) const FRAME_LEN_MAX: usize = 80 << 20;
const LENGTH: usize = 4;

impl Frame {
    pub(crate) fn of(kind: Kind) -> Self {
        Self { kind: Some(kind) }
    }

    /// Appends the frame, with its length prefix.
    pub(crate) fn write(&self, out: &mut BytesMut) {
        let len = u32::try_from(self.encoded_len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&len.to_be_bytes());
        // Encoding into a growing buffer cannot fail.
        let _ = self.encode(out);
    }

    /// Takes a frame of up to `len_max` bytes from the start of `bytes`; `None` if it is incomplete.
    ///
    /// # Errors
    /// The frame is too long or cannot be decoded.
    pub(crate) fn take(bytes: &mut BytesMut, len_max: usize) -> Result<Option<Self>, &'static str> {
        let Some(prefix) = bytes.get(..LENGTH) else { return Ok(None) };
        let len = prefix.try_into().map_or(u32::MAX, u32::from_be_bytes) as usize;
        if len > len_max {
            return Err("a frame that is too long");
        }
        if bytes.len() < LENGTH + len {
            return Ok(None);
        }
        bytes.advance(LENGTH);
        let frame: Bytes = bytes.split_to(len).freeze();
        Self::decode(frame).map(Some).map_err(|_| "a frame that cannot be decoded")
    }
}
