//! Servers that tests talk to, started by the project's own script.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::{peers, repository};

/// RabbitMQ, and pika to look at it with.
pub struct RabbitMq {
    /// Its address, with user and password.
    pub url: String,
    /// Its address for TLS, where it has one.
    pub tls_url: Option<String>,
    python: PathBuf,
    control: String,
    /// The folder of the state of one that is only for one test.
    own: Option<tempfile::TempDir>,
}

impl RabbitMq {
    /// The one of this process's tests; started where it does not run yet.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start() -> &'static Self {
        static STARTED: OnceLock<RabbitMq> = OnceLock::new();
        STARTED.get_or_init(|| Self::started(None, None))
    }

    /// One that only this test uses, so that it may be harmed; ended with it.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_own() -> Self {
        Self::started(Some(tempfile::tempdir().expect("a folder")), None)
    }

    /// One of its own that speaks TLS too, with the certificates of a folder, and wants one of its clients.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_with_tls(certificates: &Path) -> Self {
        Self::started(Some(tempfile::tempdir().expect("a folder")), Some(certificates))
    }

    fn started(own: Option<tempfile::TempDir>, certificates: Option<&Path>) -> Self {
        let python = peers("amqp").join("venv/bin/python");
        let told = script("up", own.as_ref().map(tempfile::TempDir::path), certificates);
        let found = |name: &str| {
            let line = told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.map(|value| value.trim_matches('\'').to_owned())
        };
        let value = |name: &str| found(name).expect(name);
        Self {
            url: value("RABBITMQ_URL"),
            tls_url: found("RABBITMQ_TLS_URL"),
            python,
            control: value("RABBITMQ_CTL"),
            own,
        }
    }

    /// Kills it as it is, and starts it again with what it left.
    ///
    /// # Panics
    /// When it is not one that only this test uses, or does not start again.
    pub fn crash(&self) {
        let own = self.own.as_ref().expect("only one's own is crashed");
        script("crash", Some(own.path()), None);
    }

    /// A queue's name that no other test and no earlier run has.
    #[must_use]
    pub fn name(&self, name: &str) -> String {
        format!("{name}-{}", std::process::id())
    }

    /// What pika does as `tests/peers/amqp/peer.py` says.
    #[must_use]
    pub fn peer(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.python);
        command.arg(repository().join("tests/peers/amqp/peer.py")).arg(&self.url).args(arguments);
        command
    }

    /// What pika does as `tests/peers/amqp/hostile.py` says.
    #[must_use]
    pub fn hostile(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.python);
        command.arg(repository().join("tests/peers/amqp/hostile.py")).arg(&self.url).args(arguments);
        command
    }

    /// What aio-pika does as `tests/peers/amqp/aio.py` says.
    #[must_use]
    pub fn aio_pika(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.python);
        command.arg(repository().join("tests/peers/amqp/aio.py")).arg(&self.url).args(arguments);
        command
    }

    /// What amqplib does as `tests/peers/amqp/amqplib.cjs` says.
    ///
    /// # Panics
    /// When it cannot be set up.
    #[must_use]
    pub fn amqplib(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("node");
        command.env("NODE_PATH", peers("amqp").join("node_modules"));
        command.arg(repository().join("tests/peers/amqp/amqplib.cjs")).arg(&self.url).args(arguments);
        command
    }

    /// Runs a peer to its end; gives what it printed.
    ///
    /// # Panics
    /// When it fails.
    #[expect(clippy::must_use_candidate, reason = "what it does is often all that is wanted")]
    pub fn run(&self, arguments: &[&str]) -> String {
        printed(self.peer(arguments))
    }

    /// Runs what harms a careless consumer to its end; gives what it printed.
    ///
    /// # Panics
    /// When it fails.
    #[expect(clippy::must_use_candidate, reason = "what it does is often all that is wanted")]
    pub fn harm(&self, arguments: &[&str]) -> String {
        printed(self.hostile(arguments))
    }

    /// Runs a command of `rabbitmqctl`.
    ///
    /// # Panics
    /// When it fails.
    pub fn control(&self, arguments: &[&str]) {
        let mut words = self.control.split(' ');
        let output = Command::new(words.next().expect("a command")).args(words).args(arguments).output();
        let output = output.expect("rabbitmqctl runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        if let Some(own) = &self.own {
            script("down", Some(own.path()), None);
        }
    }
}

fn printed(mut command: Command) -> String {
    let output = command.output().expect("pika runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Runs the script of services; gives what it printed.
fn script(command: &str, state: Option<&Path>, certificates: Option<&Path>) -> String {
    let mut script = Command::new(repository().join("tests/services/services"));
    script.args([command, "rabbitmq"]);
    if let Some(state) = state {
        script.env("CROSSDOCK_SERVICES", state);
    }
    if let Some(certificates) = certificates {
        script.env("CROSSDOCK_RABBITMQ_TLS", certificates);
    }
    let output = script.output().expect("the script runs");
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
