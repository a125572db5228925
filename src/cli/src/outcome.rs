//! How a command ends, and the runtime that it runs on.

/// How a command ends.
pub(crate) type Outcome = Result<(), Failure>;

/// A command that did not do what it was asked for.
pub(crate) enum Failure {
    /// A check or test failed; the details have been printed.
    Failed,
    /// It could not be done as requested.
    Misuse(String),
}

/// Runs on one thread with local tasks: the control plane. Data arbiters have threads of their own.
pub(crate) fn on_local_runtime<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Misuse(format!("cannot start a runtime: {error}")))?;
    Ok(tokio::task::LocalSet::new().block_on(&runtime, work))
}
