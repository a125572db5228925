//! Random expressions, evaluated by this repository, by cel-go, and by cel-cpp through Python: all have to give the same.
//!
//! `CROSSDOCK_EXPRESSIONS` says how many, `CROSSDOCK_SEED` from which seed, and `CROSSDOCK_EXPRESSION` has one number of it evaluated alone.
//! With `CEL_DIFFERENCES=file` the differences are written there, one a line, and the test goes on past the first few.

#[path = "cel_differential/generator.rs"]
mod generator;
#[path = "cel_differential/peers.rs"]
mod peers;
#[path = "cel_differential/values.rs"]
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;

use crossdock_expression::{Environment, FixedHost, Program, Val, Variable};
use crossdock_message::Value;
use serde_json::{Value as Json, json};

use generator::{Generator, Tree, variables};
use peers::{Answer, Evaluator};
use values::{Sort, Tagged};

/// Expressions where nothing is asked for.
const EXPRESSIONS: u64 = 2000;
/// Expressions that the evaluators are given at once.
const BATCH: u64 = 500;
/// Differences after which the test ends.
const DIFFERENCES_MAX: usize = 20;

/// What the evaluators differ in on purpose.
struct Difference {
    reason: &'static str,
    /// Whether a difference is of this kind: the source, the variables, ours, and the other's.
    is_it: fn(&str, &Answer, &Answer) -> bool,
    /// The evaluators that differ.
    of: &'static [&'static str],
}

/// Differences that are meant, or are the other's. The generator makes none of these:
/// whole numbers beside doubles beyond 53 bits, which CEL compares as doubles and ours exactly; lists and conditionals of mixed types,
/// which ours takes; the order of a map's entries.
const DIFFERENCES: &[Difference] = &[];

/// An expression with the values that it is over.
struct Case {
    number: u64,
    tree: Tree,
    values: Vec<(&'static str, Sort, Tagged)>,
    /// Lists and maps are those of a message.
    is_data: bool,
}

impl Case {
    fn new(seed: u64, number: u64) -> Self {
        let mut generator = Generator::new(seed, number);
        let values = variables().into_iter().map(|(name, sort)| {
            let value = generator.value(&sort);
            (name, sort, value)
        });
        let values = values.collect();
        let tree = generator.expression();
        Self { number, tree, values, is_data: number.is_multiple_of(2) }
    }

    fn request(&self, source: &str) -> String {
        let types: serde_json::Map<String, Json> =
            self.values.iter().map(|(name, sort, _)| ((*name).to_owned(), sort.text().into())).collect();
        let vars: serde_json::Map<String, Json> =
            self.values.iter().map(|(name, _, value)| ((*name).to_owned(), value.to_json())).collect();
        json!({ "expr": source, "types": types, "vars": vars }).to_string()
    }

    /// Whether an evaluator is asked.
    fn is_for(&self, name: &str) -> bool {
        // Python keeps microseconds, and its package takes the first moment for one without a date.
        let is_kept = |value: &Tagged| !value.is_below_micros() && !value.same(&Tagged::time("0001-01-01T00:00:00Z"));
        let has_text = !matches!(self.tree.sort, Sort::Optional(_) | Sort::Kind);
        let fits = name == "cel-go" || has_text && self.values.iter().all(|(_, _, value)| is_kept(value));
        fits && self.tree.is_for(name)
    }

