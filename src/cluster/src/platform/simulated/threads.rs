//! Threads that run one at a time, and tasks.

#![expect(clippy::unnecessary_wraps, clippy::unused_self, reason = "the same functions as those of a real system")]

use std::any::Any;
use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Wake, Waker, ready};
use std::time::Duration;

use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::Sleep;

use super::context::{current, enter, in_instance, of_thread};
use super::world::Kind;

/// What lets a thread run.
enum Resume {
    Run(Waker),
    /// The instance has crashed.
    Die,
}

/// Why a thread hands over.
enum Yield {
    /// Its future waits.
    Pending,
    Sleep(Duration),
    /// Others that are ready come first.
    Others,
    Done(Result<(), Box<dyn Any + Send>>),
}

/// The panic of a thread whose instance has crashed.
struct Died;

/// The thread's side.
struct Link {
    resumes: Receiver<Resume>,
    yields: SyncSender<Yield>,
    waker: Arc<ThreadWaker>,
}

thread_local! {
    static LINK: RefCell<Option<Link>> = const { RefCell::new(None) };
}

/// Wakes the task of a thread. A wake-up while the thread is within a poll must not be lost, even if that poll sleeps.
#[derive(Default)]
struct ThreadWaker {
    is_woken: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Wake for ThreadWaker {
    fn wake(self: Arc<Self>) {
        self.is_woken.store(true, Ordering::SeqCst);
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(task) = task {
            task.wake();
        }
    }
}

/// Hands over until the thread may run again; unwinds if its instance has crashed.
fn hand_over(link: &Link, why: Yield) {
    let _ = link.yields.send(why);
    wait_for_turn(link);
}

fn wait_for_turn(link: &Link) {
    match link.resumes.recv() {
        Ok(Resume::Run(waker)) => {
            *link.waker.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker);
        }
        Ok(Resume::Die) | Err(_) => resume_unwind(Box::new(Died)),
    }
}

/// Blocks the current thread for this time. The runtime's own thread cannot block: there, the tasks of the instance run only
/// after this time.
pub fn pause(time: Duration) {
    if time.is_zero() || std::thread::panicking() {
        return;
    }
    let is_blocked = LINK.with_borrow(|link| link.as_ref().map(|link| hand_over(link, Yield::Sleep(time))).is_some());
    if !is_blocked {
        let context = current();
        let now = context.world.now();
        context.world.lock().hold_up(&context, now, time);
    }
}

/// Lets other threads and tasks run.
pub(crate) fn yield_thread() {
    if can_block() {
        LINK.with_borrow(|link| link.as_ref().map(|link| hand_over(link, Yield::Others)));
    }
}

/// Whether the current thread can block.
fn can_block() -> bool {
    !std::thread::panicking() && LINK.with_borrow(Option::is_some)
}

fn block_on(future: impl Future<Output = ()>) {
    let mut future = Box::pin(future);
    LINK.with_borrow(|link| {
        let link = link.as_ref().expect("set at its start");
        wait_for_turn(link);
        let waker = Waker::from(Arc::clone(&link.waker));
        let mut cx = std::task::Context::from_waker(&waker);
        loop {
            link.waker.is_woken.store(false, Ordering::SeqCst);
            if future.as_mut().poll(&mut cx).is_ready() {
                return;
            }
            if !link.waker.is_woken.load(Ordering::SeqCst) {
                hand_over(link, Yield::Pending);
            }
        }
    });
}

