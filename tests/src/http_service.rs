//! A minimal HTTP/1.1 server for the services of tests: blocking, with a thread per connection, and strict about what the gateway sends.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

/// A request that was read.
#[derive(Debug, Default)]
pub(crate) struct Received {
    /// Such as `PUT`.
    pub(crate) method: String,
    /// The fencing token of the gateway; 0 without one.
    pub(crate) token: u64,
    pub(crate) body: Vec<u8>,
}

impl Received {
    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

type Respond = dyn Fn(&Received) -> (u16, String) + Send + Sync;

/// Listens on a free port until the test process exits. Responds with a status and JSON.
///
/// # Panics
/// If there is no free port.
pub(crate) fn serve(respond: impl Fn(&Received) -> (u16, String) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let respond: Arc<Respond> = Arc::new(respond);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let respond = Arc::clone(&respond);
            std::thread::spawn(move || serve_connection(&stream, &*respond));
        }
    });
    address
}

fn serve_connection(mut stream: &TcpStream, respond: &Respond) {
    let mut reader = BufReader::new(stream);
    while let Some(received) = receive(&mut reader) {
        let (status, body) = respond(&received);
        let head =
            format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
        // In one write, so that delayed acknowledgements add no latency.
        if stream.write_all((head + &body).as_bytes()).is_err() {
            return;
        }
    }
}

/// The next request; `None` at the end of the connection.
fn receive(reader: &mut BufReader<&TcpStream>) -> Option<Received> {
    let (mut received, mut len) = (Received::default(), 0);
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if received.method.is_empty() {
            line.split(' ').next().unwrap_or_default().clone_into(&mut received.method);
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            len = value.trim().parse().expect("a length");
        }
        if let Some(value) = lower.strip_prefix("crossdock-fence:") {
            received.token = value.trim().parse().expect("a token");
        }
        if line == "\r\n" {
            break;
        }
    }
    received.body = vec![0; len];
    reader.read_exact(&mut received.body).ok()?;
    Some(received)
}
