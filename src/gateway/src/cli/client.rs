//! A small HTTP client for the commands' own calls: one request, one connection, answers that say their length.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// For a whole exchange.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of an answer.
const ANSWER_LEN_MAX: u64 = 64 << 20;

/// A request.
pub(crate) struct Ask<'a> {
    pub(crate) method: &'a str,
    pub(crate) target: &'a str,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: &'a str,
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    /// The first value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// Asks an address of this machine.
pub(crate) async fn ask(address: &str, ask: &Ask<'_>) -> Result<Answer, String> {
    match tokio::time::timeout(PATIENCE, exchange(address, ask)).await {
        Ok(Ok(bytes)) => parse(&bytes).ok_or_else(|| format!("{address} did not answer in HTTP")),
        Ok(Err(error)) => Err(format!("{address}: {error}")),
        Err(_) => Err(format!("{address} did not answer in {} seconds", PATIENCE.as_secs())),
    }
}

async fn exchange(address: &str, ask: &Ask<'_>) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    let mut request = format!("{} {} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n", ask.method, ask.target);
    for (name, value) in &ask.headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    if !ask.body.is_empty() {
        request.push_str(&format!("content-length: {}\r\n", ask.body.len()));
    }
    request.push_str("\r\n");
    request.push_str(ask.body);
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_LEN_MAX).read_to_end(&mut answer).await?;
    Ok(answer)
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
    let answer = Answer { status, headers, body: String::new() };
    let body = match answer.header("transfer-encoding") {
        Some(_) => without_chunks(body)?,
        None => body.to_owned(),
    };
    Some(Answer { body, ..answer })
}

/// A body that came in chunks (RFC 9112 §7.1), as far as it came.
fn without_chunks(mut body: &str) -> Option<String> {
    let mut out = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let len = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        let (piece, behind) = rest.split_at_checked(len)?;
        out.push_str(piece);
        body = behind.strip_prefix("\r\n").unwrap_or(behind);
    }
    Some(out)
}
