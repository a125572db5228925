//! Asks a registry over HTTP.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use crossdock_message::{Code, EndpointVerdict, Fault, Retry};
use crossdock_ports::AdapterError;
use crossdock_transport::{Dialer, Endpoint};
use futures_util::FutureExt as _;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, HOST, HeaderValue};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value as Json;

use crate::config::{RegistryAccess, RegistryLogin};

/// For a question and its answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The maximum length of an answer, which contains a schema as a JSON string.
const ANSWER_LEN_MAX: usize = 4 << 20;
const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/vnd.schemaregistry.v1+json, application/json");

/// A registry. Contains a login, which must never be shown. Schemas are asked for rarely, so that each question has a connection of its own.
pub(super) struct Client {
    dialer: Dialer,
    endpoint: Endpoint,
    authorization: Option<HeaderValue>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address())
    }
}

/// The registry cannot be asked, or not with this login. It may be possible later.
pub(crate) fn unusable(problem: &str) -> Fault {
    Fault::new(Code::Unavailable, "SCHEMA_REGISTRY", format!("the schema registry cannot be used: {problem}"))
        .with_retry(Retry::Same)
        // The brokers are not to blame.
        .with_endpoint_verdict(EndpointVerdict::None)
        .logged()
}

/// Whether the registry says that it does not have what was asked for: a subject, a version or a schema.
fn is_unknown(body: &[u8]) -> bool {
    let answer: Option<Json> = serde_json::from_slice(body).ok();
    let code = answer.as_ref().and_then(|answer| answer.get("error_code")).and_then(Json::as_u64);
    matches!(code, Some(40401..=40403))
}

impl Client {
    pub(super) fn new(access: &RegistryAccess) -> Result<Self, AdapterError> {
        let dialer = Dialer::new(&access.endpoint, access.tls.as_ref(), &[], TIMEOUT)?;
        let value = match &access.login {
            None => None,
            Some(RegistryLogin::Password { username, password }) => {
                Some(format!("Basic {}", STANDARD.encode(format!("{username}:{}", password.reveal()))))
            }
            Some(RegistryLogin::Token(token)) => Some(format!("Bearer {}", token.reveal())),
        };
        let authorization = match value {
            None => None,
            Some(value) => {
                let unusable =
                    |_| AdapterError::Settings("the login of a schema registry cannot be sent in a header".into());
                let mut value = HeaderValue::try_from(value).map_err(unusable)?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        Ok(Self { dialer, endpoint: access.endpoint.clone(), authorization })
    }

    /// Where it is, for people.
    pub(super) fn address(&self) -> String {
        format!("{}:{}{}", self.endpoint.host, self.endpoint.port, self.endpoint.base)
    }

    /// The document at a path; `None` if there is none.
    ///
    /// # Errors
    /// UNAVAILABLE for everything else.
    pub(super) async fn get(&self, path: &str) -> Result<Option<Json>, Fault> {
        let asking = tokio::time::timeout(TIMEOUT, self.ask(path));
        let (status, body) = asking.await.unwrap_or_else(|_| Err(unusable("it does not answer in time")))?;
        match status {
            StatusCode::OK => serde_json::from_slice(&body).map(Some).map_err(|_| unusable("its answer is not JSON")),
            // Anything else in between may answer with the same status.
            StatusCode::NOT_FOUND if is_unknown(&body) => Ok(None),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(unusable("it refuses the login")),
            other => Err(unusable(&format!("it answered with status {}", other.as_u16()))),
        }
    }

    async fn ask(&self, path: &str) -> Result<(StatusCode, Bytes), Fault> {
        let failed = |_| unusable("the connection failed");
        let stream = self.dialer.dial().await.map_err(|fault| unusable(&fault.message))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        let uri = format!("{}{path}", self.endpoint.base);
        let mut request = Request::get(uri).header(HOST, &self.endpoint.authority).header(ACCEPT, MEDIA_TYPE);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|_| unusable("its address is invalid"))?;
        let asking = async {
            let response = sender.send_request(request).await.map_err(failed)?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_LEN_MAX).collect().await;
            Ok((head.status, body.map_err(|_| unusable("its answer is incomplete or too long"))?.to_bytes()))
        };
        // The answer is complete before the connection is, or fails with it.
        let mut connection = std::pin::pin!(connection.fuse());
        let mut asking = std::pin::pin!(asking);
        loop {
            tokio::select! {
                biased;
                answer = &mut asking => return answer,
                _ = &mut connection => {}
            }
        }
    }
}
