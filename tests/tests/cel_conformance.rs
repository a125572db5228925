//! CEL's own conformance tests against the expressions of this repository.
//!
//! Tests that fail are listed in `cel_conformance/deviations.txt`, each with its reason: one that is not listed has to pass, and one that is
//! listed has to fail. `CROSSDOCK_BLESS=1 cargo test` writes the list anew; reasons that are there already and fit stay, and what has none
//! gets `todo`, which fails until a reason stands there. With `CEL_FAILURES=file` every failure is written there: the test, its expression,
//! what is expected and what came.

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
use values::{same, show, type_text};

/// The tests' Go module. It is data only: no Go is compiled.
const MODULE: &str = "cel.dev/expr@v0.25.3";
/// Tests that the module has; a parser that sees fewer is not the one that was tried.
const TESTS_MIN: usize = 2000;

/// What a test found instead of what it expected.
struct Miss {
    expected: String,
    got: String,
}

/// The folder of the tests' module; nothing where it cannot be had.
fn module() -> Result<PathBuf, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let output = Command::new("go").args(["mod", "download", "-json", MODULE]).current_dir(folder.path()).output();
    let output = output.map_err(|error| format!("go: {error}"))?;
    let told: serde_json::Value = serde_json::from_slice(&output.stdout)
        .map_err(|_| String::from_utf8_lossy(&output.stderr).trim().to_owned())?;
    match told["Dir"].as_str() {
        Some(found) => Ok(found.into()),
        None => Err(told["Error"].as_str().unwrap_or("no folder of the module is named").to_owned()),
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

/// Carries a test out; the miss says what is wrong.
fn run(case: &Case) -> Result<(), Miss> {
    let miss = |got: String| Miss { expected: case.expected.show(), got };
    let program = match Program::compile(&case.source, &environment(case)) {
        Ok(program) => program,
        Err(_) if matches!(case.expected, Expected::Failure) => return Ok(()),
        Err(problems) => {
            let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
            return Err(miss(format!("a problem: {}", problems.join("; "))));
        }
    };
    if let Expected::Typed { of, .. } = &case.expected {
        let got = type_text(program.result_type());
        if got != *of {
            return Err(miss(format!("type {got}")));
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
            Some(Err(problem)) => return Err(miss(format!("no input: {problem}"))),
            None => inputs.push(None),
        }
    }
    let (budget, host) = (Budget::new(Instant::now() + Duration::from_secs(60)), FixedHost::default());
    let outcome = program.evaluate(&inputs, &budget, &host);
    match (&case.expected, &outcome) {
        (Expected::Failure, Err(_)) => Ok(()),
        (Expected::Value(Ok(expected)) | Expected::Typed { value: Some(Ok(expected)), .. }, Ok(value))
            if same(expected, value) =>
        {
            Ok(())
        }
        (Expected::Typed { value: None, .. }, Ok(_)) => Ok(()),
        (_, Ok(value)) => Err(miss(show(value))),
        (_, Err(failure)) => Err(miss(format!("a failure: {failure}"))),
    }
}

/// As [`run`]; a panic is a miss.
fn run_caught(case: &Case) -> Result<(), Miss> {
    catch_unwind(AssertUnwindSafe(|| run(case))).unwrap_or_else(|panic| {
        let told = panic.downcast_ref::<String>().cloned();
        let told = told.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default();
        Err(Miss { expected: case.expected.show(), got: format!("a panic: {told}") })
    })
}

#[test]
#[ignore = "needs Go's module cel.dev/expr, which tests/run gets"]
fn cel_peers_conformance_except_for_listed_deviations() {
    let folder = match module() {
        Ok(folder) => folder,
        Err(reason) => {
            // Past the harness, which keeps what a test that passes prints to itself.
            let told = format!("cel conformance: SKIPPED: the Go module {MODULE} cannot be had: {reason}\n");
            std::io::stderr().write_all(told.as_bytes()).expect("it is told");
            return;
        }
    };
    let cases = cases::read(&folder);
    assert!(cases.len() >= TESTS_MIN, "there are {} tests", cases.len());

    let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut misses: BTreeMap<&str, Option<Miss>> = BTreeMap::new();
    for case in &cases {
        let miss = run_caught(case).err();
        let (passed, all) = counts.entry(case.file()).or_default();
        *passed += usize::from(miss.is_none());
        *all += 1;
        assert!(misses.insert(&case.name, miss).is_none(), "{} is there twice", case.name);
    }

    if let Some(path) = std::env::var_os("CEL_FAILURES") {
        let mut report = String::new();
        for case in &cases {
            if let Some(Some(Miss { expected, got })) = misses.get(case.name.as_str()) {
                let line = format!("{} | {} | {expected} | {got}", case.name, case.source);
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
    let failing: Vec<&str> = misses.iter().filter(|(_, miss)| miss.is_some()).map(|(name, _)| *name).collect();
    if std::env::var_os("CROSSDOCK_BLESS").is_some() {
        listed.bless(cases.iter().filter_map(|case| {
            let miss = misses.get(case.name.as_str())?.as_ref()?;
            Some((case, miss.got.as_str()))
        }));
    }
    println!(
        "cel conformance: {} passed of {}, {} deviations: {}",
        cases.len() - failing.len(),
        cases.len(),
        failing.len(),
        listed.count(&failing).join(", ")
    );
    let mut wrong = String::new();
    for (name, miss) in &misses {
        let Some(Miss { expected, got }) = miss else { continue };
        if listed.reason(name).is_none() {
            let _ = writeln!(wrong, "{name}: expected {expected}, got {got}");
        } else if !listed.is_reasoned(name, got) {
            let _ = writeln!(wrong, "{name} has no reason that fits: expected {expected}, got {got}");
        }
    }
    for name in listed.stale(&failing) {
        let _ = writeln!(wrong, "{name} does not fail: delete its line of deviations.txt");
    }
    assert!(wrong.is_empty(), "{wrong}");
}
