//! An HTTP client that sends one request per connection.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

/// Timeout for connecting, request and response: longer than the gateway takes for any request, so that its answer is known.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Timeout for each part of the body of a download.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum length of a response body in bytes.
const BODY_LEN_MAX: usize = 64 << 20;

/// A request.
#[derive(Debug)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a str,
    /// The path and query.
    pub target: &'a str,
    /// Headers, without `host`.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: &'a str,
}

/// A response.
#[derive(Debug)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// Headers.
    pub headers: Vec<(String, String)>,
    /// The body; bytes that are not UTF-8 are replaced.
    pub body: String,
}

impl Response {
    /// The first value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// Sends a request to an address and waits for the response.
///
/// # Errors
/// The address, and why there is no response.
pub async fn send(address: &str, request: &Request<'_>) -> Result<Response, String> {
    match tokio::time::timeout(TIMEOUT, exchange(address, request)).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(error)) => Err(format!("{address}: {error}")),
        Err(_) => Err(format!("{address}: no response within {} seconds", TIMEOUT.as_secs())),
    }
}

/// Sends a request to an address, and writes the body of a response with the status 200 to a file. The body of any other
/// response is in the result. `wait` is the time limit for the head of the response; each part of the body must follow within
/// 30 seconds.
///
/// # Errors
/// The address, and why there is no complete response; a part of it may have been written.
pub async fn download(
    address: &str,
    request: &Request<'_>,
    wait: Duration,
    to: &mut std::fs::File,
) -> Result<Response, String> {
    let downloading = async {
        let opened = tokio::time::timeout(wait, open(address, request)).await;
        let (_connection, head, mut body) = opened.map_err(|_| "no response in time")??;
        if head.status != http::StatusCode::OK {
            return response(head, body).await;
        }
        while let Some(frame) =
            tokio::time::timeout(STALL_TIMEOUT, body.frame()).await.map_err(|_| "the response stalls")?
        {
            if let Ok(part) = frame?.into_data() {
                // A command line does nothing else meanwhile.
                std::io::Write::write_all(to, &part)?;
            }
        }
        Ok::<_, Failed>(Response { status: head.status.as_u16(), headers: headers(&head), body: String::new() })
    };
    downloading.await.map_err(|error| format!("{address}: {error}"))
}

/// Maximum length of a line in bytes.
const LINE_LEN_MAX: usize = 64 << 10;

/// The lines of a response, as they arrive. Dropping it closes the connection.
pub struct Lines {
    _connection: AbortOnDropHandle<hyper::Result<()>>,
    body: hyper::body::Incoming,
    received: Vec<u8>,
}

impl Lines {
    /// The next line, without its end; `None` after the last one. Cancel safe.
    ///
    /// # Errors
    /// The connection has failed, or the line is longer than 64 KiB.
    pub async fn next(&mut self) -> Result<Option<String>, String> {
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let rest = self.received.split_off(end + 1);
                let line = std::mem::replace(&mut self.received, rest);
                return Ok(Some(String::from_utf8_lossy(&line[..end]).into_owned()));
            }
            if self.received.len() > LINE_LEN_MAX {
                return Err("a line of the response is too long".to_owned());
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => self.received.extend_from_slice(frame.data_ref().map_or(&[], |part| part)),
                Some(Err(error)) => return Err(error.to_string()),
            }
        }
    }
}

/// Sends a request to an address, and returns the lines of a response with the status 200, or any other response. `wait` is the
/// time limit for its head.
///
/// # Errors
/// The address, and why there is no response.
pub async fn lines(address: &str, request: &Request<'_>, wait: Duration) -> Result<Result<Lines, Response>, String> {
    let opening = async {
        let opened = tokio::time::timeout(wait, open(address, request)).await;
        let (connection, head, body) = opened.map_err(|_| "no response in time")??;
        if head.status != http::StatusCode::OK {
            return response(head, body).await.map(Err);
        }
        Ok::<_, Failed>(Ok(Lines { _connection: connection, body, received: Vec::new() }))
    };
    opening.await.map_err(|error| format!("{address}: {error}"))
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Sends a request, and returns what keeps the connection, the head of the response and its body.
async fn open(
    address: &str,
    request: &Request<'_>,
) -> Result<(AbortOnDropHandle<hyper::Result<()>>, http::response::Parts, hyper::body::Incoming), Failed> {
    let stream = TokioIo::new(TcpStream::connect(address).await?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
    let connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let mut built = http::Request::builder().method(request.method).uri(request.target).header("host", address);
    for (name, value) in &request.headers {
        built = built.header(name, value);
    }
    let request = built.body(Full::new(Bytes::copy_from_slice(request.body.as_bytes())))?;
    let (head, body) = sender.send_request(request).await?.into_parts();
    Ok((connection, head, body))
}

fn headers(head: &http::response::Parts) -> Vec<(String, String)> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    head.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect()
}

async fn response(head: http::response::Parts, body: hyper::body::Incoming) -> Result<Response, Failed> {
    let body = Limited::new(body, BODY_LEN_MAX).collect().await?.to_bytes();
    let body = String::from_utf8_lossy(&body).into_owned();
    Ok(Response { status: head.status.as_u16(), headers: headers(&head), body })
}

async fn exchange(address: &str, request: &Request<'_>) -> Result<Response, Failed> {
    let (_connection, head, body) = open(address, request).await?;
    response(head, body).await
}
