//! The body of a call to a service.

use std::collections::VecDeque;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use crossdock_adapter_api::{WriteFormat, encode_body};
use crossdock_contract::Typed;
use crossdock_message::{Body, BodyStream, BodyType, ByteString, Fault, Message};
use http_body::{Frame, SizeHint};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::framing::{Coding, framed};

/// The messages of a call.
pub(crate) struct CallBody {
    pieces: VecDeque<Bytes>,
    stream: Option<Messages>,
}

/// Messages that come one after another.
struct Messages {
    stream: Box<dyn BodyStream>,
    of_type: Arc<Typed>,
    coding: Option<Coding>,
    /// Why the stream broke, for whoever waits for the reply.
    broken: Arc<Mutex<Option<Fault>>>,
    /// Nobody waits for the reply any more. The caller may hold its stream open for long after that.
    given_up: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// The stream of a call broke: HTTP/2 resets it as one that is not wanted any more.
#[derive(Debug)]
pub(crate) struct Broken(h2::Error);

impl Broken {
    fn cancel() -> Self {
        Self(h2::Reason::CANCEL.into())
    }
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the stream of the call broke")
    }
}

impl std::error::Error for Broken {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

impl CallBody {
    /// One message.
    pub(super) fn once(message: &Bytes, coding: Option<Coding>) -> Result<Self, Fault> {
        let (first, second) = framed(message, coding)?;
        Ok(Self { pieces: std::iter::once(first).chain(second).collect(), stream: None })
    }

    /// Bytes that are framed already.
    pub(super) fn whole(bytes: Bytes) -> Self {
        Self { pieces: VecDeque::from([bytes]), stream: None }
    }

    /// A stream of messages, until it is given up.
    pub(super) fn stream(
        stream: Box<dyn BodyStream>,
        of_type: Arc<Typed>,
        coding: Option<Coding>,
        broken: Arc<Mutex<Option<Fault>>>,
        given_up: CancellationToken,
    ) -> Self {
        let given_up = Box::pin(given_up.cancelled_owned());
        Self { pieces: VecDeque::new(), stream: Some(Messages { stream, of_type, coding, broken, given_up }) }
    }
}

impl Messages {
    fn written(&self, body: Body) -> Result<(Bytes, Option<Bytes>), Fault> {
        let mut message = Message::new(ByteString::new(), ByteString::new());
        message.body = body;
        let encoded = encode_body(&message, &WriteFormat::Protobuf, Some(&*self.of_type as &dyn BodyType))?;
        framed(&encoded.chunks.to_bytes(), self.coding)
    }
}

impl http_body::Body for CallBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = self.get_mut();
        if let Some(messages) = &mut this.stream
            && messages.given_up.as_mut().poll(cx).is_ready()
        {
            this.stream = None;
            this.pieces.clear();
            return Poll::Ready(Some(Err(Broken::cancel())));
        }
        if let Some(piece) = this.pieces.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let Some(messages) = &mut this.stream else { return Poll::Ready(None) };
        let Poll::Ready(next) = messages.stream.poll_next(cx) else { return Poll::Pending };
        match next.map(|next| next.and_then(|body| messages.written(body))) {
            None => {
                this.stream = None;
                Poll::Ready(None)
            }
            Some(Ok((first, second))) => {
                this.pieces.extend(second);
                Poll::Ready(Some(Ok(Frame::data(first))))
            }
            Some(Err(fault)) => {
                if let Ok(mut broken) = messages.broken.lock() {
                    *broken = Some(fault);
                }
                this.stream = None;
                Poll::Ready(Some(Err(Broken::cancel())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty() && self.stream.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
