//! Message streams written as JSON arrays, in route tests and commands.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::{Body, BodyStream, Fault, Format, Limits, StreamCell, Value, json};

/// Converts a typed JSON array to a stream of its items.
///
/// # Errors
/// A message, if the body has no type or is not a JSON array.
pub fn stream_from_json(body: &Body) -> Result<Body, String> {
    let Body::Raw { chunks, of_type: Some(of_type), .. } = body else {
        return Err("a stream must be a JSON array".to_owned());
    };
    let items = match json::read(&chunks.to_bytes(), &Limits::default()) {
        Ok(Value::List(items)) => items,
        Ok(_) => return Err("a stream must be a JSON array".to_owned()),
        Err(error) => return Err(error.to_string()),
    };
    let typed = |item: &Value| -> Result<Body, String> {
        let text = json::write(item).map_err(|error| error.to_string())?;
        Ok(Body::typed(Bytes::from(text).into(), Format::Json, Arc::clone(of_type)))
    };
    Ok(stream_of(items.iter().map(typed).collect::<Result<_, String>>()?))
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
