//! Message streams written as JSON arrays, in route tests and commands.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::{Body, BodyStream, Fault, Format, Limits, StreamCell, Value, json};

/// Why a body is not a stream.
#[derive(Debug, thiserror::Error)]
pub enum NotAStream {
    /// It is not an array.
    #[error("a stream must be a JSON array")]
    NoArray,
    /// It is not JSON.
    #[error(transparent)]
    Json(#[from] json::JsonError),
    /// An item cannot be written.
    #[error(transparent)]
    Item(#[from] json::JsonWriteError),
}

/// Converts a typed JSON array to a stream of its items.
///
/// # Errors
/// [`NotAStream`] if the body has no type or is not a JSON array.
pub fn stream_from_json(body: &Body) -> Result<Body, NotAStream> {
    let Body::Raw { chunks, of_type: Some(of_type), .. } = body else {
        return Err(NotAStream::NoArray);
    };
    let items = match json::read(&chunks.to_bytes(), &Limits::default()) {
        Ok(Value::List(items)) => items,
        Ok(_) => return Err(NotAStream::NoArray),
        Err(error) => return Err(error.into()),
    };
    let typed = |item: &Value| -> Result<Body, NotAStream> {
        let text = json::write(item)?;
        Ok(Body::typed(Bytes::from(text).into(), Format::Json, Arc::clone(of_type)))
    };
    Ok(stream_of(items.iter().map(typed).collect::<Result<_, NotAStream>>()?))
}

/// A stream of these bodies.
#[must_use]
pub fn stream_of(bodies: VecDeque<Body>) -> Body {
    Body::Stream(StreamCell::new(Box::new(BodyList(bodies))))
}

struct BodyList(VecDeque<Body>);

impl BodyStream for BodyList {
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Body, Fault>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }
}
