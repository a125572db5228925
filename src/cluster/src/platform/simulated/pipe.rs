//! One direction of a connection.

use std::collections::VecDeque;
use std::task::Waker;

/// Bytes that may be on their way. The sender waits while there are more.
const BYTES_MAX: usize = 256 << 10;

/// What arrives at some time.
enum Chunk {
    /// The rest of some bytes.
    Bytes(VecDeque<u8>),
    /// The sender has closed its end.
    End,
    /// The sender's system does not know the connection.
    Reset,
}

/// What a read finds.
pub(super) enum Found {
    /// Some bytes, or the end of the stream if there are none.
    Bytes(Vec<u8>),
    /// Something arrives at this time, in milliseconds.
    Later(u64),
    Nothing,
    Reset,
}

/// What becomes of bytes that are sent.
pub(super) enum Sent {
    /// So many are on their way.
    Some(usize),
    /// There is no room.
    Full,
    /// The connection is broken.
    Reset,
}

/// One direction of a connection.
pub(super) struct Pipe {
    pub(super) from: u64,
    pub(super) to: u64,
    /// The other direction.
    pub(super) back: u64,
    /// With the time of their arrival in milliseconds.
    chunks: VecDeque<(u64, Chunk)>,
    len: usize,
    is_broken: bool,
    /// The receiver is gone: what arrives is answered by a reset.
    pub(super) has_no_reader: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    pub(super) fn new(from: u64, to: u64, back: u64) -> Self {
        Self {
            from,
            to,
            back,
            chunks: VecDeque::new(),
            len: 0,
            is_broken: false,
            has_no_reader: false,
            reader: None,
            writer: None,
        }
    }

    fn wake_all(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }

    fn push(&mut self, at: u64, chunk: Chunk) {
        // Nothing overtakes what was sent before.
        let at = at.max(self.chunks.back().map_or(0, |(last, _)| *last));
        self.chunks.push_back((at, chunk));
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Takes up to so many bytes that have arrived.
    pub(super) fn read(&mut self, now: u64, most: usize, is_cut: bool, waker: &Waker) -> Found {
        if self.is_broken {
            return Found::Reset;
        }
        let found = match self.chunks.front_mut() {
            Some(_) if is_cut => Found::Nothing,
            Some((at, _)) if *at > now => Found::Later(*at),
            Some((_, Chunk::Bytes(bytes))) => {
                let taken: Vec<u8> = bytes.drain(..most.min(bytes.len())).collect();
                if bytes.is_empty() {
                    self.chunks.pop_front();
                }
                self.len -= taken.len();
                if let Some(writer) = self.writer.take() {
                    writer.wake();
                }
                return Found::Bytes(taken);
            }
            Some((_, Chunk::End)) => return Found::Bytes(Vec::new()),
            Some((_, Chunk::Reset)) => {
                self.is_broken = true;
                return Found::Reset;
            }
            None => Found::Nothing,
        };
        self.reader = Some(waker.clone());
        found
    }

    /// Sends up to so many of the bytes.
    pub(super) fn write(&mut self, bytes: &[u8], arrival: u64, waker: &Waker) -> Sent {
        if self.is_broken {
            return Sent::Reset;
        }
        let len = bytes.len().min(BYTES_MAX.saturating_sub(self.len));
        if len == 0 {
            self.writer = Some(waker.clone());
            return Sent::Full;
        }
        self.len += len;
        self.push(arrival, Chunk::Bytes(bytes[..len].iter().copied().collect()));
        Sent::Some(len)
    }

    /// Something is on its way.
    pub(super) fn is_sending(&self) -> bool {
        !self.chunks.is_empty()
    }

    /// The sender sends no more.
    pub(super) fn end(&mut self, arrival: u64) {
        self.push(arrival, Chunk::End);
    }

    /// The sender's system resets the connection.
    pub(super) fn reset(&mut self, arrival: u64) {
        self.push(arrival, Chunk::Reset);
    }

    /// What is on its way is lost, and both ends get an error at once.
    pub(super) fn break_off(&mut self) {
        self.is_broken = true;
        self.wake_all();
    }

    /// What was held up arrives from this time on.
    pub(super) fn release(&mut self, from: u64) {
        for (at, _) in &mut self.chunks {
            *at = (*at).max(from);
        }
        self.wake_all();
    }
}
