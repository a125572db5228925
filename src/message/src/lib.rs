//! The canonical message (Enterprise Integration Patterns: Canonical Data Model), which every adapter converts its wire format to and from.
//!
//! Plain data and pure functions: no I/O, no clock, no random numbers, no executor, no actors.
//!
//! | module | contents |
//! | --- | --- |
//! | [`message`](Message) | the envelope: identity, deadline, trace context, content type, headers, parameters, body |
//! | [`body`](Body) | a body that stays raw bytes until its value is needed |
//! | [`stream`](BodyStream) | a stream of bodies with back-pressure |
//! | [`value`](Value) | the typed value of all formats; numbers keep every digit |
//! | [`event`](Event) | the attributes of an event (CloudEvents) |
//! | [`fault`](Fault) | the error model, and the table that maps it to protocols |
//! | [`json`], [`xml`] | one exact codec per format, with limits on depth, size and counts |

mod body;
mod confirmed;
mod context;
mod decimal;
mod event;
mod fault;
mod headers;
pub mod json;
mod json_stream;
mod limits;
mod message;
mod reason;
mod stream;
mod time;
mod value;
pub mod xml;

pub use body::{Body, BodyType, Chunks, Format};
pub use bytestring::ByteString;
pub use confirmed::ConfirmedSends;
pub use context::{RequestContext, TlsIdentity, TraceContext};
pub use decimal::{Decimal, DecimalError};
pub use event::{Event, EventError};
pub use fault::{Cause, Code, EndpointVerdict, Fault, Origin, Retry, ServiceStatus};
pub use headers::{HeaderError, Headers, is_list_header};
pub use json_stream::{NotAStream, stream_from_json, stream_of};
pub use limits::Limits;
pub use message::{Deadline, Message};
pub use reason::Reason;
pub use stream::{BodyStream, StreamCell};
pub use time::{Time, TimeSpan, date_from_days};
pub use value::{Record, Shape, Value};
