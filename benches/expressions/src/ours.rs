//! The engine of this project, called as routes call it.

use std::borrow::Cow;

use crossdock_expression::syntax::{Limits, Options};
use crossdock_expression::{Budget, Environment, FixedHost, Program, Type, Val, Variable};
use crossdock_message::Value;

use super::{Measured, Workload, deadline};

pub(super) fn run(workload: &Workload) -> Measured {
    let environment = Environment {
        variables: vec![Variable { name: "req".into(), of: Type::Dyn }],
        splits_inputs: true,
        options: Options { limits: Limits::default(), macros: true },
        ..Environment::default()
    };
    let program = Program::compile(&workload.source, &environment).expect("an expression");
    let (host, deadline) = (FixedHost::default(), deadline());
    let evaluate = || -> Value {
        let budget = Budget::new(deadline);
        let mut found: Vec<Option<Cow<'_, Value>>> = Vec::with_capacity(program.inputs().len());
        for input in program.inputs() {
            let value = match &input.field {
                Some(field) => workload.message.get(field),
                None => Some(&workload.message),
            };
            found.push(value.map(Cow::Borrowed));
        }
        let mut inputs: Vec<Option<Val<'_>>> = Vec::with_capacity(found.len());
        for value in &found {
            inputs.push(value.as_ref().map(|value| Val::data(value, false)));
        }
        let result = program.evaluate(&inputs, &budget, &host).expect("a result");
        result.to_value(&budget).expect("a value of messages")
    };
    Some((workload.measure(evaluate), evaluate()))
}
