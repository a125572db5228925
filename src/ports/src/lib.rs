//! The ports between the gateway and its adapters.
//!
//! ```text
//! client ─▶ Inbound ─▶ Ingress::admit ─▶ Exchange::dispatch ─▶ Outcome ─▶ client
//!                                              │
//!                                         Outbound::call ─▶ service
//! ```
//!
//! An [`Adapter`] reads its part of the settings into specs, and opens listeners and services from them. Adapters know no routes; the
//! gateway knows no protocol. The crate is pure: it names no executor and starts no thread.
//!
//! Ports that carry messages are not `Send`: they belong to one data arbiter, and a call never changes threads.

mod adapter;
mod binding;
mod body_format;
mod calls;
mod claims;
mod dead_letters;
mod encode;
mod key_template;
mod locks;
mod order_guard;
mod ports;
mod queues;
mod status;
mod template;
mod test_client;
mod xml_root;

pub use adapter::{
    Adapter, AdapterError, Address, Cancels, Capabilities, Delivery, EntryContext, EntryFinding, EntrySpec,
    HeaderCondition, ListenerSpec, OperationSpec, Schemas, ServiceSpec,
};
pub use binding::{Binding, BodyBinding, address_field};
pub use body_format::BodyFormat;
pub use calls::known_call;
pub use claims::{Claim, ClaimGuard, Claimed};
pub use dead_letters::{Choice, DeadLetter, DeadLetters, Visit};
pub use encode::{EncodedBody, WriteFormat, encode_body, passes_unchanged};
pub use key_template::KeyTemplate;
pub use locks::{
    EngineRow, LockEngine, LockError, LockGrant, LockLoss, LockMode, LockRequest, LockWait, SequenceError,
};
pub use order_guard::{Held, OrderGuard};
pub use ports::{
    Admission, Exchange, Fields, Head, Inbound, Ingress, LocalFuture, NoFields, OpenIngress, Outbound, Outcome,
    SendFuture, Stop, header_twice,
};
pub use queues::{Enqueue, QueueMessage, QueueSource};
pub use status::{PortStatus, ReportStatus, SourceStatus};
pub use template::{Part, PathTemplate, Segment, TemplateError};
pub use test_client::{TestClient, TestReply, TestRequest};
pub use xml_root::xml_root;
