//! Engines of coordination outside of the gateway, started by `tests/services/services`.

use crossdock_engines::{Kind, Options};
use crossdock_transport::Endpoint;

use crate::services::{run_script, variable};

/// The servers of an engine, which only one test uses; stopped on drop.
pub struct EngineServers {
    /// Which engine.
    pub kind: Kind,
    /// The release of the servers.
    pub version: String,
    /// Addresses, separated by commas.
    pub addresses: String,
    pids: Vec<i32>,
    state: tempfile::TempDir,
}

impl EngineServers {
    /// Starts the servers of an engine.
    ///
    /// # Panics
    /// If they do not start.
    #[must_use]
    pub fn start(kind: Kind) -> Self {
        Self::start_by_script(kind, &[])
    }

    /// Like [`EngineServers::start`]; etcd requires a password of its user `root`, and Redis of everybody.
    ///
    /// # Panics
    /// If they do not start.
    #[must_use]
    pub fn start_with_password(kind: Kind, password: &str) -> Self {
        Self::start_by_script(kind, &[("CROSSDOCK_ENGINE_PASSWORD", password.to_owned())])
    }

    fn start_by_script(kind: Kind, variables: &[(&str, String)]) -> Self {
        let state = tempfile::tempdir().expect("a folder");
        let output = run_script("up", kind.row().name, Some(state.path()), variables);
        Self::read(kind, state, &output)
    }

    fn read(kind: Kind, state: tempfile::TempDir, output: &str) -> Self {
        let name = kind.row().name.to_uppercase();
        let value = |key: &str| variable(output, &format!("{name}_{key}")).unwrap_or_else(|| panic!("{name}_{key}"));
        let pids = value("PIDS").split(',').map(|pid| pid.parse().expect("a process id")).collect();
        Self { kind, version: value("VERSION"), addresses: value("SERVERS"), pids, state }
    }

    /// The number of servers.
    #[must_use]
    pub fn count(&self) -> usize {
        self.pids.len()
    }

    /// Kills a server and starts it again with its data, after this many seconds.
    ///
    /// # Panics
    /// If it does not start again.
    pub fn crash(&mut self, index: usize, down_seconds: f64) {
        let variables =
            [("CROSSDOCK_ENGINE_SERVER", index.to_string()), ("CROSSDOCK_DOWN_SECONDS", down_seconds.to_string())];
        let output = run_script("crash", self.kind.row().name, Some(self.state.path()), &variables);
        let name = self.kind.row().name.to_uppercase();
        let pids = variable(&output, &format!("{name}_PIDS")).expect("process ids");
        self.pids = pids.split(',').map(|pid| pid.parse().expect("a process id")).collect();
    }

    /// Sends a signal to all servers.
    ///
    /// # Panics
    /// If one has ended.
    pub fn signal(&self, signal: rustix::process::Signal) {
        for pid in &self.pids {
            let pid = rustix::process::Pid::from_raw(*pid).expect("a process id");
            rustix::process::kill_process(pid, signal).expect("it runs");
        }
    }

    /// Options of an instance that uses them.
    ///
    /// # Panics
    /// If an address is not valid.
    #[must_use]
    pub fn options(&self, prefix: &str, session: std::time::Duration) -> Options {
        let endpoint = |address: &str| Endpoint::parse(&format!("http://{address}")).expect("an address");
        Options {
            kind: self.kind,
            endpoints: self.addresses.split(',').map(endpoint).collect(),
            tls: None,
            prefix: prefix.to_owned(),
            session,
            login: None,
            label: "test".to_owned(),
        }
    }

    /// The settings of a gateway that uses them.
    #[must_use]
    pub fn settings(&self, session_s: u64) -> String {
        let endpoints: Vec<_> = self.addresses.split(',').map(|address| format!("\"{address}\"")).collect();
        let (engine, endpoints) = (self.kind.row().name, endpoints.join(", "));
        format!("coordination: {{ engine: {engine}, endpoints: [ {endpoints} ], session: {session_s}s }}\n")
    }
}

impl Drop for EngineServers {
    fn drop(&mut self) {
        // A process that is stopped would not end.
        for pid in self.pids.iter().filter_map(|pid| rustix::process::Pid::from_raw(*pid)) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::CONT);
        }
        run_script("down", self.kind.row().name, Some(self.state.path()), &[]);
    }
}