/// The task of a thread: while it is polled, the thread runs.
struct ThreadTask {
    resumes: SyncSender<Resume>,
    yields: Receiver<Yield>,
    sleep: Option<Pin<Box<Sleep>>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl ThreadTask {
    fn start(future: impl Future<Output = ()> + Send + 'static) -> io::Result<Self> {
        let (resumes, resumed) = sync_channel(1);
        let (yielded, yields) = sync_channel(1);
        let (context, runtime) = (current(), tokio::runtime::Handle::current());
        let thread = std::thread::Builder::new().spawn(move || {
            let _runtime = runtime.enter();
            let _context = enter(context);
            let link = Link { resumes: resumed, yields: yielded.clone(), waker: Arc::default() };
            LINK.set(Some(link));
            let done = catch_unwind(AssertUnwindSafe(|| block_on(future)));
            let _ = yielded.send(Yield::Done(done));
        })?;
        Ok(Self { resumes, yields, sleep: None, thread: Some(thread) })
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Future for ThreadTask {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<()> {
        loop {
            if let Some(sleep) = &mut self.sleep {
                ready!(sleep.as_mut().poll(cx));
                self.sleep = None;
            }
            let _ = self.resumes.send(Resume::Run(cx.waker().clone()));
            match self.yields.recv() {
                Ok(Yield::Pending) => return Poll::Pending,
                Ok(Yield::Sleep(time)) => self.sleep = Some(Box::pin(tokio::time::sleep(time))),
                Ok(Yield::Others) => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Ok(Yield::Done(done)) => {
                    self.join();
                    if let Err(panic) = done {
                        resume_unwind(panic);
                    }
                    return Poll::Ready(());
                }
                Err(_) => return Poll::Ready(()),
            }
        }
    }
}

impl Drop for ThreadTask {
    /// The instance has crashed, unless the thread has ended.
    fn drop(&mut self) {
        if self.thread.is_some() {
            let _ = self.resumes.send(Resume::Die);
            self.join();
        }
    }
}

/// A thread of an instance. The simulation waits for its end.
pub(crate) struct Thread;

impl Thread {
    pub(crate) fn has_ended_within(&self, _: Duration) -> bool {
        true
    }

    pub(crate) fn join(self) {}
}

fn register<T>(task: JoinHandle<T>, kind: Kind) -> JoinHandle<T> {
    let context = current();
    context.world.lock().add_task(&context, task.abort_handle(), kind);
    task
}

/// Runs a future beside others, until it ends or the instance crashes.
pub(crate) fn spawn(future: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    register(tokio::spawn(in_instance(future)), Kind::Other)
}

pub(crate) fn spawn_runtime(_: &str, future: impl Future<Output = ()> + Send + 'static) -> io::Result<Thread> {
    register(tokio::spawn(in_instance(future)), Kind::Main);
    Ok(Thread)
}

pub(crate) fn spawn_thread(_: &str, future: impl Future<Output = ()> + Send + 'static) -> io::Result<Thread> {
    register(tokio::spawn(of_thread(ThreadTask::start(future)?)), Kind::Other);
    Ok(Thread)
}

pub(crate) fn run_in_background(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    spawn_thread(name, async move { work() }).map(drop)
}

pub(crate) fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let (thread, result) = start_with_result(work);
    let task = of_thread(async move {
        thread.await;
        take(&result).expect("the thread has ended")
    });
    register(tokio::spawn(task), Kind::Other)
}

type Shared<T> = Arc<Mutex<Option<T>>>;

fn take<T>(result: &Shared<T>) -> Option<T> {
    result.lock().unwrap_or_else(PoisonError::into_inner).take()
}

fn start_with_result<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> (ThreadTask, Shared<T>) {
    let result = Arc::new(Mutex::new(None));
    let shared = Arc::clone(&result);
    let store = async move {
        let done = work();
        *shared.lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
    };
    (ThreadTask::start(store).expect("a thread"), result)
}

/// A thread with a result.
#[derive(Debug)]
pub(crate) struct Worker<T> {
    task: AbortHandle,
    result: Shared<T>,
}

impl<T> Worker<T> {
    /// Waits for the result; `None` where that is not possible.
    pub(crate) fn join(self) -> Option<T> {
        while can_block() && !self.task.is_finished() {
            pause(Duration::from_millis(1));
        }
        take(&self.result)
    }
}

pub(crate) fn spawn_worker<T: Send + 'static>(
    _: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<Worker<T>> {
    let (thread, result) = start_with_result(work);
    let task = register(tokio::spawn(of_thread(thread)), Kind::Other).abort_handle();
    Ok(Worker { task, result })
}

/// Where threads wait for a change of what a mutex guards.
#[derive(Debug, Default)]
pub(crate) struct Condition {}

impl Condition {
    pub(crate) fn notify_all(&self) {}

    pub(crate) fn wait_while<T>(&self, guarded: &Mutex<T>, timeout: Duration, holds: impl Fn(&T) -> bool) {
        const STEP: Duration = Duration::from_millis(50);
        let mut waited = Duration::ZERO;
        while waited < timeout && holds(&guarded.lock().unwrap_or_else(PoisonError::into_inner)) {
            pause(STEP);
            waited += STEP;
        }
    }
}

pub(crate) fn every(_: &str, interval: Duration, mut work: impl FnMut() -> bool + Send + 'static) -> io::Result<()> {
    spawn(async move {
        while work() {
            tokio::time::sleep(interval).await;
        }
    });
    Ok(())
}
