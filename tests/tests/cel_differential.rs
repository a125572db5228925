//! Random expressions, evaluated by this repository, by cel-go, and by cel-cpp through Python: all have to give the same.
//!
//! `CROSSDOCK_EXPRESSIONS` says how many, `CROSSDOCK_SEED` from which seed, and `CROSSDOCK_EXPRESSION` has one of them evaluated alone, by its
//! number. With `CEL_DIFFERENCES=file` all differences are written there, one a line; without, the test ends after the first few.
//!
//! What is left out, as ours differs on purpose, or as no two evaluators agree:
//!
//! | What | Why |
//! | --- | --- |
//! | whole numbers beyond 53 bits beside doubles | ours compares them exactly, the others as doubles |
//! | decimals | the others have none |
//! | lists, maps and conditionals of mixed types | ours takes them, the others' checkers do not |
//! | the order of a map's entries | the language has none; the others' is random |
//! | `string(x)` and `%s` of doubles that are large, or small | ours writes an exponent from 10²¹ and below 10⁻⁶ on, as JSON's writers do; the language does not say |
//! | `%s` of bytes that are no UTF-8 | cel-go makes a string of them that is none, ours replaces them |
//! | regular expressions as literals | ours reads them when it checks, and refuses one that would never be evaluated |
//! | `(?x)`, `(?u)`, `\u00e9`, `a**`, operations on classes, repetitions above 1000 | ours takes them, RE2 does not |
//! | octal escapes, `\C`, `\Q…\E`, a lone `{`, `[[a]` | RE2 takes them, ours does not |
//! | sums of time beyond 2⁶³ nanoseconds of both signs | the others lose a moment on the way to a difference that fits |
//! | `optional.ofNonZeroValue` of a moment | cel-go's zero is the first moment, that of protobuf is 1970 |
//! | zero bytes in variables | cel-cpp's package ends there |
//!
//! What one of the others alone does in a way of its own is `Unlike` in `cel_differential/generator.rs`.

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

/// Expressions where nothing is asked for.
const EXPRESSIONS: u64 = 2000;
/// Expressions that the evaluators are given at once.
const BATCH: u64 = 500;
/// Differences after which the test ends.
const DIFFERENCES_MAX: usize = 20;

/// Expressions of a hundred that another's checker may refuse: it gives an empty list, or map, the type that the first overload
/// takes, so that `[].sort() + [1u]` is refused. More would be ill-typed ones of the generator.
const REFUSED_MAX: usize = 1;

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
        let of = |(name, sort, _): &(&str, Sort, Tagged)| Variable { name: (*name).into(), ty: sort.to_type() };
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
        let (budget, host) = (Budget::new(Instant::now() + Duration::from_secs(60)), FixedHost::default());
        let value = program.evaluate(&inputs, &budget, &host).map_err(|failure| format!("evaluation: {failure}"))?;
        Ok(Tagged::of(&value))
    }));
    evaluated.unwrap_or_else(|_| Ok(Tagged::Other("a panic".to_owned())))
}

/// Whether its checker refused it.
fn is_refused(answer: &Answer) -> bool {
    answer.as_ref().is_err_and(|error| error.starts_with("check"))
}

/// Whether ours and another's are not the same. Of what another's checker alone refuses, nothing is learnt: see [`REFUSED_MAX`].
fn differs(ours: &Answer, other: &Answer) -> bool {
    match (ours, other) {
        (Ok(left), Ok(right)) => !left.same(right),
        (Err(_), Err(_)) => is_refused(ours) && !is_refused(other),
        _ if is_refused(other) => false,
        _ => true,
    }
}

fn shown(answer: &Answer) -> String {
    match answer {
        Ok(value) => value.to_json().to_string(),
        Err(error) => format!("error: {}", error.replace('\n', " ")),
    }
}

/// Makes an expression smaller while the evaluator still differs.
fn shrunk(case: &Case, evaluator: &mut Evaluator, was_refused: bool) -> Tree {
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
            differs(&ours, answer) && is_refused(&ours) == was_refused
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
fn cel_peers_agree_on_random_expressions() {
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
            let asked: Vec<usize> = (0..cases.len()).filter(|at| cases[*at].is_for(name)).collect();
            let lines: Vec<String> = asked.iter().map(|at| cases[*at].request(&sources[*at])).collect();
            let answers = evaluator.ask(&lines);
            let (given, refused) = counts.entry(*name).or_default();
            *given += asked.len();
            *refused += answers.iter().filter(|answer| is_refused(answer)).count();
            for (at, answer) in asked.iter().zip(&answers) {
                let (case, source) = (&cases[*at], &sources[*at]);
                if !differs(&own[*at], answer) {
                    continue;
                }
                let (number, of) = (case.number, case.shown(source));
                let small = shrunk(case, evaluator, is_refused(&own[*at])).text();
                let small_answer = evaluator.ask(&[case.request(&small)]).remove(0);
                let difference = format!(
                    "{small} | {} | ours: {} | {name}: {} | CROSSDOCK_SEED={seed} CROSSDOCK_EXPRESSION={number} | of: {source} | {of}",
                    case.shown(&small),
                    shown(&ours(case, &small)),
                    shown(&small_answer),
                );
                differences.push(difference.replace('\n', "\\n"));
            }
        }
        first = last;
    }
    println!("{failures} of them fail");
    for (name, (given, refused)) in &counts {
        println!("{name} was given {given}, and its checker refused {refused}");
    }
    if let Some(path) = report {
        std::fs::write(path, differences.join("\n") + "\n").expect("the report is written");
    }
    let few = differences.iter().take(DIFFERENCES_MAX).cloned().collect::<Vec<_>>();
    assert!(differences.is_empty(), "{} differences from seed {seed}:\n{}", differences.len(), few.join("\n"));
    for (name, (given, refused)) in counts {
        assert!(refused * 100 <= given * REFUSED_MAX, "{name} refused {refused} of {given}");
    }
}
