//! The calls of the demo: what is asked, what services get, what is answered, and whether it is right.

use bytes::Bytes;
use crossdock_message::{Limits, json};

use super::services::{Samples, Seen};
use crate::client::{Request, Response, send};
use crate::grpc_client::{self, GrpcCall};
use crossdock_gateway::Running;

#[derive(Clone, Copy)]
struct Call<'a> {
    title: &'a str,
    method: &'a str,
    target: &'a str,
    body: &'a str,
    /// The service that takes the call; `None` where the gateway has to answer itself.
    seen: Option<&'a Seen>,
    status: u16,
    /// A call of gRPC; then the target is its method.
    grpc: bool,
    /// A JSON body, compared by value; empty where only the status and `contains` count.
    answer: &'a str,
    contains: &'a str,
}

/// Makes all calls; says how many were right and how many were not.
pub(super) async fn make(running: &Running, address: &str, samples: &Samples, stock: &Seen) -> (usize, usize) {
    let (mut right, mut wrong) = (0, 0);
    for call in calls(samples, stock) {
        println!("\n── {}", call.title);
        println!("   request     {} {} {}", call.method, call.target, call.body);
        let answered = if call.grpc { over_grpc(running, &call).await } else { over_http(address, &call).await };
        let judged = match answered {
            Err(problem) => Err(problem),
            Ok(answer) => {
                let got = call.seen.and_then(Seen::take);
                println!("   translated  {}", got.as_deref().unwrap_or("(no service was called)"));
                println!("   answer      {} {}", answer.status, answer.body);
                judge(&call, answer.status, &answer.body, got.is_some())
            }
        };
        match judged {
            Ok(()) => {
                right += 1;
                println!("   right");
            }
            Err(problem) => {
                wrong += 1;
                println!("   WRONG: {problem}");
            }
        }
    }
    (right, wrong)
}

async fn over_http(address: &str, call: &Call<'_>) -> Result<Response, String> {
    let headers = if call.body.is_empty() { vec![] } else { vec![("content-type".into(), "application/json".into())] };
    send(address, &Request { method: call.method, target: call.target, headers, body: call.body }).await
}

/// The status is that of HTTP which the code would have.
async fn over_grpc(running: &Running, call: &Call<'_>) -> Result<Response, String> {
    let address = running.listener("internal").ok_or("the settings have no listener `internal`")?;
    let plan = running.plan();
    let contracts = &plan.contracts;
    let call_type = contracts.call(call.target).ok_or("no contract has the method")?;
    let question = GrpcCall { call: &call_type, json: call.body, metadata: &[], timeout: None, wanted: &[] };
    Ok(grpc_client::call(address, contracts, &question).await?.unwrap_or_else(|fault| Response {
        status: fault.to_http(),
        headers: Vec::new(),
        body: format!("{}: {}", fault.code, fault.message),
    }))
}

fn judge(call: &Call<'_>, status: u16, body: &str, called: bool) -> Result<(), String> {
    if status != call.status {
        return Err(format!("the status should be {}", call.status));
    }
    if called != call.seen.is_some() {
        return Err("the service should have been called, or should not have been".into());
    }
    let read = |text: &str| json::read(&Bytes::copy_from_slice(text.as_bytes()), &Limits::default());
    if !call.answer.is_empty() && read(body) != read(call.answer) {
        return Err(format!("the answer should be {}", call.answer));
    }
    if !body.contains(call.contains) {
        return Err(format!("the answer should say `{}`", call.contains));
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
        answer: "",
        contains: "",
    };
    vec![
        Call {
            title: "a REST call, answered by a legacy XML service",
            target: "/v1/orders/1001",
            seen: Some(&samples.legacy_seen),
            answer: r#"{"id":"1001","status":"open","total":{"amount":1249.90,"currency":"EUR"},"lines":[{"sku":"085","quantity":2}]}"#,
            ..none
        },
        Call {
            title: "the same service says in its own way that there is no such order",
            target: "/v1/orders/9",
            seen: Some(&samples.legacy_seen),
            status: 404,
            contains: "there is no order 9",
            ..none
        },
        Call {
            title: "a JSON call to a JSON service: every digit arrives",
            method: "POST",
            target: "/v1/quotes",
            body: r#"{"customer":"c-7","lines":[{"sku":"085","quantity":12345678901234567.89}]}"#,
            seen: Some(&samples.pricing_seen),
            answer: r#"{"quote":18446744073709551615,"basket":[{"sku":"085","quantity":12345678901234567.89}]}"#,
            ..none
        },
        Call {
            title: "a REST call, answered by a gRPC service, by the annotations of its contract",
            target: "/v1/stock/085",
            seen: Some(stock),
            answer: r#"{"sku":"085","quantity":"9007199254740993","state":"AVAILABLE"}"#,
            ..none
        },
        Call {
            title: "a stream of the gRPC service, shown as server-sent events",
            target: "/v1/stock/085/changes",
            seen: Some(stock),
            contains: "data: {\"sku\":\"085\",\"state\":\"SOLD_OUT\"}",
            ..none
        },
        Call {
            title: "a gRPC call, answered by the JSON service",
            method: "gRPC",
            target: "stock.v1.Pricing/Price",
            body: r#"{"customer":"c-7","basket":[{"sku":"085","quantity":"2"}]}"#,
            seen: Some(&samples.pricing_seen),
            grpc: true,
            answer: r#"{"quote":"18446744073709551615","basket":[{"sku":"085","quantity":"2"}]}"#,
            ..none
        },
        Call {
            title: "a bad gRPC call, refused in gRPC's words",
            method: "gRPC",
            target: "stock.v1.Pricing/Price",
            body: r#"{"customer":"c-7"}"#,
            grpc: true,
            status: 400,
            contains: "invalid_argument: a basket needs at least one line",
            ..none
        },
        Call {
            title: "a bad call, refused before any service is asked",
            method: "POST",
            target: "/v1/quotes",
            body: r#"{"customer":"c-7","lines":[]}"#,
            status: 400,
            contains: "a quote needs at least one line",
            ..none
        },
        Call {
            title: "a call that is no JSON, refused with the place",
            method: "POST",
            target: "/v1/quotes",
            body: "{\"customer\":\"c-7\",\n \"lines\":[1,]}",
            status: 400,
            contains: "line 2, column 13",
            ..none
        },
        Call {
            title: "a call that no route takes",
            target: "/v2/orders",
            status: 404,
            contains: "nothing is served",
            ..none
        },
    ]
}
