//! Replies and faults.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use crossdock_message::{BodyType, ByteString, Code, Fault, Origin, Reason, Retry, ServiceStatus};
use crossdock_ports::Outcome;
use prost::Message as _;

use crate::message::{from_wire, pairs_of, read_pairs, to_wire};
use crate::{Error, wire};

/// An outcome as bytes. The body of a reply must be encoded.
///
/// # Errors
/// The body of the reply is a stream, or a value that is not encoded.
pub fn store_outcome(outcome: &Outcome) -> Result<Bytes, Error> {
    let result = match outcome {
        Outcome::Replied(reply) => wire::Result::Replied(Box::new(wire::Stored { context: None, ..to_wire(reply)? })),
        Outcome::Accepted => wire::Result::Accepted(wire::Accepted {}),
        Outcome::Failed(fault) => wire::Result::Failed(fault_of(fault)),
    };
    Ok(wire::Outcome { result: Some(result) }.encode_to_vec().into())
}

/// Reads the bytes of an outcome. The body of a reply is of this type, if it has one.
///
/// # Errors
/// They are damaged, or the body is of another type.
pub fn restore_outcome(bytes: Bytes, of_type: Option<Arc<dyn BodyType>>) -> Result<Outcome, Error> {
    match wire::Outcome::decode(bytes).map(|outcome| outcome.result) {
        Ok(Some(wire::Result::Replied(reply))) => from_wire(*reply, of_type).map(Outcome::Replied),
        Ok(Some(wire::Result::Accepted(_))) => Ok(Outcome::Accepted),
        Ok(Some(wire::Result::Failed(fault))) => read_fault(fault).map(Outcome::Failed),
        _ => Err(Error::Unreadable),
    }
}

/// What an operator needs to know stays in the log of the instance where it happened.
fn fault_of(fault: &Fault) -> wire::Fault {
    let (retry, retry_ms) = match fault.retry {
        Retry::Never => (0, 0),
        Retry::Same => (1, 0),
        Retry::After(delay) => (2, u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)),
    };
    let (origin, service_name) = match &fault.origin {
        Origin::Caller => (0, String::new()),
        Origin::Gateway => (1, String::new()),
        Origin::Service(name) => (2, name.to_string()),
    };
    let pair =
        |(name, value): &(ByteString, ByteString)| wire::Pair { name: name.to_string(), value: value.to_string() };
    wire::Fault {
        code: fault.code as u32,
        reason: fault.reason.as_str().to_owned(),
        message: fault.message.to_string(),
        retry,
        retry_ms,
        details: fault.details.iter().map(pair).collect(),
        origin,
        service_name,
        http_status: fault.http_status.map(u32::from),
        service_status: fault.service.as_ref().map(|service| service.status.clone()),
        service_headers: fault.service.as_ref().map(|service| pairs_of(&service.headers)).unwrap_or_default(),
    }
}

fn read_fault(fault: wire::Fault) -> Result<Fault, Error> {
    let code = i32::try_from(fault.code).ok().and_then(Code::from_number).ok_or(Error::Unreadable)?;
    // Which one of this release it is does not matter to adapters: they pass its text on.
    let mut read = Fault::new(code, Reason::of_service(fault.reason.into()), fault.message);
    read.retry = match fault.retry {
        0 => Retry::Never,
        1 => Retry::Same,
        _ => Retry::After(Duration::from_millis(fault.retry_ms)),
    };
    read.details = fault.details.into_iter().map(|pair| (pair.name.into(), pair.value.into())).collect();
    read.origin = match fault.origin {
        0 => Origin::Caller,
        1 => Origin::Gateway,
        _ => Origin::Service(fault.service_name.into()),
    };
    read.http_status = fault.http_status.map(u16::try_from).transpose().map_err(|_| Error::Unreadable)?;
    if let Some(status) = fault.service_status {
        read.service = Some(Box::new(ServiceStatus { status, headers: read_pairs(fault.service_headers)? }));
    }
    Ok(read)
}
