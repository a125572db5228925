//! Replies to requests: records that name a topic for their reply.

use std::sync::Arc;

use bytes::Bytes;
use crossdock_delivery::dead_letter::{self as letter, FaultHeaders};
use crossdock_delivery::fault_body;
use crossdock_message::{Body, BodyType, ByteString, Code, Fault, Message};
use crossdock_offload::encode_and_take_body;
use crossdock_ports::Outcome;
use rdkafka::message::{Header, OwnedHeaders};

use super::handler::Handler;
use super::{ROUTES_INTERVAL, retry_backoff};
use crate::config::Entry;
use crate::correlation::ReplyAddress;
use crate::mapping;
use crate::producer::Record;

/// A reply without its address.
struct Reply {
    headers: OwnedHeaders,
    value: Option<Bytes>,
}

impl Handler<'_> {
    /// Processes a request; returns whether it is settled. It is executed once as long as its partition is owned, even if its reply has to be sent
    /// several times.
    pub(super) async fn process_request(&self, entry: &Entry, address: &ReplyAddress) -> bool {
        let outcome = loop {
            match self.dispatch(None).await {
                Ok(outcome) => break outcome,
                // The route may come back before its partitions are revoked.
                Err(_) if self.sleep(ROUTES_INTERVAL).await => {}
                Err(_) => return false,
            }
        };
        let reply = match outcome {
            Outcome::Replied(message) => encode(entry, message).await,
            Outcome::Accepted => encode(entry, Message::new(ByteString::new(), ByteString::new())).await,
            Outcome::Failed(fault) => fault_reply(&fault),
        };
        self.send_reply(entry, address, reply).await
    }

    async fn send_reply(&self, entry: &Entry, address: &ReplyAddress, mut reply: Reply) -> bool {
        let mut backoff = retry_backoff();
        let mut is_replaced = false;
        loop {
            let record = Record {
                topic: &address.topic,
                partition: address.partition,
                key: self.record().key.as_deref(),
                value: reply.value.as_deref(),
                headers: entry.convention.add_to_reply(reply.headers.clone(), address.id.as_ref()),
                timestamp: None,
            };
            match self.context.producer.send(record).await {
                Ok(()) => return true,
                Err(fault) if fault.reason.as_str() == "NO_TOPIC" => {
                    return self.reject(&fault, &entry.reject_policy, 1).await;
                }
                Err(fault) if matches!(fault.code, Code::Unavailable | Code::ResourceExhausted) => {
                    tracing::warn!(topic = %address.topic, problem = %fault, "reply not sent; retrying");
                }
                Err(fault) if is_replaced => return self.reject(&fault, &entry.reject_policy, 1).await,
                Err(_) => {
                    // The request was executed: tell the requester that its reply cannot be delivered.
                    let fault = Fault::new(Code::Internal, "ANSWER_REFUSED", "the brokers refuse the reply");
                    reply = fault_reply(&fault);
                    is_replaced = true;
                    continue;
                }
            }
            if !self.sleep(backoff.next_delay()).await {
                return false;
            }
        }
    }
}

async fn encode(entry: &Entry, mut reply: Message) -> Reply {
    let of_type = entry.call.as_ref().map(|call| Arc::clone(&call.reply) as Arc<dyn BodyType>);
    let is_null = matches!(reply.body, Body::Null);
    match encode_and_take_body(&mut reply, &entry.reply_format, of_type.as_ref()).await {
        Ok(body) => Reply {
            headers: mapping::record_headers(&reply, body.content_type.as_ref(), &[]),
            value: (!is_null).then(|| body.chunks.to_bytes()),
        },
        // A reply that cannot be encoded is an internal error, not the requester's.
        Err(fault) => fault_reply(&Fault { code: Code::Internal, ..fault }),
    }
}

fn fault_reply(fault: &Fault) -> Reply {
    let of_fault = FaultHeaders::new(fault);
    let status = of_fault.status.to_string();
    let mut headers = OwnedHeaders::new();
    for (key, value) in [
        (letter::STATUS, &*status),
        (letter::REASON, of_fault.reason),
        (letter::ERROR, of_fault.error),
        (letter::ORIGIN, of_fault.origin),
        (mapping::CONTENT_TYPE, "application/json"),
    ] {
        headers = headers.insert(Header { key, value: Some(value) });
    }
    Reply { headers, value: Some(fault_body(fault)) }
}
