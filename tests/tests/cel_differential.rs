//! Differential test: random expressions evaluated by this repository's engine ("ours"), by cel-go, and by cel-cpp through Python must give the
//! same result.
//!
//! Without settings, it evaluates the same 2000 expressions each time, so that a run does not fail by chance. `CROSSDOCK_EXPRESSIONS` sets
//! the number of expressions, from a random seed, and `CROSSDOCK_SEED` the seed; `CROSSDOCK_EXPRESSION` evaluates a single one, given by its
//! number. `CEL_DIFFERENCES=file` writes all differences to a file, one per line; otherwise the test stops after the first few.
//!
//! Excluded, because ours differs on purpose or no two evaluators agree:
//!
//! | Excluded | Reason |
//! | --- | --- |
//! | integers beyond 53 bits compared with doubles | ours compares exactly, the others convert to doubles |
//! | decimals | not supported by the others |
//! | lists, maps and conditionals of mixed types | rejected by the others' type checkers |
//! | the order of map entries | undefined in CEL; random in the others |
//! | `string(x)` and `%s` of very large or small doubles | ours writes an exponent from 10²¹ and below 10⁻⁶, like JSON writers; undefined in CEL |
//! | `%s` of bytes that are not UTF-8 | cel-go makes an invalid string, ours replaces them |
//! | regular expressions as literals | ours compiles them at check time and rejects invalid ones even if never evaluated |
//! | `(?x)`, `(?u)`, `\u00e9`, `a**`, operations on classes, repetitions above 1000 | supported by ours, not by RE2 |
//! | octal escapes, `\C`, `\Q…\E`, a lone `{`, `[[a]` | supported by RE2, not by ours |
//! | sums of timestamps and durations beyond 2⁶³ nanoseconds | the others overflow in intermediate results |
//! | `optional.ofNonZeroValue` of a timestamp | cel-go's zero value is year 1, protobuf's is 1970 |
//! | NUL bytes in variables | cel-cpp's Python package truncates there |
//!
//! Peculiarities of a single evaluator are listed as `Quirk` in `cel_differential/tree.rs`.

#[path = "cel_differential/generator.rs"]
mod generator;
#[path = "cel_differential/peers.rs"]
mod peers;
#[path = "cel_differential/values.rs"]
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::time::{Duration, Instant};

use crossdock_expression::{Budget, Environment, FixedHost, Program, Val, Variable};
use crossdock_message::Value;
use serde_json::{Value as Json, json};

use generator::{Generator, Tree, variables};
use peers::{Answer, Evaluator};
use values::{Sort, Tagged};

/// The default number of expressions, and their seed.
const EXPRESSIONS: u64 = 2000;
const SEED: u64 = 1;
/// The number of expressions sent to an evaluator at once.
const BATCH: u64 = 500;
/// The number of differences after which the test stops.
const DIFFERENCES_MAX: usize = 20;

/// The maximum percentage of expressions that another type checker may reject. It infers the type of an empty list or map from the first
/// overload, so that it rejects `[].sort() + [1u]`. A higher share would mean that the generator produces ill-typed expressions.
const REJECTED_PERCENT_MAX: usize = 1;

