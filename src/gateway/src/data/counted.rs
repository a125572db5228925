//! Counts each request of a route exactly once, also if the caller disconnects or the reply is a stream, and logs its fault.

use std::sync::Arc;
use std::task::{Context, Poll};

use crossdock_message::{Body, BodyStream, Code, Fault, Headers, RequestContext, StreamCell};
use crossdock_ports::Outcome;

use crate::generation::RouteShare;
use crate::process::Place;
use crate::stats::Phases;

/// A request in flight. Dropping it before it is finished counts it as cancelled.
pub(super) struct Counted {
    route: Arc<RouteShare>,
    context: Option<Arc<RequestContext>>,
    phases: Phases,
    done: bool,
}

impl Counted {
    /// Begins a request of a route.
    pub(super) fn begin(route: &Arc<RouteShare>, context: Option<Arc<RequestContext>>) -> Self {
        route.stats.begin();
        Self { route: Arc::clone(route), context, phases: Phases::default(), done: false }
    }

    /// Counts the outcome. A streamed reply is counted when the stream ends, with the latency of its head.
    pub(super) fn finish(mut self, outcome: Outcome, phases: Phases) -> Outcome {
        self.phases = phases;
        match outcome {
            Outcome::Replied(mut message) => {
                message.body = match message.body {
                    Body::Stream(stream) => match stream.take() {
                        Some(inner) => Body::Stream(StreamCell::new(Box::new(CountedReply { inner, counted: self }))),
                        None => Body::Empty,
                    },
                    whole => {
                        self.count(None);
                        whole
                    }
                };
                Outcome::Replied(message)
            }
            Outcome::Accepted => {
                self.count(None);
                Outcome::Accepted
            }
            Outcome::Failed(fault) => {
                self.fail(&fault);
                Outcome::Failed(fault)
            }
        }
    }

    fn count(&mut self, failed: Option<Code>) {
        if !std::mem::replace(&mut self.done, true) {
            self.route.stats.finish(failed, self.phases);
        }
    }

    fn fail(&mut self, fault: &Fault) {
        if !self.done {
            self.route.faults.log(Place::Route(&self.route.name), self.context.as_deref(), fault);
        }
        self.count(Some(fault.code));
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.count(Some(Code::Cancelled));
    }
}

struct CountedReply {
    inner: Box<dyn BodyStream>,
    counted: Counted,
}

impl BodyStream for CountedReply {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Body, Fault>>> {
        let next = self.inner.poll_next(cx);
        match &next {
            Poll::Ready(None) => self.counted.count(None),
            Poll::Ready(Some(Err(fault))) => self.counted.fail(fault),
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
        }
        next
    }

    fn trailers(&mut self) -> Headers {
        self.inner.trailers()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use crossdock_message::{ByteString, Message};

    use super::*;
    use crate::stats::{RouteStats, get};

    /// Yields one body, and then the given results.
    struct Source(Vec<Option<Result<Body, Fault>>>);

    impl BodyStream for Source {
        fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Body, Fault>>> {
            Poll::Ready(self.0.pop().flatten())
        }
    }

    fn streaming(route: &Arc<RouteShare>, last: Option<Result<Body, Fault>>) -> Box<dyn BodyStream> {
        let mut message = Message::new(ByteString::new(), ByteString::new());
        message.body = Body::Stream(StreamCell::new(Box::new(Source(vec![last, Some(Ok(Body::Empty))]))));
        let outcome = Counted::begin(route, None).finish(Outcome::Replied(message), Phases::default());
        let Outcome::Replied(Message { body: Body::Stream(stream), .. }) = outcome else {
            unreachable!("a stream stays one")
        };
        stream.take().expect("not taken before")
    }

    #[tokio::test]
    async fn a_stream_counts_with_its_final_outcome() {
        let stats = Arc::new(RouteStats::default());
        let (faults, policies) = (Arc::default(), Vec::new());
        let route = Arc::new(RouteShare { name: "streams".into(), stats: Arc::clone(&stats), faults, policies });
        let failure = Fault::new(Code::DataLoss, "LOST", "lost");
        let mut whole = streaming(&route, None);
        let mut broken = streaming(&route, Some(Err(failure)));
        let mut left = streaming(&route, None);
        for stream in [&mut whole, &mut broken, &mut left] {
            assert!(poll_fn(|cx| stream.poll_next(cx)).await.is_some_and(|body| body.is_ok()));
        }
        assert_eq!(stats.finished(), 0, "none has ended");
        for stream in [&mut whole, &mut broken] {
            let _ = poll_fn(|cx| stream.poll_next(cx)).await;
        }
        drop((whole, broken, left));
        let failed = |code: Code| get(&stats.failed[code as usize]);
        assert_eq!((get(&stats.succeeded), failed(Code::DataLoss), failed(Code::Cancelled)), (1, 1, 1));
        assert_eq!(stats.finished(), 3);
    }
}
