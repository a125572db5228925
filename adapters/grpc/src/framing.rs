//! Messages in and out of HTTP/2's data frames: one byte that says whether the message is packed, four of its length,
//! and the message (gRPC over HTTP/2, "Length-Prefixed-Message").

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

/// Bytes before a message.
const PREFIX_LEN: usize = 5;
/// Data frames without data that are taken before a message.
const EMPTY_FRAMES_MAX: u32 = 100;
/// A packed message is not unpacked to more than this many times its size, once it is past what any message may be.
const RATIO_MAX: usize = 100;
const UNPACKED_LEN_FREE: usize = 1 << 20;
/// Messages below this are not packed: there is nothing to be won.
const PACKED_LEN_MIN: usize = 512;
/// Messages up to this are copied behind their prefix, so that they are written at once.
const COPIED_LEN_MAX: usize = 16 * 1024;

/// How messages are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Gzip,
    Deflate,
}

impl Coding {
    /// What is taken, for `grpc-accept-encoding`.
    pub(crate) const ACCEPTED: &'static str = "identity,gzip,deflate";

    /// The coding of that name; `Ok(None)` for none.
    pub(crate) fn of_name(name: &[u8]) -> Result<Option<Self>, Fault> {
        match name {
            b"identity" | b"" => Ok(None),
            b"gzip" => Ok(Some(Self::Gzip)),
            b"deflate" => Ok(Some(Self::Deflate)),
            _ => Err(Fault::caller(
                Code::Unimplemented,
                "ENCODING",
                "the messages are packed in a way that is not known",
            )),
        }
    }
}

fn broken(problem: &'static str) -> Fault {
    Fault::caller(Code::Internal, "FRAMING", problem)
}

/// What is wrong with the connection that messages come over.
pub(crate) type BodyFault = fn(&hyper::Error) -> Fault;

/// Takes messages out of a body.
pub(crate) struct MessageReader {
    body: Incoming,
    /// Bytes that are no whole message yet.
    buffer: BytesMut,
    /// A frame that came while nothing was buffered: messages in it are handed on uncopied.
    frame: Bytes,
    coding: Option<Coding>,
    len_max: usize,
    empty_frames: u32,
    ended: bool,
    /// Messages are handed on one by one; otherwise the memory of the only one is kept with it.
    is_stream: bool,
    trailers: Option<HeaderMap>,
    fault: BodyFault,
    /// The memory of what was received and not handed on.
    held: Reservation,
}

impl MessageReader {
    pub(crate) fn new(body: Incoming, coding: Option<Coding>, len_max: usize, fault: BodyFault) -> Self {
        Self {
            body,
            buffer: BytesMut::new(),
            frame: Bytes::new(),
            coding,
            len_max,
            empty_frames: 0,
            ended: false,
            is_stream: false,
            trailers: None,
            fault,
            held: Reservation::new(),
        }
    }

    /// For messages of a reply.
    pub(crate) fn of_reply(self) -> Self {
        Self { held: Reservation::for_reply(), ..self }
    }

    /// For messages that are handed on one by one.
    pub(crate) fn streaming(self) -> Self {
        Self { is_stream: true, ..self }
    }

    /// What is kept with the one message of a call, for as long as it is held.
    pub(crate) fn take_keeper(&mut self) -> Option<Arc<dyn Any + Send + Sync>> {
        std::mem::take(&mut self.held).into_guard()
    }

    /// What came behind the last message.
    pub(crate) fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take()
    }

    /// The next message; nothing at the end.
    pub(crate) fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Fault>>> {
        loop {
            match self.take_message() {
                Err(fault) => return Poll::Ready(Some(Err(fault))),
                Ok(Some(message)) => {
                    if self.is_stream {
                        // The message is forwarded; the bytes behind it are still held.
                        self.held.shrink(self.buffer.len() + self.frame.len());
                    }
                    self.empty_frames = 0;
                    return Poll::Ready(Some(Ok(message)));
                }
                Ok(None) => {}
            }
            if self.ended {
                let whole = self.buffer.is_empty() && self.frame.is_empty();
                let cut = || Some(Err(broken("the stream ended in the middle of a message")));
                return Poll::Ready(if whole { None } else { cut() });
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
                return Err(Fault::caller(Code::ResourceExhausted, "EMPTY_FRAMES", "too many frames without data"));
            }
        } else if self.buffer.is_empty() && self.frame.is_empty() {
            self.frame = data;
        } else {
            let kept = std::mem::take(&mut self.frame);
            self.buffer.extend_from_slice(&kept);
            self.buffer.extend_from_slice(&data);
        }
        Ok(())
    }

    /// A message that is there whole.
    fn take_message(&mut self) -> Result<Option<Bytes>, Fault> {
        let bytes: &[u8] = if self.buffer.is_empty() { &self.frame } else { &self.buffer };
        let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX_LEN>() else { return Ok(None) };
        let len = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
        let packed = match prefix[0] {
            0 => false,
            1 => true,
            _ => return Err(broken("the prefix of a message is not one of gRPC")),
        };
        if len > self.len_max {
            let message = format!("a message is larger than the {} bytes that are taken", self.len_max);
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
        match (packed, self.coding) {
            (false, _) => Ok(Some(message)),
            (true, Some(coding)) => {
                let unpacked = unpack(&message, coding, self.len_max)?;
                self.held.grow(unpacked.len())?;
                Ok(Some(unpacked))
            }
            (true, None) => Err(broken("a message is packed, and nothing says how")),
        }
    }
}

