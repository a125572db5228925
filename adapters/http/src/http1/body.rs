//! Decodes the framing of a request body (RFC 9112 §6, §7).

use bytes::{Bytes, BytesMut};

use super::head::Framing;
use crate::request::BodyError;

/// Maximum length of a chunk's size and extensions in bytes.
const CHUNK_LINE_LEN_MAX: usize = 16 + 256 + 2;
/// Maximum length of the trailer section in bytes.
const TRAILERS_LEN_MAX: usize = 8 * 1024;
/// Framing bytes that are allowed in addition to the length of the body.
const OVERHEAD_ALLOWANCE: u64 = 64 * 1024;

/// Decodes one body.
#[derive(Debug)]
pub(crate) struct BodyDecoder {
    state: State,
    body_len: u64,
    wire_len: u64,
    trailers_len: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Length(u64),
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailers,
    Done,
}

impl BodyDecoder {
    pub(crate) fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::None => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::ChunkSize,
        };
        Self { state, body_len: 0, wire_len: 0, trailers_len: 0 }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Decodes the next chunk of the body from the start of `buffer`; `None` if more bytes are needed or the body is
    /// complete. Chunks are never empty and share the buffer's memory.
    ///
    /// # Errors
    /// [`BodyError::Framing`]; the connection must be closed.
    pub(crate) fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, BodyError> {
        loop {
            match self.state {
                State::Done => return Ok(None),
                State::Length(left) => {
                    let data = split_up_to(buffer, left);
                    let left = left - data.len() as u64;
                    self.state = if left == 0 { State::Done } else { State::Length(left) };
                    return Ok((!data.is_empty()).then_some(data));
                }
                State::ChunkData(left) => {
                    let data = split_up_to(buffer, left);
                    let left = left - data.len() as u64;
                    self.state = if left == 0 { State::ChunkEnd } else { State::ChunkData(left) };
                    self.body_len += data.len() as u64;
                    self.wire_len += data.len() as u64;
                    return Ok((!data.is_empty()).then_some(data));
                }
                State::ChunkSize => match split_line(buffer, CHUNK_LINE_LEN_MAX)? {
                    Some(line) => {
                        self.count_framing(line.len() + 2)?;
                        let size = parse_chunk_size(&line)?;
                        self.state = if size == 0 { State::Trailers } else { State::ChunkData(size) };
                    }
                    None => return Ok(None),
                },
                State::ChunkEnd => match split_line(buffer, 2)? {
                    Some(line) if line.is_empty() => {
                        self.count_framing(2)?;
                        self.state = State::ChunkSize;
                    }
                    Some(_) => return Err(BodyError::Framing("a chunk is longer than its declared size")),
                    None => return Ok(None),
                },
                State::Trailers => match split_line(buffer, TRAILERS_LEN_MAX)? {
                    Some(line) if line.is_empty() => self.state = State::Done,
                    Some(line) => {
                        self.trailers_len += line.len() + 2;
                        let is_field = line.first().is_some_and(|byte| !matches!(byte, b' ' | b'\t' | b':'))
                            && line.contains(&b':');
                        if self.trailers_len > TRAILERS_LEN_MAX || !is_field {
                            return Err(BodyError::Framing("the trailer section is malformed or too long"));
                        }
                    }
                    None => return Ok(None),
                },
            }
        }
    }

    /// Bounds the cost of bodies that consist mostly of framing.
    fn count_framing(&mut self, bytes: usize) -> Result<(), BodyError> {
        self.wire_len += bytes as u64;
        if self.wire_len > 2 * self.body_len + OVERHEAD_ALLOWANCE {
            return Err(BodyError::Framing("the framing is longer than the body"));
        }
        Ok(())
    }
}

fn split_up_to(buffer: &mut BytesMut, left: u64) -> Bytes {
    let len = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
    buffer.split_to(len).freeze()
}

/// Splits off the next line, without its CRLF; `None` if it is incomplete.
fn split_line(buffer: &mut BytesMut, len_max: usize) -> Result<Option<Bytes>, BodyError> {
    let window = &buffer[..buffer.len().min(len_max)];
    let Some(at) = memchr::memchr2(b'\r', b'\n', window) else {
        return if buffer.len() >= len_max {
            Err(BodyError::Framing("a chunk header or trailer field is too long"))
        } else {
            Ok(None)
        };
    };
    if buffer[at] == b'\n' {
        return Err(BodyError::Framing("a line ends with a bare LF"));
    }
    match buffer.get(at + 1) {
        None => Ok(None),
        Some(b'\n') => {
            let line = buffer.split_to(at).freeze();
            let _ = buffer.split_to(2);
            Ok(Some(line))
        }
        Some(_) => Err(BodyError::Framing("a CR is not followed by LF")),
    }
}

