//! How a command ends, and the runtime that it runs on.

/// How a command ends.
pub(crate) type Outcome = Result<(), Failure>;

/// Why a command failed.
pub(crate) enum Failure {
    /// A check or test failed, and the details have been printed. Exit code 1.
    Failed,
    /// The command could not run; the message has not been printed. Exit code 2.
    Error(String),
    /// A command that was run has ended with this exit code.
    Exit(u8),
}

/// Runs a future on a single-threaded runtime with local tasks, as the control plane requires. Data arbiters have their own threads.
pub(crate) fn on_local_runtime<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Error(format!("failed to start the runtime: {error}")))?;
    Ok(tokio::task::LocalSet::new().block_on(&runtime, work))
}
