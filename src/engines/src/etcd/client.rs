//! Calls of etcd.

use std::io;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use crossdock_transport::{Dialer, DialledStream};
use futures_util::stream;
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};

use self::api::auth_client::AuthClient;
use self::api::kv_client::KvClient;
use self::api::lease_client::LeaseClient;
use self::api::watch_client::WatchClient;
use super::problem;
use crate::backend::Problem;
use crate::options::{Login, Options};
use crate::servers::Servers;

/// Generated from `etcd.proto`.
#[allow(clippy::all, clippy::pedantic, missing_docs, unreachable_pub, reason = "generated")]
pub(super) mod api {
    tonic::include_proto!("etcdserverpb");
}

/// The longest wait for a connection and for an answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// A connection that does not answer a ping is gone.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// Dials one server.
#[derive(Clone)]
struct Connect(Dialer);

impl tower_service::Service<Uri> for Connect {
    type Response = TokioIo<DialledStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let dialer = self.0.clone();
        Box::pin(async move {
            let dialled = dialer.dial().await;
            dialled.map(TokioIo::new).map_err(|fault| io::Error::other(fault.message.to_string()))
        })
    }
}

/// A client with a connection to each server, one of which it uses until a call fails.
pub(super) struct Client {
    channels: Vec<Channel>,
    /// For watches, so that these cannot use up the streams of a connection.
    watches: Vec<Channel>,
    servers: Servers,
    login: Option<(String, crossdock_settings::Secret)>,
    token: Mutex<Option<MetadataValue<Ascii>>>,
    /// One call at a time logs in.
    logging_in: tokio::sync::Mutex<()>,
}

impl Client {
    /// Must be called within a tokio runtime.
    pub(super) fn new(options: &Options) -> io::Result<Self> {
        let channel = |endpoint: &crossdock_transport::Endpoint| {
            let dialer = Dialer::new(endpoint, options.tls.as_ref(), &[b"h2"], CONNECT_TIMEOUT);
            let dialer = dialer.map_err(|problem| io::Error::other(problem.to_string()))?;
            // The dialer adds TLS.
            let authority = endpoint.authority.to_str().map_err(io::Error::other)?;
            let endpoint = Endpoint::from_shared(format!("http://{authority}")).map_err(io::Error::other)?;
            let endpoint = endpoint.http2_keep_alive_interval(PING_INTERVAL).keep_alive_timeout(PING_TIMEOUT);
            Ok(endpoint.connect_with_connector_lazy(Connect(dialer)))
        };
        let channels = || options.endpoints.iter().map(channel).collect::<io::Result<Vec<_>>>();
        let (channels, watches) = (channels()?, channels()?);
        let login = match &options.login {
            Some(Login::User { name, password }) => Some((name.clone(), password.clone())),
            Some(Login::Token(_)) | None => None,
        };
        Ok(Self {
            channels,
            watches,
            servers: Servers::new(options.endpoints.len()),
            login,
            token: Mutex::default(),
            logging_in: tokio::sync::Mutex::default(),
        })
    }

    fn token(&self) -> std::sync::MutexGuard<'_, Option<MetadataValue<Ascii>>> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a call at the current server. If it is dropped without an answer, the next call goes to another one.
    async fn call<Q, R>(
        &self,
        channels: &[Channel],
        request: Q,
        call: impl AsyncFnOnce(Channel, Request<Q>) -> Result<Response<R>, Status>,
    ) -> Result<R, Problem> {
        let used = self.servers.using();
        let channel = channels[used.index()].clone();
        let calling = async {
            let mut request = Request::new(request);
            if let Some((name, password)) = &self.login {
                let known = self.token().clone();
                let token = if let Some(known) = known {
                    known
                } else {
                    self.authenticated(&channel, name, password.reveal()).await?
                };
                request.metadata_mut().insert("authorization", token);
            }
            call(channel, request).await
        };
        let called = timeout(ANSWER_TIMEOUT, calling).await;
        let called = called.unwrap_or_else(|_| Err(Status::unavailable("it does not answer in time")));
        match called {
            Ok(response) => {
                used.keep();
                Ok(response.into_inner())
            }
            Err(status) => {
                if matches!(
                    status.code(),
                    Code::NotFound | Code::InvalidArgument | Code::PermissionDenied | Code::Unauthenticated
                ) {
                    used.keep();
                }
                let is_old = ["invalid auth token", "revision of auth store is old", "user name is empty"];
                if status.code() == Code::Unauthenticated || is_old.iter().any(|text| status.message().contains(text)) {
                    *self.token() = None;
                }
                Err(problem(&status))
            }
        }
    }

