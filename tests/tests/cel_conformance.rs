//! CEL's conformance tests run against this repository's expression engine.
//!
//! `cel_conformance/deviations.txt` lists the tests that fail, each with a reason: listed tests must fail, all others must pass.
//! `CROSSDOCK_BLESS=1 cargo test` regenerates the list and keeps valid reasons; new entries get the reason `todo`, which fails until it is
//! replaced. `CEL_FAILURES=file` writes a line for each failure: test, expression, expected and actual result.

#[path = "cel_conformance/cases.rs"]
mod cases;
#[path = "cel_conformance/deviations.rs"]
mod deviations;
#[path = "cel_conformance/messages.rs"]
mod messages;
#[path = "cel_conformance/values.rs"]
mod values;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crossdock_expression::syntax::Options;
use crossdock_expression::{Budget, Environment, FixedHost, Program, Type, Val, Variable};

use cases::{Case, Expected};
use deviations::Deviations;
use values::{is_same, show, type_text};

/// The Go module of the tests. Only its data is used; no Go code is compiled.
const MODULE: &str = "cel.dev/expr@v0.25.3";
/// The minimum number of tests; fewer mean that the parser misses some.
const TESTS_MIN: usize = 2000;

/// A result that differs from the expected one.
struct Mismatch {
    expected: String,
    actual: String,
}

/// The folder of the module, downloaded if necessary.
fn download_module() -> Result<PathBuf, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let output = Command::new("go").args(["mod", "download", "-json", MODULE]).current_dir(folder.path()).output();
    let output = output.map_err(|error| format!("go: {error}"))?;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)
        .map_err(|_| String::from_utf8_lossy(&output.stderr).trim().to_owned())?;
    match report["Dir"].as_str() {
        Some(found) => Ok(found.into()),
        None => Err(report["Error"].as_str().unwrap_or("go reported no module folder").to_owned()),
    }
}

fn environment(case: &Case) -> Environment {
    let mut variables: Vec<Variable> =
        case.variables.iter().map(|(name, of)| Variable { name: name.as_str().into(), ty: of.clone() }).collect();
    if !case.is_typed {
        let names = case.bindings.iter().map(|(name, _)| name.as_str().into());
        variables.extend(names.map(|name| Variable { name, ty: Type::Dyn }));
    }
    Environment {
        variables,
        container: case.container.as_str().into(),
        splits_inputs: false,
        is_unchecked: case.is_unchecked,
        options: Options { macros: case.has_macros, ..Options::default() },
        ..Environment::default()
    }
}

/// Runs a test.
fn run(case: &Case) -> Result<(), Mismatch> {
    let mismatch = |actual: String| Mismatch { expected: case.expected.show(), actual };
    let program = match Program::compile(&case.source, &environment(case)) {
        Ok(program) => program,
        Err(_) if matches!(case.expected, Expected::Failure) => return Ok(()),
        Err(problems) => {
            let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
            return Err(mismatch(format!("compile error: {}", problems.join("; "))));
        }
    };
    if let Expected::Typed { of, .. } = &case.expected {
        let actual = type_text(program.result_type());
        if actual != *of {
            return Err(mismatch(format!("type {actual}")));
        }
    }
    if case.is_check_only {
        return Ok(());
    }
    let mut inputs: Vec<Option<Val<'static>>> = Vec::new();
    for input in program.inputs() {
        let found = case.bindings.iter().find(|(name, _)| *name == *input.variable);
        match found.map(|(_, value)| value) {
            Some(Ok(value)) => inputs.push(Some(value.clone())),
            Some(Err(problem)) => return Err(mismatch(format!("unsupported input: {problem}"))),
            None => inputs.push(None),
        }
    }
    let (budget, host) = (Budget::new(Instant::now() + Duration::from_secs(60)), FixedHost::default());
    let outcome = program.evaluate(&inputs, &budget, &host);
    match (&case.expected, &outcome) {
        (Expected::Failure, Err(_)) => Ok(()),
        (Expected::Value(Ok(expected)) | Expected::Typed { value: Some(Ok(expected)), .. }, Ok(value))
            if is_same(expected, value) =>
        {
            Ok(())
        }
        (Expected::Typed { value: None, .. }, Ok(_)) => Ok(()),
        (_, Ok(value)) => Err(mismatch(show(value))),
        (_, Err(failure)) => Err(mismatch(format!("a failure: {failure}"))),
    }
}

/// Like [`run`]; a panic is a mismatch.
fn run_caught(case: &Case) -> Result<(), Mismatch> {
    catch_unwind(AssertUnwindSafe(|| run(case))).unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().cloned();
        let message = message.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default();
        Err(Mismatch { expected: case.expected.show(), actual: format!("a panic: {message}") })
    })
}

#[test]
#[ignore = "needs Go's module cel.dev/expr, which tests/run downloads"]
fn cel_peers_conformance_except_for_listed_deviations() {
    let folder = match download_module() {
        Ok(folder) => folder,
        Err(reason) => {
            // Written to standard error, as the test harness captures the output of passing tests.
            let message = format!("cel conformance: SKIPPED: the Go module {MODULE} is not available: {reason}\n");
            std::io::stderr().write_all(message.as_bytes()).expect("standard error");
            return;
        }
    };
    let cases = cases::read(&folder);
    assert!(cases.len() >= TESTS_MIN, "there are only {} tests", cases.len());

    let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut results: BTreeMap<&str, Option<Mismatch>> = BTreeMap::new();
    for case in &cases {
        let mismatch = run_caught(case).err();
        let (passed, all) = counts.entry(case.file()).or_default();
        *passed += usize::from(mismatch.is_none());
        *all += 1;
        assert!(results.insert(&case.name, mismatch).is_none(), "duplicate test {}", case.name);
    }

    if let Some(path) = std::env::var_os("CEL_FAILURES") {
        let mut report = String::new();
        for case in &cases {
            if let Some(Some(Mismatch { expected, actual })) = results.get(case.name.as_str()) {
                let line = format!("{} | {} | {expected} | {actual}", case.name, case.source);
                report.push_str(&line.replace('\r', "\\r").replace('\n', "\\n"));
                report.push('\n');
            }
        }
        std::fs::write(path, report).expect("the failures are written");
        for (file, (passed, all)) in &counts {
            println!("{file}: {passed} of {all}");
        }
    }

    let mut listed = Deviations::read();
    let failing: Vec<&str> = results.iter().filter(|(_, mismatch)| mismatch.is_some()).map(|(name, _)| *name).collect();
    if std::env::var_os("CROSSDOCK_BLESS").is_some() {
        listed.bless(cases.iter().filter_map(|case| {
            let mismatch = results.get(case.name.as_str())?.as_ref()?;
            Some((case, mismatch.actual.as_str()))
        }));
    }
    println!(
        "cel conformance: {} passed of {}, {} deviations: {}",
        cases.len() - failing.len(),
        cases.len(),
        failing.len(),
        listed.count(&failing).join(", ")
    );
    let mut problems = String::new();
    for (name, mismatch) in &results {
        let Some(Mismatch { expected, actual }) = mismatch else { continue };
        if listed.reason(name).is_none() {
            let _ = writeln!(problems, "{name}: expected {expected}, got {actual}");
        } else if !listed.has_valid_reason(name, actual) {
            let _ = writeln!(problems, "{name} has no valid reason: expected {expected}, got {actual}");
        }
    }
    for name in listed.stale(&failing) {
        let _ = writeln!(problems, "{name} does not fail: delete its line in deviations.txt");
    }
    assert!(problems.is_empty(), "{problems}");
}
