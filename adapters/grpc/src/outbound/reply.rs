//! Streamed replies.

use std::sync::Arc;
use std::task::{Context, Poll};

use crossdock_message::{Body, BodyStream, BodyType, ByteString, Fault, Format, Headers, Origin};
use tokio_util::sync::DropGuard;

use super::pool::CallPermit;
use super::{bad_reply, reply_fault};
use crate::config::Faults;
use crate::framing::MessageReader;
use crate::{mapping, settle};

/// The message stream of a reply. Dropping it resets the call; the owner drops it at the deadline.
pub(super) struct ReplyStream {
    pub(super) reader: MessageReader,
    pub(super) body_type: Arc<dyn BodyType>,
    pub(super) carry: Arc<[ByteString]>,
    pub(super) faults: Faults,
    pub(super) name: ByteString,
    pub(super) trailers: Headers,
    pub(super) _permit: CallPermit,
    /// Cancels the request stream, too.
    pub(super) _cancel_guard: DropGuard,
}

impl BodyStream for ReplyStream {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Body, Fault>>> {
        let from_service = |fault: Fault| fault.with_origin(Origin::Service(self.name.clone()));
        let Poll::Ready(message) = self.reader.poll_message(cx) else { return Poll::Pending };
        Poll::Ready(match message {
            Some(Ok(bytes)) => Some(Ok(Body::typed(bytes.into(), Format::Protobuf, Arc::clone(&self.body_type)))),
            Some(Err(fault)) => Some(Err(from_service(reply_fault(fault)))),
            None => {
                let trailers = self.reader.take_trailers().unwrap_or_default();
                match settle::parse_status(&trailers) {
                    Some(Ok(())) => {
                        self.trailers = mapping::carried(&trailers, &self.carry).unwrap_or_default();
                        None
                    }
                    Some(Err(code)) => {
                        Some(Err(from_service(settle::fault_from_service(code, &trailers, &self.carry, self.faults))))
                    }
                    None => Some(Err(from_service(bad_reply("it ends without a status")))),
                }
            }
        })
    }

    fn trailers(&mut self) -> Headers {
        std::mem::take(&mut self.trailers)
    }
}

/// A stream without messages.
pub(super) struct EmptyReply(pub(super) Headers);

impl BodyStream for EmptyReply {
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Body, Fault>>> {
        Poll::Ready(None)
    }

    fn trailers(&mut self) -> Headers {
        std::mem::take(&mut self.0)
    }
}