/// An expression and the values of its variables.
struct Case {
    number: u64,
    tree: Tree,
    values: Vec<(&'static str, Sort, Tagged)>,
    /// Whether lists and maps are parts of a message.
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

    /// Whether the case is sent to an evaluator.
    fn is_for(&self, name: &str) -> bool {
        // Python has microsecond precision, and its package treats year 1 as a missing date.
        let is_preserved =
            |value: &Tagged| !value.is_below_micros() && !value.is_same(&Tagged::time("0001-01-01T00:00:00Z"));
        let is_returned = !matches!(self.tree.sort, Sort::Optional(_) | Sort::Kind);
        let fits = name == "cel-go" || is_returned && self.values.iter().all(|(_, _, value)| is_preserved(value));
        fits && self.tree.is_for(name)
    }

    fn shown(&self, source: &str) -> String {
        // Only variables that the source uses.
        let words: BTreeSet<&str> = source.split(|next: char| !next.is_alphanumeric()).collect();
        let named = self.values.iter().filter(|(name, ..)| words.contains(name));
        named.map(|(name, _, value)| format!("{name}={}", value.to_json())).collect::<Vec<_>>().join(" ")
    }
}

/// The result of this repository's engine.
fn ours(case: &Case, source: &str) -> Answer {
    let evaluated = catch_unwind(AssertUnwindSafe(|| {
        let of = |(name, sort, _): &(&str, Sort, Tagged)| Variable { name: (*name).into(), ty: sort.to_type() };
        let environment = Environment { variables: case.values.iter().map(of).collect(), ..Environment::default() };
        let program = Program::compile(source, &environment).map_err(|problems| format!("check: {}", problems[0]))?;
        let value_of = |name: &str| case.values.iter().find(|(known, ..)| *known == name).map(|(_, _, value)| value);
        let data: Vec<Option<Value>> =
            program.inputs().iter().map(|input| value_of(&input.variable)?.to_data()).collect();
        let inputs = program.inputs().iter().zip(&data).map(|(input, data)| match data {
            Some(data) if case.is_data => Some(Val::data(data, false)),
            _ => Some(value_of(&input.variable)?.to_computed()),
        });
        let inputs: Vec<Option<Val<'_>>> = inputs.collect();
        let (budget, host) = (Budget::new(Instant::now() + Duration::from_secs(60)), FixedHost::default());
        let value = program.evaluate(&inputs, &budget, &host).map_err(|failure| format!("evaluation: {failure}"))?;
        Ok(Tagged::of(&value))
    }));
    evaluated.unwrap_or_else(|_| Ok(Tagged::Other("a panic".to_owned())))
}

/// Whether the type checker rejected the expression.
fn is_rejected(answer: &Answer) -> bool {
    answer.as_ref().is_err_and(|error| error.starts_with("check"))
}

/// Whether two results differ. A rejection by the other type checker alone is no difference: see [`REJECTED_PERCENT_MAX`].
fn differs(ours: &Answer, other: &Answer) -> bool {
    match (ours, other) {
        (Ok(left), Ok(right)) => !left.is_same(right),
        (Err(_), Err(_)) => is_rejected(ours) && !is_rejected(other),
        _ if is_rejected(other) => false,
        _ => true,
    }
}

fn shown(answer: &Answer) -> String {
    match answer {
        Ok(value) => value.to_json().to_string(),
        Err(error) => format!("error: {}", error.replace('\n', " ")),
    }
}

/// Shrinks an expression as long as the results still differ.
fn shrink(case: &Case, evaluator: &mut Evaluator, was_rejected: bool) -> Tree {
    let mut tree = case.tree.clone();
    for _ in 0..30 {
        let mut candidates = tree.smaller();
        candidates.retain(|candidate| candidate.size() < tree.size());
        candidates.sort_by_key(Tree::size);
        candidates.truncate(200);
        let sources: Vec<String> = candidates.iter().map(Tree::text).collect();
        let lines: Vec<String> = sources.iter().map(|source| case.request(source)).collect();
        let answers = evaluator.evaluate(&lines);
        let found = sources.iter().zip(&answers).position(|(source, answer)| {
            let ours = ours(case, source);
            differs(&ours, answer) && is_rejected(&ours) == was_rejected
        });
        match found {
            Some(at) => tree = candidates.swap_remove(at),
            None => break,
        }
    }
    tree
}

fn env_number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

#[test]
#[ignore = "needs Go and Python, see tests/run"]
fn cel_peers_agree_on_random_expressions() {
    let cache = crossdock_tests::peers("cel");
    let script = crossdock_tests::repository().join("tests/peers/cel/evaluate.py");
    let mut evaluators = [
        ("cel-go", Evaluator::start(&mut Command::new(cache.join("evaluate")))),
        ("cel-cpp", Evaluator::start(Command::new(cache.join("venv/bin/python")).arg(script))),
    ];
    let count = env_number("CROSSDOCK_EXPRESSIONS");
    let seed = env_number("CROSSDOCK_SEED").unwrap_or_else(|| if count.is_some() { rand::random() } else { SEED });
    let count = count.unwrap_or(EXPRESSIONS);
    let numbers = env_number("CROSSDOCK_EXPRESSION").map_or(0..count, |one| one..one + 1);
    println!("CROSSDOCK_SEED={seed} CROSSDOCK_EXPRESSIONS={count}");

    let report = std::env::var_os("CEL_DIFFERENCES");
    let mut differences: Vec<String> = Vec::new();
    let mut failures = 0_usize;
    let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut first = numbers.start;
    while first < numbers.end && (report.is_some() || differences.len() < DIFFERENCES_MAX) {
        let last = (first + BATCH).min(numbers.end);
        let cases: Vec<Case> = (first..last).map(|number| Case::new(seed, number)).collect();
        let sources: Vec<String> = cases.iter().map(|case| case.tree.text()).collect();
        let own: Vec<Answer> = cases.iter().zip(&sources).map(|(case, source)| ours(case, source)).collect();
        failures += own.iter().filter(|answer| answer.is_err()).count();
        for (name, evaluator) in &mut evaluators {
            let selected: Vec<usize> = (0..cases.len()).filter(|at| cases[*at].is_for(name)).collect();
            let lines: Vec<String> = selected.iter().map(|at| cases[*at].request(&sources[*at])).collect();
            let answers = evaluator.evaluate(&lines);
            let (sent, rejected) = counts.entry(*name).or_default();
            *sent += selected.len();
            *rejected += answers.iter().filter(|answer| is_rejected(answer)).count();
            for (at, answer) in selected.iter().zip(&answers) {
                let (case, source) = (&cases[*at], &sources[*at]);
                if !differs(&own[*at], answer) {
                    continue;
                }
                let (number, variables) = (case.number, case.shown(source));
                let small = shrink(case, evaluator, is_rejected(&own[*at])).text();
                let small_answer = evaluator.evaluate(&[case.request(&small)]).remove(0);
                let difference = format!(
                    "{small} | {} | ours: {} | {name}: {} | CROSSDOCK_SEED={seed} CROSSDOCK_EXPRESSION={number} | original: {source} | {variables}",
                    case.shown(&small),
                    shown(&ours(case, &small)),
                    shown(&small_answer),
                );
                differences.push(difference.replace('\n', "\\n"));
            }
        }
        first = last;
    }
    println!("{failures} expressions fail");
    for (name, (sent, rejected)) in &counts {
        println!("{name}: {sent} expressions, {rejected} rejected by its type checker");
    }
    if let Some(path) = report {
        std::fs::write(path, differences.join("\n") + "\n").expect("the report is written");
    }
    let few = differences.iter().take(DIFFERENCES_MAX).cloned().collect::<Vec<_>>();
    assert!(differences.is_empty(), "{} differences from seed {seed}:\n{}", differences.len(), few.join("\n"));
    for (name, (sent, rejected)) in counts {
        assert!(rejected * 100 <= sent * REJECTED_PERCENT_MAX, "{name} rejected {rejected} of {sent}");
    }
}
