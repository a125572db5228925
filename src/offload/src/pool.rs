//! A thread pool for CPU-bound work on large messages, which would otherwise block a data arbiter and every other message on it.
//!
//! A data arbiter does work of some ten microseconds itself. Longer work, such as reading, mapping or writing a large body, runs on one thread
//! per processor, at a lower scheduling priority than data arbiters. Jobs queue in FIFO order, except that jobs of messages in progress
//! precede those of new messages, because the former hold intermediate results; every fourth turn is for a new message. The queue is
//! bounded by the messages in flight; a waiting job occupies no thread and is cancelled by dropping its future, so callers apply their
//! deadlines.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crossdock_message::{Body, Fault, Limits, Value};
use tokio::sync::oneshot;

/// Bodies up to this length, in bytes, are read and written on the data arbiter: that takes about 0.1 ms.
pub const INLINE_LEN: usize = 16 * 1024;
/// Discarded values that may await their deallocation. Each of them occupies memory until then, so further ones are dropped by the caller.
const DISCARDED_MAX: usize = 4;
/// Turns in a row for messages in progress while new ones wait.
const BEGUN_IN_A_ROW_MAX: u32 = 3;
/// Nice value of the threads (`nice`, POSIX.1-2017).
const NICENESS: i32 = 10;

/// The order of waiting jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// The message holds an intermediate result of earlier long work.
    Begun,
    /// The message holds only what was received.
    New,
}

type Job = Box<dyn FnOnce() + Send>;

/// The threads of the process.
struct Pool {
    turns: Mutex<Turns>,
    /// A job is sent only once a thread is free for it; `None` if no thread could be started.
    jobs: Option<SyncSender<Job>>,
    discarded: SyncSender<Job>,
}

/// The number of free threads, and the jobs that wait for one.
#[derive(Default)]
struct Turns {
    free: usize,
    begun: VecDeque<oneshot::Sender<Turn>>,
    new: VecDeque<oneshot::Sender<Turn>>,
    begun_in_a_row: u32,
}

impl Turns {
    /// Adds a waiting job to its queue. Cancelled jobs are removed before a queue grows, so that they do not accumulate.
    fn push(&mut self, priority: Priority, waiting: oneshot::Sender<Turn>) {
        let queue = match priority {
            Priority::Begun => &mut self.begun,
            Priority::New => &mut self.new,
        };
        if queue.len() == queue.capacity() {
            queue.retain(|job| !job.is_closed());
            // At least as many may be added before the next look.
            queue.reserve(queue.len() + 1);
        }
        queue.push_back(waiting);
    }

    fn pop(&mut self) -> Option<oneshot::Sender<Turn>> {
        if self.begun_in_a_row >= BEGUN_IN_A_ROW_MAX
            && let Some(next) = self.new.pop_front()
        {
            self.begun_in_a_row = 0;
            return Some(next);
        }
        if let Some(next) = self.begun.pop_front() {
            self.begun_in_a_row += 1;
            return Some(next);
        }
        self.begun_in_a_row = 0;
        self.new.pop_front()
    }
}

/// The right to use one thread; passed to the next waiting job on drop.
struct Turn;

static STARTED_TOTAL: AtomicU64 = AtomicU64::new(0);
static WAITING: AtomicU64 = AtomicU64::new(0);

/// Jobs started since the process began, and jobs waiting now.
#[must_use]
pub fn counts() -> (u64, u64) {
    (STARTED_TOTAL.load(Ordering::Relaxed), WAITING.load(Ordering::Relaxed))
}

fn pool() -> &'static Pool {
    static POOL: OnceLock<Pool> = OnceLock::new();
    POOL.get_or_init(|| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let (jobs, waiting) = sync_channel::<Job>(threads);
        let waiting = Arc::new(Mutex::new(waiting));
        let started = (0..threads).filter(|_| start("long-work", &waiting)).count();
        let (discarded, dropped) = sync_channel::<Job>(DISCARDED_MAX);
        start("discard", &Arc::new(Mutex::new(dropped)));
        let turns = Mutex::new(Turns { free: started, ..Turns::default() });
        Pool { turns, jobs: (started > 0).then_some(jobs), discarded }
    })
}

