//! Apache Kafka, started by `tests/services/services`, and the clients that tests use with it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

use crate::services::{output_of, run_script, variable};
use crate::{peers, repository};

/// Brokers of Kafka.
pub struct Kafka {
    /// The addresses of the brokers, separated by commas.
    pub brokers: String,
    /// Those that require a client certificate, if they listen for TLS.
    pub brokers_with_tls: Option<String>,
    /// Those that require a login, over TLS.
    pub brokers_with_tls_and_login: Option<String>,
    /// Those that require a login.
    pub brokers_with_login: String,
    /// The user and the password of the login.
    pub login: (String, String),
    service: &'static str,
    peers: PathBuf,
    /// The folder with the libraries of the server.
    libraries: PathBuf,
    /// The state folder of private brokers.
    private: Option<tempfile::TempDir>,
}

impl Kafka {
    /// The broker shared by the tests of this process; started if it does not run yet.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start() -> &'static Self {
        static STARTED: OnceLock<Kafka> = OnceLock::new();
        STARTED.get_or_init(|| Self::start_by_script("kafka", None, None))
    }

    /// Starts a broker that only this test uses and may crash; stopped on drop.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start_private() -> Self {
        Self::start_by_script("kafka", Some(tempfile::tempdir().expect("a folder")), None)
    }

    /// Like [`Kafka::start_private`]; the broker also listens for TLS with the certificates of a folder.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start_with_tls(certificates: &Path) -> Self {
        Self::start_by_script("kafka", Some(tempfile::tempdir().expect("a folder")), Some(certificates))
    }

    /// Like [`Kafka::start_private`], with three brokers.
    ///
    /// # Panics
    /// If they do not start.
    #[must_use]
    pub fn start_three() -> Self {
        Self::start_by_script("kafka3", Some(tempfile::tempdir().expect("a folder")), None)
    }

    fn start_by_script(service: &'static str, private: Option<tempfile::TempDir>, certificates: Option<&Path>) -> Self {
        let peers = peers("kafka");
        let certificates = certificates.map(|folder| ("CROSSDOCK_KAFKA_TLS", folder.to_string_lossy().into_owned()));
        let output = run_script("up", service, private.as_ref().map(tempfile::TempDir::path), certificates.as_slice());
        let value = |name: &str| variable(&output, name).expect(name);
        Self {
            brokers: value("KAFKA_PLAINTEXT"),
            brokers_with_tls: variable(&output, "KAFKA_SSL"),
            brokers_with_tls_and_login: variable(&output, "KAFKA_SASL_SSL"),
            brokers_with_login: value("KAFKA_SASL_PLAINTEXT"),
            login: (value("KAFKA_USER"), value("KAFKA_PASSWORD")),
            service,
            peers,
            libraries: value("KAFKA_LIBRARIES").into(),
            private,
        }
    }

    /// Kills a private broker, by its index, and restarts it with its data.
    ///
    /// # Panics
    /// If the brokers are shared, or it does not start again.
    pub fn crash(&self, broker: usize) {
        let private = self.private.as_ref().expect("private brokers");
        run_script("crash", self.service, Some(private.path()), &[("CROSSDOCK_KAFKA_BROKER", broker.to_string())]);
    }

    /// The addresses of the brokers as items of a list in YAML.
    #[must_use]
    pub fn broker_list(&self) -> String {
        self.brokers.split(',').map(|broker| format!("\"{broker}\"")).collect::<Vec<_>>().join(", ")
    }

    /// A name that is unique to this process.
    #[must_use]
    pub fn name(&self, name: &str) -> String {
        format!("{name}-{}", std::process::id())
    }

    /// A command of `tests/peers/kafka/peer.py`.
    #[must_use]
    pub fn peer(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.peers.join("venv/bin/python"));
        command.arg(repository().join("tests/peers/kafka/peer.py")).arg(&self.brokers).args(arguments);
        command
    }

    /// One of the programs with which Kafka tests itself, such as `VerifiableProducer`, with its arguments.
    #[must_use]
    pub fn tool(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("java");
        command.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp"]).arg(self.libraries.join("*"));
        command
            .arg(format!("org.apache.kafka.tools.{name}"))
            .args(["--bootstrap-server", &self.brokers])
            .args(arguments);
        command
    }

    /// A command of `tests/peers/kafka/spring/Spring.java`.
    #[must_use]
    pub fn spring(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("java");
        command.arg("-XX:TieredStopAtLevel=1").arg("-cp").arg(self.peers.join("spring/*"));
        command.arg(repository().join("tests/peers/kafka/spring/Spring.java")).arg(&self.brokers).args(arguments);
        command
    }

    /// Runs a command of `tests/peers/kafka/peer.py`, which uses aiokafka, to completion; returns its output.
    ///
    /// # Panics
    /// If it fails.
    #[expect(clippy::must_use_candidate, reason = "often called for its side effect")]
    pub fn run(&self, arguments: &[&str]) -> String {
        output_of(self.peer(arguments))
    }

    /// Writes records, in the form that [`Kafka::read`] returns.
    ///
    /// # Panics
    /// If it fails.
    pub fn write(&self, topic: &str, records: &[Value]) {
        let mut peer = self.peer(&["write", topic]).stdin(Stdio::piped()).spawn().expect("the peer runs");
        let lines: String = records.iter().map(|record| format!("{record}\n")).collect();
        peer.stdin.take().expect("its input").write_all(lines.as_bytes()).expect("it reads");
        assert!(peer.wait().expect("it ends").success(), "records are written");
    }

    /// All committed records of a topic: `key`, `value`, `headers`, `partition`, `timestamp` and `offset`.
    ///
    /// # Panics
    /// If it fails.
    #[must_use]
    pub fn read(&self, topic: &str) -> Vec<Value> {
        self.run(&["read", topic]).lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }

    /// The sum of the committed offsets of a group in a topic.
    ///
    /// # Panics
    /// If it fails.
    #[must_use]
    pub fn committed(&self, group: &str, topic: &str) -> u64 {
        let offsets: Value = serde_json::from_str(&self.run(&["committed", group, topic])).expect("JSON");
        offsets.as_object().expect("offsets").values().filter_map(Value::as_u64).sum()
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        if let Some(private) = &self.private {
            run_script("down", self.service, Some(private.path()), &[]);
        }
    }
}
