//! Calls of Consul's HTTP API.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use crossdock_transport::{Dialer, Endpoint};
use http::header::{HOST, HeaderName, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::Value as Json;
use tokio::time::timeout;

use crate::backend::Problem;
use crate::options::{Login, Options};
use crate::servers::Servers;

/// The longest wait for a connection, and for an answer beyond the time that Consul is asked to wait.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// The maximum length of an answer.
const ANSWER_LEN_MAX: usize = 1 << 20;
/// Connections that are kept while nobody uses them.
const IDLE_MAX: usize = 8;
const TOKEN: HeaderName = HeaderName::from_static("x-consul-token");
const INDEX: HeaderName = HeaderName::from_static("x-consul-index");

/// What is escaped in the path of a key: its own `%` first of all.
const ESCAPED: &AsciiSet = &CONTROLS.add(b' ').add(b'%').add(b'?').add(b'#');

/// A key as part of a path.
pub(super) fn path(key: &str) -> String {
    utf8_percent_encode(key, ESCAPED).to_string()
}

/// An answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// The index of what was asked for, to wait for a change.
    pub(super) index: u64,
    body: Bytes,
}

impl Answer {
    pub(super) fn json(&self) -> Result<Json, Problem> {
        serde_json::from_slice(&self.body).map_err(|_| Problem::unreachable("the answer of Consul cannot be read"))
    }

    /// Whether the token does not permit what was asked for.
    pub(super) fn is_denied(&self) -> bool {
        String::from_utf8_lossy(&self.body).contains("Permission denied")
    }

    /// What an answer that was not expected means.
    pub(super) fn problem(&self) -> Problem {
        let text = String::from_utf8_lossy(&self.body);
        if text.contains("invalid session") {
            return Problem::SessionEnded;
        }
        let text: String = text.trim().chars().take(200).collect();
        Problem::unreachable(format!("Consul answered with status {}: {text}", self.status.as_u16()))
    }
}

/// A client that uses one server until it fails.
pub(super) struct Client {
    dialers: Vec<(Dialer, Endpoint)>,
    servers: Servers,
    token: Option<HeaderValue>,
    /// Connections with the servers that they lead to.
    idle: Mutex<Vec<(usize, SendRequest<Full<Bytes>>)>>,
}

impl Client {
    pub(super) fn new(options: &Options) -> io::Result<Self> {
        let server = |endpoint: &Endpoint| {
            let dialer = Dialer::new(endpoint, options.tls.as_ref(), &[], CONNECT_TIMEOUT);
            dialer.map(|dialer| (dialer, endpoint.clone())).map_err(|problem| io::Error::other(problem.to_string()))
        };
        let token = match &options.login {
            Some(Login::Token(token)) => {
                let mut value = HeaderValue::from_str(token.reveal())
                    .map_err(|_| io::Error::other("the token cannot be sent in a header"))?;
                value.set_sensitive(true);
                Some(value)
            }
            Some(Login::User { .. }) | None => None,
        };
        let dialers = options.endpoints.iter().map(server).collect::<io::Result<_>>()?;
        let servers = Servers::new(options.endpoints.len());
        Ok(Self { dialers, servers, token, idle: Mutex::default() })
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<(usize, SendRequest<Full<Bytes>>)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a call, which may take this much longer than others.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
        wait: Duration,
    ) -> Result<Answer, Problem> {
        // If this is dropped without an answer, the next call goes to another server.
        let used = self.servers.using();
        let asking = self.ask_at(used.index(), method, path, body);
        let late = |_| Err(Problem::unreachable("Consul does not answer in time"));
        let asked = timeout(wait + ANSWER_TIMEOUT, asking).await.unwrap_or_else(late);
        let is_without_leader = |answer: &Answer| answer.status.is_server_error();
        if !asked.as_ref().map_or(true, is_without_leader) {
            used.keep();
        }
        asked
    }

    async fn ask_at(&self, at: usize, method: Method, path: &str, body: Option<String>) -> Result<Answer, Problem> {
        let (dialer, endpoint) = &self.dialers[at];
        let failed = |error: hyper::Error| Problem::unreachable(format!("the connection to Consul failed: {error}"));
        let mut connection = loop {
            let idle = self.idle().pop();
            match idle {
                Some((of, connection)) if of == at && connection.is_ready() => break connection,
                Some(_) => {}
                None => {
                    let stream = dialer.dial().await.map_err(|fault| Problem::unreachable(&fault.message))?;
                    let (connection, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
                    tokio::spawn(driver);
                    break connection;
                }
            }
        };
        let mut request =
            Request::builder().method(method).uri(format!("{}{path}", endpoint.base)).header(HOST, &endpoint.authority);
        if let Some(token) = &self.token {
            request = request.header(TOKEN, token);
        }
        let request = request.body(Full::from(body.unwrap_or_default())).map_err(Problem::unreachable)?;
        connection.ready().await.map_err(failed)?;
        let (head, body) = connection.send_request(request).await.map_err(failed)?.into_parts();
        let body = Limited::new(body, ANSWER_LEN_MAX).collect().await;
        let body = body.map_err(|_| Problem::unreachable("the answer of Consul is incomplete or too long"))?.to_bytes();
        let mut idle = self.idle();
        if idle.len() < IDLE_MAX {
            idle.push((at, connection));
        }
        let index = head.headers.get(INDEX).and_then(|value| value.to_str().ok()?.parse().ok());
        Ok(Answer { status: head.status, index: index.unwrap_or(0), body })
    }
}
