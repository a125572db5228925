//! A test that is a call of gRPC.

use crossdock_message::ByteString;
use crossdock_routing::{Plan, RoutePlan, RouteTest};

use super::stub::Stubs;
use super::{Response, Running, entry_kind, judge_coded};
use crate::grpc_client::{self, GrpcCall};

pub(super) async fn run_one(
    running: &Running,
    plan: &Plan,
    route: &RoutePlan,
    test: &RouteTest,
    stubs: &Stubs,
) -> Result<(), String> {
    let mut entries = route.entries.iter();
    let entry =
        entries.find(|entry| entry_kind(running, entry) == Some("grpc")).ok_or("the route takes no call of gRPC")?;
    let address = running.listener(&entry.address().listener).ok_or("the route's listener does not run")?;
    let wanted: Vec<ByteString> = test.expect.headers.iter().map(|(name, _)| name.clone()).collect();
    let ask = GrpcCall {
        call: entry.call_type().ok_or("the entry is opaque: a test can only call those that have a contract")?,
        json: test.given.body.as_ref().map_or("{}", |(text, _)| text),
        metadata: &test.given.headers,
        timeout: test.given.timeout,
        wanted: &wanted,
    };
    match grpc_client::call(address, &plan.contracts, &ask).await? {
        Ok(answer) => judge_coded(test, &answer, None, stubs),
        Err(fault) => {
            let answer = Response { status: 0, headers: Vec::new(), body: fault.message.to_string() };
            judge_coded(test, &answer, Some(fault.code), stubs)
        }
    }
}
