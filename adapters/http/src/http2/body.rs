//! Reads a request body.

use std::pin::Pin;
use std::time::{Duration, Instant};

use crossdock_message::Chunks;
use crossdock_transport::bodies::Reservation;
use http_body::Body as _;
use hyper::body::Incoming;

use crate::request::{
    BODY_GRACE, BODY_LEN_ASSUMED, BODY_RATE_MIN, BodyError, DeclaredLength, RequestBody, body_timeout_for,
};

/// Maximum bytes that are discarded before an early response, and for how long. Common clients lose a response that is
/// followed by a stream reset.
const LINGER_LEN_MAX: u64 = 8 << 20;
const LINGER_TIME: Duration = Duration::from_secs(2);

/// An unread body.
pub(super) struct Body<'i> {
    incoming: &'i mut Incoming,
    timeout: Duration,
    since: Instant,
}

/// Discards the rest of a short body. A client that waits for 100 (Continue) sends none.
pub(super) async fn discard(mut incoming: Incoming, expects_continue: bool) {
    if expects_continue || incoming.is_end_stream() || incoming.size_hint().lower() > LINGER_LEN_MAX {
        return;
    }
    let discarding = async {
        let mut len = 0;
        while let Some(Ok(frame)) = std::future::poll_fn(|cx| Pin::new(&mut incoming).poll_frame(cx)).await {
            len += frame.data_ref().map_or(0, |data| data.len() as u64);
            if len > LINGER_LEN_MAX {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(LINGER_TIME, discarding).await;
}

impl<'i> Body<'i> {
    /// The body of a head that was received just now.
    pub(super) fn new(incoming: &'i mut Incoming, timeout: Duration) -> Self {
        Self { incoming, timeout, since: Instant::now() }
    }
}

impl RequestBody for Body<'_> {
    fn declared_length(&self) -> DeclaredLength {
        if self.incoming.is_end_stream() {
            return DeclaredLength::NoBody;
        }
        self.incoming.size_hint().exact().map_or(DeclaredLength::Unknown, DeclaredLength::Known)
    }

    async fn read(self, len_max: u64) -> Result<Chunks, BodyError> {
        let length = self.incoming.size_hint().exact().unwrap_or(BODY_LEN_ASSUMED);
        let until = self.since + body_timeout_for(self.timeout, length);
        let mut chunks = Chunks::new();
        let mut received = 0;
        let mut held = Reservation::new();
        loop {
            // When the rate falls below the minimum unless more is received.
            let too_slow_at = self.since + BODY_GRACE.max(Duration::from_secs(received / BODY_RATE_MIN));
            let next = std::future::poll_fn(|cx| Pin::new(&mut *self.incoming).poll_frame(cx));
            let next = tokio::time::timeout_at(until.min(too_slow_at).into(), next).await;
            match next.map_err(|_| BodyError::TooSlow)? {
                None => {
                    chunks.keep(held.into_guard());
                    return Ok(chunks);
                }
                Some(Err(_)) => return Err(BodyError::Incomplete),
                Some(Ok(frame)) => {
                    // Trailers are ignored, as in HTTP/1.1.
                    let Ok(data) = frame.into_data() else { continue };
                    received += data.len() as u64;
                    if received > len_max {
                        return Err(BodyError::TooLarge);
                    }
                    held.grow(data.len()).map_err(|_| BodyError::NoMemory)?;
                    chunks.push(data);
                }
            }
        }
    }
}
