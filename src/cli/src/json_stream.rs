//! Streams that are written as lists in JSON: in tests of routes, and by commands.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use crossdock_message::{Body, BodyStream, Fault, Format, Limits, StreamCell, Value, json};

/// A list in JSON as a stream of its items.
pub(crate) fn stream_of(body: &Body) -> Result<Body, String> {
    let Body::Raw { chunks, of_type: Some(of_type), .. } = body else {
        return Err("a stream is written as a list in JSON".to_owned());
    };
    let items = match json::read(&chunks.to_bytes(), &Limits::default()) {
        Ok(Value::List(items)) => items,
        Ok(_) => return Err("a stream is written as a list in JSON".to_owned()),
        Err(error) => return Err(error.to_string()),
    };
    let typed = |item: &Value| -> Result<Body, String> {
        let text = json::write(item).map_err(|error| error.to_string())?;
        Ok(Body::typed(Bytes::from(text).into(), Format::Json, Arc::clone(of_type)))
    };
    Ok(listed(items.iter().map(typed).collect::<Result<_, String>>()?))
}

/// Bodies that are all there, as a stream.
pub(crate) fn listed(bodies: VecDeque<Body>) -> Body {
    Body::Stream(StreamCell::new(Box::new(Listed(bodies))))
}

struct Listed(VecDeque<Body>);

impl BodyStream for Listed {
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Body, Fault>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }
}
