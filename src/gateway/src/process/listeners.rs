//! The running listeners, as the guardian last reported them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossdock_ports::{PortStatus, ReportStatus, SourceStatus};

/// All listeners of the current settings, by name.
#[derive(Debug, Default)]
pub(crate) struct Listeners(Mutex<BTreeMap<String, Listener>>);

/// One listener.
#[derive(Debug, Clone)]
pub(crate) struct Listener {
    /// The adapter's name.
    pub(crate) adapter: &'static str,
    /// The bound address.
    pub(crate) address: String,
    /// How often it was restarted after a failure.
    pub(crate) restarts: u64,
    run: Run,
}

#[derive(Debug, Clone)]
enum Run {
    Running(Arc<dyn ReportStatus>),
    /// It failed with this error.
    Failed(String),
}

impl Listener {
    /// Whether messages can arrive.
    pub(crate) fn status(&self) -> PortStatus {
        match &self.run {
            Run::Running(reporter) => reporter.status(),
            Run::Failed(error) => PortStatus::Down(error.clone()),
        }
    }

    /// The events of its adapter since it started.
    pub(crate) fn events(&self) -> Vec<(&'static str, u64)> {
        match &self.run {
            Run::Running(reporter) => reporter.events(),
            Run::Failed(_) => Vec::new(),
        }
    }

    /// The time that its adapter has spent on each kind of work since it started.
    pub(crate) fn times(&self) -> Vec<(&'static str, Duration)> {
        match &self.run {
            Run::Running(reporter) => reporter.times(),
            Run::Failed(_) => Vec::new(),
        }
    }

    /// The sources that it reads.
    pub(crate) fn sources(&self) -> Vec<SourceStatus> {
        match &self.run {
            Run::Running(reporter) => reporter.sources(),
            Run::Failed(_) => Vec::new(),
        }
    }
}

impl Listeners {
    /// A listener was started, for the first time or again.
    pub(crate) fn started(&self, name: &str, adapter: &'static str, address: String, reporter: Arc<dyn ReportStatus>) {
        let mut listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let restarts = listeners.get(name).map_or(0, |listener| listener.restarts + 1);
        listeners.insert(name.to_owned(), Listener { adapter, address, restarts, run: Run::Running(reporter) });
    }

    /// A listener failed; it may be started again.
    pub(crate) fn failed(&self, name: &str, error: &str) {
        if let Some(listener) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(name) {
            listener.run = Run::Failed(error.to_owned());
        }
    }

    /// A listener is no longer configured.
    pub(crate) fn removed(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// A copy of all of them, in the order of their names.
    pub(crate) fn all(&self) -> Vec<(String, Listener)> {
        let listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.iter().map(|(name, listener)| (name.clone(), listener.clone())).collect()
    }
}
