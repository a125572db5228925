//! A schema registry, started by `tests/services/services`, and the serializers that tests use with it.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::services::{run_script, variable};
use crate::{Kafka, peers, repository};

/// Apicurio Registry.
pub struct Registry {
    /// The address of Confluent's API.
    pub url: String,
}

impl Registry {
    /// The registry shared by the tests of this process; started if it does not run yet.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start() -> &'static Self {
        static STARTED: OnceLock<Registry> = OnceLock::new();
        STARTED.get_or_init(|| {
            let output = run_script("up", "apicurio", None, &[]);
            Self { url: variable(&output, "REGISTRY_URL").expect("an address") }
        })
    }

    /// Runs a command of `tests/peers/kafka/registry.py`, which uses Confluent's client, with an input; returns its output.
    ///
    /// # Panics
    /// If it fails.
    #[expect(clippy::must_use_candidate, reason = "often called for its side effect")]
    pub fn run(&self, kafka: &Kafka, arguments: &[&str], input: &str) -> String {
        let mut command = Command::new(peers("kafka").join("venv/bin/python"));
        command
            .arg(repository().join("tests/peers/kafka/registry.py"))
            .arg(&kafka.brokers)
            .arg(&self.url)
            .args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut peer = command.spawn().expect("the peer runs");
        peer.stdin.take().expect("its input").write_all(input.as_bytes()).expect("it reads");
        let output = peer.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}
