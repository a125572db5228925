//! A listener: from a connection to answers.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{io, panic};

use actix_http::{HttpService, KeepAlive, Request, Response};
use actix_service::{ServiceFactoryExt as _, fn_service};
use crossdock_adapter_api::{
    AdapterError, Admission, Head, Inbound, Ingress, OpenIngress, Outcome, SendFuture, WriteFormat,
};
use crossdock_message::{ByteString, Code, Fault};
use crossdock_transport::{Accepted, Gate, accept, listen, tls};
use futures_util::FutureExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::config::{Entry, Listener};
use crate::front::{BodyRefusal, Connection, Front, HeadLimits, Limits, RequestHead, Timeouts, Watchlist};
use crate::settle::{AnswerBody, Asker, failure, settle};
use crate::{mapping, path, streams};

/// A listener whose address is taken.
pub(crate) struct HttpInbound {
    name: ByteString,
    socket: TcpListener,
    address: SocketAddr,
    limits: Limits,
    acceptor: Option<TlsAcceptor>,
    gate: Arc<Gate>,
}

impl HttpInbound {
    pub(crate) fn open(name: &str, listener: &Listener) -> Result<Self, AdapterError> {
        let settings = &listener.settings;
        let acceptor =
            settings.tls.as_ref().map(|tls| tls::server(tls, &[b"http/1.1"])).transpose()?.map(TlsAcceptor::from);
        let failed = |source| AdapterError::Listen { address: listener.bind.to_string(), source };
        let socket = listen(listener.bind).map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        Ok(Self {
            name: name.into(),
            socket,
            address,
            acceptor,
            limits: Limits {
                head: HeadLimits {
                    head_len_max: size(settings.head.0),
                    headers_max: settings.headers,
                    target_len_max: size(settings.target.0),
                },
                timeouts: Timeouts {
                    head: settings.head_timeout.0,
                    body: settings.body_timeout.0,
                    idle: settings.idle_timeout.0,
                    write: settings.write_timeout.0,
                },
            },
            gate: Arc::new(Gate::new(settings.connections, settings.connections_per_address)),
        })
    }
}

impl Inbound for HttpInbound {
    fn address(&self) -> String {
        self.address.to_string()
    }

    fn run(
        self: Box<Self>,
        arbiters: usize,
        ingress: Arc<dyn OpenIngress>,
        stop: CancellationToken,
    ) -> SendFuture<'static, Result<(), AdapterError>> {
        Box::pin(async move {
            let Self { name, socket, limits, acceptor, gate, .. } = *self;
            let stopped = |error: io::Error| AdapterError::Stopped(error.to_string());
            let worker_stop = stop.clone();
            let server = actix_server::Server::build()
                .workers(arbiters)
                .disable_signals()
                .shutdown_timeout(30)
                .listen(&*name.clone(), socket, move || {
                    // Runs once on each data arbiter.
                    let worker = Worker::start(name.clone(), limits, ingress.open(), worker_stop.clone());
                    let (acceptor, gate) = (acceptor.clone(), Arc::clone(&gate));
                    let accepting = Rc::clone(&worker);
                    fn_service(move |socket: TcpStream| {
                        let (worker, acceptor, gate) = (Rc::clone(&accepting), acceptor.clone(), Arc::clone(&gate));
                        async move { worker.accept(socket, acceptor, &gate).await }
                    })
                    .map_err(actix_http::error::DispatchError::Io)
                    .and_then(
                        HttpService::<Front<Accepted>, _, AnswerBody>::build()
                            .keep_alive(KeepAlive::Os)
                            .client_request_timeout(Duration::ZERO)
                            .h1_allow_half_closed(false)
                            .on_connect_ext(|front: &Front<Accepted>, data| {
                                data.insert(Rc::clone(front.connection()));
                            })
                            .h1(fn_service(move |request: Request| handle(Rc::clone(&worker), request))),
                    )
                })
                .map_err(stopped)?
                .run();
            let handle = server.handle();
            let stopping = async move {
                stop.cancelled().await;
                handle.stop(true).await;
            };
            let (served, ()) = tokio::join!(server, stopping);
            served.map_err(stopped)
        })
    }
}

/// What all connections of one data arbiter share.
struct Worker {
    name: ByteString,
    limits: Limits,
    ingress: Rc<dyn Ingress>,
    list: Rc<Watchlist>,
}

impl Worker {
    fn start(name: ByteString, limits: Limits, ingress: Rc<dyn Ingress>, stop: CancellationToken) -> Rc<Self> {
        let list = Watchlist::new(Instant::now());
        let watched = Rc::downgrade(&list);
        actix_rt::spawn(async move {
            let mut ticks = tokio::time::interval(Watchlist::INTERVAL);
            loop {
                ticks.tick().await;
                let Some(list) = watched.upgrade() else { return };
                if stop.is_cancelled() {
                    list.drain();
                }
                list.look(Instant::now());
            }
        });
        Rc::new(Self { name, limits, ingress, list })
    }

    async fn accept(
        &self,
        socket: TcpStream,
        acceptor: Option<TlsAcceptor>,
        gate: &Arc<Gate>,
    ) -> io::Result<(Front<Accepted>, Option<SocketAddr>)> {
        let peer = socket.peer_addr()?;
        let place = gate.enter(peer.ip()).ok_or_else(|| io::Error::other("too many connections"))?;
        let stream = accept(socket, acceptor.as_ref()).await?;
        Ok((Front::new(stream, place, self.limits, &self.list), Some(peer)))
    }

