//! Calls as JSON over HTTP: `POST /v1/SERVICE/METHOD`, such as `/v1/sessions/keep-alive`. Each becomes a gRPC call of the same method, so
//! that both have the same checks, limits and errors.

use std::sync::{Arc, LazyLock};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use futures_util::stream;
use http::header::{self, HeaderMap};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, Limited, StreamBody};
use hyper::body::Incoming;
use prost_reflect::prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor};
use serde_json::{Value, json};
use tonic::body::Body as Answer;
use tonic::{Code, Status};

use crate::access::Caller;
use crate::counts::{Counts, name_of};
use crate::grpc::{MESSAGE_LEN_MAX, Services};

/// The longest body of a request: base64 makes bytes longer.
const BODY_LEN_MAX: usize = 2 * MESSAGE_LEN_MAX;
/// Length of what comes before a message in a gRPC stream: a flag and a length.
const PREFIX_LEN: usize = 5;

/// Whether a path is that of a method over gRPC, such as `/crossdock.v1.Locks/Acquire`.
pub(crate) fn is_method(path: &str) -> bool {
    let name = |(_, method): &(String, MethodDescriptor)| {
        let of = path.strip_prefix('/').and_then(|path| path.split_once('/'));
        of.is_some_and(|(service, name)| service == method.parent_service().full_name() && name == method.name())
    };
    METHODS.iter().any(name)
}

static METHODS: LazyLock<Vec<(String, MethodDescriptor)>> = LazyLock::new(|| {
    let pool = DescriptorPool::decode(crossdock_api::DESCRIPTOR).expect("it is generated with the messages");
    let methods = pool.services().flat_map(|service| {
        let name = service.name().to_lowercase();
        service
            .methods()
            .map(move |method| (format!("/v1/{name}/{}", kebab(method.name())), method))
            .collect::<Vec<_>>()
    });
    methods.collect()
});

fn kebab(name: &str) -> String {
    let mut text = String::new();
    for (at, letter) in name.char_indices() {
        if letter.is_ascii_uppercase() && at > 0 {
            text.push('-');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}

/// Serves a call of a client.
pub(crate) async fn call(
    services: &mut Services,
    request: Request<Incoming>,
    caller: Arc<Caller>,
    counts: &Counts,
) -> Response<Answer> {
    match read(request).await {
        Ok((method, message)) => execute(services, &method, &message, caller).await,
        Err(problem) => {
            // The problem may quote the body.
            tracing::info!(client = caller.name, code = name_of(problem.code), "call of the API refused");
            counts.count("other", problem.code);
            problem_response(&problem)
        }
    }
}

/// An answer that is no reply.
pub(crate) struct Problem {
    status: StatusCode,
    code: Code,
    message: String,
}

impl From<&Status> for Problem {
    fn from(status: &Status) -> Self {
        let http = match status.code() {
            Code::Ok => StatusCode::OK,
            Code::InvalidArgument | Code::OutOfRange => StatusCode::BAD_REQUEST,
            Code::Unauthenticated => StatusCode::UNAUTHORIZED,
            Code::PermissionDenied => StatusCode::FORBIDDEN,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::Aborted | Code::AlreadyExists | Code::FailedPrecondition => StatusCode::CONFLICT,
            Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            Code::Cancelled | Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status: http, code: status.code(), message: status.message().to_owned() }
    }
}

fn problem(status: StatusCode, code: Code, message: impl Into<String>) -> Problem {
    Problem { status, code, message: message.into() }
}

fn problem_json(Problem { code, message, .. }: &Problem) -> Value {
    json!({ "code": name_of(*code), "message": message })
}

pub(crate) fn problem_response(problem: &Problem) -> Response<Answer> {
    let body = problem_json(problem).to_string();
    let mut response = Response::new(Answer::new(Full::new(Bytes::from(body))));
    *response.status_mut() = problem.status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    if problem.status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
    }
    response
}

/// The method of a request, and its message.
async fn read(request: Request<Incoming>) -> Result<(MethodDescriptor, DynamicMessage), Problem> {
    let path = request.uri().path();
    let Some((_, method)) = METHODS.iter().find(|(known, _)| known == path) else {
        let message = format!("there is no method `{path}`; write for example `/v1/locks/acquire`");
        return Err(problem(StatusCode::NOT_FOUND, Code::Unimplemented, message));
    };
    if request.method() != Method::POST {
        return Err(problem(StatusCode::METHOD_NOT_ALLOWED, Code::Unimplemented, "send the request with POST"));
    }
    if method.is_client_streaming() {
        let message = "a stream of requests needs gRPC";
        return Err(problem(StatusCode::NOT_IMPLEMENTED, Code::Unimplemented, message));
    }
    let media_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = media_type.and_then(|text| text.split(';').next()).map(str::trim);
    if !media_type.is_some_and(|text| text.eq_ignore_ascii_case("application/json")) {
        let message = "the content type must be `application/json`";
        return Err(problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::InvalidArgument, message));
    }
    let body = Limited::new(request.into_body(), BODY_LEN_MAX).collect().await.map_err(|_| {
        let message = format!("the body has more than {BODY_LEN_MAX} bytes, or ended early");
        problem(StatusCode::PAYLOAD_TOO_LARGE, Code::InvalidArgument, message)
    })?;
    let body = body.to_bytes();
    let mut reader = serde_json::Deserializer::from_slice(&body);
    let read = DynamicMessage::deserialize(method.input(), &mut reader).and_then(|message| {
        reader.end()?;
        Ok(message)
    });
    let message = read.map_err(|error| {
        let message = format!("the body is no `{}` in JSON: {error}", method.input().name());
        problem(StatusCode::BAD_REQUEST, Code::InvalidArgument, message)
    })?;
    Ok((method.clone(), message))
}

