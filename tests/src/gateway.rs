//! The gateway as a process.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};

use tempfile::TempDir;

use crate::cluster::Proxies;
use crate::{call, free_address, until};

/// The root of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ has a parent").to_path_buf()
}

/// The path of the `crossdock` binary, built once with the profile of the tests.
///
/// # Panics
/// If it cannot be built.
pub fn crossdock() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let mut build = Command::new(env!("CARGO"));
        // The whole workspace, so that libraries get the same features as in the test build and are not built twice.
        build.args(["build", "--quiet", "--workspace", "--bin", "crossdock"]).current_dir(repository());
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        // Libraries that read these variables of the test's own crate would be rebuilt.
        let prefixes = ["CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_CRATE_"];
        for (name, _) in std::env::vars().filter(|(name, _)| prefixes.iter().any(|prefix| name.starts_with(prefix))) {
            build.env_remove(name);
        }
        assert!(build.status().expect("cargo runs").success(), "the binary is built");
        let test = std::env::current_exe().expect("the test's own path");
        let folder = test.ancestors().find(|folder| folder.join("crossdock").is_file());
        folder.expect("the binary is next to the tests").join("crossdock")
    })
}

/// A gateway process with its own settings, on free ports; killed on drop.
pub struct Gateway {
    process: Child,
    folder: TempDir,
    log: Arc<Mutex<Vec<String>>>,
}

/// The number of log lines that a failed test prints.
const LOG_LINES: usize = 40;

/// How a gateway exited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// The exit code; `None` if killed by a signal.
    pub code: Option<i32>,
}

/// The addresses of an instance of a linked cluster.
#[derive(Debug, Clone, Copy)]
pub struct LinkedAddresses {
    /// For the other instances.
    pub peer: SocketAddr,
    /// Of its listener.
    pub public: SocketAddr,
    /// Of its API.
    pub api: SocketAddr,
}

impl LinkedAddresses {
    /// Free ones.
    #[must_use]
    pub fn free() -> Self {
        Self { peer: free_address(), public: free_address(), api: free_address() }
    }
}

