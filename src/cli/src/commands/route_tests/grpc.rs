//! Route tests that make gRPC calls.

use crossdock_message::ByteString;
use crossdock_routing::{Plan, RoutePlan, RouteTest};

use super::stub::Stubs;
use super::{Response, Running, adapter_name, verify_with_code};
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
        entries.find(|entry| adapter_name(running, entry) == Some("grpc")).ok_or("the route has no gRPC entry")?;
    let address = running.listener(&entry.address().listener).ok_or("the listener of the route is not running")?;
    let reply_metadata: Vec<ByteString> = test.expect.headers.iter().map(|(name, _)| name.clone()).collect();
    let call = GrpcCall {
        call: entry.call_type().ok_or("the entry is opaque: a test can only call entries with a contract")?,
        json: test.given.body.as_ref().map_or("{}", |(text, _)| text),
        metadata: &test.given.headers,
        timeout: test.given.timeout,
        reply_metadata: &reply_metadata,
    };
    match grpc_client::call(address, &plan.contracts, &call).await? {
        Ok(response) => verify_with_code(test, &response, None, stubs),
        Err(fault) => {
            let response = Response { status: 0, headers: Vec::new(), body: fault.message.to_string() };
            verify_with_code(test, &response, Some(fault.code), stubs)
        }
    }
}
