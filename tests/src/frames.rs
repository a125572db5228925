//! An HTTP/2 client that sends hand-made frames, including ones that a library would not send.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Frame types (RFC 9113 §6).
pub mod kind {
    /// A part of a body.
    pub const DATA: u8 = 0;
    /// Headers or trailers.
    pub const HEADERS: u8 = 1;
    /// Terminates a stream.
    pub const RST_STREAM: u8 = 3;
    /// Parameters of the sender.
    pub const SETTINGS: u8 = 4;
    /// Increases a flow-control window.
    pub const WINDOW_UPDATE: u8 = 8;
    /// No further streams are accepted.
    pub const GOAWAY: u8 = 7;
}

/// A received frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// One of [`kind`].
    pub kind: u8,
    /// The flags; 1 is END_STREAM on DATA and HEADERS.
    pub flags: u8,
    /// The stream identifier; 0 is the connection.
    pub stream: u32,
    /// The payload.
    pub payload: Vec<u8>,
}

/// A connection with hand-made frames.
pub struct Http2 {
    socket: TcpStream,
    buffer: Vec<u8>,
}

impl Http2 {
    /// Connects to an address; `window` is the initial flow-control window of each stream, in bytes.
    ///
    /// # Panics
    /// If the connection is refused.
    #[must_use]
    pub fn open(address: &str, window: u32) -> Self {
        Self::try_open(address, window).expect("a connection")
    }

    /// Like [`Http2::open`], for servers that may refuse the connection.
    ///
    /// # Errors
    /// If the connection is refused or closed.
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

    /// Sends one frame; ignored if the connection has ended.
    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut frame = u32::try_from(payload.len()).expect("a short frame").to_be_bytes()[1..].to_vec();
        frame.extend_from_slice(&[kind, flags]);
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(payload);
        let _ = self.socket.write_all(&frame);
    }

    /// Sends request headers: the pseudo-header fields, then `fields`; `end` if there is no body.
    pub fn request(&mut self, stream: u32, method: &str, path: &str, fields: &[(&str, &str)], end: bool) {
        let mut block = Vec::new();
        let own = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "a")];
        for (name, value) in own.iter().chain(fields) {
            // Literal fields without indexing (RFC 7541 §6.2.2), each shorter than 127 bytes.
            block.push(0);
            for text in [name, value] {
                block.push(u8::try_from(text.len()).expect("a short text"));
                block.extend_from_slice(text.as_bytes());
            }
        }
        self.send(kind::HEADERS, 4 | u8::from(end), stream, &block);
    }

    /// The next frame; `None` if the connection ends or the time expires first.
    ///
    /// # Panics
    /// If the read timeout cannot be set.
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

    /// All frames up to the first that satisfies `last`; fewer if the connection ends or the time expires first.
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

    /// Whether the peer closes the connection in time; frames before that are ignored.
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