impl Gateway {
    /// Starts a gateway with one HTTP listener `public` and these routes, and waits until it is ready.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start(routes: &str) -> Self {
        Self::start_with("public: { http: { bind: \"127.0.0.1:0\" } }", routes)
    }

    /// Like [`Gateway::start`], with the YAML below `listeners:`.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start_with(listeners: &str, routes: &str) -> Self {
        Self::start_with_files(listeners, routes, &[])
    }

    /// Like [`Gateway::start_with`], with files next to the settings, such as contracts.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start_with_files(listeners: &str, routes: &str, files: &[(&str, &[u8])]) -> Self {
        Self::start_with_failpoint(listeners, routes, files, "")
    }

    /// Like [`Gateway::start_with_files`]; the process aborts at a failpoint such as `amqp.received@100`: the hundredth time that it is
    /// reached.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start_with_failpoint(listeners: &str, routes: &str, files: &[(&str, &[u8])], failpoint: &str) -> Self {
        Self::spawn(&[], listeners, routes, files, failpoint)
    }

    /// Like [`Gateway::start_with`], run by a command that executes its arguments, such as `prlimit --nofile=64`.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start_under(command: &[&str], listeners: &str, routes: &str) -> Self {
        Self::start_under_with_files(command, listeners, routes, &[])
    }

    /// Like [`Gateway::start_under`], with files next to the settings.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start_under_with_files(command: &[&str], listeners: &str, routes: &str, files: &[(&str, &[u8])]) -> Self {
        Self::spawn(command, listeners, routes, files, "")
    }

    /// Like [`Gateway::start_with`], with further settings, such as `coordination: { … }`.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start_with_settings(listeners: &str, settings: &str, routes: &str) -> Self {
        let mut gateway = Self::launch(&[], write_settings(listeners, routes, &[], settings), "");
        gateway.wait_until_ready();
        gateway
    }

    /// Starts the instances of a cluster, with sessions of one second.
    ///
    /// # Panics
    /// If one does not start.
    #[must_use]
    pub fn start_cluster(count: usize, routes: &str) -> Vec<Self> {
        Self::start_cluster_with(count, "public: { http: { bind: \"127.0.0.1:0\" } }", routes)
    }

    /// Like [`Gateway::start_cluster`], with the YAML below `listeners:`.
    ///
    /// # Panics
    /// If one does not start.
    #[must_use]
    pub fn start_cluster_with(count: usize, listeners: &str, routes: &str) -> Vec<Self> {
        Self::start_cluster_of(count, listeners, routes, "", &[])
    }

    /// Like [`Gateway::start_cluster_with`], with further settings of `cluster:` such as `, api: { … }`, and files.
    ///
    /// # Panics
    /// If one does not start.
    #[must_use]
    pub fn start_cluster_of(
        count: usize,
        listeners: &str,
        routes: &str,
        settings: &str,
        files: &[(&str, &[u8])],
    ) -> Vec<Self> {
        let members: Vec<String> = (1..=count).map(|id| format!("{id}: \"{}\"", free_address())).collect();
        let members = members.join(", ");
        let member = |id| {
            let cluster =
                format!("cluster: {{ name: test, id: {id}, members: {{ {members} }}, session: 1s{settings} }}\n");
            let folder = write_settings(listeners, routes, files, &cluster);
            let mut init = Command::new(crossdock());
            init.args(["cluster", "init", "--bootstrap", "--config"]).arg(folder.path()).stdout(Stdio::null());
            assert!(init.status().expect("it runs").success(), "the log is created");
            Self::launch(&[], folder, "")
        };
        let mut instances: Vec<_> = (1..=count).map(member).collect();
        instances.iter_mut().for_each(Self::wait_until_ready);
        instances
    }

    /// Starts a cluster whose instances see each other through proxies. Each has a fixed address for its listener `public` and for its API, which it
    /// keeps over restarts, and this file of clients.
    ///
    /// # Panics
    /// If one does not start.
    #[must_use]
    pub fn start_linked_cluster(
        links: &Proxies,
        addresses: &[LinkedAddresses],
        routes: &str,
        clients: &str,
    ) -> Vec<Self> {
        let member = |index: usize| {
            let own = &addresses[index];
            let members = addresses.iter().enumerate().map(|(other, addresses)| {
                format!("{}: \"{}\"", other + 1, links.address(other, index, addresses.peer))
            });
            let (members, id) = (members.collect::<Vec<_>>().join(", "), index + 1);
            let cluster = format!(
                "cluster: {{ name: test, id: {id}, members: {{ {members} }}, session: 1s, api: {{ bind: \"{}\", access: clients.yaml }} }}\n",
                own.api
            );
            let listeners = format!("public: {{ http: {{ bind: \"{}\" }} }}", own.public);
            let folder = write_settings(&listeners, routes, &[("clients.yaml", clients.as_bytes())], &cluster);
            let mut init = Command::new(crossdock());
            init.args(["cluster", "init", "--bootstrap", "--config"]).arg(folder.path()).stdout(Stdio::null());
            assert!(init.status().expect("it runs").success(), "the log is created");
            Self::launch(&[], folder, "")
        };
        let mut instances: Vec<_> = (0..addresses.len()).map(member).collect();
        instances.iter_mut().for_each(Self::wait_until_ready);
        instances
    }

    /// Kills the processes at the same time, and starts them again with the same folders.
    ///
    /// # Panics
    /// If one does not start.
    #[must_use]
    pub fn restart_all(mut instances: Vec<Self>) -> Vec<Self> {
        for gateway in &mut instances {
            let _ = gateway.process.kill();
        }
        let launch = |mut gateway: Self| {
            let _ = gateway.process.wait();
            let folder = std::mem::replace(&mut gateway.folder, tempfile::tempdir().expect("a folder"));
            drop(gateway);
            Self::launch(&[], folder, "")
        };
        let mut instances: Vec<_> = instances.into_iter().map(launch).collect();
        instances.iter_mut().for_each(Self::wait_until_ready);
        instances
    }

    /// Kills the process, and starts it again with the same folder.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn restart(mut self) -> Self {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let folder = std::mem::replace(&mut self.folder, tempfile::tempdir().expect("a folder"));
        drop(self);
        let mut gateway = Self::launch(&[], folder, "");
        gateway.wait_until_ready();
        gateway
    }

    fn spawn(under: &[&str], listeners: &str, routes: &str, files: &[(&str, &[u8])], failpoint: &str) -> Self {
        let mut gateway = Self::launch(under, write_settings(listeners, routes, files, ""), failpoint);
        gateway.wait_until_ready();
        gateway
    }

    fn launch(under: &[&str], folder: TempDir, failpoint: &str) -> Self {
        let mut words = under.iter().map(std::ffi::OsStr::new).chain([crossdock().as_os_str()]);
        let mut process = Command::new(words.next().expect("a command"))
            .args(words)
            .args(["run", "--config"])
            .arg(folder.path())
            .env("CROSSDOCK_FAILPOINT", failpoint)
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("the gateway starts");
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = BufReader::new(process.stderr.take().expect("its log"));
        let shared_log = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                shared_log.lock().expect("the log").push(line);
            }
        });
        Self { process, folder, log }
    }

    fn wait_until_ready(&mut self) {
        until("the gateway's admin listener", || {
            if let Some(status) = self.process.try_wait().expect("a process") {
                panic!("the gateway exited with {status}:\n{}", self.log().join("\n"));
            }
            self.field("admin server started", "address").is_some()
        });
        let admin = self.admin();
        until("the gateway to be ready", || call(&admin, "GET", "/readyz", "").status == 200);
    }

    /// The log lines so far.
    ///
    /// # Panics
    /// Never: no thread panics while holding the lock.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.log.lock().expect("the log").clone()
    }

    fn field(&self, message: &str, field: &str) -> Option<String> {
        let lines = self.log();
        let parsed = lines.iter().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let mut found = parsed.filter(|line| line["fields"]["message"] == message);
        found.find_map(|line| line["fields"][field].as_str().map(str::to_owned))
    }

    /// The address of the listener `public`.
    ///
    /// # Panics
    /// If there is no such listener.
    #[must_use]
    pub fn public(&self) -> String {
        self.field("listener started", "address").expect("the listener's address")
    }

    /// The address of a listener.
    ///
    /// # Panics
    /// If there is no listener of that name.
    #[must_use]
    pub fn listener(&self, name: &str) -> String {
        let lines = self.log();
        let parsed = lines.iter().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let mut found =
            parsed.filter(|line| line["fields"]["message"] == "listener started" && line["fields"]["listener"] == name);
        let line = found.next().expect("the listener");
        line["fields"]["address"].as_str().expect("its address").to_owned()
    }

    /// The address of the admin listener.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn admin(&self) -> String {
        self.field("admin server started", "address").expect("the admin listener's address")
    }

    /// The address of the API of the cluster.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn api(&self) -> String {
        self.field("API of the cluster started", "address").expect("the API's address")
    }

    /// Reads a JSON document from the admin listener.
    ///
    /// # Panics
    /// If the response is not JSON.
    #[must_use]
    pub fn admin_json(&self, path: &str) -> serde_json::Value {
        serde_json::from_str(&call(&self.admin(), "GET", path, "").body).expect("JSON")
    }

    /// The folder of its settings.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Replaces the routes; the gateway detects the change.
    ///
    /// # Panics
    /// If the file cannot be written.
    pub fn write_routes(&self, routes: &str) {
        // Written to a temporary file and renamed, so that a partial file is never read.
        let aside = self.folder.path().join("routes/.routes.yaml.new");
        std::fs::write(&aside, routes).expect("routes");
        std::fs::rename(aside, self.folder.path().join("routes/routes.yaml")).expect("routes");
    }

    /// Writes a file next to the settings in place.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write_file(&self, name: &str, content: &[u8]) {
        std::fs::write(self.folder.path().join(name), content).expect("a file");
    }

    /// Prepends a comment line to the settings.
    ///
    /// # Panics
    /// If the file cannot be written.
    pub fn prepend_comment(&self, line: &str) {
        let path = self.folder.path().join("crossdock.yaml");
        let settings = std::fs::read_to_string(&path).expect("settings");
        let aside = self.folder.path().join(".crossdock.yaml.new");
        std::fs::write(&aside, format!("# {line}\n{settings}")).expect("settings");
        std::fs::rename(aside, path).expect("settings");
    }

    /// Sends a signal, given by its name such as `TERM`.
    ///
    /// # Panics
    /// If it cannot be sent.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status();
        assert!(sent.expect("kill runs").success(), "the signal is sent");
    }

    /// Resident memory in KiB.
    ///
    /// # Panics
    /// If the process has exited.
    #[must_use]
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("a live process");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
        line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
    }

    /// Waits for the process to exit.
    ///
    /// # Panics
    /// If it does not exit in 40 seconds.
    pub fn wait(&mut self) -> Ending {
        let mut ending = None;
        let begun = std::time::Instant::now();
        while ending.is_none() {
            assert!(begun.elapsed().as_secs() < 40, "the gateway does not exit:\n{}", self.log().join("\n"));
            ending = self.process.try_wait().expect("a process");
            std::thread::park_timeout(std::time::Duration::from_millis(5));
        }
        Ending { code: ending.and_then(|status| status.code()) }
    }

    /// Whether the process is running.
    ///
    /// # Panics
    /// If its state cannot be read.
    pub fn is_running(&mut self) -> bool {
        self.process.try_wait().expect("a process").is_none()
    }
}

/// A folder with settings and routes.
fn write_settings(listeners: &str, routes: &str, files: &[(&str, &[u8])], more: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, content) in files {
        std::fs::write(folder.path().join(name), content).expect("a file");
    }
    let settings = format!(
        "version: 1\nlisteners:\n  {listeners}\nadmin: {{ bind: \"127.0.0.1:0\" }}\nlog: {{ format: json, level: info }}\n{more}"
    );
    std::fs::write(folder.path().join("crossdock.yaml"), settings).expect("settings");
    std::fs::create_dir(folder.path().join("routes")).expect("a folder");
    std::fs::write(folder.path().join("routes/routes.yaml"), routes).expect("routes");
    folder
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // For a failure that cannot be reproduced, this is the only evidence.
            let log = self.log.lock().map(|log| log.clone()).unwrap_or_default();
            let last = log.iter().rev().take(LOG_LINES).rev().map(String::as_str).collect::<Vec<_>>();
            eprintln!("the last of the gateway's {} log lines:\n{}", log.len(), last.join("\n"));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
