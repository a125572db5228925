//! A reply that comes as a stream.

use std::sync::Arc;
use std::task::{Context, Poll};

use crossdock_message::{Body, BodyStream, BodyType, ByteString, Fault, Format, Headers, Origin};

use tokio_util::sync::DropGuard;

use super::links::CallPlace;
use super::{bad_reply, of_reply};
use crate::config::Faults;
use crate::framing::MessageReader;
use crate::{mapping, settle};

/// The messages of a service's reply. Dropping it resets the call, as whoever keeps the call's deadline does when that comes.
pub(super) struct Replies {
    pub(super) reader: MessageReader,
    pub(super) of_type: Arc<dyn BodyType>,
    pub(super) carry: Arc<[ByteString]>,
    pub(super) faults: Faults,
    pub(super) name: ByteString,
    pub(super) trailers: Headers,
    pub(super) _claim: CallPlace,
    /// Ends the caller's part of the call too.
    pub(super) _giving_up: DropGuard,
}

impl BodyStream for Replies {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Body, Fault>>> {
        let of_service = |fault: Fault| fault.with_origin(Origin::Service(self.name.clone()));
        let Poll::Ready(message) = self.reader.poll_message(cx) else { return Poll::Pending };
        Poll::Ready(match message {
            Some(Ok(bytes)) => Some(Ok(Body::typed(bytes.into(), Format::Protobuf, Arc::clone(&self.of_type)))),
            Some(Err(fault)) => Some(Err(of_service(of_reply(fault)))),
            None => {
                let trailers = self.reader.take_trailers().unwrap_or_default();
                match settle::status_of(&trailers) {
                    Some(Ok(())) => {
                        self.trailers = mapping::carried(&trailers, &self.carry).unwrap_or_default();
                        None
                    }
                    Some(Err(code)) => {
                        Some(Err(of_service(settle::service_fault(code, &trailers, &self.carry, self.faults))))
                    }
                    None => Some(Err(of_service(bad_reply("it ends without a status")))),
                }
            }
        })
    }

    fn trailers(&mut self) -> Headers {
        std::mem::take(&mut self.trailers)
    }
}

/// A stream that ended before its first message.
pub(super) struct Nothing(pub(super) Headers);

impl BodyStream for Nothing {
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Body, Fault>>> {
        Poll::Ready(None)
    }

    fn trailers(&mut self) -> Headers {
        std::mem::take(&mut self.0)
    }
}
