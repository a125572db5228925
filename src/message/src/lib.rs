//! The canonical message: what every adapter turns its wire format into, and back from.
//!
//! Plain data and pure functions. Nothing here performs I/O, reads a clock, draws a random number, or knows of an
//! executor or an actor.
//!
//! | module | holds |
//! | --- | --- |
//! | [`message`](Message) | the envelope: identity, deadline, trace context, content type, headers, parameters, body |
//! | [`body`](Body) | a body that stays raw bytes until something looks inside |
//! | [`stream`](BodyStream) | bodies one after another, at the pace of who takes them |
//! | [`value`](Value) | the typed value that all formats are read into; numbers keep every digit |
//! | [`fault`](Fault) | the one error model, and the one table that maps it to protocols |
//! | [`json`], [`xml`] | one exact codec per format, with limits on depth, size and counts |

mod body;
mod decimal;
mod fault;
mod headers;
pub mod json;
mod limits;
mod message;
mod stream;
mod time;
mod value;
pub mod xml;

pub use body::{Body, BodyType, Chunks, Format};
pub use bytestring::ByteString;
pub use decimal::{Decimal, DecimalError};
pub use fault::{Code, Fault, Origin, Retry, ServiceStatus};
pub use headers::{HeaderError, Headers, is_list_header};
pub use limits::Limits;
pub use message::{Deadline, Message, TraceContext};
pub use stream::{BodyStream, StreamCell};
pub use time::{Time, TimeSpan, date_of};
pub use value::{Record, Shape, Value};
