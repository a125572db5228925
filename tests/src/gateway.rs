//! The gateway as a process.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};

use tempfile::TempDir;

use crate::{call, until};

/// The root of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ has a parent").to_path_buf()
}

/// The `crossdock` command, built once with the profile of the tests.
pub fn crossdock() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let mut build = Command::new(env!("CARGO"));
        // The whole workspace, so that libraries are built once and with the same features as for the tests.
        build.args(["build", "--quiet", "--workspace", "--bin", "crossdock"]).current_dir(repository());
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        // What cargo says of this test's crate would have libraries built anew that look at it.
        let of_this_crate = ["CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_CRATE_"];
        for (name, _) in std::env::vars().filter(|(name, _)| of_this_crate.iter().any(|start| name.starts_with(start)))
        {
            build.env_remove(name);
        }
        assert!(build.status().expect("cargo runs").success(), "the command is built");
        let test = std::env::current_exe().expect("the test's own path");
        let folder = test.ancestors().find(|folder| folder.join("crossdock").is_file());
        folder.expect("the command stands next to the tests").join("crossdock")
    })
}

/// A gateway with settings of a test's own, on free ports.
pub struct Gateway {
    process: Child,
    folder: TempDir,
    log: Arc<Mutex<Vec<String>>>,
}

/// Lines of a gateway's log that a failed test shows.
const LOG_LINES: usize = 40;

/// How a gateway ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// The exit code; `None` after a signal.
    pub code: Option<i32>,
}

impl Gateway {
    /// Starts a gateway with one listener `public` and these routes, and waits until it is ready.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(routes: &str) -> Self {
        Self::start_with("public: { http: { bind: \"127.0.0.1:0\" } }", routes)
    }

    /// As [`Gateway::start`], with the text below `listeners:`.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_with(listeners: &str, routes: &str) -> Self {
        Self::start_with_files(listeners, routes, &[])
    }

    /// As [`Gateway::start_with`], with files next to the settings, such as contracts.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_with_files(listeners: &str, routes: &str, files: &[(&str, &[u8])]) -> Self {
        Self::start_to_end_at(listeners, routes, files, "")
    }

    /// As [`Gateway::start_with_files`]; it ends as if killed where `failpoint` says, such as `amqp.received@100`: at the hundredth
    /// time that it gets there.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_to_end_at(listeners: &str, routes: &str, files: &[(&str, &[u8])], failpoint: &str) -> Self {
        Self::spawn(&[], listeners, routes, files, failpoint)
    }

    /// As [`Gateway::start_with`], behind the words of a command that replaces itself by it, such as `prlimit --nofile=64`.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_under(command: &[&str], listeners: &str, routes: &str) -> Self {
        Self::start_under_with_files(command, listeners, routes, &[])
    }

    /// As [`Gateway::start_under`], with files next to the settings.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_under_with_files(command: &[&str], listeners: &str, routes: &str, files: &[(&str, &[u8])]) -> Self {
        Self::spawn(command, listeners, routes, files, "")
    }

    fn spawn(under: &[&str], listeners: &str, routes: &str, files: &[(&str, &[u8])], failpoint: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, content) in files {
            std::fs::write(folder.path().join(name), content).expect("a file");
        }
        let settings = format!(
            "version: 1\nlisteners:\n  {listeners}\nadmin: {{ bind: \"127.0.0.1:0\" }}\nlog: {{ format: json, level: info }}\n"
        );
        std::fs::write(folder.path().join("crossdock.yaml"), settings).expect("settings");
        std::fs::create_dir(folder.path().join("routes")).expect("a folder");
        std::fs::write(folder.path().join("routes/routes.yaml"), routes).expect("routes");
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
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                kept.lock().expect("the log").push(line);
            }
        });
        let mut gateway = Self { process, folder, log };
        gateway.wait_until_ready();
        gateway
    }

    fn wait_until_ready(&mut self) {
        until("the gateway's admin listener", || {
            if let Some(status) = self.process.try_wait().expect("a process") {
                panic!("the gateway ended with {status}:\n{}", self.log().join("\n"));
            }
            self.field("admin listens", "address").is_some()
        });
        let admin = self.admin();
        until("the gateway to be ready", || call(&admin, "GET", "/readyz", "").status == 200);
    }

    /// The lines of its log so far.
    ///
    /// # Panics
    /// Never: nobody panics while holding the log.
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
    /// When it has none.
    #[must_use]
    pub fn public(&self) -> String {
        self.field("listener started", "address").expect("the listener's address")
    }

    /// The address of a listener.
    ///
    /// # Panics
    /// When there is none of that name.
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
    /// When it has none.
    #[must_use]
    pub fn admin(&self) -> String {
        self.field("admin listens", "address").expect("the admin listener's address")
    }

    /// What the admin listener gives as JSON.
    ///
    /// # Panics
    /// When it gives none.
    #[must_use]
    pub fn admin_json(&self, path: &str) -> serde_json::Value {
        serde_json::from_str(&call(&self.admin(), "GET", path, "").body).expect("JSON")
    }

    /// The folder of its settings.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The process's id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Writes other routes; the gateway sees the file change.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn write_routes(&self, routes: &str) {
        // Written aside and moved, as editors do, so that no half of a file is ever read.
        let aside = self.folder.path().join("routes/.routes.yaml.new");
        std::fs::write(&aside, routes).expect("routes");
        std::fs::rename(aside, self.folder.path().join("routes/routes.yaml")).expect("routes");
    }

    /// Writes a file next to the settings, as a whole and in its place.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write_file(&self, name: &str, content: &[u8]) {
        std::fs::write(self.folder.path().join(name), content).expect("a file");
    }

    /// Puts a line before the settings, as a person who comments them does.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn comment_settings(&self, line: &str) {
        let path = self.folder.path().join("crossdock.yaml");
        let settings = std::fs::read_to_string(&path).expect("settings");
        let aside = self.folder.path().join(".crossdock.yaml.new");
        std::fs::write(&aside, format!("# {line}\n{settings}")).expect("settings");
        std::fs::rename(aside, path).expect("settings");
    }

    /// Sends a signal by its name, such as `TERM`.
    ///
    /// # Panics
    /// When it cannot be sent.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status();
        assert!(sent.expect("kill runs").success(), "the signal is sent");
    }

    /// Memory in use, in KiB.
    ///
    /// # Panics
    /// When the process is gone.
    #[must_use]
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("a live process");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
        line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
    }

    /// Waits for the process to end.
    ///
    /// # Panics
    /// When it does not.
    pub fn wait(&mut self) -> Ending {
        let mut ending = None;
        let begun = std::time::Instant::now();
        while ending.is_none() {
            assert!(begun.elapsed().as_secs() < 40, "the gateway does not end:\n{}", self.log().join("\n"));
            ending = self.process.try_wait().expect("a process");
            std::thread::park_timeout(std::time::Duration::from_millis(5));
        }
        Ending { code: ending.and_then(|status| status.code()) }
    }

    /// Whether the process lives.
    ///
    /// # Panics
    /// When it cannot be asked.
    pub fn lives(&mut self) -> bool {
        self.process.try_wait().expect("a process").is_none()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Of a failure that does not come again, this is all that is left.
            let log = self.log.lock().map(|log| log.clone()).unwrap_or_default();
            let last = log.iter().rev().take(LOG_LINES).rev().map(String::as_str).collect::<Vec<_>>();
            eprintln!("the last of {} lines of the gateway's log:\n{}", log.len(), last.join("\n"));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
