//! Length-prefixed messages in HTTP/2 DATA frames: a compressed flag of one byte, a length of four bytes, and the message (gRPC over HTTP/2,
//! "Length-Prefixed-Message").

use std::any::Any;
use std::io::{Read as _, Write as _};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use crossdock_message::{Code, Fault};
use crossdock_transport::bodies::Reservation;
use http::HeaderMap;
use http_body::Body as _;
use hyper::body::Incoming;

use crate::reason;

/// Bytes of the prefix of a message.
const PREFIX_LEN: usize = 5;
/// Empty DATA frames accepted before a message.
const EMPTY_FRAMES_MAX: u32 = 100;
/// The maximum compression ratio of a message that decompresses to more than [`RATIO_EXEMPT_LEN`] bytes.
const RATIO_MAX: usize = 100;
const RATIO_EXEMPT_LEN: usize = 1 << 20;
/// Smaller messages are not compressed, since it does not pay off.
const COMPRESSED_LEN_MIN: usize = 512;
/// Messages up to this length are copied after their prefix, to be written at once.
const COPIED_LEN_MAX: usize = 16 * 1024;

/// The encoding of a compressed message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Gzip,
    Deflate,
}

impl Encoding {
    /// The value of `grpc-accept-encoding`.
    pub(crate) const ACCEPTED: &'static str = "identity,gzip,deflate";

    /// Parses `grpc-encoding`; `Ok(None)` for `identity`.
    pub(crate) fn from_name(name: &[u8]) -> Result<Option<Self>, Fault> {
        match name {
            b"identity" | b"" => Ok(None),
            b"gzip" => Ok(Some(Self::Gzip)),
            b"deflate" => Ok(Some(Self::Deflate)),
            _ => Err(Fault::caller(Code::Unimplemented, reason::ENCODING, "the message encoding is not supported")),
        }
    }
}

fn malformed(problem: &'static str) -> Fault {
    Fault::caller(Code::Internal, "FRAMING", problem)
}

/// Maps an error of the connection to a fault.
pub(crate) type BodyFault = fn(&hyper::Error) -> Fault;

/// Reads messages from a body.
pub(crate) struct MessageReader {
    body: Incoming,
    /// Bytes of an incomplete message.
    buffer: BytesMut,
    /// A frame received with an empty buffer; its messages are returned without copying.
    frame: Bytes,
    encoding: Option<Encoding>,
    len_max: usize,
    empty_frames: u32,
    ended: bool,
    /// Whether messages are forwarded one by one. Otherwise, the single message keeps its memory reserved.
    is_stream: bool,
    trailers: Option<HeaderMap>,
    fault: BodyFault,
    /// Memory reserved for received data that is not forwarded yet.
    held: Reservation,
}

impl MessageReader {
    pub(crate) fn new(body: Incoming, encoding: Option<Encoding>, len_max: usize, fault: BodyFault) -> Self {
        Self {
            body,
            buffer: BytesMut::new(),
            frame: Bytes::new(),
            encoding,
            len_max,
            empty_frames: 0,
            ended: false,
            is_stream: false,
            trailers: None,
            fault,
            held: Reservation::new(),
        }
    }

    /// For a reply.
    pub(crate) fn for_reply(self) -> Self {
        Self { held: Reservation::for_reply(), ..self }
    }

    /// For messages that are forwarded one by one.
    pub(crate) fn for_stream(self) -> Self {
        Self { is_stream: true, ..self }
    }

    /// Takes the guard that keeps memory reserved while the message exists.
    pub(crate) fn take_guard(&mut self) -> Option<Arc<dyn Any + Send + Sync>> {
        std::mem::take(&mut self.held).into_guard()
    }

    /// Takes the trailers.
    pub(crate) fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take()
    }

    /// The next message; `None` at the end.
    pub(crate) fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Fault>>> {
        loop {
            match self.take_message() {
                Err(fault) => return Poll::Ready(Some(Err(fault))),
                Ok(Some(message)) => {
                    if self.is_stream {
                        // The message is forwarded; only the bytes after it remain reserved.
                        self.held.shrink(self.buffer.len() + self.frame.len());
                    }
                    self.empty_frames = 0;
                    return Poll::Ready(Some(Ok(message)));
                }
                Ok(None) => {}
            }
            if self.ended {
                let is_complete = self.buffer.is_empty() && self.frame.is_empty();
                let truncated = || Some(Err(malformed("the stream ended in the middle of a message")));
                return Poll::Ready(if is_complete { None } else { truncated() });
            }
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else { return Poll::Pending };
            match frame {
                None => self.ended = true,
                Some(Err(error)) => return Poll::Ready(Some(Err((self.fault)(&error)))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        if let Err(fault) = self.push(data) {
                            return Poll::Ready(Some(Err(fault)));
                        }
                    }
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
            }
        }
    }

    fn push(&mut self, data: Bytes) -> Result<(), Fault> {
        self.held.grow(data.len())?;
        if data.is_empty() {
            self.empty_frames += 1;
            if self.empty_frames > EMPTY_FRAMES_MAX {
                return Err(Fault::caller(Code::ResourceExhausted, "EMPTY_FRAMES", "too many empty DATA frames"));
            }
        } else if self.buffer.is_empty() && self.frame.is_empty() {
            self.frame = data;
        } else {
            let first = std::mem::take(&mut self.frame);
            self.buffer.extend_from_slice(&first);
            self.buffer.extend_from_slice(&data);
        }
        Ok(())
    }

    /// Takes a complete message from the buffer.
    fn take_message(&mut self) -> Result<Option<Bytes>, Fault> {
        let bytes: &[u8] = if self.buffer.is_empty() { &self.frame } else { &self.buffer };
        let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX_LEN>() else { return Ok(None) };
        let len = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
        let is_compressed = match prefix[0] {
            0 => false,
            1 => true,
            _ => return Err(malformed("the prefix of a message is invalid")),
        };
        if len > self.len_max {
            let message = format!("a message exceeds {} bytes", self.len_max);
            return Err(Fault::caller(Code::ResourceExhausted, "MESSAGE_TOO_LARGE", message).with_http_status(413));
        }
        if rest.len() < len {
            return Ok(None);
        }
        let message = if self.buffer.is_empty() {
            self.frame.advance(PREFIX_LEN);
            self.frame.split_to(len)
        } else {
            self.buffer.advance(PREFIX_LEN);
            self.buffer.split_to(len).freeze()
        };
        match (is_compressed, self.encoding) {
            (false, _) => Ok(Some(message)),
            (true, Some(encoding)) => {
                let decompressed = decompress(&message, encoding, self.len_max)?;
                self.held.grow(decompressed.len())?;
                Ok(Some(decompressed))
            }
            (true, None) => Err(malformed("a message is compressed, but `grpc-encoding` is missing")),
        }
    }
}

