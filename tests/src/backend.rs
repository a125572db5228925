//! An HTTP service whose behaviour is selected by the request path.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A service on a free port; it runs until the test process exits.
///
/// | path | behaviour |
/// | --- | --- |
/// | `/echo…` | responds with the request body, or `{}` if it is empty |
/// | `/same` | like `/echo`, with the request's media type |
/// | `/slow/MS` | like `/echo`, after MS milliseconds |
/// | `/status/NNN` | responds with that status and a body with internal details |
/// | `/close` | closes the connection without a response |
/// | `/half` | closes the connection in the middle of the response |
/// | `/surplus` | responds, then sends an unsolicited second response |
/// | `/big` | responds with 20 MiB |
/// | `/xml` | responds with a small XML document |
/// | `/headers` | responds with hop-by-hop and other headers |
/// | `/leaves` | like `/echo`, then closes the connection without announcing it |
/// | `/busy` | responds 503 with `Retry-After: 0` |
pub struct Backend {
    /// The address it listens on.
    pub address: SocketAddr,
    requests: Arc<AtomicUsize>,
    last_head: Arc<Mutex<String>>,
    closed: Arc<AtomicUsize>,
}

impl Backend {
    /// Starts the service on a free port.
    ///
    /// # Panics
    /// If there is no free port.
    #[must_use]
    pub fn start() -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Starts the service at an address.
    ///
    /// # Panics
    /// If the address is in use.
    #[must_use]
    pub fn start_at(address: SocketAddr) -> Self {
        let (requests, last_head) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(String::new())));
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let (shared_requests, shared_head) = (Arc::clone(&requests), Arc::clone(&last_head));
        let closed = Arc::new(AtomicUsize::new(0));
        let shared_closed = Arc::clone(&closed);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = TcpListener::bind(address).await.expect("a free address");
                sender.send(listener.local_addr().expect("an address")).expect("the test waits");
                loop {
                    let Ok((stream, _)) = listener.accept().await else { continue };
                    let _ = stream.set_nodelay(true);
                    let (requests, head, closed) =
                        (Arc::clone(&shared_requests), Arc::clone(&shared_head), Arc::clone(&shared_closed));
                    tokio::spawn(async move {
                        serve(stream, requests, head).await;
                        closed.fetch_add(1, Ordering::SeqCst);
                    });
                }
            });
        });
        Self { address: receiver.recv().expect("the service listens"), requests, last_head, closed }
    }

    /// The number of requests received.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// The number of connections that have ended.
    #[must_use]
    pub fn closed(&self) -> usize {
        self.closed.load(Ordering::SeqCst)
    }

    /// The head of the last request: request line and header fields.
    ///
    /// # Panics
    /// Never: no thread panics while holding the lock.
    #[must_use]
    pub fn last_head(&self) -> String {
        self.last_head.lock().expect("the head").clone()
    }
}

async fn serve(mut stream: TcpStream, requests: Arc<AtomicUsize>, last_head: Arc<Mutex<String>>) {
    let mut buffer = Vec::new();
    loop {
        let head_end = loop {
            if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        };
        let head = String::from_utf8_lossy(&buffer[..head_end]).into_owned();
        buffer.drain(..head_end);
        let lower = head.to_ascii_lowercase();
        let length = lower
            .lines()
            .find_map(|line| line.strip_prefix("content-length:"))
            .and_then(|length| length.trim().parse().ok());
        let length: usize = length.unwrap_or(0);
        while buffer.len() < length {
            if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let body: Vec<u8> = buffer.drain(..length).collect();
        requests.fetch_add(1, Ordering::SeqCst);
        last_head.lock().expect("the head").clone_from(&head);
        let path = head.split(' ').nth(1).unwrap_or("/").to_owned();
        let media_type = lower.lines().find_map(|line| line.strip_prefix("content-type:")).map_or("", str::trim);
        if !respond(&mut stream, &path, media_type, &body).await {
            return;
        }
    }
}

/// Sends the response; returns whether the connection stays open.
async fn respond(stream: &mut TcpStream, path: &str, media_type: &str, body: &[u8]) -> bool {
    let echo = if body.is_empty() { b"{}" } else { body };
    let json = |status: &str, extra: &str, body: &[u8]| {
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{extra}Content-Length: {}\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), body].concat()
    };
    let number = || path.rsplit('/').next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0);
    let bytes = match path.split('/').nth(1).unwrap_or("").split('?').next().unwrap_or("") {
        "slow" => {
            tokio::time::sleep(Duration::from_millis(number())).await;
            json("200 OK", "", echo)
        }
        "status" => json(&format!("{} Reason", number()), "", b"{\"inside\":\"stack trace of the service\"}"),
        "same" => {
            let length = body.len();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\nContent-Length: {length}\r\n\r\n");
            [head.as_bytes(), body].concat()
        }
        "close" => return false,
        "leaves" => {
            let _ = stream.write_all(&json("200 OK", "", echo)).await;
            return false;
        }
        "busy" => json("503 Busy", "Retry-After: 0\r\n", b"{}"),
        "half" => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").await;
            return false;
        }
        "surplus" => [json("200 OK", "", echo), b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong".to_vec()].concat(),
        "big" => json("200 OK", "", &vec![b'1'; 20 << 20]),
        "xml" => {
            let body = "<r xmlns=\"urn:a\"><s>085</s></r>";
            format!("HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: {}\r\n\r\n{body}", body.len())
                .into_bytes()
        }
        "headers" => json(
            "200 OK",
            "ETag: \"v1\"\r\nX-Inside: secret\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n",
            echo,
        ),
        _ => json("200 OK", "", echo),
    };
    stream.write_all(&bytes).await.is_ok()
}
