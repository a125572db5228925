//! The bytes of one request's body.

use std::pin::Pin;
use std::time::{Duration, Instant};

use crossdock_message::Chunks;
use crossdock_transport::bodies::Reservation;
use http_body::Body as _;
use hyper::body::Incoming;

use crate::request::{Announced, BODY_GRACE, BODY_RATE_MIN, BODY_SHARE_OPEN, BodyRefusal, RequestBody, body_time};

/// Bytes that are read and thrown away before an answer that comes before its request's end, and for how long: clients
/// in wide use lose an answer that is followed by a reset.
const LINGER_LEN_MAX: u64 = 8 << 20;
const LINGER_TIME: Duration = Duration::from_secs(2);

/// A body that nobody has read yet.
pub(super) struct Body<'i> {
    incoming: &'i mut Incoming,
    timeout: Duration,
    since: Instant,
}

/// Throws away what is left of a body, where that is little. A caller who waits to be told to send it sends nothing.
pub(super) async fn discard(mut incoming: Incoming, is_awaited: bool) {
    if is_awaited || incoming.is_end_stream() || incoming.size_hint().lower() > LINGER_LEN_MAX {
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
    /// Whose head came just now.
    pub(super) fn new(incoming: &'i mut Incoming, timeout: Duration) -> Self {
        Self { incoming, timeout, since: Instant::now() }
    }
}

impl RequestBody for Body<'_> {
    fn announced(&self) -> Announced {
        if self.incoming.is_end_stream() {
            return Announced::Nothing;
        }
        self.incoming.size_hint().exact().map_or(Announced::Open, Announced::Length)
    }

    async fn read(self, len_max: u64) -> Result<Chunks, BodyRefusal> {
        let length = self.incoming.size_hint().exact().unwrap_or(BODY_SHARE_OPEN);
        let until = self.since + body_time(self.timeout, length);
        let mut chunks = Chunks::new();
        let mut received = 0;
        let mut held = Reservation::new();
        loop {
            // The instant at which what has come is less than what must have.
            let slow = self.since + BODY_GRACE.max(Duration::from_secs(received / BODY_RATE_MIN));
            let next = std::future::poll_fn(|cx| Pin::new(&mut *self.incoming).poll_frame(cx));
            let next = tokio::time::timeout_at(until.min(slow).into(), next).await;
            match next.map_err(|_| BodyRefusal::TooSlow)? {
                None => {
                    chunks.keep(held.into_guard());
                    return Ok(chunks);
                }
                Some(Err(_)) => return Err(BodyRefusal::Incomplete),
                Some(Ok(frame)) => {
                    // Trailers are not carried, as with HTTP/1.1.
                    let Ok(data) = frame.into_data() else { continue };
                    received += data.len() as u64;
                    if received > len_max {
                        return Err(BodyRefusal::TooLarge);
                    }
                    held.grow(data.len()).map_err(|_| BodyRefusal::NoMemory)?;
                    chunks.push(data);
                }
            }
        }
    }
}
