//! One after another: a lane for each key, with a queue before it.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use crossdock_message::{ByteString, Code, Fault, Retry};
use tokio::sync::oneshot;

/// Messages that wait, over all keys of a route.
const WAITING_MAX: usize = 10_000;

/// The lanes of a route. A lane is there as long as somebody is on it.
#[derive(Debug, Default)]
pub(crate) struct Lanes(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    lanes: HashMap<ByteString, VecDeque<Waiter>>,
    waiting: usize,
}

/// One who waits, and where its message came from.
#[derive(Debug)]
struct Waiter {
    turn: oneshot::Sender<Turn>,
    source: Option<u64>,
}

/// What those who wait are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// It is theirs.
    Yours,
    /// Who was before them comes again.
    Broken,
}

/// Whoever was before on the lane will come again: those behind it have to come again as well.
#[derive(Debug)]
pub(crate) struct Broken;

/// A place before a lane. Dropping it leaves.
pub(crate) struct Place {
    lanes: Arc<Lanes>,
    key: ByteString,
    source: Option<u64>,
    /// Nothing where the lane was free.
    turn: Option<oneshot::Receiver<Turn>>,
    entered: bool,
}

/// The lane is this holder's. Dropping it says that its message will come again.
#[derive(Debug)]
pub(crate) struct Lane {
    lanes: Arc<Lanes>,
    key: ByteString,
    source: Option<u64>,
    done: bool,
}

/// The fault of a message that was behind one that comes again.
pub(crate) fn broken() -> Fault {
    Fault::new(Code::Unavailable, "TURN", "the message before this one comes again, and this one after it")
        .with_retry(Retry::Same)
}

impl Lanes {
    /// Takes the next place of a key; the order of these calls is that of the lane. Messages that come again do so together with
    /// those of their `source`; one without a source never does, and only such wait in bounded number: a source bounds its own.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED where too many wait.
    pub(crate) fn enter(self: &Arc<Self>, key: &ByteString, source: Option<u64>) -> Result<Place, Fault> {
        let mut state = self.locked();
        let waiting = state.waiting;
        let turn = match state.lanes.get_mut(key) {
            None => {
                state.lanes.insert(key.clone(), VecDeque::new());
                None
            }
            Some(_) if waiting >= WAITING_MAX && source.is_none() => {
                let message = "as many messages wait for those before them as may";
                let fault = Fault::new(Code::ResourceExhausted, "TURNS", message);
                return Err(fault.with_retry(Retry::After(Duration::from_secs(1))));
            }
            Some(queue) => {
                let (sender, turn) = oneshot::channel();
                if queue.len() >= WAITING_MAX {
                    // Those who left.
                    queue.retain(|waiter| !waiter.turn.is_closed());
                }
                queue.push_back(Waiter { turn: sender, source });
                state.waiting += 1;
                Some(turn)
            }
        };
        Ok(Place { lanes: Arc::clone(self), key: key.clone(), source, turn, entered: false })
    }

