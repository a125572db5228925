//! Filters the bytes between lapin and a broker.
//!
//! Works around three limitations of lapin, on the raw frames of AMQP 0.9.1 (§2.3.5):
//!
//! - lapin's parser, and the drop of its values, recurse once per nested table or array, and lapin closes the connection on a short string
//!   that is not UTF-8. Any sender can publish such a message, which would then end the connection (or the process) at every redelivery.
//!   [`content`] removes the properties that lapin cannot parse and marks the message as unreadable.
//! - lapin attaches a returned message to whichever confirm completes next. [`Returns`] records each returned message by its channel before
//!   lapin sees any byte after it, and so before that message's confirm.
//!
//! - lapin sends messages on channels that are closed, on which the broker closes the connection. [`sent`] removes them.
//!
//! Cost: one more copy of all bytes. Memory: per connection, one method or header frame, the bytes of one write, and returned messages that
//! are not yet confirmed, without bodies.

pub(crate) mod content;
pub(crate) mod filtered_stream;
mod methods;
mod returns;
mod sent;

use std::collections::HashMap;
use std::sync::Arc;

use self::methods::Method;
use self::returns::Returning;
pub(crate) use self::returns::{Returned, Returns, body_digest};

/// The length of a frame header: type, channel and size (AMQP 0.9.1 §4.2.3).
const HEAD_LEN: usize = 7;
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;
/// The first byte of a protocol header, which is not a frame (AMQP 0.9.1 §4.2.2).
const PROTOCOL_HEADER: u8 = b'A';
const FRAME_END: u8 = 0xCE;
/// Method and header frames are buffered until complete. RabbitMQ's default `frame_max` is 128 KiB.
const BUFFERED_LEN_MAX: usize = 4 << 20;

/// The broker violated the protocol; the connection must be closed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// The frame parser of one connection.
#[derive(Debug)]
pub(crate) struct Filter {
    part: Part,
    /// Incomplete returned messages, by channel.
    returning: HashMap<u16, Returning>,
    returns: Arc<Returns>,
}

#[derive(Debug)]
enum Part {
    /// A frame header.
    Head { bytes: [u8; HEAD_LEN], len: usize },
    /// A method or header frame, buffered until complete.
    Buffered { kind: u8, channel: u16, payload: Vec<u8>, size: usize },
    /// A frame that is forwarded as it is received: `left` bytes of payload and frame end remain.
    Forwarded { channel: u16, left: usize },
    /// The response to an unsupported protocol version: no frames follow.
    Raw,
}

const fn head() -> Part {
    Part::Head { bytes: [0; HEAD_LEN], len: 0 }
}

impl Filter {
    pub(crate) fn new(returns: Arc<Returns>) -> Self {
        Self { part: head(), returning: HashMap::new(), returns }
    }

    /// Parses received bytes, and appends to `out` the bytes for lapin.
    ///
    /// # Errors
    /// [`Malformed`] if the broker violates the protocol.
    pub(crate) fn push(&mut self, mut input: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        while !input.is_empty() {
            match &mut self.part {
                Part::Head { bytes, len } => {
                    let taken = (HEAD_LEN - *len).min(input.len());
                    bytes[*len..*len + taken].copy_from_slice(&input[..taken]);
                    *len += taken;
                    input = &input[taken..];
                    if *len == HEAD_LEN {
                        let bytes = *bytes;
                        self.part = Self::begin(bytes, out)?;
                    }
                }
                Part::Buffered { kind, channel, payload, size } => {
                    let taken = (*size + 1 - payload.len()).min(input.len());
                    payload.extend_from_slice(&input[..taken]);
                    input = &input[taken..];
                    if payload.len() == *size + 1 {
                        let (kind, channel, mut payload) = (*kind, *channel, std::mem::take(payload));
                        if payload.pop() != Some(FRAME_END) {
                            return Err(Malformed("a frame does not end where its size says"));
                        }
                        self.part = head();
                        self.complete(kind, channel, payload, out)?;
                    }
                }
                Part::Forwarded { channel, left } => {
                    let taken = *left.min(&mut input.len());
                    let (channel, end) = (*channel, taken == *left);
                    *left -= taken;
                    let (these, rest) = input.split_at(taken);
                    out.extend_from_slice(these);
                    input = rest;
                    if end {
                        self.part = head();
                    }
                    if !self.returning.is_empty() {
                        // Without the frame end.
                        self.returned_body(channel, &these[..these.len() - usize::from(end)]);
                    }
                }
                Part::Raw => {
                    out.extend_from_slice(input);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn begin(bytes: [u8; HEAD_LEN], out: &mut Vec<u8>) -> Result<Part, Malformed> {
        if bytes.starts_with(b"AMQP") {
            out.extend_from_slice(&bytes);
            return Ok(Part::Raw);
        }
        let [kind, channel @ .., a, b, c, d] = bytes;
        let (channel, size) = (u16::from_be_bytes(channel), u32::from_be_bytes([a, b, c, d]) as usize);
        match kind {
            METHOD | HEADER if size > BUFFERED_LEN_MAX => Err(Malformed("a frame of more than 4 MiB")),
            METHOD | HEADER => Ok(Part::Buffered { kind, channel, payload: Vec::new(), size }),
            BODY | HEARTBEAT => {
                out.extend_from_slice(&bytes);
                Ok(Part::Forwarded { channel, left: size.saturating_add(1) })
            }
            _ => Err(Malformed("a frame of an unknown type")),
        }
    }

    fn complete(&mut self, kind: u8, channel: u16, mut payload: Vec<u8>, out: &mut Vec<u8>) -> Result<(), Malformed> {
        if kind == METHOD {
            match methods::read(&mut payload)? {
                Method::Return { exchange, key } => {
                    self.returning.insert(channel, Returning::new(exchange, key));
                }
                Method::ChannelReset => {
                    self.returning.remove(&channel);
                    self.returns.discard(channel);
                }
                Method::Other => {}
            }
        } else {
            content::make_readable(&mut payload)?;
            if let Some(returning) = self.returning.get_mut(&channel) {
                returning.header(&payload);
                self.returned_body(channel, &[]);
            }
        }
        let size = u32::try_from(payload.len()).map_err(|_| Malformed("a frame of more than 4 GiB"))?;
        out.push(kind);
        out.extend_from_slice(&channel.to_be_bytes());
        out.extend_from_slice(&size.to_be_bytes());
        out.extend_from_slice(&payload);
        out.push(FRAME_END);
        Ok(())
    }

    /// Processes part of a body on a channel; records the returned message that it completes.
    fn returned_body(&mut self, channel: u16, bytes: &[u8]) {
        let Some(returning) = self.returning.get_mut(&channel) else { return };
        if returning.body(bytes)
            && let Some(returned) = self.returning.remove(&channel).and_then(Returning::complete)
        {
            self.returns.record(channel, returned);
        }
    }
}

#[cfg(test)]
mod tests;
