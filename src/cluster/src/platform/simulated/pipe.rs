//! One direction of a connection.

use std::collections::VecDeque;
use std::task::Waker;

/// Bytes that may be on their way. The sender waits while there are more.
const BYTES_MAX: usize = 256 << 10;

/// What arrives at some time.
enum Chunk {
    /// The rest of some bytes.
    Bytes(VecDeque<u8>),
    End,
}

/// What a read finds.
pub(super) enum Found {
    /// Some bytes, or the end of the stream if there are none.
    Bytes(Vec<u8>),
    /// Something arrives at this time, in milliseconds.
    Later(u64),
    Nothing,
    Broken,
}

/// One direction of a connection.
pub(super) struct Pipe {
    pub(super) from: u64,
    pub(super) to: u64,
    /// With the time of their arrival in milliseconds.
    chunks: VecDeque<(u64, Chunk)>,
    len: usize,
    is_broken: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    pub(super) fn new(from: u64, to: u64) -> Self {
        Self { from, to, chunks: VecDeque::new(), len: 0, is_broken: false, reader: None, writer: None }
    }

    fn wake_all(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }

    /// The end of the last chunk.
    fn last_arrival(&self) -> u64 {
        self.chunks.back().map_or(0, |(at, _)| *at)
    }

    fn push(&mut self, at: u64, chunk: Chunk) {
        let at = at.max(self.last_arrival());
        self.chunks.push_back((at, chunk));
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Takes up to so many bytes that have arrived.
    pub(super) fn read(&mut self, now: u64, most: usize, is_cut: bool, waker: &Waker) -> Found {
        if self.is_broken {
            return Found::Broken;
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
            None => Found::Nothing,
        };
        self.reader = Some(waker.clone());
        found
    }

    /// Sends some of the bytes, and returns how many; 0 if there is no room, and nothing if the connection is broken.
    pub(super) fn write(&mut self, bytes: &[u8], arrival: u64, waker: &Waker) -> Option<usize> {
        if self.is_broken {
            return None;
        }
        let len = bytes.len().min(BYTES_MAX.saturating_sub(self.len));
        if len == 0 {
            self.writer = Some(waker.clone());
            return Some(0);
        }
        self.len += len;
        self.push(arrival, Chunk::Bytes(bytes[..len].iter().copied().collect()));
        Some(len)
    }

    /// The sender sends no more.
    pub(super) fn end(&mut self, arrival: u64) {
        self.push(arrival, Chunk::End);
    }

    /// Both ends get an error, and what is on its way is lost.
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
