//! Calls with streamed replies.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Instant;

use crossdock_message::{Body, BodyStream, ByteString, Code, Fault, Headers, Origin, StreamCell};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::AbortHandle;

use super::super::picker::Outstanding;
use crate::stats::ServiceStats;

/// A call with a streamed reply; in flight until the stream is dropped.
pub(super) struct InFlight {
    stats: Arc<ServiceStats>,
    permit: OwnedSemaphorePermit,
    started: Instant,
    failed: Option<Code>,
    _outstanding: Outstanding,
}

impl InFlight {
    pub(super) fn new(
        stats: Arc<ServiceStats>,
        permit: OwnedSemaphorePermit,
        started: Instant,
        outstanding: Outstanding,
    ) -> Self {
        Self { stats, permit, started, failed: None, _outstanding: outstanding }
    }

    /// Wraps the reply body; the call is in flight until the stream ends, is dropped or reaches its deadline. The deadline also applies if the
    /// stream is not polled, so that a caller that does not read cannot hold the permit or resources of the service for longer.
    pub(super) fn wrap_body(self, body: Body, deadline: Instant, service: ByteString) -> Body {
        let Body::Stream(stream) = body else { return body };
        let Some(inner) = stream.take() else { return Body::Empty };
        let running = Arc::new(Mutex::new(Flow { running: Some(Running { inner, call: self }), waker: None }));
        let flow = Arc::downgrade(&running);
        let at_deadline = actix_rt::spawn(async move {
            tokio::time::sleep_until(deadline.into()).await;
            let Some(flow) = flow.upgrade() else { return };
            let (ended, waker) = {
                let mut flow = lock(&flow);
                (flow.running.take(), flow.waker.take())
            };
            if let Some(mut ended) = ended {
                ended.call.failed = Some(Code::DeadlineExceeded);
            }
            if let Some(waker) = waker {
                waker.wake();
            }
        });
        Body::Stream(StreamCell::new(Box::new(CountedStream {
            flow: running,
            service,
            at_deadline: at_deadline.abort_handle(),
        })))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.stats.finish(self.failed, self.started.elapsed());
        debug_assert_eq!(self.permit.num_permits(), 1, "a call holds one permit");
    }
}

/// A stream and its call, removed at the deadline.
struct Flow {
    running: Option<Running>,
    /// Wakes the task that waits for the next body.
    waker: Option<Waker>,
}

struct Running {
    inner: Box<dyn BodyStream>,
    call: InFlight,
}

struct CountedStream {
    flow: Arc<Mutex<Flow>>,
    service: ByteString,
    at_deadline: AbortHandle,
}

fn lock(flow: &Mutex<Flow>) -> MutexGuard<'_, Flow> {
    flow.lock().unwrap_or_else(PoisonError::into_inner)
}

impl BodyStream for CountedStream {
    fn poll_next(&mut self, cx: &mut std::task::Context<'_>) -> Poll<Option<Result<Body, Fault>>> {
        let mut flow = lock(&self.flow);
        let Some(running) = &mut flow.running else {
            let message = "the deadline expired before the stream ended";
            let fault = Fault::new(Code::DeadlineExceeded, "DEADLINE", message);
            return Poll::Ready(Some(Err(fault.with_origin(Origin::Service(self.service.clone())))));
        };
        let next = running.inner.poll_next(cx);
        match &next {
            Poll::Ready(Some(Err(fault))) => running.call.failed = Some(fault.code),
            Poll::Ready(_) => {}
            Poll::Pending => match &mut flow.waker {
                Some(waker) => waker.clone_from(cx.waker()),
                None => flow.waker = Some(cx.waker().clone()),
            },
        }
        next
    }

    fn trailers(&mut self) -> Headers {
        lock(&self.flow).running.as_mut().map_or_else(Headers::new, |running| running.inner.trailers())
    }
}

impl Drop for CountedStream {
    fn drop(&mut self) {
        self.at_deadline.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::Semaphore;
    use tokio::task::LocalSet;

    use super::super::super::picker::Load;
    use super::*;
    use crate::stats::get;

    /// A stream that is always ready (`true`) or never ready (`false`).
    struct Source(bool);

    impl BodyStream for Source {
        fn poll_next(&mut self, _: &mut std::task::Context<'_>) -> Poll<Option<Result<Body, Fault>>> {
            if self.0 { Poll::Ready(Some(Ok(Body::Empty))) } else { Poll::Pending }
        }
    }

    async fn in_flight(permits: &Arc<Semaphore>, stats: &Arc<ServiceStats>, time: Duration, has_more: bool) -> Body {
        let permit = Arc::clone(permits).acquire_owned().await.expect("open");
        stats.begin();
        let started = Instant::now();
        let call = InFlight::new(Arc::clone(stats), permit, started, Load::default().begin());
        call.wrap_body(Body::Stream(StreamCell::new(Box::new(Source(has_more)))), started + time, "slow".into())
    }

    #[tokio::test]
    async fn a_stream_ends_at_its_deadline_even_if_it_is_not_polled() {
        let (permits, stats) = (Arc::new(Semaphore::new(1)), Arc::new(ServiceStats::default()));
        let short = Duration::from_millis(20);
        let all = async {
            // Not polled: the next call still gets the permit.
            let unpolled = in_flight(&permits, &stats, short, true).await;
            let polled = in_flight(&permits, &stats, short, false).await;
            assert_eq!(get(&stats.failed[Code::DeadlineExceeded as usize]), 1);
            for body in [unpolled, polled] {
                let Body::Stream(stream) = body else { unreachable!("the body is a stream") };
                let mut stream = stream.take().expect("taken only once");
                let end = std::future::poll_fn(|cx| stream.poll_next(cx)).await;
                assert_eq!(end.and_then(Result::err).map(|fault| fault.code), Some(Code::DeadlineExceeded));
            }
            assert_eq!(get(&stats.failed[Code::DeadlineExceeded as usize]), 2);
            // A stream that is dropped before its deadline ends immediately.
            drop(in_flight(&permits, &stats, Duration::from_secs(3600), true).await);
            assert_eq!((permits.available_permits(), get(&stats.succeeded)), (1, 1));
        };
        let limit = Duration::from_secs(10);
        tokio::time::timeout(limit, LocalSet::new().run_until(all)).await.expect("the deadline frees the permit");
    }
}
