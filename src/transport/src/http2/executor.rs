//! Where HTTP/2's tasks run.

use std::future::Future;
use std::rc::Rc;

use super::activity::Activity;

/// Runs the tasks of a connection on its own thread.
#[derive(Debug, Clone, Copy)]
pub struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// The same for the requests of a caller, so that each can be ended: hyper asks for a request's task right after it has
/// handed the request over.
#[derive(Clone)]
pub(super) struct CallExecutor(pub(super) Rc<Activity>);

impl<F> hyper::rt::Executor<F> for CallExecutor
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        self.0.set_task(tokio::task::spawn_local(future).abort_handle());
    }
}
