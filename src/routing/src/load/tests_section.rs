//! `tests`.

use crossdock_message::ByteString;
use crossdock_ports::TestRequest;
use crossdock_settings::{Duration, Named, Node, Reader, Spanned, nearest};

use super::{Loader, place_of};
use crate::route_test::{RouteTest, StubPlan, TestExpect};
use crate::scalars::CodeName;

crossdock_settings::settings! {
    /// a test
    pub(crate) struct TestSettings {
        /// What the test shows.
        pub(crate) name: String,
        /// The route under test.
        pub(crate) route: Spanned<String>,
        /// The request.
        pub(crate) given: GivenSettings,
        /// The answers of services, by `service` or `service.operation`.
        pub(crate) stub: Named<StubSettings>,
        /// What is expected.
        pub(crate) expect: ExpectSettings,
    }

    /// the request of a test
    pub(crate) struct GivenSettings {
        /// The method; GET by default, POST if there is a body.
        pub(crate) method: Option<String>,
        /// The path with its query; not for a gRPC call.
        pub(crate) path: Option<String>,
        /// Headers.
        pub(crate) headers: Named<String>,
        /// A JSON body.
        pub(crate) json: Option<String>,
        /// An XML body.
        pub(crate) xml: Option<String>,
        /// A gRPC call with this message, in JSON.
        pub(crate) grpc: Option<String>,
        /// How long the caller waits.
        pub(crate) timeout: Option<Duration>,
    }

    /// a stub
    pub(crate) struct StubSettings {
        /// The delay of the answer.
        pub(crate) after: Duration = Duration(std::time::Duration::ZERO),
        /// Answers with this JSON body.
        pub(crate) json: Option<String>,
        /// Answers with this XML body.
        pub(crate) xml: Option<String>,
        /// Fails with this code.
        pub(crate) fault: Option<CodeName>,
    }

    /// what a test expects
    pub(crate) struct ExpectSettings {
        /// The HTTP status.
        pub(crate) status: Option<u16>,
        /// The code of a fault.
        pub(crate) code: Option<CodeName>,
        /// The JSON body, compared by value.
        pub(crate) json: Option<String>,
        /// The XML body, compared by value.
        pub(crate) xml: Option<String>,
        /// Headers that must be present.
        pub(crate) headers: Named<String>,
        /// The bodies that services must have received.
        pub(crate) sent: Named<SentSettings>,
    }

    /// what a service must have received
    pub(crate) struct SentSettings {
        /// A JSON body, compared by value.
        pub(crate) json: Option<String>,
        /// An XML body, compared by value.
        pub(crate) xml: Option<String>,
    }
}

type BodyText = Option<(ByteString, &'static str)>;

fn body(json: Option<&String>, xml: Option<&String>) -> BodyText {
    match (json, xml) {
        (Some(json), _) => Some((json.as_str().into(), "application/json")),
        (None, Some(xml)) => Some((xml.as_str().into(), "application/xml")),
        (None, None) => None,
    }
}

fn pairs(named: &Named<String>) -> Vec<(ByteString, ByteString)> {
    named.0.iter().map(|(name, value)| (name.value.to_ascii_lowercase().into(), value.as_str().into())).collect()
}

impl Loader<'_> {
    pub(super) fn test(&mut self, node: &Node, reader: &mut Reader<'_>) {
        let Some(test) = <TestSettings as crossdock_settings::FromNode>::from_node(node, reader) else { return };
        if !self.route_names.iter().any(|(name, _)| *name == test.route.value) {
            let help = match nearest(&test.route, self.route_names.iter().map(|(name, _)| &**name)) {
                Some(meant) => format!("write `{meant}`"),
                None => "name a route".to_owned(),
            };
            reader.error("unknown-route", test.route.span, format!("there is no route `{}`", test.route.value), help);
            return;
        }
        let sent_names = test.expect.sent.0.iter().map(|(name, _)| name);
        for name in test.stub.0.iter().map(|(name, _)| name).chain(sent_names) {
            if name.value.contains('.') {
                self.services.operation(name, None, reader);
            } else if !self.services.is_declared(&name.value) {
                self.services.report_unknown(&name.value, name.span, "name a service".to_owned(), reader);
            }
        }
        let two = |json: &Option<String>, xml: &Option<String>| json.is_some() && xml.is_some();
        let stubs_twice = test.stub.0.iter().any(|(_, stub)| {
            two(&stub.json, &stub.xml) || stub.fault.is_some() && (stub.json.is_some() || stub.xml.is_some())
        });
        let sent_twice = test.expect.sent.0.iter().any(|(_, sent)| two(&sent.json, &sent.xml));
        if two(&test.given.json, &test.given.xml)
            || two(&test.expect.json, &test.expect.xml)
            || stubs_twice
            || sent_twice
        {
            let help = "write one of `json`, `xml` and `fault`";
            reader.error("body-twice", node.span, "the test has two bodies where only one is allowed", help);
        }
        let ways = [test.given.path.is_some(), test.given.grpc.is_some()];
        if ways != [true, false] && ways != [false, true] {
            let help = "write `path: /…` for an HTTP request, or `grpc: '{…}'` for a gRPC call";
            reader.error("test-given", node.span, "a test has either one HTTP request or one gRPC call", help);
        }
        let message = test.given.grpc.as_ref().or(test.given.json.as_ref());
        let given_body = body(message, test.given.xml.as_ref());
        let method = test.given.method.as_deref().unwrap_or(if given_body.is_some() { "POST" } else { "GET" });
        let stubs = test.stub.0.iter().map(|(name, stub)| {
            let plan = StubPlan {
                after: stub.after.0,
                body: body(stub.json.as_ref(), stub.xml.as_ref()),
                fault: stub.fault.map(|code| code.0),
            };
            (name.value.as_str().into(), plan)
        });
        let sent = test
            .expect
            .sent
            .0
            .iter()
            .map(|(name, sent)| (name.value.as_str().into(), body(sent.json.as_ref(), sent.xml.as_ref())));
        let expected_headers = pairs(&test.expect.headers);
        self.plan.tests.push(RouteTest {
            place: place_of(node.span, reader),
            route: test.route.value.as_str().into(),
            adapter: if test.given.grpc.is_some() { "grpc" } else { "http" },
            given: TestRequest {
                method: method.into(),
                path: test.given.path.as_deref().unwrap_or("").into(),
                headers: pairs(&test.given.headers),
                body: given_body,
                timeout: test.given.timeout.map(|timeout| timeout.0),
                reply_headers: expected_headers.iter().map(|(name, _)| name.clone()).collect(),
            },
            stubs: stubs.collect(),
            expect: TestExpect {
                status: test.expect.status,
                code: test.expect.code.map(|code| code.0),
                body: body(test.expect.json.as_ref(), test.expect.xml.as_ref()),
                headers: expected_headers,
                sent: sent.collect(),
            },
            name: test.name,
        });
    }
}