/// Decompresses a message to at most `len_max` bytes.
pub(crate) fn decompress(message: &Bytes, encoding: Encoding, len_max: usize) -> Result<Bytes, Fault> {
    let cap = len_max.min(message.len().saturating_mul(RATIO_MAX).max(RATIO_EXEMPT_LEN));
    let limit = cap as u64 + 1;
    let mut out = Vec::with_capacity(cap.min(message.len() * 4));
    let read = match encoding {
        Encoding::Gzip => flate2::read::GzDecoder::new(&message[..]).take(limit).read_to_end(&mut out),
        Encoding::Deflate => flate2::read::ZlibDecoder::new(&message[..]).take(limit).read_to_end(&mut out),
    };
    if read.is_err() {
        return Err(Fault::caller(Code::Internal, reason::ENCODING, "a message cannot be decompressed"));
    }
    if out.len() > cap {
        let problem = "a decompressed message exceeds the limit";
        return Err(Fault::caller(Code::ResourceExhausted, "MESSAGE_TOO_LARGE", problem).with_http_status(413));
    }
    Ok(out.into())
}

/// Prefixes a message. A long message is returned as a separate piece to avoid a copy.
pub(crate) fn frame_message(message: &Bytes, encoding: Option<Encoding>) -> Result<(Bytes, Option<Bytes>), Fault> {
    let compressed =
        encoding.filter(|_| message.len() >= COMPRESSED_LEN_MIN).and_then(|encoding| compress(message, encoding));
    let (flag, content) = match &compressed {
        Some(compressed) => (1, compressed),
        None => (0, message),
    };
    let too_large =
        |_| Fault::new(Code::ResourceExhausted, "MESSAGE_TOO_LARGE", "the message exceeds the maximum length of gRPC");
    let len = u32::try_from(content.len()).map_err(too_large)?;
    let is_copied = content.len() <= COPIED_LEN_MAX;
    let mut out = BytesMut::with_capacity(PREFIX_LEN + if is_copied { content.len() } else { 0 });
    out.put_u8(flag);
    out.put_u32(len);
    if is_copied {
        out.put_slice(content);
        return Ok((out.freeze(), None));
    }
    Ok((out.freeze(), Some(content.clone())))
}

/// Compresses a message; `None` if that does not make it smaller.
fn compress(message: &Bytes, encoding: Encoding) -> Option<Bytes> {
    let level = flate2::Compression::fast();
    let buffer = Vec::with_capacity(message.len() / 2);
    let compressed = match encoding {
        Encoding::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(buffer, level);
            encoder.write_all(message).and_then(|()| encoder.finish())
        }
        Encoding::Deflate => {
            let mut encoder = flate2::write::ZlibEncoder::new(buffer, level);
            encoder.write_all(message).and_then(|()| encoder.finish())
        }
    };
    compressed.ok().filter(|compressed| compressed.len() < message.len()).map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_compressed_if_smaller_and_decompressed_within_limits() {
        let long = Bytes::from(vec![b'a'; 20_000]);
        for encoding in [Encoding::Gzip, Encoding::Deflate] {
            let compressed = compress(&long, encoding).expect("smaller");
            assert_eq!(decompress(&compressed, encoding, 20_000).expect("fits").len(), 20_000);
            assert_eq!(
                decompress(&compressed, encoding, 19_999).map_err(|fault| fault.code),
                Err(Code::ResourceExhausted)
            );
            assert_eq!(decompress(&long, encoding, 20_000).map_err(|fault| fault.code), Err(Code::Internal));
        }
        let bomb = compress(&Bytes::from(vec![0; 4 << 20]), Encoding::Gzip).expect("smaller");
        assert_eq!(
            decompress(&bomb, Encoding::Gzip, 8 << 20).map_err(|fault| fault.code),
            Err(Code::ResourceExhausted)
        );
        let (short, rest) = frame_message(&Bytes::from_static(b"abc"), Some(Encoding::Gzip)).expect("short");
        assert_eq!((&short[..], rest), (&b"\0\0\0\0\x03abc"[..], None));
        let (prefix, rest) = frame_message(&Bytes::from(vec![1; 70_000]), None).expect("long");
        assert_eq!((&prefix[..], rest.map(|rest| rest.len())), (&b"\0\0\x01\x11\x70"[..], Some(70_000)));
    }
}
