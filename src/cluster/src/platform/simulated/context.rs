//! The instance that the current code belongs to.

use std::cell::RefCell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::task::{Poll, ready};

use tokio::time::Sleep;

use super::world::{Turn, World};

/// A run of an instance.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) world: World,
    pub(super) server: u64,
    /// Runs are numbered across all instances.
    pub(super) run: u64,
}

thread_local! {
    static CURRENT: RefCell<Option<Context>> = const { RefCell::new(None) };
}

/// The current instance.
pub(super) fn current() -> Context {
    let current = CURRENT.with_borrow(Clone::clone);
    current.expect("code of an instance runs in one")
}

/// Restores the instance before.
pub(super) struct Entered(Option<Context>);

impl Drop for Entered {
    fn drop(&mut self) {
        let before = self.0.take();
        CURRENT.with_borrow_mut(|current| *current = before);
    }
}

/// Makes an instance the current one until the returned value is dropped.
pub(super) fn enter(context: Context) -> Entered {
    Entered(CURRENT.with_borrow_mut(|current| current.replace(context)))
}

/// A task of an instance.
struct InInstance<F> {
    context: Context,
    /// It has a thread of its own, and is not held up by the others.
    is_thread: bool,
    /// It lets others run before.
    is_late: bool,
    /// Until it may run.
    sleep: Option<Pin<Box<Sleep>>>,
    /// `None` only while it is dropped.
    future: Option<Pin<Box<F>>>,
}

impl<F: Future> Future for InInstance<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<F::Output> {
        let context = self.context.clone();
        loop {
            if let Some(sleep) = &mut self.sleep {
                ready!(sleep.as_mut().poll(cx));
                self.sleep = None;
            }
            let now = context.world.now();
            let (is_thread, was_late) = (self.is_thread, self.is_late);
            match context.world.lock().turn(&context, (now, is_thread, was_late), cx.waker()) {
                Turn::Now => break,
                Turn::Never => return Poll::Pending,
                Turn::AfterOthers => {
                    self.is_late = true;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Turn::At(millis) => {
                    self.sleep = Some(Box::pin(tokio::time::sleep_until(context.world.instant(millis))));
                }
            }
        }
        self.is_late = false;
        let _entered = enter(context.clone());
        let Some(future) = &mut self.future else { return Poll::Pending };
        catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))).unwrap_or_else(|panic| {
            context.world.violation(&format!("a task of instance {} has panicked", context.server));
            resume_unwind(panic)
        })
    }
}

impl<F> Drop for InInstance<F> {
    fn drop(&mut self) {
        let _entered = enter(self.context.clone());
        self.future = None;
    }
}

/// A future that another task of the current instance runs.
pub(crate) fn in_instance<F>(future: F) -> impl Future<Output = F::Output> + Send
where
    F: Future + Send,
{
    of(future, false)
}

/// The same for a task that stands for a thread.
pub(super) fn of_thread<F>(future: F) -> impl Future<Output = F::Output> + Send
where
    F: Future + Send,
{
    of(future, true)
}

fn of<F: Future>(future: F, is_thread: bool) -> InInstance<F> {
    InInstance { context: current(), is_thread, is_late: false, sleep: None, future: Some(Box::pin(future)) }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "run {} of server {}", self.run, self.server)
    }
}
