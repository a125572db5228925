//! CloudEvents 1.0.2, as adapters exchange them.
//!
//! In **binary** mode the body of a message is the data of the event, and headers have its attributes: `ce-id` over HTTP, gRPC and AMQP, `ce_id` over
//! Kafka. In **structured** mode the body is a JSON document with both.
//!
//! Either way, attributes become the [`Event`](crossdock_message::Event) of a message and data its body, so that routes see no difference. Data stays the bytes that were
//! received, wherever the mode allows.

mod attributes;
mod framed;
mod header_text;
mod receive;
mod received;
mod structured;

pub use attributes::{Attributes, VERSION};
pub use framed::{Framed, frame, has_data, outgoing};
pub use header_text::{decode_header, encode_header};
pub use receive::receive;
pub use received::{Data, Received};

crossdock_settings::choices! {
    /// How received messages are framed.
    pub enum EntryEnvelope {
        /// A message is its body and headers.
        Plain = "plain",
        /// A message is an event of CloudEvents, in binary or structured mode; any other is refused.
        CloudEvents = "cloudevents",
    }
}

crossdock_settings::choices! {
    /// How messages that are sent are framed.
    pub enum Envelope {
        /// A message is its body and headers.
        Plain = "plain",
        /// An event of CloudEvents in binary mode: headers have its attributes, and the body is its data.
        CloudEvents = "cloudevents",
        /// An event of CloudEvents in structured mode: one document has its attributes and data.
        Structured = "cloudevents-structured",
    }
}