async fn execute(
    services: &mut Services,
    method: &MethodDescriptor,
    message: &DynamicMessage,
    caller: Arc<Caller>,
) -> Response<Answer> {
    let encoded = message.encode_to_vec();
    let mut framed = BytesMut::with_capacity(PREFIX_LEN + encoded.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(encoded.len()).unwrap_or(u32::MAX));
    framed.put_slice(&encoded);
    let mut request = Request::new(Full::new(framed.freeze()));
    *request.method_mut() = Method::POST;
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    *request.uri_mut() = path.parse::<Uri>().unwrap_or_default();
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, header::HeaderValue::from_static("trailers"));
    request.extensions_mut().insert(caller);
    let (parts, body) = services.call(request).await.into_parts();
    if let Some(status) = Status::from_header_map(&parts.headers).filter(|status| status.code() != Code::Ok) {
        return problem_response(&Problem::from(&status));
    }
    let mut replies = Replies { method: method.clone(), body, buffered: BytesMut::new() };
    if method.is_server_streaming() {
        let lines = stream::unfold(Some(replies), async |replies| {
            let mut replies = replies?;
            match replies.next().await {
                Ok(Some(reply)) => Some((Ok::<_, Status>(line(&reply)), Some(replies))),
                Ok(None) => None,
                Err(status) => {
                    let last = json!({ "error": problem_json(&Problem::from(&status)) });
                    Some((Ok(line(&last)), None))
                }
            }
        });
        let mut response = Response::new(Answer::new(StreamBody::new(Box::pin(lines))));
        let media_type = header::HeaderValue::from_static("application/x-ndjson");
        response.headers_mut().insert(header::CONTENT_TYPE, media_type);
        return response;
    }
    match replies.next().await {
        Ok(Some(reply)) => {
            let mut response = Response::new(Answer::new(Full::new(Bytes::from(reply.to_string()))));
            let media_type = header::HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, media_type);
            response
        }
        Ok(None) => problem_response(&problem(StatusCode::INTERNAL_SERVER_ERROR, Code::Internal, "there is no reply")),
        Err(status) => problem_response(&Problem::from(&status)),
    }
}

fn line(value: &Value) -> Frame<Bytes> {
    Frame::data(Bytes::from(format!("{value}\n")))
}

/// The replies in the body of a gRPC response.
struct Replies {
    method: MethodDescriptor,
    body: Answer,
    buffered: BytesMut,
}

impl Replies {
    /// The next one as JSON; `None` after the last one.
    ///
    /// # Errors
    /// The status with which the call ended.
    async fn next(&mut self) -> Result<Option<Value>, Status> {
        loop {
            if let Some(message) = self.buffered_message() {
                let read = DynamicMessage::decode(self.method.output(), message);
                let read = read.map_err(|error| Status::internal(error.to_string()))?;
                let written = serde_json::to_value(&read).map_err(|error| Status::internal(error.to_string()))?;
                return Ok(Some(written));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(status)) => return Err(status),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.buffered.extend_from_slice(&data),
                    Err(frame) => return ended(frame.trailers_ref()),
                },
            }
        }
    }

    fn buffered_message(&mut self) -> Option<Bytes> {
        let mut prefix = self.buffered.get(1..PREFIX_LEN)?;
        let len = prefix.get_u32() as usize;
        if self.buffered.len() < PREFIX_LEN + len {
            return None;
        }
        self.buffered.advance(PREFIX_LEN);
        Some(self.buffered.split_to(len).freeze())
    }
}

fn ended(trailers: Option<&HeaderMap>) -> Result<Option<Value>, Status> {
    match trailers.and_then(Status::from_header_map) {
        Some(status) if status.code() != Code::Ok => Err(status),
        _ => Ok(None),
    }
}
