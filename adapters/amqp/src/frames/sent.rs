//! Removes frames that are sent on closed channels.
//!
//! lapin checks that a channel is open before it queues the frames of a message, and sends `channel.close` and `channel.close-ok` ahead of queued
//! messages. It therefore sends messages on closed channels, and a broker closes the connection on the first of their frames (RabbitMQ: reply
//! code 504), with all other channels. lapin fails each removed message with the error of its channel.

use std::collections::HashMap;

use super::{HEAD_LEN, METHOD, PROTOCOL_HEADER};

const PROTOCOL_HEADER_LEN: usize = 8;
/// Class and method numbers (AMQP 0.9.1 §1.2).
const CHANNEL_OPEN: [u8; 4] = [0, 20, 0, 10];
const CHANNEL_CLOSE: [u8; 4] = [0, 20, 0, 40];
const CHANNEL_CLOSE_OK: [u8; 4] = [0, 20, 0, 41];

/// The filter of the bytes sent on one connection.
#[derive(Debug, Default)]
pub(super) struct SentFilter {
    /// The first bytes of a frame, until it is known what becomes of it.
    start: Vec<u8>,
    /// The number of bytes left of the current frame.
    left: usize,
    is_removed: bool,
    /// The closed channels, and whether the client may still confirm that the broker closed it at the same time.
    closed: HashMap<u16, bool>,
}

/// The start of a frame.
struct Start {
    /// The length of the frame.
    len: usize,
    channel: u16,
    /// The class and method numbers of a method.
    method: Option<[u8; 4]>,
}

impl Start {
    /// `None` if more bytes are needed.
    fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.first() == Some(&PROTOCOL_HEADER) {
            return Some(Self { len: PROTOCOL_HEADER_LEN, channel: 0, method: None });
        }
        let ([kind, channel @ .., a, b, c, d], payload) = bytes.split_first_chunk::<HEAD_LEN>()?;
        let method = match *kind {
            METHOD => Some(*payload.first_chunk()?),
            _ => None,
        };
        let len = (u32::from_be_bytes([*a, *b, *c, *d]) as usize).saturating_add(HEAD_LEN + 1);
        Some(Self { len, channel: u16::from_be_bytes(*channel), method })
    }
}

impl SentFilter {
    /// Appends to `out` the bytes to send. Holds back at most the first bytes of an incomplete frame.
    pub(super) fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.left == 0 {
                self.start.push(*first);
                bytes = rest;
                if let Some(start) = Start::read(&self.start) {
                    self.is_removed = self.is_on_closed_channel(&start);
                    self.left = start.len.saturating_sub(self.start.len());
                    if !self.is_removed {
                        out.extend_from_slice(&self.start);
                    }
                    self.start.clear();
                }
                continue;
            }
            let (of_frame, rest) = bytes.split_at(self.left.min(bytes.len()));
            self.left -= of_frame.len();
            bytes = rest;
            if !self.is_removed {
                out.extend_from_slice(of_frame);
            }
        }
    }

    fn is_on_closed_channel(&mut self, start: &Start) -> bool {
        match (start.method, self.closed.get(&start.channel)) {
            (Some(CHANNEL_OPEN), _) => {
                self.closed.remove(&start.channel);
                false
            }
            (Some(CHANNEL_CLOSE), None) => {
                self.closed.insert(start.channel, true);
                false
            }
            (Some(CHANNEL_CLOSE_OK), None | Some(true)) => {
                self.closed.insert(start.channel, false);
                false
            }
            (_, closed) => closed.is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::tests::frame;
    use crate::frames::{BODY, HEADER, HEARTBEAT};

    const PUBLISH: [u8; 4] = [0, 60, 0, 40];

    fn message(channel: u16) -> Vec<u8> {
        [frame(METHOD, channel, &PUBLISH), frame(HEADER, channel, &[0; 14]), frame(BODY, channel, b"body")].concat()
    }

    /// The frames that are sent, however they are divided into writes.
    fn sent(frames: &[Vec<u8>]) -> Vec<u8> {
        let bytes = frames.concat();
        let mut sent = Vec::new();
        SentFilter::default().push(&bytes, &mut sent);
        for len in 1..bytes.len().min(40) {
            let (mut filter, mut out) = (SentFilter::default(), Vec::new());
            bytes.chunks(len).for_each(|chunk| filter.push(chunk, &mut out));
            assert_eq!(out, sent, "in writes of {len} bytes");
        }
        sent
    }

    #[test]
    fn frames_on_open_channels_are_sent_unchanged() {
        let frames = [b"AMQP\0\0\x09\x01".to_vec(), frame(METHOD, 0, &[0, 10, 0, 11]), frame(METHOD, 1, &CHANNEL_OPEN)];
        let frames = [&frames[..], &[message(1), frame(HEARTBEAT, 0, b""), frame(BODY, 1, b""), message(2)]].concat();
        assert_eq!(sent(&frames), frames.concat());
    }

    #[test]
    fn frames_on_a_closed_channel_are_removed_until_it_is_opened_again() {
        let (close_ok, open) = (frame(METHOD, 1, &CHANNEL_CLOSE_OK), frame(METHOD, 1, &CHANNEL_OPEN));
        let rest_of_message = message(1)[frame(METHOD, 1, &PUBLISH).len()..].to_vec();
        let frames =
            [message(1), frame(METHOD, 1, &PUBLISH), close_ok.clone(), rest_of_message, message(2), message(1)];
        let kept = [message(1), frame(METHOD, 1, &PUBLISH), close_ok, message(2)];
        assert_eq!(sent(&frames), kept.concat());
        let frames = [&frames[..], &[frame(HEARTBEAT, 0, b""), open.clone(), message(1)]].concat();
        assert_eq!(sent(&frames), [&kept[..], &[frame(HEARTBEAT, 0, b""), open, message(1)]].concat().concat());
    }

    #[test]
    fn a_channel_that_both_sides_close_is_closed_and_confirmed_once() {
        let (close, close_ok) = (frame(METHOD, 1, &CHANNEL_CLOSE), frame(METHOD, 1, &CHANNEL_CLOSE_OK));
        let frames = [close.clone(), message(1), close.clone(), close_ok.clone(), close_ok.clone(), close.clone()];
        assert_eq!(sent(&frames), [close, close_ok].concat());
    }
}
