//! Problem documents (RFC 9457), in JSON or XML.

use actix_http::StatusCode;
use crossdock_message::{ByteString, Fault, Record, Value, json, xml};

/// The problem document of a fault, and its media type. `id` is that of the request.
pub(crate) fn problem_document(
    fault: &Fault,
    status: u16,
    id: Option<&ByteString>,
    in_xml: bool,
) -> (Vec<u8>, &'static str) {
    let title = StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or("Client Closed Request");
    let mut problem = Record::new();
    problem.set("type", Value::from("about:blank"));
    problem.set("title", Value::from(title));
    problem.set("status", Value::Int(i64::from(status)));
    problem.set("detail", Value::Text(fault.message.clone()));
    problem.set("code", Value::from(fault.code.name()));
    problem.set("reason", Value::Text(fault.reason.to_text()));
    if let Some(id) = id {
        problem.set("request_id", Value::Text(id.clone()));
    }
    for (name, value) in fault.details.iter().filter(|(name, _)| name != "allow") {
        problem.set(name.clone(), Value::Text(value.clone()));
    }
    let problem = Value::Record(problem);
    if in_xml {
        // RFC 9457 appendix B.
        let root = xml::ExpandedName::parse("{urn:ietf:rfc:7807}problem");
        if let Some(Ok(document)) = root.map(|root| xml::write(&root, &problem)) {
            return (document, "application/problem+xml");
        }
    }
    (json::write(&problem).unwrap_or_default(), "application/problem+json")
}
