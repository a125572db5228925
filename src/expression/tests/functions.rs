//! Every function has examples, and all of them hold.

use std::time::{Duration, Instant};

use crossdock_expression::value::equal;
use crossdock_expression::{Budget, Environment, FixedHost, Program, Val, functions};

fn environment() -> Environment {
    Environment::default()
}

#[test]
fn all_examples_of_the_reference_hold() {
    let host = FixedHost { time: crossdock_message::Time { seconds: 1_800_000_000, nanos: 0 }, ..FixedHost::default() };
    let budget = Budget::new(Instant::now() + Duration::from_secs(60));
    let mut wrong = Vec::new();
    for function in functions::all() {
        assert!(!function.examples.is_empty(), "{} has no example", function.name);
        for (source, expected) in function.examples {
            let compile =
                |source: &str| Program::compile(source, &environment()).map_err(|problems| problems[0].show(source));
            let (left, right) = match (compile(source), compile(expected)) {
                (Ok(left), Ok(right)) => (left, right),
                (left, right) => {
                    wrong.push(format!("{source}: {:?} {:?}", left.err(), right.err()));
                    continue;
                }
            };
            let (left_value, right_value) = (left.evaluate(&[], &budget, &host), right.evaluate(&[], &budget, &host));
            match (&left_value, &right_value) {
                (Ok(left), Ok(right))
                    if left.type_name() == right.type_name() && equal(left, right, &budget) == Ok(true) => {}
                (left, right) => wrong.push(format!("{source}: {left:?}, not {right:?}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Evaluates a source without variables.
fn evaluated(source: &str) -> Result<String, String> {
    let program =
        Program::compile(source, &environment()).unwrap_or_else(|problems| panic!("{}", problems[0].show(source)));
    let budget = Budget::new(Instant::now() + Duration::from_secs(60));
    let value = program.evaluate(&[], &budget, &FixedHost::default());
    value.map(|value| format!("{value:?}")).map_err(|failure| failure.to_string())
}

#[test]
fn base64_has_complete_padding_or_none() {
    for (text, expected) in [("YWI=", "ab"), ("YWI", "ab"), ("YQ==", "a"), ("YQ", "a"), ("YW\\nI=", "ab"), ("", "")] {
        assert_eq!(
            evaluated(&format!("string(base64.decode('{text}'))")),
            evaluated(&format!("'{expected}'")),
            "{text}"
        );
    }
    for text in ["YQ=", "YQ===", "YWI==", "YWJj=", "=", "YQ==YQ==", "Y", "Y==="] {
        assert!(evaluated(&format!("base64.decode('{text}')")).is_err(), "{text}");
    }
}

#[test]
fn an_optional_is_no_zero_value() {
    for inner in ["optional.none()", "optional.of(0)"] {
        let source = format!("optional.ofNonZeroValue({inner}).hasValue()");
        assert_eq!(evaluated(&source), evaluated("true"), "{source}");
    }
}

#[test]
fn values_are_small() {
    assert!(size_of::<Val<'_>>() <= 48, "{}", size_of::<Val<'_>>());
}