/// Parses `chunk-size [ chunk-ext ]`. Extensions are ignored (RFC 9112 §7.1.1).
fn parse_chunk_size(line: &[u8]) -> Result<u64, BodyError> {
    let error = BodyError::Framing("the chunk size is malformed");
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    if digits == 0 || digits > 15 {
        return Err(error);
    }
    let extension = &line[digits..];
    let is_control = |byte: &u8| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f;
    if !extension.is_empty()
        && (extension.trim_ascii_start().first() != Some(&b';') || extension.iter().any(is_control))
    {
        return Err(error);
    }
    if extension.len() > 256 {
        return Err(BodyError::Framing("the chunk extensions are too long"));
    }
    std::str::from_utf8(&line[..digits]).ok().and_then(|text| u64::from_str_radix(text, 16).ok()).ok_or(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body, whether it is complete, and the bytes after it, for input in pieces of `step` bytes.
    fn decode(framing: Framing, wire: &[u8], step: usize) -> Result<(Vec<u8>, bool, Vec<u8>), BodyError> {
        let mut decoder = BodyDecoder::new(framing);
        let mut buffer = BytesMut::new();
        let mut body = Vec::new();
        for piece in wire.chunks(step.max(1)) {
            buffer.extend_from_slice(piece);
            while let Some(bytes) = decoder.decode(&mut buffer)? {
                body.extend_from_slice(&bytes);
            }
        }
        Ok((body, decoder.is_done(), buffer.to_vec()))
    }

    #[test]
    fn a_body_does_not_depend_on_how_it_is_split() {
        let chunked = b"4\r\nWiki\r\n5;a=b\r\npedia\r\nE\r\n in\r\n\r\nchunks.\r\n0\r\nX: y\r\n\r\nnext";
        for step in 1..=chunked.len() {
            let decoded = decode(Framing::Chunked, chunked, step);
            assert_eq!(decoded, Ok((b"Wikipedia in\r\n\r\nchunks.".to_vec(), true, b"next".to_vec())), "step {step}");
            let decoded = decode(Framing::Length(4), b"abcdnext", step);
            assert_eq!(decoded, Ok((b"abcd".to_vec(), true, b"next".to_vec())), "step {step}");
        }
        assert_eq!(decode(Framing::Length(4), b"abc", 9), Ok((b"abc".to_vec(), false, Vec::new())));
    }

    #[test]
    fn malformed_chunks_are_rejected() {
        for wire in [
            &b"x\r\n"[..],
            b"\r\n",
            b"0x5\r\nhello\r\n",
            b"+5\r\nhello\r\n",
            b"-1\r\n",
            b" 5\r\nhello\r\n",
            b"5 x\r\nhello\r\n",
            b"5\nhello\r\n",
            b"5\rhello\r\n",
            b"5\r\nhello\n",
            b"5\r\nhelloX\r\n",
            b"3\r\nhello\r\n",
            b"ffffffffffffffffff\r\n",
            b"0\r\nno colon\r\n\r\n",
            b"0\r\n folded: x\r\n\r\n",
            b"5;a=\x01\r\nhello\r\n",
        ] {
            assert!(decode(Framing::Chunked, wire, 1000).is_err(), "{:?}", String::from_utf8_lossy(wire));
        }
    }

    #[test]
    fn extensions_and_overhead_are_bounded() {
        let extension = |len: usize| format!("1;{}\r\na\r\n0\r\n\r\n", "e".repeat(len - 1)).into_bytes();
        assert!(decode(Framing::Chunked, &extension(255), 9).is_ok());
        assert!(decode(Framing::Chunked, &extension(256), 9).is_ok());
        assert!(decode(Framing::Chunked, &extension(257), 9).is_err());
        let overhead = format!("1;{}\r\na\r\n", "e".repeat(250)).repeat(10_000);
        assert_eq!(
            decode(Framing::Chunked, overhead.as_bytes(), 8192),
            Err(BodyError::Framing("the framing is longer than the body"))
        );
        assert!(decode(Framing::Chunked, &vec![b'1'; 1 << 20], 8192).is_err());
    }
}
