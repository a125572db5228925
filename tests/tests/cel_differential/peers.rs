//! The other evaluators: programs that read a line and write one.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value as Json;

use super::values::Tagged;

/// A value, or what went wrong.
pub(crate) type Answer = Result<Tagged, String>;

/// One of them, ended with the test by its own id.
pub(crate) struct Evaluator {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Evaluator {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the evaluator starts");
        let requests = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("its output"));
        Self { child, requests, answers }
    }

    /// Asks for all of a batch, while the answers are read.
    pub(crate) fn ask(&mut self, lines: &[String]) -> Vec<Answer> {
        let batch: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let mut requests = self.requests.take().expect("requests end with the test");
        let writer = std::thread::spawn(move || {
            requests.write_all(batch.as_bytes()).and_then(|()| requests.flush()).expect("the evaluator reads");
            requests
        });
        let answers = lines.iter().map(|line| {
            let mut answer = String::new();
            self.answers.read_line(&mut answer).expect("the evaluator answers");
            let told: Json =
                serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer:?} to {line}"));
            let phase = told["phase"].as_str().unwrap_or_default();
            assert_ne!(phase, "request", "{answer} to {line}");
            match told.get("error") {
                Some(error) => Err(format!("{phase}: {}", error.as_str().unwrap_or_default())),
                None => Ok(Tagged::of_json(&told["value"])),
            }
        });
        let answers = answers.collect();
        self.requests = Some(writer.join().expect("the evaluator reads"));
        answers
    }
}

impl Drop for Evaluator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
