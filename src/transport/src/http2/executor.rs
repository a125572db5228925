//! Executors for the tasks of HTTP/2 connections.

use std::future::Future;
use std::rc::Rc;

use super::activity::Activity;

/// Runs the tasks of a connection on the current thread.
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

/// Also records the task of each request, so that it can be aborted: hyper spawns the task of a request right after it has passed the request to
/// the service.
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
