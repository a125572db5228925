//! Sends the requests of route tests to entries.

use std::time::Duration;

use crossdock_contract::Contracts;
use crossdock_message::{ByteString, Code};

use crate::{EntrySpec, LocalFuture};

/// The client of a protocol, for tests of routes (`crossdock test`).
pub trait TestClient {
    /// The settings, in YAML, of a listener on a free local port.
    fn listener(&self) -> &'static str;

    /// Sends a request to an entry of the listener with this address, and waits for the reply.
    ///
    /// # Errors
    /// Why there is no reply. A fault is a reply.
    fn send<'a>(
        &'a self,
        address: &'a str,
        entry: &'a dyn EntrySpec,
        contracts: &'a Contracts,
        request: &'a TestRequest,
    ) -> LocalFuture<'a, Result<TestReply, String>>;
}

/// The request of a test.
#[derive(Debug, Clone)]
pub struct TestRequest {
    /// The method.
    pub method: ByteString,
    /// The path with its query; empty if the entry alone determines the address.
    pub path: ByteString,
    /// Headers.
    pub headers: Vec<(ByteString, ByteString)>,
    /// The body and its media type.
    pub body: Option<(ByteString, &'static str)>,
    /// The caller's deadline.
    pub timeout: Option<Duration>,
    /// The headers of the reply that the test needs, in lower case.
    pub reply_headers: Vec<ByteString>,
}

/// The reply to a test.
#[derive(Debug, Clone)]
pub struct TestReply {
    /// The status, if the protocol has one.
    pub status: Option<u16>,
    /// Headers.
    pub headers: Vec<(String, String)>,
    /// The body, or the message of a fault.
    pub body: String,
    /// The code of a fault.
    pub code: Option<Code>,
}

impl TestReply {
    /// The first value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}
