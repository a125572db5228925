//! A minimal HTTP/1.1 client that sends raw bytes.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// A response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The status code; 0 if no response arrived.
    pub status: u16,
    /// Status line and header fields, with line breaks.
    pub head: String,
    /// The body as text.
    pub body: String,
    /// The body as received.
    pub bytes: Vec<u8>,
}

impl Reply {
    /// The first value of a header field.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
    }
}

/// A persistent connection.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects to an address.
    ///
    /// # Panics
    /// If the connection is refused.
    #[must_use]
    pub fn open(address: &str) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
        Self { stream, buffer: Vec::new() }
    }

    /// Sends bytes; returns `false` if the peer has closed the connection.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Reads one response, or `None` if the connection ends first; `head_only` for a response to HEAD.
    pub fn receive(&mut self, head_only: bool) -> Option<Reply> {
        let head_end = loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            self.fill()?;
        };
        let head = String::from_utf8_lossy(&self.buffer[..head_end]).into_owned();
        self.buffer.drain(..head_end);
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let mut reply = Reply { status, head, body: String::new(), bytes: Vec::new() };
        let length = reply.header("content-length").and_then(|length| length.parse::<usize>().ok()).unwrap_or(0);
        if !head_only && status >= 200 {
            while self.buffer.len() < length {
                self.fill()?;
            }
            reply.bytes = self.buffer.drain(..length).collect();
            reply.body = String::from_utf8_lossy(&reply.bytes).into_owned();
        }
        Some(reply)
    }

    /// Whether the peer has closed the connection without sending more bytes.
    pub fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        self.buffer.is_empty() && matches!(self.stream.read(&mut byte), Ok(0) | Err(_))
    }

    fn fill(&mut self) -> Option<()> {
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(0) | Err(_) => None,
            Ok(len) => {
                self.buffer.extend_from_slice(&chunk[..len]);
                Some(())
            }
        }
    }
}

/// Sends raw bytes on a new connection. Returns up to `count` responses, and whether the peer closed the connection.
#[must_use]
pub fn exchange(address: &str, bytes: &[u8], count: usize) -> (Vec<Reply>, bool) {
    let mut connection = Connection::open(address);
    connection.send(bytes);
    let mut replies = Vec::new();
    while replies.len() < count {
        match connection.receive(false) {
            Some(reply) => replies.push(reply),
            None => return (replies, true),
        }
    }
    let closed =
        replies.last().is_some_and(|reply| reply.header("connection") == Some("close")) && connection.is_closed();
    (replies, closed)
}

/// Sends `calls` requests over each of `callers` concurrent connections; returns the number of responses with a status below 300.
///
/// # Panics
/// If a connection is refused.
pub fn successful_calls(address: &str, request: &[u8], callers: usize, calls: usize) -> usize {
    std::thread::scope(|scope| {
        let caller = || {
            let mut connection = Connection::open(address);
            let succeeds = |_: &usize| {
                connection.send(request);
                connection.receive(false).is_some_and(|reply| reply.status < 300)
            };
            (0..calls).filter(succeeds).count()
        };
        let callers: Vec<_> = (0..callers).map(|_| scope.spawn(caller)).collect();
        callers.into_iter().map(|caller| caller.join().expect("a caller")).sum()
    })
}

/// Makes one call on a new connection, with a JSON body unless `body` is empty.
#[must_use]
pub fn call(address: &str, method: &str, target: &str, body: &str) -> Reply {
    call_with(address, method, target, "application/json", body.as_bytes())
}

/// Makes one call on a new connection, with a body of the given media type unless `body` is empty.
#[must_use]
pub fn call_with(address: &str, method: &str, target: &str, media_type: &str, body: &[u8]) -> Reply {
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    if !body.is_empty() {
        head.push_str(&format!("Content-Type: {media_type}\r\nContent-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    let (replies, _) = exchange(address, &[head.as_bytes(), body].concat(), 1);
    let no_reply = Reply { status: 0, head: String::new(), body: String::new(), bytes: Vec::new() };
    replies.into_iter().next().unwrap_or(no_reply)
}
