//! Messages of a state that is written and read one by one.

use std::io::{self, Read, Write};

use bytes::Bytes;
use prost::Message;

use super::sections::read_if_any;
use crate::state_machine::InvalidState;

/// Writes a message after its length (4 bytes, little-endian), for [`View::write_to`](crate::View::write_to).
///
/// # Errors
/// Those of the writer.
pub fn write_message(to: &mut dyn Write, message: &impl Message) -> io::Result<()> {
    let bytes = message.encode_to_vec();
    let len = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    to.write_all(&len.to_le_bytes())?;
    to.write_all(&bytes)
}

/// Reads a message that [`write_message`] wrote, of at most `len_max` bytes; `None` at the end.
///
/// # Errors
/// The message is longer, cannot be decoded, or read.
pub fn read_message<M: Message + Default>(from: &mut dyn Read, len_max: usize) -> Result<Option<M>, InvalidState> {
    let invalid = |error: io::Error| InvalidState(error.into());
    let mut len = [0; 4];
    if !read_if_any(from, &mut len).map_err(invalid)? {
        return Ok(None);
    }
    let len = u32::from_le_bytes(len) as usize;
    if len > len_max {
        return Err(InvalidState(format!("an entry has {len} bytes, more than {len_max}").into()));
    }
    let mut bytes = vec![0; len];
    from.read_exact(&mut bytes).map_err(invalid)?;
    M::decode(Bytes::from(bytes)).map(Some).map_err(|error| InvalidState(error.into()))
}
