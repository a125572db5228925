//! Replies that report a fault: headers and a body.

use bytes::Bytes;
use crossdock_message::{ByteString, Code, Fault, Reason, Record, Value, json};

use crate::dead_letter::{ERROR, REASON, STATUS};

/// The body of a reply that reports a fault: a `google.rpc.Status` in JSON.
#[must_use]
pub fn fault_body(fault: &Fault) -> Bytes {
    let mut status = Record::new();
    status.set("code", Value::Int(i64::from(fault.code as u8)));
    status.set("message", Value::Text(fault.message.clone()));
    let mut details = Record::new();
    for (name, value) in &fault.details {
        details.set(name.clone(), Value::Text(value.clone()));
    }
    let mut info = Record::new();
    info.set("@type", Value::from("type.googleapis.com/google.rpc.ErrorInfo"));
    info.set("reason", Value::Text(fault.reason.to_text()));
    info.set("domain", Value::from("crossdock"));
    info.set("metadata", Value::Record(details));
    status.set("details", Value::List(vec![Value::Record(info)]));
    json::write(&Value::Record(status)).map(Bytes::from).unwrap_or_default()
}

/// The fault that the headers of a reply report ([`FaultHeaders`](crate::dead_letter::FaultHeaders)); `text` returns the text of a header.
pub fn reported_fault(text: impl Fn(&str) -> Option<ByteString>) -> Option<Fault> {
    let number: i32 = text(STATUS)?.parse().ok()?;
    if number == 0 {
        return None;
    }
    let code = Code::from_number(number).unwrap_or(Code::Unknown);
    let message = text(ERROR).unwrap_or_else(|| ByteString::from_static("the service failed"));
    let fault = Fault::new(code, "SERVICE_STATUS", message);
    Some(match text(REASON) {
        Some(reason) => Fault { reason: Reason::of_service(reason), ..fault },
        None => fault,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead_letter::FaultHeaders;

    #[test]
    fn a_fault_survives_a_reply() {
        let fault = Fault::new(Code::NotFound, "NO_ORDER", "there is no order 7").with_detail("order", "7");
        let headers = FaultHeaders::new(&fault);
        let (status, reason, error) = (headers.status.to_string(), headers.reason, headers.error);
        let text = |name: &str| {
            [(STATUS, &*status), (REASON, reason), (ERROR, error)]
                .into_iter()
                .find(|(other, _)| *other == name)
                .map(|(_, value)| ByteString::from(value))
        };
        let reported = reported_fault(text).expect("a fault");
        assert_eq!(
            (reported.code, reported.reason.as_str(), &*reported.message),
            (fault.code, "NO_ORDER", &*fault.message)
        );
        let body = fault_body(&fault);
        let body = std::str::from_utf8(&body).expect("text");
        for part in ["\"code\":5", "there is no order 7", "NO_ORDER", "\"order\":\"7\""] {
            assert!(body.contains(part), "{part} in {body}");
        }
        assert!(reported_fault(|_| None).is_none());
        assert!(reported_fault(|_| Some("0".into())).is_none(), "OK is no fault");
        assert_eq!(reported_fault(|_| Some("99".into())).map(|fault| fault.code), Some(Code::Unknown));
    }
}
