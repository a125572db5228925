//! Sends the requests of route tests over HTTP.

use bytes::Bytes;
use crossdock_contract::Contracts;
use crossdock_message::{Code, Limits, Value, json, xml};
use crossdock_ports::{EntrySpec, LocalFuture, TestClient, TestReply, TestRequest};

use crate::client::{Request, Response, send};

pub(crate) struct HttpTestClient;

impl TestClient for HttpTestClient {
    fn listener(&self) -> &'static str {
        "bind: \"127.0.0.1:0\""
    }

    fn send<'a>(
        &'a self,
        address: &'a str,
        _: &'a dyn EntrySpec,
        _: &'a Contracts,
        request: &'a TestRequest,
    ) -> LocalFuture<'a, Result<TestReply, String>> {
        Box::pin(async move {
            let headers = request.headers.iter().map(|(name, value)| (name.to_string(), value.to_string()));
            let mut headers: Vec<(String, String)> = headers.collect();
            if let Some((_, media_type)) = &request.body {
                headers.push(("content-type".into(), (*media_type).into()));
            }
            if let Some(timeout) = request.timeout {
                headers.push(("crossdock-timeout".into(), format!("{}ms", timeout.as_millis())));
            }
            let body = request.body.as_ref().map_or("", |(body, _)| body);
            let sent = Request { method: &request.method, target: &request.path, headers, body };
            let response = send(address, &sent).await?;
            let code = problem_code(&response);
            Ok(TestReply { status: Some(response.status), headers: response.headers, body: response.body, code })
        })
    }
}

/// The code in the problem document of a response.
fn problem_code(response: &Response) -> Option<Code> {
    if (200..300).contains(&response.status) {
        return None;
    }
    let bytes = Bytes::copy_from_slice(response.body.as_bytes());
    let problem = if response.header("content-type")?.contains("xml") {
        xml::read(&bytes, &Limits::default()).ok()?
    } else {
        json::read(&bytes, &Limits::default()).ok()?
    };
    let code = match problem.get("code")? {
        Value::Text(code) => code.clone(),
        Value::List(items) => items.first()?.get("$text")?.scalar_text()?,
        _ => return None,
    };
    Code::from_name(&code)
}