    async fn authenticated(
        &self,
        channel: &Channel,
        name: &str,
        password: &str,
    ) -> Result<MetadataValue<Ascii>, Status> {
        let _turn = self.logging_in.lock().await;
        if let Some(token) = self.token().clone() {
            return Ok(token);
        }
        let request = api::AuthenticateRequest { name: name.to_owned(), password: password.to_owned() };
        let token = AuthClient::new(channel.clone()).authenticate(request).await?.into_inner().token;
        let token: MetadataValue<Ascii> =
            token.parse().map_err(|_| Status::internal("the token of etcd cannot be sent"))?;
        *self.token() = Some(token.clone());
        Ok(token)
    }

    pub(super) async fn range(&self, request: api::RangeRequest) -> Result<api::RangeResponse, Problem> {
        self.call(&self.channels, request, async |channel, request| KvClient::new(channel).range(request).await).await
    }

    pub(super) async fn txn(&self, request: api::TxnRequest) -> Result<api::TxnResponse, Problem> {
        self.call(&self.channels, request, async |channel, request| KvClient::new(channel).txn(request).await).await
    }

    /// A lease of this many seconds, and how long it really lives.
    pub(super) async fn grant(&self, seconds: i64) -> Result<(i64, Duration), Problem> {
        let request = api::LeaseGrantRequest { ttl: seconds };
        let granted = self
            .call(&self.channels, request, async |channel, request| {
                LeaseClient::new(channel).lease_grant(request).await
            })
            .await?;
        Ok((granted.id, Duration::from_secs(u64::try_from(granted.ttl).unwrap_or_default())))
    }

    pub(super) async fn keep_alive(&self, lease: i64) -> Result<(), Problem> {
        let request = stream::iter([api::LeaseKeepAliveRequest { id: lease }]);
        let keep = async |channel: Channel, request| {
            let mut answers: Streaming<_> = LeaseClient::new(channel).lease_keep_alive(request).await?.into_inner();
            answers.message().await?.map(Response::new).ok_or_else(|| Status::unavailable("the stream has ended"))
        };
        let answer: api::LeaseKeepAliveResponse = self.call(&self.channels, request, keep).await?;
        if answer.ttl > 0 { Ok(()) } else { Err(Problem::SessionEnded) }
    }

    pub(super) async fn revoke(&self, lease: i64) -> Result<(), Problem> {
        let request = api::LeaseRevokeRequest { id: lease };
        self.call(&self.channels, request, async |channel, request| {
            LeaseClient::new(channel).lease_revoke(request).await
        })
        .await
        .map(drop)
    }

    /// Watches a key, or those up to another one, for deletions from now on.
    pub(super) async fn watch_deletions(&self, key: Vec<u8>, range_end: Vec<u8>) -> Result<Deletions, Problem> {
        let filters = vec![api::watch_create_request::FilterType::Noput.into()];
        let create = api::WatchCreateRequest { key: key.into(), range_end: range_end.into(), filters };
        let request =
            api::WatchRequest { request_union: Some(api::watch_request::RequestUnion::CreateRequest(create)) };
        // The watch lasts as long as its requests do.
        let requests = futures_util::StreamExt::chain(stream::iter([request]), stream::pending());
        let watch = async |channel: Channel, mut request: Request<_>| {
            // A server that is cut off from its leader ends the watch, instead of telling nothing.
            request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
            let mut events: Streaming<api::WatchResponse> =
                WatchClient::new(channel).watch(request).await?.into_inner();
            match events.message().await? {
                Some(first) if first.created && !first.canceled => Ok(Response::new(events)),
                _ => Err(Status::unavailable("the watch was refused")),
            }
        };
        Ok(Deletions(self.call(&self.watches, requests, watch).await?))
    }
}

/// Deletions of watched keys.
pub(super) struct Deletions(Streaming<api::WatchResponse>);

impl Deletions {
    /// Waits for the next one.
    pub(super) async fn next(&mut self) -> Result<(), Problem> {
        loop {
            match self.0.message().await {
                Ok(Some(response)) if !response.events.is_empty() => return Ok(()),
                Ok(Some(response)) if response.canceled => return Err(Problem::unreachable("etcd ended a watch")),
                Ok(Some(_)) => {}
                Ok(None) => return Err(Problem::unreachable("etcd ended a watch")),
                Err(status) => return Err(problem(&status)),
            }
        }
    }
}
