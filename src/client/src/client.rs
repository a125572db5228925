//! The client.

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossdock_api::cluster_client::ClusterClient;
use crossdock_api::sequences_client::SequencesClient;
use crossdock_api::{StateRequest, StateResponse, TakeRequest};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Response, Status};

/// The longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection that does not answer a ping is gone.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an attempt of a call takes at most: longer than an instance tries to reach a majority, behind another command.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(25);
/// How often a call goes round all endpoints.
const ROUNDS: usize = 3;
/// Time between two rounds.
const ROUND_INTERVAL: Duration = Duration::from_millis(200);

/// A call failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// An option is not valid.
    #[error("{0}")]
    Options(String),
    /// The cluster refused the call, or no instance could serve it.
    #[error("{}: {}", .0.code(), .0.message())]
    Status(Box<Status>),
}

impl Error {
    /// The code of the status; `InvalidArgument` for an option that is not valid.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Options(_) => Code::InvalidArgument,
            Self::Status(status) => status.code(),
        }
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

/// Whether an instance could not serve a call at the moment, or the connection to it failed.
fn is_passing(status: &Status) -> bool {
    status.code() == Code::Unavailable || is_of_connection(status)
}

/// Whether it was not the instance that said so.
pub(crate) fn is_of_connection(status: &Status) -> bool {
    status.source().is_some_and(<dyn std::error::Error>::is::<tonic::transport::Error>)
}

/// Options of a client.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Its token, as `crossdock token` made it.
    pub token: Option<String>,
    /// The authorities of the instances' certificates as PEM, for addresses with `https`.
    pub ca: Option<Vec<u8>>,
    /// The certificate of the client and its private key as PEM.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// A client. Clones share its connections, which are opened when they are needed.
#[derive(Debug, Clone)]
pub struct Client {
    channels: Arc<[Channel]>,
    /// The one that served the last call.
    current: Arc<AtomicUsize>,
    token: Option<MetadataValue<Ascii>>,
}

impl Client {
    /// A client of these instances, such as `http://127.0.0.1:7200`. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// An address or an option is not valid.
    pub fn new(addresses: &[&str], options: &Options) -> Result<Self, Error> {
        let invalid = |problem: &dyn std::fmt::Display| Error::Options(problem.to_string());
        let tls = || {
            let mut tls = ClientTlsConfig::new();
            if let Some(ca) = &options.ca {
                tls = tls.ca_certificate(Certificate::from_pem(ca));
            }
            if let Some((certificate, key)) = &options.identity {
                tls = tls.identity(Identity::from_pem(certificate, key));
            }
            tls
        };
        let channel = |address: &&str| {
            let endpoint = Endpoint::from_shared((*address).to_owned()).map_err(|problem| invalid(&problem))?;
            let endpoint = endpoint
                .connect_timeout(CONNECT_TIMEOUT)
                .http2_keep_alive_interval(PING_INTERVAL)
                .keep_alive_timeout(PING_TIMEOUT)
                .keep_alive_while_idle(false);
            let is_encrypted = address.starts_with("https:");
            let endpoint = if is_encrypted { endpoint.tls_config(tls()) } else { Ok(endpoint) };
            Ok(endpoint.map_err(|problem| invalid(&problem))?.connect_lazy())
        };
        let channels = addresses.iter().map(channel).collect::<Result<Arc<[_]>, Error>>()?;
        if channels.is_empty() {
            return Err(Error::Options("a client needs the address of at least one instance".to_owned()));
        }
        let token = options.token.as_ref().map(|token| format!("Bearer {token}").parse());
        let token = token.transpose().map_err(|_| Error::Options("the token has invalid characters".to_owned()))?;
        Ok(Self { channels, current: Arc::default(), token })
    }

    /// A request of this client.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", token.clone());
        }
        request
    }

    /// Makes a call that may be repeated at one instance after another, until one of them serves it.
    ///
    /// # Errors
    /// The last status: UNAVAILABLE if none of them could serve it.
    pub(crate) async fn call<M: Clone, R>(
        &self,
        message: M,
        call: impl AsyncFn(Channel, Request<M>) -> Result<Response<R>, Status>,
    ) -> Result<R, Error> {
        self.call_within(CALL_TIMEOUT, message, call).await
    }

    /// Like [`Client::call`], with another time for each attempt: an instance that does not answer in it is not asked any longer.
    pub(crate) async fn call_within<M: Clone, R>(
        &self,
        limit: Duration,
        message: M,
        call: impl AsyncFn(Channel, Request<M>) -> Result<Response<R>, Status>,
    ) -> Result<R, Error> {
        let mut last = Status::unavailable("no instance was asked");
        for round in 0..ROUNDS {
            if round > 0 {
                tokio::time::sleep(ROUND_INTERVAL).await;
            }
            for _ in 0..self.channels.len() {
                let at = self.current.load(Ordering::Relaxed) % self.channels.len();
                let attempt = call(self.channels[at].clone(), self.request(message.clone()));
                let late = || Status::unavailable("the instance did not answer in time");
                match tokio::time::timeout(limit, attempt).await.unwrap_or_else(|_| Err(late())) {
                    Ok(response) => return Ok(response.into_inner()),
                    Err(status) if is_passing(&status) => last = Status::unavailable(status.message()),
                    Err(status) => return Err(status.into()),
                }
                // Unless another call has found out already.
                let next = (at + 1) % self.channels.len();
                let _ = self.current.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
            }
        }
        Err(last.into())
    }

    /// The next number of a sequence, which is higher than all that were returned before this call.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn next_number(&self, sequence: &str) -> Result<u64, Error> {
        self.next_numbers(sequence, 1).await
    }

    /// The first of consecutive numbers of a sequence.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn next_numbers(&self, sequence: &str, count: u64) -> Result<u64, Error> {
        let take = TakeRequest { sequence: sequence.to_owned(), count };
        let taken = self.call(take, async |channel, request| SequencesClient::new(channel).take(request).await);
        Ok(taken.await?.first)
    }

    /// The state of the cluster, as an instance knows it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn state(&self) -> Result<StateResponse, Error> {
        self.call(StateRequest {}, async |channel, request| ClusterClient::new(channel).state(request).await).await
    }
}