fn start(name: &str, jobs: &Arc<Mutex<Receiver<Job>>>) -> bool {
    let jobs = Arc::clone(jobs);
    let thread = std::thread::Builder::new().name(name.to_owned());
    let started = thread.spawn(move || {
        // On Linux this applies to the calling thread only. Failure costs priority, not correctness.
        #[cfg(target_os = "linux")]
        let _ = rustix::process::setpriority_process(None, NICENESS);
        loop {
            let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
            match next {
                Ok(job) => job(),
                Err(_) => return,
            }
        }
    });
    started.is_ok()
}

fn turns() -> MutexGuard<'static, Turns> {
    pool().turns.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Turn {
    /// Waits for a free thread. Cancel safe.
    async fn take(priority: Priority) -> Self {
        let waiting = {
            let mut turns = turns();
            if turns.free > 0 {
                turns.free -= 1;
                return Self;
            }
            let (given, waiting) = oneshot::channel();
            turns.push(priority, given);
            waiting
        };
        let _counted = Waiting::begin();
        // The sender leaves the queue only with a turn. A fallback value built here would add a turn when dropped.
        waiting.await.unwrap_or_else(|_| unreachable!("turns are given on"))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        loop {
            let next = {
                let mut turns = turns();
                let Some(next) = turns.pop() else {
                    turns.free += 1;
                    return;
                };
                next
            };
            match next.send(Self) {
                Ok(()) => return,
                // That job was cancelled: pass the turn to the next one.
                Err(turn) => std::mem::forget(turn),
            }
        }
    }
}

/// Counts a waiting job until it starts or is cancelled.
struct Waiting;

impl Waiting {
    fn begin() -> Self {
        WAITING.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        WAITING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs `work` on the pool. A panic of `work` resumes in the caller. Dropping the future cancels work that has not started; work that has
/// started runs to completion.
pub async fn offload<T: Send + 'static>(priority: Priority, work: impl FnOnce() -> T + Send + 'static) -> T {
    let Some(jobs) = &pool().jobs else { return work() };
    let turn = Turn::take(priority).await;
    STARTED_TOTAL.fetch_add(1, Ordering::Relaxed);
    let (done, result) = oneshot::channel::<Result<T, Box<dyn Any + Send>>>();
    let job = move || {
        let result = catch_unwind(AssertUnwindSafe(work));
        drop(turn);
        // The caller may be gone.
        let _ = done.send(result);
    };
    // The channel has one slot per turn.
    let _ = jobs.send(Box::new(job));
    match result.await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => resume_unwind(panic),
        Err(_) => unreachable!("a job sends its result"),
    }
}

/// Reads a body, on the pool if it is long, so that [`Body::value`] is immediate afterwards.
///
/// # Errors
/// As [`Body::value`].
pub async fn read(body: &Body, limits: &Limits, priority: Priority) -> Result<(), Fault> {
    if body.unread_len() <= INLINE_LEN {
        return body.value(limits).map(drop);
    }
    let (copy, limits) = (body.clone(), limits.clone());
    let copy = Box::pin(offload(priority, move || copy.value(&limits).map(drop).map(|()| copy))).await?;
    body.adopt_reading(&copy);
    Ok(())
}

/// Whether a body takes long to write or to drop.
#[must_use]
pub fn is_long(body: &Body) -> bool {
    match body {
        Body::Value(value) => is_long_value(value),
        Body::Raw { chunks, .. } => chunks.len() > INLINE_LEN && body.is_read(),
        Body::Empty | Body::Null | Body::Stream(_) => false,
    }
}

fn is_long_value(value: &Value) -> bool {
    value.written_len(INLINE_LEN) > INLINE_LEN
}

