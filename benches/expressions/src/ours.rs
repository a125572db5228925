//! The engine of this project, called as by routes.

use std::borrow::Cow;

use crossdock_expression::syntax::{Limits, Options};
use crossdock_expression::{Budget, Environment, FixedHost, InputValue, Input, Program, Type, Variable};
use crossdock_message::Value;

use super::{Measured, Workload, deadline};

pub(super) fn run(workload: &Workload) -> Measured {
    let environment = Environment {
        variables: vec![Variable { name: "req".into(), ty: Type::Dyn }],
        splits_inputs: true,
        options: Options { limits: Limits::default(), macros: true },
        ..Environment::default()
    };
    let program = Program::compile(&workload.source, &environment).expect("an expression");
    let (host, deadline) = (FixedHost::default(), deadline());
    let evaluate = || -> Value {
        let budget = Budget::new(deadline);
        let find = |input: &Input| -> Result<InputValue<'_>, ()> {
            let value = match &input.field {
                Some(field) => workload.message.get(field),
                None => Some(&workload.message),
            };
            Ok(value.map_or(InputValue::Absent, |value| InputValue::Data(Cow::Borrowed(value), false)))
        };
        program.evaluate_to_value(find, &budget, &host).expect("no error").expect("a value of messages")
    };
    Some((workload.measure(evaluate), evaluate()))
}
