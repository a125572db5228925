//! Which service serves a call.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use crossdock_api::cluster_server::ClusterServer;
use crossdock_api::locks_server::LocksServer;
use crossdock_api::queues_server::QueuesServer;
use crossdock_api::sequences_server::SequencesServer;
use crossdock_api::sessions_server::SessionsServer;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body::Body;
use tonic::body::Body as Answer;
use tonic::{Code, Status};
use tower_service::Service;

use crate::access::Caller;
use crate::counts::{Counts, name_of};
use crate::json::is_method;
use crate::services::Methods;

/// The longest message of a client, in bytes: a message of a queue with its headers.
pub(crate) const MESSAGE_LEN_MAX: usize = 2 << 20;

/// All services.
#[derive(Clone)]
pub(crate) struct Services {
    sessions: SessionsServer<Methods>,
    locks: LocksServer<Methods>,
    sequences: SequencesServer<Methods>,
    queues: QueuesServer<Methods>,
    cluster: ClusterServer<Methods>,
    counts: Arc<Counts>,
}

impl Services {
    pub(crate) fn new(methods: &Methods, counts: &Arc<Counts>) -> Self {
        Self {
            counts: Arc::clone(counts),
            sessions: SessionsServer::new(methods.clone()).max_decoding_message_size(MESSAGE_LEN_MAX),
            locks: LocksServer::new(methods.clone()).max_decoding_message_size(MESSAGE_LEN_MAX),
            sequences: SequencesServer::new(methods.clone()).max_decoding_message_size(MESSAGE_LEN_MAX),
            queues: QueuesServer::new(methods.clone()).max_decoding_message_size(MESSAGE_LEN_MAX),
            cluster: ClusterServer::new(methods.clone()).max_decoding_message_size(MESSAGE_LEN_MAX),
        }
    }

    /// Serves a gRPC call, whose path names the service and the method.
    pub(crate) async fn call<B>(&mut self, request: Request<B>) -> Response<Answer>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
    {
        let client = request.extensions().get::<Arc<Caller>>().map(|caller| caller.name.clone());
        let path = request.uri().path().to_owned();
        let name = path.trim_start_matches('/').split('/').next().unwrap_or_default();
        let answer: BoxFuture<'static, Result<Response<Answer>, Infallible>> = match name {
            "crossdock.v1.Sessions" => self.sessions.call(request),
            "crossdock.v1.Locks" => self.locks.call(request),
            "crossdock.v1.Sequences" => self.sequences.call(request),
            "crossdock.v1.Queues" => self.queues.call(request),
            "crossdock.v1.Cluster" => self.cluster.call(request),
            _ => return Status::unimplemented(format!("there is no service `{name}`")).into_http(),
        };
        let Ok(answer) = answer.await;
        // A stream counts with the code with which it began.
        let status = Status::from_header_map(answer.headers());
        let code = status.as_ref().map_or(Code::Ok, Status::code);
        let method = if is_method(&path) { path.trim_start_matches("/crossdock.v1.") } else { "other" };
        self.counts.count(method, code);
        if let Some(status) = status.filter(|_| code != Code::Ok) {
            tracing::info!(client, method, code = name_of(code), problem = status.message(), "call of the API failed");
        }
        answer
    }
}
