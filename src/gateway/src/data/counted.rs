//! A request of a route, counted once: also where its caller leaves, and where its reply is a stream.

use std::sync::Arc;
use std::task::{Context, Poll};

use crossdock_adapter_api::Outcome;
use crossdock_message::{Body, BodyStream, Code, Fault, Headers, StreamCell};

use crate::stats::{Phases, RouteStats};

/// A request under way. Dropped before it is finished, its caller left.
pub(super) struct Counted {
    stats: Arc<RouteStats>,
    phases: Phases,
    done: bool,
}

impl Counted {
    pub(super) fn begin(stats: &Arc<RouteStats>) -> Self {
        stats.begin();
        Self { stats: Arc::clone(stats), phases: Phases::default(), done: false }
    }

    /// Counts the outcome; a stream counts as what it comes to, its time as that of its head.
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
                self.count(Some(fault.code));
                Outcome::Failed(fault)
            }
        }
    }

    fn count(&mut self, failed: Option<Code>) {
        if !std::mem::replace(&mut self.done, true) {
            self.stats.finish(failed, self.phases);
        }
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
            Poll::Ready(Some(Err(fault))) => self.counted.count(Some(fault.code)),
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
    use crate::stats::get;

    /// Gives one body, and then what it is told to.
    struct Source(Vec<Option<Result<Body, Fault>>>);

    impl BodyStream for Source {
        fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Body, Fault>>> {
            Poll::Ready(self.0.pop().flatten())
        }
    }

    fn streaming(stats: &Arc<RouteStats>, last: Option<Result<Body, Fault>>) -> Box<dyn BodyStream> {
        let mut message = Message::new(ByteString::new(), ByteString::new());
        message.body = Body::Stream(StreamCell::new(Box::new(Source(vec![last, Some(Ok(Body::Empty))]))));
        let outcome = Counted::begin(stats).finish(Outcome::Replied(message), Phases::default());
        let Outcome::Replied(Message { body: Body::Stream(stream), .. }) = outcome else {
            unreachable!("a stream stays one")
        };
        stream.take().expect("not taken before")
    }

    #[tokio::test]
    async fn a_stream_counts_as_what_it_comes_to() {
        let stats = Arc::new(RouteStats::default());
        let failure = Fault::new(Code::DataLoss, "LOST", "lost");
        let mut whole = streaming(&stats, None);
        let mut broken = streaming(&stats, Some(Err(failure)));
        let mut left = streaming(&stats, None);
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