    fn shown(&self, source: &str) -> String {
        // Only what the source names.
        let words: BTreeSet<&str> = source.split(|next: char| !next.is_alphanumeric()).collect();
        let named = self.values.iter().filter(|(name, ..)| words.contains(name));
        named.map(|(name, _, value)| format!("{name}={}", value.to_json())).collect::<Vec<_>>().join(" ")
    }
}

/// What this repository's evaluator gives.
fn ours(case: &Case, source: &str) -> Answer {
    let evaluated = catch_unwind(AssertUnwindSafe(|| {
        let of = |(name, sort, _): &(&str, Sort, Tagged)| Variable { name: (*name).into(), of: sort.to_type() };
        let environment = Environment { variables: case.values.iter().map(of).collect(), ..Environment::default() };
        let program = Program::compile(source, &environment).map_err(|problems| format!("check: {}", problems[0]))?;
        let value_of = |name: &str| case.values.iter().find(|(known, ..)| *known == name).map(|(_, _, value)| value);
        let data: Vec<Option<Value>> =
            program.inputs().iter().map(|input| value_of(&input.variable)?.to_data()).collect();
        let inputs = program.inputs().iter().zip(&data).map(|(input, data)| match data {
            Some(data) if case.is_data => Some(Val::data(data, false)),
            _ => Some(value_of(&input.variable)?.to_made()),
        });
        let inputs: Vec<Option<Val<'_>>> = inputs.collect();
        let (budget, host) = (Program::ample_budget(), FixedHost::default());
        let value = program.evaluate(&inputs, &budget, &host).map_err(|failure| format!("evaluation: {failure}"))?;
        Ok(Tagged::of(&value))
    }));
    evaluated.unwrap_or_else(|_| Ok(Tagged::Other("a panic".to_owned())))
}

fn is_same(left: &Answer, right: &Answer) -> bool {
    match (left, right) {
        (Ok(left), Ok(right)) => left.same(right),
        (Err(_), Err(_)) => true,
        _ => false,
    }
}

fn is_meant(source: &str, ours: &Answer, other: &Answer, name: &str) -> bool {
    DIFFERENCES.iter().any(|difference| difference.of.contains(&name) && (difference.is_it)(source, ours, other))
}

fn differs(source: &str, ours: &Answer, other: &Answer, name: &str) -> bool {
    !is_same(ours, other) && !is_meant(source, ours, other, name)
}

fn shown(answer: &Answer) -> String {
    match answer {
        Ok(value) => value.to_json().to_string(),
        Err(error) => format!("error: {}", error.replace('\n', " ")),
    }
}

/// Makes an expression smaller while the evaluator still differs.
fn shrunk(case: &Case, name: &str, evaluator: &mut Evaluator) -> Tree {
    let mut tree = case.tree.clone();
    for _ in 0..30 {
        let mut candidates = tree.smaller();
        candidates.retain(|candidate| candidate.size() < tree.size());
        candidates.sort_by_key(Tree::size);
        candidates.truncate(200);
        let sources: Vec<String> = candidates.iter().map(Tree::text).collect();
        let lines: Vec<String> = sources.iter().map(|source| case.request(source)).collect();
        let answers = evaluator.ask(&lines);
        let found = sources.iter().zip(&answers).position(|(source, answer)| {
            let ours = ours(case, source);
            // Of types that no longer fit, nothing is learnt.
            let is_checked = |answer: &Answer| !answer.as_ref().is_err_and(|error| error.starts_with("check"));
            is_checked(&ours) && is_checked(answer) && differs(source, &ours, answer, name)
        });
        match found {
            Some(at) => tree = candidates.swap_remove(at),
            None => break,
        }
    }
    tree
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

#[test]
#[ignore = "needs Go and Python, see tests/run"]
fn cel_peers_give_the_same() {
    let cache = crossdock_tests::peers("cel");
    let script = crossdock_tests::repository().join("tests/peers/cel/evaluate.py");
    let mut evaluators = [
        ("cel-go", Evaluator::start(&mut Command::new(cache.join("evaluate")))),
        ("cel-cpp", Evaluator::start(Command::new(cache.join("venv/bin/python")).arg(script))),
    ];
    let seed = variable("CROSSDOCK_SEED").unwrap_or_else(rand::random);
    let count = variable("CROSSDOCK_EXPRESSIONS").unwrap_or(EXPRESSIONS);
    let numbers = variable("CROSSDOCK_EXPRESSION").map_or(0..count, |one| one..one + 1);
    println!("CROSSDOCK_SEED={seed} CROSSDOCK_EXPRESSIONS={count}");

    let report = std::env::var_os("CEL_DIFFERENCES");
    let mut differences: Vec<String> = Vec::new();
    let (mut failures, mut refused) = (0_u64, 0_u64);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut refusals: BTreeMap<String, u64> = BTreeMap::new();
    let mut first = numbers.start;
    while first < numbers.end && (report.is_some() || differences.len() < DIFFERENCES_MAX) {
        let last = (first + BATCH).min(numbers.end);
        let cases: Vec<Case> = (first..last).map(|number| Case::new(seed, number)).collect();
        let sources: Vec<String> = cases.iter().map(|case| case.tree.text()).collect();
        let own: Vec<Answer> = cases.iter().zip(&sources).map(|(case, source)| ours(case, source)).collect();
        failures += own.iter().filter(|answer| answer.is_err()).count() as u64;
        for (name, evaluator) in &mut evaluators {
            let asked: Vec<usize> = (0..cases.len()).filter(|at| cases[*at].is_for(name)).collect();
            let lines: Vec<String> = asked.iter().map(|at| cases[*at].request(&sources[*at])).collect();
            let answers = evaluator.ask(&lines);
            *counts.entry(*name).or_default() += asked.len();
            if *name == "cel-go" {
                for error in answers.iter().filter_map(|answer| answer.as_ref().err()) {
                    if let Some(problem) = error.strip_prefix("check: ") {
                        refused += 1;
                        let line = problem.lines().next().unwrap_or_default();
                        let line = line.split_once("> ").map_or(line, |(_, behind)| behind);
                        *refusals
                            .entry(line.chars().skip_while(|next| !next.is_alphabetic()).take(90).collect())
                            .or_default() += 1;
                    }
                }
            }
            for (at, answer) in asked.iter().zip(&answers) {
                let (case, source) = (&cases[*at], &sources[*at]);
                if !differs(source, &own[*at], answer, name) {
                    continue;
                }
                let (number, of) = (case.number, case.shown(source));
                let small = shrunk(case, name, evaluator).text();
                let small_answer = evaluator.ask(&[case.request(&small)]).remove(0);
                differences.push(format!(
                    "{small} | {} | ours: {} | {name}: {} | CROSSDOCK_SEED={seed} CROSSDOCK_EXPRESSION={number} | of: {source} | {of}",
                    case.shown(&small),
                    shown(&ours(case, &small)),
                    shown(&small_answer),
                ));
            }
        }
        first = last;
    }
    println!("{failures} fail, {refused} are refused by cel-go's checker; given to {counts:?}");
    for (problem, count) in &refusals {
        println!("refused: {count} {problem}");
    }
    if let Some(path) = report {
        std::fs::write(path, differences.join("\n") + "\n").expect("the report is written");
    }
    let few = differences.iter().take(DIFFERENCES_MAX).cloned().collect::<Vec<_>>();
    assert!(differences.is_empty(), "{} differences from seed {seed}:\n{}", differences.len(), few.join("\n"));
}
