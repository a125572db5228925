//! The calls of the demo, with the expected responses.

use bytes::Bytes;
use crossdock_message::{Limits, json};

use super::services::{Samples, Seen};
use crossdock_gateway::Running;
use crossdock_grpc::client::{self, GrpcCall};
use crossdock_http::client::{Request, Response, send};

#[derive(Clone, Copy)]
struct Call<'a> {
    title: &'a str,
    method: &'a str,
    target: &'a str,
    body: &'a str,
    /// The service that must receive the call; `None` if the gateway must reject it.
    seen: Option<&'a Seen>,
    status: u16,
    /// A gRPC call; `target` is its method.
    grpc: bool,
    /// The expected JSON body, compared by value; not checked if empty.
    response: &'a str,
    contains: &'a str,
}

/// Makes all calls; returns how many passed and how many failed.
pub(super) async fn make(running: &Running, address: &str, samples: &Samples, stock: &Seen) -> (usize, usize) {
    let (mut passed, mut failed) = (0, 0);
    for call in calls(samples, stock) {
        println!("\n── {}", call.title);
        println!("   request     {} {} {}", call.method, call.target, call.body);
        let response = if call.grpc { over_grpc(running, &call).await } else { over_http(address, &call).await };
        let result = match response {
            Err(problem) => Err(problem),
            Ok(response) => {
                let received = call.seen.and_then(Seen::take);
                println!("   translated  {}", received.as_deref().unwrap_or("(no service was called)"));
                println!("   response    {} {}", response.status, response.body);
                verify(&call, response.status, &response.body, received.is_some())
            }
        };
        match result {
            Ok(()) => {
                passed += 1;
                println!("   passed");
            }
            Err(problem) => {
                failed += 1;
                println!("   FAILED: {problem}");
            }
        }
    }
    (passed, failed)
}

async fn over_http(address: &str, call: &Call<'_>) -> Result<Response, String> {
    let headers = if call.body.is_empty() { vec![] } else { vec![("content-type".into(), "application/json".into())] };
    send(address, &Request { method: call.method, target: call.target, headers, body: call.body }).await
}

/// Makes a gRPC call; the status of a fault is its HTTP equivalent.
async fn over_grpc(running: &Running, call: &Call<'_>) -> Result<Response, String> {
    let address = running.listener("internal").ok_or("the settings must have a listener `internal`")?;
    let plan = running.plan();
    let contracts = &plan.contracts;
    let call_type = contracts.call(call.target).ok_or("no contract defines the method")?;
    let request = GrpcCall { call: &call_type, json: call.body, metadata: &[], timeout: None, reply_metadata: &[] };
    let (status, body) = match client::call(address, contracts, &request).await? {
        Ok(reply) => (200, reply.json),
        Err(fault) => (fault.to_http(), format!("{}: {}", fault.code, fault.message)),
    };
    Ok(Response { status, headers: Vec::new(), body })
}

fn verify(call: &Call<'_>, status: u16, body: &str, called: bool) -> Result<(), String> {
    if status != call.status {
        return Err(format!("expected status {}", call.status));
    }
    if called != call.seen.is_some() {
        return Err(if called { "expected no call of a service" } else { "expected a call of the service" }.into());
    }
    let read = |text: &str| json::read(&Bytes::copy_from_slice(text.as_bytes()), &Limits::default());
    if !call.response.is_empty() && read(body) != read(call.response) {
        return Err(format!("expected the response {}", call.response));
    }
    if !body.contains(call.contains) {
        return Err(format!("expected the response to contain `{}`", call.contains));
    }
    Ok(())
}

fn calls<'s>(samples: &'s Samples, stock: &'s Seen) -> Vec<Call<'s>> {
    let none = Call {
        title: "",
        method: "GET",
        target: "",
        body: "",
        seen: None,
        status: 200,
        grpc: false,
        response: "",
        contains: "",
    };
    vec![
        Call {
            title: "a REST request to a legacy XML service",
            target: "/v1/orders/1001",
            seen: Some(&samples.legacy_seen),
            response: r#"{"id":"1001","status":"open","total":{"amount":1249.90,"currency":"EUR"},"lines":[{"sku":"085","quantity":2}]}"#,
            ..none
        },
        Call {
            title: "an error of the XML service becomes 404",
            target: "/v1/orders/9",
            seen: Some(&samples.legacy_seen),
            status: 404,
            contains: "there is no order 9",
            ..none
        },
        Call {
            title: "a JSON request to a JSON service keeps every digit",
            method: "POST",
            target: "/v1/quotes",
            body: r#"{"customer":"c-7","lines":[{"sku":"085","quantity":12345678901234567.89}]}"#,
            seen: Some(&samples.pricing_seen),
            response: r#"{"quote":18446744073709551615,"basket":[{"sku":"085","quantity":12345678901234567.89}]}"#,
            ..none
        },
        Call {
            title: "a REST request to a gRPC service, mapped by the annotations of its contract",
            target: "/v1/stock/085",
            seen: Some(stock),
            response: r#"{"sku":"085","quantity":"9007199254740993","state":"AVAILABLE"}"#,
            ..none
        },
        Call {
            title: "a gRPC stream as server-sent events",
            target: "/v1/stock/085/changes",
            seen: Some(stock),
            contains: "data: {\"sku\":\"085\",\"state\":\"SOLD_OUT\"}",
            ..none
        },
        Call {
            title: "a gRPC call to a JSON service",
            method: "gRPC",
            target: "stock.v1.Pricing/Price",
            body: r#"{"customer":"c-7","basket":[{"sku":"085","quantity":"2"}]}"#,
            seen: Some(&samples.pricing_seen),
            grpc: true,
            response: r#"{"quote":"18446744073709551615","basket":[{"sku":"085","quantity":"2"}]}"#,
            ..none
        },
        Call {
            title: "an invalid gRPC call is rejected with a gRPC status",
            method: "gRPC",
            target: "stock.v1.Pricing/Price",
            body: r#"{"customer":"c-7"}"#,
            grpc: true,
            status: 400,
            contains: "invalid_argument: a basket needs at least one line",
            ..none
        },
        Call {
            title: "an invalid request is rejected before a service is called",
            method: "POST",
            target: "/v1/quotes",
            body: r#"{"customer":"c-7","lines":[]}"#,
            status: 400,
            contains: "a quote needs at least one line",
            ..none
        },
        Call {
            title: "malformed JSON is rejected with the position of the error",
            method: "POST",
            target: "/v1/quotes",
            body: "{\"customer\":\"c-7\",\n \"lines\":[1,]}",
            status: 400,
            contains: "line 2, column 13",
            ..none
        },
        Call {
            title: "a request that matches no route",
            target: "/v2/orders",
            status: 404,
            contains: "no route matches",
            ..none
        },
    ]
}