    /// How many wait.
    #[cfg(test)]
    fn waiting(&self) -> usize {
        self.locked().waiting
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands the lane on. Behind a message that comes again, those of its source are told so, and leave.
    fn leave(&self, key: &ByteString, broken: Option<u64>) {
        let mut state = self.locked();
        let Some(mut queue) = state.lanes.remove(key) else { return };
        if broken.is_some() {
            let mut kept = VecDeque::with_capacity(queue.len());
            for waiter in queue {
                if waiter.source != broken {
                    kept.push_back(waiter);
                } else if waiter.turn.send(Turn::Broken).is_ok() {
                    state.waiting -= 1;
                }
            }
            queue = kept;
        }
        while let Some(next) = queue.pop_front() {
            // Those who left before are not counted any more.
            if next.turn.send(Turn::Yours).is_ok() {
                state.waiting -= 1;
                state.lanes.insert(key.clone(), queue);
                return;
            }
        }
    }
}

impl Lane {
    /// The message was settled: it is the next one's turn.
    pub(crate) fn done(mut self) {
        self.done = true;
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // A message without a source does not come again.
        self.lanes.leave(&self.key, self.source.filter(|_| !self.done));
    }
}

impl Future for Place {
    type Output = Result<Lane, Broken>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let turn = match &mut self.turn {
            None => Turn::Yours,
            Some(turn) => match Pin::new(turn).poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(turn) => turn.unwrap_or(Turn::Broken),
            },
        };
        self.entered = true;
        Poll::Ready(match turn {
            Turn::Yours => {
                let (lanes, key) = (Arc::clone(&self.lanes), self.key.clone());
                Ok(Lane { lanes, key, source: self.source, done: false })
            }
            Turn::Broken => Err(Broken),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.entered {
            return;
        }
        let given = match &mut self.turn {
            None => true,
            Some(turn) => {
                // Turns are given under this lock: either one was, or none will be.
                let mut state = self.lanes.locked();
                turn.close();
                match turn.try_recv() {
                    Ok(turn) => turn == Turn::Yours,
                    Err(_) => {
                        state.waiting -= 1;
                        false
                    }
                }
            }
        };
        if given {
            self.lanes.leave(&self.key, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn key(text: &'static str) -> ByteString {
        ByteString::from_static(text)
    }

    fn now(place: &mut Place) -> Option<Result<Lane, Broken>> {
        place.now_or_never()
    }

    #[test]
    fn one_after_another_by_key() {
        let lanes = Arc::new(Lanes::default());
        let [mut first, mut second, mut third, mut other] =
            ["a", "a", "a", "b"].map(|name| lanes.enter(&key(name), Some(1)).expect("room"));
        let lane = now(&mut first).expect("free").expect("whole");
        drop(first);
        assert!(now(&mut second).is_none() && now(&mut third).is_none());
        now(&mut other).expect("another key is free").expect("whole").done();
        lane.done();
        assert!(now(&mut third).is_none(), "not before the second");
        now(&mut second).expect("its turn").expect("whole").done();
        now(&mut third).expect("its turn").expect("whole").done();
        assert!(lanes.locked().lanes.is_empty() && lanes.waiting() == 0);
    }

    #[test]
    fn who_leaves_is_passed_over_also_after_its_turn_came() {
        let lanes = Arc::new(Lanes::default());
        let [mut first, second, third, mut fourth] = [(); 4].map(|()| lanes.enter(&key("a"), None).expect("room"));
        let lane = now(&mut first).expect("free").expect("whole");
        drop(second);
        lane.done();
        // The third's turn has come, and it never looks.
        drop(third);
        now(&mut fourth).expect("its turn").expect("whole").done();
        let never_looked = lanes.enter(&key("a"), None).expect("room");
        let mut behind = lanes.enter(&key("a"), None).expect("room");
        drop(never_looked);
        now(&mut behind).expect("its turn").expect("whole").done();
        assert!(lanes.locked().lanes.is_empty() && lanes.waiting() == 0);
    }

    #[test]
    fn behind_a_message_that_comes_again_those_of_its_source_come_again() {
        let lanes = Arc::new(Lanes::default());
        let sources = [Some(1), Some(1), Some(2), None, Some(1), Some(2)];
        let [mut first, mut second, mut other, mut none, mut third, mut last] =
            sources.map(|source| lanes.enter(&key("a"), source).expect("room"));
        drop(now(&mut first).expect("free").expect("whole"));
        assert!(now(&mut second).expect("told").is_err() && now(&mut third).expect("told").is_err());
        assert!(now(&mut none).is_none(), "not before the one of another source");
        now(&mut other).expect("its turn").expect("whole").done();
        drop(now(&mut none).expect("its turn").expect("whole"));
        now(&mut last).expect("what has no source breaks nothing").expect("whole").done();
        assert!(lanes.locked().lanes.is_empty() && lanes.waiting() == 0);
    }

    #[test]
    fn waiting_is_bounded() {
        let lanes = Arc::new(Lanes::default());
        let mut places: Vec<Place> = (0..=WAITING_MAX).map(|_| lanes.enter(&key("a"), None).expect("room")).collect();
        assert_eq!(lanes.enter(&key("a"), None).err().map(|fault| fault.code), Some(Code::ResourceExhausted));
        assert!(lanes.enter(&key("b"), None).is_ok(), "one that need not wait");
        let of_a_source = lanes.enter(&key("a"), Some(1));
        assert!(of_a_source.is_ok(), "a source bounds its own");
        drop(of_a_source);
        for _ in 0..3 * WAITING_MAX {
            drop(places.pop());
            places.push(lanes.enter(&key("a"), None).expect("the place of one who left"));
        }
        assert!(lanes.locked().lanes[&key("a")].len() <= 2 * WAITING_MAX, "nothing is kept of those who left");
        drop(places);
        assert!(lanes.locked().lanes.is_empty() && lanes.waiting() == 0);
    }
}