    /// Finds the route of a request. HEAD is what GET answers, without its body.
    fn admit(&self, head: &RequestHead) -> Result<Admission, Fault> {
        let path = path::normalize(head.path())?;
        let method = if head.method() == "HEAD" { "GET" } else { head.method() };
        self.ingress.admit(&Head { listener: &self.name, method, path: &path, headers: head })
    }
}

/// Answers one request, whatever happens.
async fn handle(worker: Rc<Worker>, mut request: Request) -> Result<Response<AnswerBody>, Infallible> {
    request.head_mut().headers.clear();
    let connection = request.conn_data::<Rc<Connection>>().cloned();
    let parts = connection.and_then(|connection| Some((connection.take_request()?, connection)));
    let Some((head, connection)) = parts else {
        // The front gives actix a head only when it has one of its own.
        unreachable!("a request without its head");
    };
    let (fallback, head_only) = (Rc::clone(&connection), head.method() == "HEAD");
    let answered = panic::AssertUnwindSafe(answer(worker, head, connection)).catch_unwind().await;
    Ok(answered.unwrap_or_else(|_| {
        fallback.close_after_answer();
        let fault = Fault::new(Code::Internal, "PANIC", "the gateway failed on this request");
        failure(&fault, Asker { connection: fallback, head_only, wants_xml: false, id: None })
    }))
}

async fn answer(worker: Rc<Worker>, head: RequestHead, connection: Rc<Connection>) -> Response<AnswerBody> {
    let mut asker = Asker { connection, head_only: head.method() == "HEAD", wants_xml: wants_xml(&head), id: None };
    let mut admission = match worker.admit(&head) {
        Ok(admission) => admission,
        Err(fault) => return failure(&fault, asker),
    };
    asker.id = Some(admission.id.clone());
    let spec = Arc::clone(&admission.entry);
    let Some(entry) = spec.as_any().downcast_ref::<Entry>() else {
        return failure(&Fault::new(Code::Internal, "ENTRY", "the route is not one of HTTP"), asker);
    };
    if matches!(entry.answer, WriteFormat::Xml { .. }) && crossdock_adapter_api::Fields::get(&head, "accept").is_none()
    {
        asker.wants_xml = true;
    }
    let outcome = match dispatch(&worker, &head, entry, &mut admission, &asker.connection).await {
        Ok(message) => admission.exchange.dispatch(message).await,
        Err(fault) => Outcome::Failed(fault),
    };
    settle(outcome, entry, asker)
}

async fn dispatch(
    worker: &Worker,
    head: &RequestHead,
    entry: &Entry,
    admission: &mut Admission,
    connection: &Connection,
) -> Result<crossdock_message::Message, Fault> {
    use crossdock_adapter_api::Fields as _;
    let mut message = mapping::request(head, entry, admission, &worker.name, Instant::now())?;
    if head.get("content-encoding").is_some_and(|coding| !coding.eq_ignore_ascii_case(b"identity")) {
        let problem = "a compressed body is not taken here; send it as it is";
        return Err(Fault::caller(Code::InvalidArgument, "CONTENT_ENCODING", problem).with_http_status(415));
    }
    let max = entry.body_len_max;
    if matches!(head.framing, crate::front::Framing::Length(length) if length > max) {
        return Err(body_fault(BodyRefusal::TooLarge, max));
    }
    if head.framing != crate::front::Framing::None {
        let chunks = connection.body(max, head.expects_continue).await.map_err(|refusal| body_fault(refusal, max))?;
        message.body = mapping::body(chunks, message.content_type.as_ref());
    }
    if let Some(typed) = &entry.typed {
        let params = std::mem::take(&mut message.params);
        message.body = if typed.call.client_streaming {
            streams::requests(typed, message.body)?
        } else {
            mapping::typed_body(typed, &params, &message.body)?
        };
        message.content_type = None;
    }
    Ok(message)
}

fn body_fault(refusal: BodyRefusal, max: u64) -> Fault {
    match refusal {
        BodyRefusal::TooLarge => {
            let message = format!("the body is larger than the {max} bytes that this route takes");
            Fault::caller(Code::InvalidArgument, "BODY_TOO_LARGE", message).with_http_status(413)
        }
        BodyRefusal::TooSlow => {
            Fault::caller(Code::DeadlineExceeded, "BODY_TOO_SLOW", "the body came too slowly").with_http_status(408)
        }
        BodyRefusal::Framing(problem) => Fault::caller(Code::InvalidArgument, "BODY_FRAMING", problem),
        BodyRefusal::Incomplete => {
            Fault::caller(Code::Cancelled, "BODY_INCOMPLETE", "the connection ended before the body")
        }
    }
}

/// Faults are told in the format that the caller speaks: what it accepts, else what it sends.
fn wants_xml(head: &RequestHead) -> bool {
    use crossdock_adapter_api::Fields as _;
    let names =
        |value: &[u8], word: &str| value.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word.as_bytes()));
    match head.get("accept") {
        Some(accept) if names(accept, "json") => false,
        Some(accept) if names(accept, "xml") => true,
        _ => head.get("content-type").is_some_and(|media_type| names(media_type, "xml")),
    }
}
