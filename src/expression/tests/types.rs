//! Known types survive calls, and unknown ones stay unknown: they decide between the division of integers and the exact one.

use std::time::{Duration, Instant};

use crossdock_expression::{Budget, Environment, FixedHost, Program, Type, Val, Variable};
use crossdock_message::{Decimal, Value};

/// Evaluates a source with the integer `i` of known type, which is 7, and the list `data` of unknown type, which is `[7, 8]`.
fn shown(source: &str) -> String {
    let variable = |name: &str, ty: Type| Variable { name: name.into(), ty };
    let variables = vec![variable("i", Type::Int), variable("data", Type::Dyn)];
    let program = Program::compile(source, &Environment { variables, ..Environment::default() })
        .unwrap_or_else(|problems| panic!("{}", problems[0].show(source)));
    let list = Value::List(vec![Value::from(7_i64), Value::from(8_i64)]);
    let input = |name: &str| if name == "i" { Val::Int(7) } else { Val::data(&list, false) };
    let inputs: Vec<_> = program.inputs().iter().map(|of| Some(input(&of.variable))).collect();
    let budget = Budget::new(Instant::now() + Duration::from_secs(60));
    match program.evaluate(&inputs, &budget, &FixedHost::default()) {
        Ok(Val::Int(number)) => format!("int {number}"),
        Ok(Val::Decimal(number)) => format!("decimal {}", Decimal::as_str(&number.to_decimal())),
        other => panic!("{source}: {other:?}"),
    }
}

#[test]
fn integers_of_known_type_stay_known() {
    for source in [
        "i / 2",
        "[[i]].flatten()[0] / 2",
        "[i].flatten()[0] / 2",
        "[[[i]]].flatten().flatten()[0] / 2",
        "([[i]].flatten() + [1]).reverse()[0] * 7 / 2",
        "[i].zip([2])[0][0] / 2",
        "sum([i]) / 2",
        "max([i, 2]) / 2",
        "math.greatest(i, 2) / 2",
        "{'a': 1}.merge({'a': i}).a / 2",
        "{}.merge({'a': i}).a / 2",
        "optional.none().orValue(i) / 2",
        "data.map(x, i)[0] / 2",
        "[i, 2].slice(data[0] - 7, data[1] - 7)[0] / 2",
    ] {
        assert_eq!(shown(source), "int 3", "{source}");
    }
}

#[test]
fn data_of_unknown_type_stays_unknown() {
    for source in [
        "data[0] / 2",
        "sum(data.slice(0, 1)) / 2",
        "sum(data.map(x, x).slice(0, 1)) / 2",
        "sum([0, data[0]]) / 2",
        "[[0, data[0]]].flatten()[1] / 2",
        "[[0], data].flatten()[1] / 2",
        "[0, data].flatten()[1] / 2",
        "data.flatten()[0] / 2",
        "[0].zip(data)[0][1] / 2",
        "data.zip(data)[0][1] / 2",
        "max([i, data[0]]) / 2",
        "math.greatest(i, data[0]) / 2",
        "{'a': i}.merge({'a': data[0]}).a / 2",
        "{'a': data[0]}.merge({'a': i}).a / 2",
    ] {
        assert_eq!(shown(source), "decimal 3.5", "{source}");
    }
}
