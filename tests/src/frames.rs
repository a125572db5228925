//! A caller over HTTP/2 that does with its connection what a library would not.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Kinds of frames (RFC 9113 §6).
pub mod kind {
    /// A piece of a body.
    pub const DATA: u8 = 0;
    /// A head or trailers.
    pub const HEADERS: u8 = 1;
    /// The end of a stream before its time.
    pub const RST_STREAM: u8 = 3;
    /// What a side takes.
    pub const SETTINGS: u8 = 4;
    /// More may be sent.
    pub const WINDOW_UPDATE: u8 = 8;
    /// No further streams are taken.
    pub const GOAWAY: u8 = 7;
}

/// A frame as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// One of [`kind`].
    pub kind: u8,
    /// Its flags; 1 ends a stream.
    pub flags: u8,
    /// Its stream; 0 is the connection.
    pub stream: u32,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// A connection whose frames are made by hand.
pub struct Http2 {
    socket: TcpStream,
    buffer: Vec<u8>,
}

impl Http2 {
    /// Opens one; `window` is what may be sent to each of its streams.
    ///
    /// # Panics
    /// When nobody listens.
    #[must_use]
    pub fn open(address: &str, window: u32) -> Self {
        Self::try_open(address, window).expect("a connection")
    }

    /// As [`Http2::open`], where there may be no room for a connection.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn try_open(address: &str, window: u32) -> std::io::Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        let mut connection = Self { socket, buffer: Vec::new() };
        connection.socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
        let mut settings = vec![0, 4];
        settings.extend_from_slice(&window.to_be_bytes());
        connection.send(kind::SETTINGS, 0, 0, &settings);
        Ok(connection)
    }

    /// Sends one frame; a connection that has ended takes it to nowhere.
    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut frame = u32::try_from(payload.len()).expect("a short frame").to_be_bytes()[1..].to_vec();
        frame.extend_from_slice(&[kind, flags]);
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(payload);
        let _ = self.socket.write_all(&frame);
    }

    /// Sends the head of a request, and `fields` besides those that each has; `end` where it has no body.
    pub fn request(&mut self, stream: u32, method: &str, path: &str, fields: &[(&str, &str)], end: bool) {
        let mut block = Vec::new();
        let own = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "a")];
        for (name, value) in own.iter().chain(fields) {
            // Literals that are not indexed (RFC 7541 §6.2.2), each shorter than 127 bytes.
            block.push(0);
            for text in [name, value] {
                block.push(u8::try_from(text.len()).expect("a short text"));
                block.extend_from_slice(text.as_bytes());
            }
        }
        self.send(kind::HEADERS, 4 | u8::from(end), stream, &block);
    }

    /// The next frame; nothing where the connection ends or the time is over.
    ///
    /// # Panics
    /// When the socket cannot be read.
    pub fn receive(&mut self, wait: Duration) -> Option<Frame> {
        let until = Instant::now() + wait;
        loop {
            if let Some(frame) = self.buffered() {
                return Some(frame);
            }
            let left = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            self.socket.set_read_timeout(Some(left)).expect("a socket");
            let mut piece = [0; 16 * 1024];
            let read = self.socket.read(&mut piece).ok().filter(|read| *read > 0)?;
            self.buffer.extend_from_slice(&piece[..read]);
        }
    }

    fn buffered(&mut self) -> Option<Frame> {
        let head: [u8; 9] = self.buffer.get(..9)?.try_into().ok()?;
        let len = usize::try_from(u32::from_be_bytes([0, head[0], head[1], head[2]])).ok()?;
        let payload = self.buffer.get(9..9 + len)?.to_vec();
        self.buffer.drain(..9 + len);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// All frames until one holds for `last`, the connection ends or the time is over.
    pub fn frames_until(&mut self, wait: Duration, last: impl Fn(&Frame) -> bool) -> Vec<Frame> {
        let until = Instant::now() + wait;
        let mut frames = Vec::new();
        while let Some(frame) = self.receive(until.saturating_duration_since(Instant::now())) {
            let done = last(&frame);
            frames.push(frame);
            if done {
                break;
            }
        }
        frames
    }

    /// Whether the other side closes the connection within a time, whatever it says before.
    pub fn is_closed_within(&mut self, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        let mut piece = [0; 16 * 1024];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            self.socket.set_read_timeout(Some(left)).expect("a socket");
            match self.socket.read(&mut piece) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
            }
        }
    }
}
