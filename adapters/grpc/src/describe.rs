//! Reads the contract of a service by server reflection.

use std::collections::{BTreeMap, BTreeSet};
use std::future;
use std::time::Duration;

use bytes::Bytes;
use crossdock_message::{Code, Fault};
use crossdock_transport::http2::LocalExecutor;
use crossdock_transport::{Dialer, Endpoint};
use http::{HeaderValue, Request};
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use prost::Message as _;

use crate::framing::{MessageReader, frame_message};
use crate::reflection::{
    MessageRequest, MessageResponse, PATHS, Request as ReflectionRequest, Response as ReflectionResponse,
};
use crate::settle;

/// Timeout for all requests together.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a response, and of all files together.
const RESPONSE_LEN_MAX: usize = 16 << 20;
const FILES_LEN_MAX: usize = 64 << 20;
/// Files of one contract.
const FILES_MAX: usize = 2000;

#[derive(Clone, PartialEq, prost::Message)]
struct FileSet {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    file: Vec<Bytes>,
}

/// The name and imports of a `google.protobuf.FileDescriptorProto`.
#[derive(Clone, PartialEq, prost::Message)]
struct FileHead {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, repeated, tag = "3")]
    dependency: Vec<String>,
}

/// Reads the contracts of all services at `http://host:port` as a `google.protobuf.FileDescriptorSet` with all imports. Blocks for at most
/// ten seconds.
///
/// # Errors
/// A message if the service cannot be reached or does not support reflection.
pub fn reflect(url: &str) -> Result<Bytes, String> {
    let endpoint = Endpoint::parse(url).ok_or("the address must be of the form `http://host:port`")?;
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let request = async {
            match tokio::time::timeout(TIMEOUT, fetch_files(&endpoint)).await {
                Ok(set) => set.map_err(|fault| fault.message.to_string()),
                Err(_) => Err(format!("no response within {} seconds", TIMEOUT.as_secs())),
            }
        };
        tokio::task::LocalSet::new().block_on(&runtime, request)
    });
    thread.join().unwrap_or_else(|_| Err("the reflection client panicked".to_owned()))
}

async fn fetch_files(endpoint: &Endpoint) -> Result<Bytes, Fault> {
    match fetch_files_at(endpoint, PATHS[0]).await {
        Err(fault) if fault.code == Code::Unimplemented => fetch_files_at(endpoint, PATHS[1]).await,
        other => other,
    }
}

async fn fetch_files_at(endpoint: &Endpoint, path: &str) -> Result<Bytes, Fault> {
    let list = send_requests(endpoint, path, vec![MessageRequest::ListServices(String::new())]).await?;
    let services = list.into_iter().find_map(|response| match response.result {
        Some(MessageResponse::Services(services)) => Some(services.services),
        _ => None,
    });
    let services = services.unwrap_or_default();
    let mut found: BTreeMap<String, (FileHead, Bytes)> = BTreeMap::new();
    let requests = services.iter().filter(|service| !service.name.starts_with("grpc.reflection."));
    let mut requests: Vec<MessageRequest> =
        requests.map(|service| MessageRequest::FileContainingSymbol(service.name.clone())).collect();
    let mut requested = BTreeSet::new();
    while !requests.is_empty() {
        for response in send_requests(endpoint, path, requests).await? {
            let Some(MessageResponse::Files(files)) = response.result else { continue };
            for descriptor in files.descriptors {
                let head = FileHead::decode(descriptor.clone()).map_err(|_| bad("a file descriptor is malformed"))?;
                found.insert(head.name.clone(), (head, descriptor));
            }
        }
        let size: usize = found.values().map(|(_, descriptor)| descriptor.len()).sum();
        if found.len() > FILES_MAX || size > FILES_LEN_MAX {
            return Err(bad("the contract is too large"));
        }
        // A missing file is requested only once; compiling the set reports it.
        let imports: BTreeSet<&String> = found.values().flat_map(|(head, _)| &head.dependency).collect();
        let missing =
            imports.into_iter().filter(|name| !found.contains_key(*name) && requested.insert((*name).clone()));
        requests = missing.map(|name| MessageRequest::FileByFilename(name.clone())).collect();
    }
    if found.is_empty() {
        return Err(bad("the service returned no files"));
    }
    let set = FileSet { file: found.into_values().map(|(_, descriptor)| descriptor).collect() };
    Ok(set.encode_to_vec().into())
}

fn bad(problem: &'static str) -> Fault {
    Fault::new(Code::Internal, "REFLECTION", problem)
}

/// Sends requests on one stream and returns the responses.
async fn send_requests(
    endpoint: &Endpoint,
    path: &str,
    requests: Vec<MessageRequest>,
) -> Result<Vec<ReflectionResponse>, Fault> {
    let dialer = Dialer::new(endpoint, None, &[b"h2"], TIMEOUT)
        .map_err(|error| Fault::new(Code::Unavailable, "REFLECTION", error.to_string()))?;
    let lost = |_| Fault::new(Code::Unavailable, "REFLECTION", "the connection was closed");
    let stream = dialer.dial().await?;
    let (mut sender, connection) =
        http2::Builder::new(LocalExecutor).handshake(TokioIo::new(stream)).await.map_err(lost)?;
    let driver = tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    let mut body = Vec::new();
    let count = requests.len();
    for query in requests {
        let request = ReflectionRequest { host: String::new(), query: Some(query) };
        let (first, second) = frame_message(&request.encode_to_vec().into(), None)?;
        body.extend_from_slice(&first);
        body.extend_from_slice(&second.unwrap_or_default());
    }
    let scheme = if endpoint.secure { "https" } else { "http" };
    let mut request = Request::new(crate::outbound::framed_body(body.into()));
    *request.method_mut() = http::Method::POST;
    let authority = endpoint.authority.to_str().unwrap_or("");
    *request.uri_mut() = http::Uri::builder()
        .scheme(scheme)
        .authority(authority)
        .path_and_query(path)
        .build()
        .map_err(|_| bad("the address is invalid"))?;
    let headers = request.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(http::header::TE, HeaderValue::from_static("trailers"));
    let response = sender.send_request(request).await.map_err(lost)?;
    let (head, body) = response.into_parts();
    if let Some(Err(code)) = settle::parse_status(&head.headers) {
        return Err(Fault::new(code, "REFLECTION", "the service does not support reflection"));
    }
    let mut reader = MessageReader::new(body, None, RESPONSE_LEN_MAX, |_| bad("the connection was closed"));
    let mut responses = Vec::with_capacity(count);
    while let Some(message) = future::poll_fn(|cx| reader.poll_message(cx)).await.transpose()? {
        responses.push(ReflectionResponse::decode(message).map_err(|_| bad("a response is malformed"))?);
    }
    let trailers = reader.take_trailers().unwrap_or_default();
    driver.abort();
    match settle::parse_status(&trailers) {
        Some(Err(code)) => Err(Fault::new(code, "REFLECTION", "the service does not support reflection")),
        _ => Ok(responses),
    }
}