/// A message as it was before it was packed.
pub(crate) fn unpack(message: &Bytes, coding: Coding, len_max: usize) -> Result<Bytes, Fault> {
    let cap = len_max.min(message.len().saturating_mul(RATIO_MAX).max(UNPACKED_LEN_FREE));
    let limit = cap as u64 + 1;
    let mut out = Vec::with_capacity(cap.min(message.len() * 4));
    let read = match coding {
        Coding::Gzip => flate2::read::GzDecoder::new(&message[..]).take(limit).read_to_end(&mut out),
        Coding::Deflate => flate2::read::ZlibDecoder::new(&message[..]).take(limit).read_to_end(&mut out),
    };
    if read.is_err() {
        return Err(Fault::caller(Code::Internal, "ENCODING", "a packed message cannot be unpacked"));
    }
    if out.len() > cap {
        let problem = "a packed message unpacks to more than is taken";
        return Err(Fault::caller(Code::ResourceExhausted, "MESSAGE_TOO_LARGE", problem).with_http_status(413));
    }
    Ok(out.into())
}

/// A message with its prefix: in one piece, or in two where copying would cost more.
pub(crate) fn framed(message: &Bytes, coding: Option<Coding>) -> Result<(Bytes, Option<Bytes>), Fault> {
    let packed = coding.filter(|_| message.len() >= PACKED_LEN_MIN).and_then(|coding| pack(message, coding));
    let (flag, content) = match &packed {
        Some(packed) => (1, packed),
        None => (0, message),
    };
    let too_large =
        |_| Fault::new(Code::ResourceExhausted, "MESSAGE_TOO_LARGE", "the message is larger than gRPC can say");
    let len = u32::try_from(content.len()).map_err(too_large)?;
    let copied = content.len() <= COPIED_LEN_MAX;
    let mut out = BytesMut::with_capacity(PREFIX_LEN + if copied { content.len() } else { 0 });
    out.put_u8(flag);
    out.put_u32(len);
    if copied {
        out.put_slice(content);
        return Ok((out.freeze(), None));
    }
    Ok((out.freeze(), Some(content.clone())))
}

/// The packed message, where it is smaller.
fn pack(message: &Bytes, coding: Coding) -> Option<Bytes> {
    let level = flate2::Compression::fast();
    let room = Vec::with_capacity(message.len() / 2);
    let packed = match coding {
        Coding::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(room, level);
            encoder.write_all(message).and_then(|()| encoder.finish())
        }
        Coding::Deflate => {
            let mut encoder = flate2::write::ZlibEncoder::new(room, level);
            encoder.write_all(message).and_then(|()| encoder.finish())
        }
    };
    packed.ok().filter(|packed| packed.len() < message.len()).map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_packed_where_that_helps_and_unpacked_within_limits() {
        let long = Bytes::from(vec![b'a'; 20_000]);
        for coding in [Coding::Gzip, Coding::Deflate] {
            let packed = pack(&long, coding).expect("smaller");
            assert_eq!(unpack(&packed, coding, 20_000).expect("fits").len(), 20_000);
            assert_eq!(unpack(&packed, coding, 19_999).map_err(|fault| fault.code), Err(Code::ResourceExhausted));
            assert_eq!(unpack(&long, coding, 20_000).map_err(|fault| fault.code), Err(Code::Internal));
        }
        let bomb = pack(&Bytes::from(vec![0; 4 << 20]), Coding::Gzip).expect("smaller");
        assert_eq!(unpack(&bomb, Coding::Gzip, 8 << 20).map_err(|fault| fault.code), Err(Code::ResourceExhausted));
        let (short, rest) = framed(&Bytes::from_static(b"abc"), Some(Coding::Gzip)).expect("short");
        assert_eq!((&short[..], rest), (&b"\0\0\0\0\x03abc"[..], None));
        let (prefix, rest) = framed(&Bytes::from(vec![1; 70_000]), None).expect("long");
        assert_eq!((&prefix[..], rest.map(|rest| rest.len())), (&b"\0\0\x01\x11\x70"[..], Some(70_000)));
    }
}
