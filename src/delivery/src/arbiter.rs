//! The data arbiter of a listener that consumes from a broker.

use std::future::Future;

use crossdock_ports::AdapterError;
use tokio::sync::oneshot;
use tokio::task::LocalSet;

/// Runs a listener to its end on a thread of its own with this name.
///
/// # Errors
/// That of the listener; [`AdapterError::Stopped`] if the thread cannot be started, or the listener panics.
pub async fn run_on_own_thread<F>(name: String, serve: impl FnOnce() -> F + Send + 'static) -> Result<(), AdapterError>
where
    F: Future<Output = Result<(), AdapterError>>,
{
    let stopped = |error: &dyn std::fmt::Display| AdapterError::Stopped(error.to_string());
    let (ended, end) = oneshot::channel();
    let serving = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let result = match runtime {
            Ok(runtime) => LocalSet::new().block_on(&runtime, async { serve().await }),
            Err(error) => Err(AdapterError::Stopped(error.to_string())),
        };
        let _ = ended.send(result);
    };
    std::thread::Builder::new().name(name).spawn(serving).map_err(|error| stopped(&error))?;
    end.await.map_err(|_| stopped(&"the listener thread panicked"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listener_that_fails_or_panics_is_reported() {
        let failed = run_on_own_thread("test".to_owned(), || async { Err(AdapterError::Stopped("no".to_owned())) });
        assert_eq!(failed.await.expect_err("it fails").to_string(), "stopped: no");
        let panicked = run_on_own_thread("test".to_owned(), || async { panic!("a bug") });
        assert_eq!(panicked.await.expect_err("it panics").to_string(), "stopped: the listener thread panicked");
        let local = run_on_own_thread("test".to_owned(), || async {
            tokio::task::spawn_local(async {}).await.map_err(|error| AdapterError::Stopped(error.to_string()))
        });
        assert!(local.await.is_ok());
    }
}
