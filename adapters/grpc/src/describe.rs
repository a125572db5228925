//! Asking a service for its contract by reflection.

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

use crate::framing::{MessageReader, framed};
use crate::reflection::{Answer, PATHS, Question, Request as Asked, Response as Told};
use crate::settle;

/// For all questions together.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of one answer, and of all files together.
const ANSWER_LEN_MAX: usize = 16 << 20;
const FILES_LEN_MAX: usize = 64 << 20;
/// Files of one contract.
const FILES_MAX: usize = 2000;

#[derive(Clone, PartialEq, prost::Message)]
struct FileSet {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    file: Vec<Bytes>,
}

/// The part of a file's descriptor that says what else is needed.
#[derive(Clone, PartialEq, prost::Message)]
struct FileHead {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, repeated, tag = "3")]
    dependency: Vec<String>,
}

/// Asks the service at `http://host:port` for the contracts of all that it serves: a
/// `google.protobuf.FileDescriptorSet` with all imports. Waits for the answer, ten seconds at most.
///
/// # Errors
/// A sentence where it cannot be reached or does not tell.
pub fn reflect(url: &str) -> Result<Bytes, String> {
    let endpoint = Endpoint::parse(url).ok_or("it is no address such as `http://host:port`")?;
    let asking = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let asked = async {
            match tokio::time::timeout(PATIENCE, ask_all(&endpoint)).await {
                Ok(set) => set.map_err(|fault| fault.message.to_string()),
                Err(_) => Err(format!("no answer in {} seconds", PATIENCE.as_secs())),
            }
        };
        tokio::task::LocalSet::new().block_on(&runtime, asked)
    });
    asking.join().unwrap_or_else(|_| Err("asking failed".to_owned()))
}

async fn ask_all(endpoint: &Endpoint) -> Result<Bytes, Fault> {
    match files(endpoint, PATHS[0]).await {
        Err(fault) if fault.code == Code::Unimplemented => files(endpoint, PATHS[1]).await,
        other => other,
    }
}

async fn files(endpoint: &Endpoint, path: &str) -> Result<Bytes, Fault> {
    let list = ask(endpoint, path, vec![Question::ListServices(String::new())]).await?;
    let services = list.into_iter().find_map(|told| match told.answer {
        Some(Answer::Services(services)) => Some(services.services),
        _ => None,
    });
    let services = services.unwrap_or_default();
    let mut found: BTreeMap<String, (FileHead, Bytes)> = BTreeMap::new();
    let questions = services.iter().filter(|service| !service.name.starts_with("grpc.reflection."));
    let mut questions: Vec<Question> =
        questions.map(|service| Question::FileContainingSymbol(service.name.clone())).collect();
    let mut asked = BTreeSet::new();
    while !questions.is_empty() {
        for told in ask(endpoint, path, questions).await? {
            let Some(Answer::Files(files)) = told.answer else { continue };
            for descriptor in files.descriptors {
                let head = FileHead::decode(descriptor.clone()).map_err(|_| bad("a descriptor cannot be read"))?;
                found.insert(head.name.clone(), (head, descriptor));
            }
        }
        let size: usize = found.values().map(|(_, descriptor)| descriptor.len()).sum();
        if found.len() > FILES_MAX || size > FILES_LEN_MAX {
            return Err(bad("its contract is too large"));
        }
        // A file that the service does not tell is asked for once: its absence is told when the set is read.
        let imports: BTreeSet<&String> = found.values().flat_map(|(head, _)| &head.dependency).collect();
        let missing = imports.into_iter().filter(|name| !found.contains_key(*name) && asked.insert((*name).clone()));
        questions = missing.map(|name| Question::FileByFilename(name.clone())).collect();
    }
    if found.is_empty() {
        return Err(bad("it tells no file"));
    }
    let set = FileSet { file: found.into_values().map(|(_, descriptor)| descriptor).collect() };
    Ok(set.encode_to_vec().into())
}

fn bad(problem: &'static str) -> Fault {
    Fault::new(Code::Internal, "REFLECTION", problem)
}

/// Asks questions on one stream; gives the answers.
async fn ask(endpoint: &Endpoint, path: &str, questions: Vec<Question>) -> Result<Vec<Told>, Fault> {
    let dialer = Dialer::new(endpoint, None, &[b"h2"], PATIENCE)
        .map_err(|error| Fault::new(Code::Unavailable, "REFLECTION", error.to_string()))?;
    let lost = |_| Fault::new(Code::Unavailable, "REFLECTION", "the connection was closed");
    let stream = dialer.dial().await?;
    let (mut sender, connection) =
        http2::Builder::new(LocalExecutor).handshake(TokioIo::new(stream)).await.map_err(lost)?;
    let driving = tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    let mut body = Vec::new();
    let count = questions.len();
    for question in questions {
        let asked = Asked { host: String::new(), question: Some(question) };
        let (first, second) = framed(&asked.encode_to_vec().into(), None)?;
        body.extend_from_slice(&first);
        body.extend_from_slice(&second.unwrap_or_default());
    }
    let scheme = if endpoint.secure { "https" } else { "http" };
    let mut request = Request::new(crate::outbound::whole_body(body.into()));
    *request.method_mut() = http::Method::POST;
    let authority = endpoint.authority.to_str().unwrap_or("");
    *request.uri_mut() = http::Uri::builder()
        .scheme(scheme)
        .authority(authority)
        .path_and_query(path)
        .build()
        .map_err(|_| bad("its address cannot be asked"))?;
    let headers = request.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(http::header::TE, HeaderValue::from_static("trailers"));
    let response = sender.send_request(request).await.map_err(lost)?;
    let (head, body) = response.into_parts();
    if let Some(Err(code)) = settle::status_of(&head.headers) {
        return Err(Fault::new(code, "REFLECTION", "it does not offer reflection"));
    }
    let mut reader = MessageReader::new(body, None, ANSWER_LEN_MAX, |_| bad("the connection was closed"));
    let mut answers = Vec::with_capacity(count);
    while let Some(answer) = future::poll_fn(|cx| reader.poll_message(cx)).await.transpose()? {
        answers.push(Told::decode(answer).map_err(|_| bad("an answer cannot be read"))?);
    }
    let trailers = reader.take_trailers().unwrap_or_default();
    driving.abort();
    match settle::status_of(&trailers) {
        Some(Err(code)) => Err(Fault::new(code, "REFLECTION", "it does not offer reflection")),
        _ => Ok(answers),
    }
}
