//! An unauthenticated client of an instance's cluster port.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use prost::Message;

/// The part of `crossdock.cluster.v1.Frame` that is needed.
#[derive(Clone, PartialEq, Message)]
struct Frame {
    #[prost(message, optional, tag = "1")]
    hello: Option<Hello>,
    #[prost(message, optional, tag = "3")]
    to_leader: Option<ToLeader>,
    #[prost(message, optional, tag = "9")]
    refused: Option<Refused>,
}

#[derive(Clone, PartialEq, Message)]
struct Refused {
    #[prost(string, tag = "1")]
    reason: String,
}

#[derive(Clone, PartialEq, Message)]
struct Hello {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(string, tag = "2")]
    cluster: String,
    #[prost(uint64, tag = "3")]
    server: u64,
    #[prost(uint64, tag = "4")]
    peer: u64,
    #[prost(uint32, tag = "5")]
    version_min: u32,
    #[prost(fixed64, tag = "6")]
    log: u64,
}

#[derive(Clone, PartialEq, Message)]
struct ToLeader {
    #[prost(uint64, tag = "1")]
    session: u64,
    #[prost(message, optional, tag = "2")]
    follower_info: Option<FollowerInfo>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct FollowerInfo {
    #[prost(uint32, tag = "1")]
    accepted: u32,
}

pub(crate) struct Caller(TcpStream);

impl Caller {
    pub(crate) fn dial(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a socket");
        Self(stream)
    }

    /// A Hello of a server with a log of its own.
    pub(crate) fn send_hello(&mut self, server: u64, peer: u64) {
        self.send_hello_of(server, peer, 7);
    }

    pub(crate) fn send_hello_of(&mut self, server: u64, peer: u64, log: u64) {
        let hello = Hello { version: 2, cluster: "test".to_owned(), server, peer, version_min: 2, log };
        self.send(&Frame { hello: Some(hello), ..Frame::default() });
    }

    /// CEPOCH.
    pub(crate) fn send_cepoch(&mut self, accepted: u32) {
        let follower_info = Some(FollowerInfo { accepted });
        self.send(&Frame { to_leader: Some(ToLeader { session: 1, follower_info }), ..Frame::default() });
    }

    fn send(&mut self, frame: &Frame) {
        let mut bytes = u32::try_from(frame.encoded_len()).expect("small").to_be_bytes().to_vec();
        frame.encode(&mut bytes).expect("room");
        self.0.write_all(&bytes).expect("it takes that");
    }

    /// The number of bytes received until the peer closes.
    pub(crate) fn count_received(mut self) -> usize {
        let mut bytes = Vec::new();
        let _ = self.0.read_to_end(&mut bytes);
        bytes.len()
    }

    /// Why the peer refuses the connection; `None` if it closes it without a reason.
    ///
    /// # Panics
    /// If it replies with a Hello.
    pub(crate) fn refusal(mut self) -> Option<String> {
        let mut bytes = Vec::new();
        let _ = self.0.read_to_end(&mut bytes);
        let frame = Frame::decode(bytes.get(4..)?).expect("a single frame");
        assert!(frame.hello.is_none(), "it accepts the connection");
        Some(frame.refused?.reason)
    }

    /// Whether the peer replies.
    pub(crate) fn has_reply(&mut self) -> bool {
        matches!(self.0.read(&mut [0; 1]), Ok(1))
    }
}
