//! The other evaluators: programs that read one line per request and write one per answer.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value as Json;

use super::values::Tagged;

/// A value, or an error with its phase.
pub(crate) type Answer = Result<Tagged, String>;

/// An evaluator process; killed on drop.
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

    /// Evaluates a batch; requests are written while answers are read.
    pub(crate) fn evaluate(&mut self, lines: &[String]) -> Vec<Answer> {
        let batch: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let mut requests = self.requests.take().expect("requests are open");
        let writer = std::thread::spawn(move || {
            requests.write_all(batch.as_bytes()).and_then(|()| requests.flush()).expect("the evaluator reads");
            requests
        });
        let answers = lines.iter().map(|line| {
            let mut answer = String::new();
            self.answers.read_line(&mut answer).expect("the evaluator answers");
            let parsed: Json =
                serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer:?} to {line}"));
            let phase = parsed["phase"].as_str().unwrap_or_default();
            assert_ne!(phase, "request", "{answer} to {line}");
            match parsed.get("error") {
                Some(error) => Err(format!("{phase}: {}", error.as_str().unwrap_or_default())),
                None => Ok(Tagged::of_json(&parsed["value"])),
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
