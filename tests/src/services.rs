//! Servers that tests talk to, started by `tests/services/services`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::{peers, repository};

/// A RabbitMQ server, and the AMQP clients that tests use with it.
pub struct RabbitMq {
    /// The AMQP URL, with user and password.
    pub url: String,
    /// The AMQPS URL, if it listens for TLS.
    pub tls_url: Option<String>,
    python: PathBuf,
    control: String,
    /// The state folder of a private server.
    private: Option<tempfile::TempDir>,
}

impl RabbitMq {
    /// The server shared by the tests of this process; started if it does not run yet.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start() -> &'static Self {
        static STARTED: OnceLock<RabbitMq> = OnceLock::new();
        STARTED.get_or_init(|| Self::start_by_script(None, None))
    }

    /// Starts a server that only this test uses and may crash or reconfigure; stopped on drop.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start_private() -> Self {
        Self::start_by_script(Some(tempfile::tempdir().expect("a folder")), None)
    }

    /// Like [`RabbitMq::start_private`]; the server also listens for TLS with the certificates of a folder and requires client certificates.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start_with_tls(certificates: &Path) -> Self {
        Self::start_by_script(Some(tempfile::tempdir().expect("a folder")), Some(certificates))
    }

    fn start_by_script(private: Option<tempfile::TempDir>, certificates: Option<&Path>) -> Self {
        let python = peers("amqp").join("venv/bin/python");
        let output = script("up", private.as_ref().map(tempfile::TempDir::path), certificates);
        let found = |name: &str| variable(&output, name);
        let value = |name: &str| found(name).expect(name);
        Self {
            url: value("RABBITMQ_URL"),
            tls_url: found("RABBITMQ_TLS_URL"),
            python,
            control: value("RABBITMQ_CTL"),
            private,
        }
    }

    /// Kills a private server and restarts it with its data.
    ///
    /// # Panics
    /// If the server is shared, or does not start again.
    pub fn crash(&self) {
        let private = self.private.as_ref().expect("a private server");
        script("crash", Some(private.path()), None);
    }

    /// A queue name that is unique to this process.
    #[must_use]
    pub fn name(&self, name: &str) -> String {
        format!("{name}-{}", std::process::id())
    }

    /// A command of `tests/peers/amqp/peer.py`, which uses pika.
    #[must_use]
    pub fn peer(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.python);
        command.arg(repository().join("tests/peers/amqp/peer.py")).arg(&self.url).args(arguments);
        command
    }

    /// A command of `tests/peers/amqp/hostile.py`, which uses pika.
    #[must_use]
    pub fn hostile(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.python);
        command.arg(repository().join("tests/peers/amqp/hostile.py")).arg(&self.url).args(arguments);
        command
    }

    /// A command of `tests/peers/amqp/aio.py`, which uses aio-pika.
    #[must_use]
    pub fn aio_pika(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.python);
        command.arg(repository().join("tests/peers/amqp/aio.py")).arg(&self.url).args(arguments);
        command
    }

    /// A command of `tests/peers/amqp/amqplib.cjs`, which uses amqplib.
    ///
    /// # Panics
    /// If amqplib cannot be installed.
    #[must_use]
    pub fn amqplib(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("node");
        command.env("NODE_PATH", peers("amqp").join("node_modules"));
        command.arg(repository().join("tests/peers/amqp/amqplib.cjs")).arg(&self.url).args(arguments);
        command
    }

    /// Runs a command of `peer.py` to completion; returns its output.
    ///
    /// # Panics
    /// If it fails.
    #[expect(clippy::must_use_candidate, reason = "often called for its side effect")]
    pub fn run(&self, arguments: &[&str]) -> String {
        output_of(self.peer(arguments))
    }

    /// Runs a command of `hostile.py` to completion; returns its output.
    ///
    /// # Panics
    /// If it fails.
    #[expect(clippy::must_use_candidate, reason = "often called for its side effect")]
    pub fn run_hostile(&self, arguments: &[&str]) -> String {
        output_of(self.hostile(arguments))
    }

    /// Runs a command of `rabbitmqctl`.
    ///
    /// # Panics
    /// If it fails.
    pub fn control(&self, arguments: &[&str]) {
        let mut words = self.control.split(' ');
        let output = Command::new(words.next().expect("a command")).args(words).args(arguments).output();
        let output = output.expect("rabbitmqctl runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        if let Some(private) = &self.private {
            script("down", Some(private.path()), None);
        }
    }
}

/// The value of a variable that the script printed.
pub(crate) fn variable(output: &str, name: &str) -> Option<String> {
    let line = output.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    line.map(|value| value.trim_matches('\'').to_owned())
}

pub(crate) fn output_of(mut command: Command) -> String {
    let output = command.output().expect("the peer runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn script(command: &str, state: Option<&Path>, certificates: Option<&Path>) -> String {
    let certificates = certificates.map(|folder| ("CROSSDOCK_RABBITMQ_TLS", folder.to_string_lossy().into_owned()));
    run_script(command, "rabbitmq", state, certificates.as_slice())
}

/// Runs `tests/services/services` for one service; returns its output.
pub(crate) fn run_script(command: &str, service: &str, state: Option<&Path>, variables: &[(&str, String)]) -> String {
    let mut script = Command::new(repository().join("tests/services/services"));
    script.args([command, service]).envs(variables.iter().map(|(name, value)| (name, value)));
    if let Some(state) = state {
        script.env("CROSSDOCK_SERVICES", state);
    }
    let output = script.output().expect("the script runs");
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
