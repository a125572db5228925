//! Calls whose replies are streams.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Instant;

use crossdock_message::{Body, BodyStream, ByteString, Code, Fault, Headers, Origin, StreamCell};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::AbortHandle;

use super::super::picker::Outstanding;
use crate::stats::ServiceStats;

/// A call whose reply is a stream: it is in flight until the stream is dropped.
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

    /// The body, in flight until its last is taken, it is dropped, or the deadline comes: that also where nobody asks for more,
    /// so that a caller who does not read holds no credit and nothing of the service's for longer than it may.
    pub(super) fn around(self, body: Body, deadline: Instant, service: ByteString) -> Body {
        let Body::Stream(stream) = body else { return body };
        let Some(inner) = stream.take() else { return Body::Empty };
        let running = Arc::new(Mutex::new(Flow { running: Some(Running { inner, call: self }), taker: None }));
        let flow = Arc::downgrade(&running);
        let at_deadline = actix_rt::spawn(async move {
            tokio::time::sleep_until(deadline.into()).await;
            let Some(flow) = flow.upgrade() else { return };
            let (ended, taker) = {
                let mut flow = locked(&flow);
                (flow.running.take(), flow.taker.take())
            };
            if let Some(mut ended) = ended {
                ended.call.failed = Some(Code::DeadlineExceeded);
            }
            if let Some(taker) = taker {
                taker.wake();
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
        debug_assert_eq!(self.permit.num_permits(), 1, "a call has one credit");
    }
}

/// A stream and its call; gone once the deadline has come.
struct Flow {
    running: Option<Running>,
    /// Who waits for the next body.
    taker: Option<Waker>,
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

fn locked(flow: &Mutex<Flow>) -> MutexGuard<'_, Flow> {
    flow.lock().unwrap_or_else(PoisonError::into_inner)
}

impl BodyStream for CountedStream {
    fn poll_next(&mut self, cx: &mut std::task::Context<'_>) -> Poll<Option<Result<Body, Fault>>> {
        let mut flow = locked(&self.flow);
        let Some(running) = &mut flow.running else {
            let message = "the time was spent before the stream ended";
            let late = Fault::new(Code::DeadlineExceeded, "DEADLINE", message);
            return Poll::Ready(Some(Err(late.with_origin(Origin::Service(self.service.clone())))));
        };
        let next = running.inner.poll_next(cx);
        match &next {
            Poll::Ready(Some(Err(fault))) => running.call.failed = Some(fault.code),
            Poll::Ready(_) => {}
            Poll::Pending => match &mut flow.taker {
                Some(taker) => taker.clone_from(cx.waker()),
                None => flow.taker = Some(cx.waker().clone()),
            },
        }
        next
    }

    fn trailers(&mut self) -> Headers {
        locked(&self.flow).running.as_mut().map_or_else(Headers::new, |running| running.inner.trailers())
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

    /// A source that always has one more, and one that never has any.
    struct Source(bool);

    impl BodyStream for Source {
        fn poll_next(&mut self, _: &mut std::task::Context<'_>) -> Poll<Option<Result<Body, Fault>>> {
            if self.0 { Poll::Ready(Some(Ok(Body::Empty))) } else { Poll::Pending }
        }
    }

    async fn in_flight(credit: &Arc<Semaphore>, stats: &Arc<ServiceStats>, time: Duration, has_more: bool) -> Body {
        let permit = Arc::clone(credit).acquire_owned().await.expect("open");
        stats.begin();
        let started = Instant::now();
        let call = InFlight::new(Arc::clone(stats), permit, started, Load::default().begin());
        call.around(Body::Stream(StreamCell::new(Box::new(Source(has_more)))), started + time, "slow".into())
    }

    #[tokio::test]
    async fn a_stream_ends_at_its_deadline_whether_its_taker_asks_or_not() {
        let (credit, stats) = (Arc::new(Semaphore::new(1)), Arc::new(ServiceStats::default()));
        let short = Duration::from_millis(20);
        let all = async {
            // Nobody takes from it: the next call gets the credit all the same.
            let untaken = in_flight(&credit, &stats, short, true).await;
            let waited = in_flight(&credit, &stats, short, false).await;
            assert_eq!(get(&stats.failed[Code::DeadlineExceeded as usize]), 1);
            for body in [untaken, waited] {
                let Body::Stream(stream) = body else { unreachable!("a stream stays one") };
                let mut stream = stream.take().expect("not taken before");
                let end = std::future::poll_fn(|cx| stream.poll_next(cx)).await;
                assert_eq!(end.and_then(Result::err).map(|fault| fault.code), Some(Code::DeadlineExceeded));
            }
            assert_eq!(get(&stats.failed[Code::DeadlineExceeded as usize]), 2);
            // One that is dropped before is over then.
            drop(in_flight(&credit, &stats, Duration::from_secs(3600), true).await);
            assert_eq!((credit.available_permits(), get(&stats.succeeded)), (1, 1));
        };
        let limit = Duration::from_secs(10);
        tokio::time::timeout(limit, LocalSet::new().run_until(all)).await.expect("the deadline frees the credit");
    }
}
