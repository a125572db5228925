//! The ports between the gateway and its adapters.
//!
//! ```text
//! outside ─▶ Inbound ─▶ Ingress::admit ─▶ Admission::dispatch ─▶ Outcome ─▶ outside
//!                                               │
//!                                          Outbound::call ─▶ service
//! ```
//!
//! An [`Adapter`] reads its own part of the settings into specs, and opens listeners and services from them. It knows
//! nothing of routes; the gateway knows nothing of its protocol. What an adapter must do is written in [`contract`] as a
//! suite of checks, which every adapter runs against itself; [`memory`] is the adapter that needs no network.
//!
//! Ports that carry messages are not `Send`: they live on one data arbiter, and a call never changes threads.

mod acknowledgement;
mod adapter;
mod binding;
mod calls;
pub mod contract;
mod dead_letters;
mod encode;
mod failpoint;
pub mod memory;
pub mod offload;
mod pending;
mod ports;
mod root;
mod template;
mod turn;

pub use acknowledgement::{Acknowledgement, Decision};
pub use adapter::{
    Adapter, AdapterError, Address, Cancels, Capabilities, Delivery, EntryContext, EntryFinding, EntrySpec,
    HeaderCondition, ListenerSpec, OperationSpec, Schemas, ServiceSpec,
};
pub use binding::{Binding, BodyBinding, address_field};
pub use calls::known_call;
pub use dead_letters::{Choice, DeadLetter, DeadLetters, Visit};
pub use encode::{EncodedBody, WriteFormat, encode_body, is_long_to_encode, take_body_apart};
pub use failpoint::failpoint;
pub use pending::{Expected, PendingReplies, Unwanted};
pub use ports::{
    Admission, Exchange, Fields, Head, Inbound, Ingress, LocalFuture, NoFields, OpenIngress, Outbound, Outcome,
    SendFuture, header_twice,
};
pub use root::xml_root;
pub use template::{Part, PathTemplate, Segment, TemplateError};
pub use turn::{Hold, Turn};