/// Drops a body, on a thread of its own if that takes long.
pub fn discard(body: Body) {
    if is_long(&body) {
        let _ = pool().discarded.try_send(Box::new(move || drop(body)));
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn work_is_done_apart_and_panics_come_back() {
        let here = std::thread::current().id();
        assert_ne!(offload(Priority::New, || std::thread::current().id()).await, here);
        let panicked = AssertUnwindSafe(offload(Priority::New, || panic!("on purpose"))).catch_unwind().await;
        assert!(panicked.is_err());
        assert_eq!(offload(Priority::New, || 1).await, 1, "the thread goes on");
    }

    #[tokio::test]
    async fn more_work_than_threads_waits_its_turn_and_may_be_given_up() {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let all: Vec<_> = (0..threads * 4).map(|number| tokio::spawn(offload(Priority::New, move || number))).collect();
        for (number, one) in all.into_iter().enumerate() {
            assert_eq!(one.await.expect("it is done"), number);
        }
        let (sender, receiver) = std::sync::mpsc::sync_channel::<()>(0);
        let receiver = Arc::new(Mutex::new(receiver));
        let busy: Vec<_> = (0..threads)
            .map(|_| {
                let receiver = Arc::clone(&receiver);
                tokio::spawn(offload(Priority::New, move || {
                    receiver.lock().unwrap_or_else(PoisonError::into_inner).recv().is_ok()
                }))
            })
            .collect();
        tokio::task::yield_now().await;
        let mut waiting = Box::pin(offload(Priority::New, || unreachable!("nobody waits for it")));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(waiting);
        // Work of a message in progress overtakes earlier work of new messages.
        let order = Arc::new(Mutex::new(Vec::new()));
        let in_order = |priority: Priority| {
            let order = Arc::clone(&order);
            offload(priority, move || order.lock().unwrap_or_else(PoisonError::into_inner).push(priority))
        };
        let (mut new, mut begun) = (Box::pin(in_order(Priority::New)), Box::pin(in_order(Priority::Begun)));
        assert!(new.as_mut().now_or_never().is_none() && begun.as_mut().now_or_never().is_none());
        drop(sender);
        futures_util::future::join(new, begun).await;
        if threads == 1 {
            assert_eq!(*order.lock().unwrap_or_else(PoisonError::into_inner), [Priority::Begun, Priority::New]);
        }
        for one in busy {
            assert!(!one.await.expect("it is done"));
        }
        assert_eq!(offload(Priority::New, || 1).await, 1);
    }

    #[tokio::test]
    async fn no_more_work_runs_at_once_than_there_are_threads() {
        let (running, most) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let work = || {
            let (running, most) = (Arc::clone(&running), Arc::clone(&most));
            tokio::spawn(async move {
                let turn = Turn::take(Priority::New).await;
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                running.fetch_sub(1, Ordering::SeqCst);
                drop(turn);
            })
        };
        let all: Vec<_> = (0..200).map(|_| work()).collect();
        // Half of those that wait leave.
        all.iter().skip(100).for_each(tokio::task::JoinHandle::abort);
        for one in all.into_iter().take(100) {
            one.await.expect("it is done");
        }
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        assert!(most.load(Ordering::SeqCst) <= threads as u64, "{most:?} at once");
    }

    #[test]
    fn new_messages_get_every_fourth_turn_and_cancelled_jobs_do_not_pile_up() {
        let mut turns = Turns::default();
        let job = || oneshot::channel::<Turn>();
        let mut kept = Vec::new();
        for priority in [Priority::Begun; 8].into_iter().chain([Priority::New; 2]) {
            let (given, waiting) = job();
            turns.push(priority, given);
            kept.push((priority, waiting));
        }
        let order: Vec<usize> = std::iter::from_fn(|| {
            let new = turns.new.len();
            turns.pop().map(|job| (job, new - turns.new.len()))
        })
        .map(|(_, is_new)| is_new)
        .collect();
        assert_eq!(order, [0, 0, 0, 1, 0, 0, 0, 1, 0, 0]);
        for _ in 0..10_000 {
            // The receiver is dropped at once.
            turns.push(Priority::New, job().0);
        }
        assert!(turns.new.len() < 100, "{} cancelled jobs", turns.new.len());
    }

    #[test]
    fn long_bodies_are_those_that_weigh_much() {
        let text = |len: usize| Body::Value(Value::Text("x".repeat(len).into()));
        assert!(!is_long(&text(100)) && is_long(&text(INLINE_LEN + 1)));
        let raw = Body::raw(bytes::Bytes::from(vec![b' '; INLINE_LEN + 1]).into(), crossdock_message::Format::Json);
        assert!(!is_long(&raw), "bytes that nobody has read are dropped at once");
    }
}
