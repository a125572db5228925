//! The functions that replace CEL's comparison operators.

use std::cmp::Ordering;
use std::sync::{Arc, LazyLock};

use cel::common::ast::operators;
use cel::common::types::CelBool;
use cel::common::value::{CowVal, Val};
use cel::{Context, Env, ExecutionError, FunctionContext};

use super::values::{contains, equal, order};

/// CEL's standard library and macros, with the string extension.
pub(super) static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut environment = Env::stdlib();
    let added = environment.add_extension(cel::extensions::strings);
    debug_assert!(added.is_ok(), "the names of the extension are free");
    Arc::new(environment)
});

type Function =
    Box<dyn for<'c, 'k> Fn(&mut FunctionContext<'c, 'k>) -> Result<CowVal<'c, 'k>, ExecutionError> + Send + Sync>;

/// The functions that all evaluations share.
pub(super) static ROOT: LazyLock<Context<'static, 'static>> = LazyLock::new(|| {
    let mut root = Context::with_env(Arc::clone(&ENVIRONMENT));
    let functions: [(&str, Function); 7] = [
        ("@equal", Box::new(|call| compare(call, |left, right| Some(equal(left, right))))),
        ("@differ", Box::new(|call| compare(call, |left, right| Some(!equal(left, right))))),
        ("@less", Box::new(|call| compare(call, |left, right| order(left, right).map(Ordering::is_lt)))),
        ("@at_most", Box::new(|call| compare(call, |left, right| order(left, right).map(Ordering::is_le)))),
        ("@more", Box::new(|call| compare(call, |left, right| order(left, right).map(Ordering::is_gt)))),
        ("@at_least", Box::new(|call| compare(call, |left, right| order(left, right).map(Ordering::is_ge)))),
        ("@holds", Box::new(|call| compare(call, |left, right| contains(right, left)))),
    ];
    for (name, function) in functions {
        let added = root.add_function(name, function);
        debug_assert!(added.is_ok(), "`{name}` is free");
    }
    root
});

/// The function that replaces an operator of CEL. CEL's own comparisons dispatch on the left operand and do not support decimals.
pub(super) fn comparison(operator: &str) -> Option<&'static str> {
    Some(match operator {
        operators::EQUALS => "@equal",
        operators::NOT_EQUALS => "@differ",
        operators::LESS => "@less",
        operators::LESS_EQUALS => "@at_most",
        operators::GREATER => "@more",
        operators::GREATER_EQUALS => "@at_least",
        operators::IN => "@holds",
        _ => return None,
    })
}

fn compare<'c, 'k>(
    call: &mut FunctionContext<'c, 'k>,
    holds: impl FnOnce(&dyn Val, &dyn Val) -> Option<bool>,
) -> Result<CowVal<'c, 'k>, ExecutionError> {
    let result = holds(argument(call, 0)?, argument(call, 1)?);
    match result {
        Some(truth) => Ok(CowVal::owned(CelBool::from(truth))),
        None => Err(call.error("values of these kinds cannot be compared")),
    }
}

fn argument<'x>(call: &'x FunctionContext<'_, '_>, at: usize) -> Result<&'x (dyn Val + 'x), ExecutionError> {
    let at = match (&call.this, at) {
        (Some(this), 0) => return Ok(&**this),
        (Some(_), at) => at - 1,
        (None, at) => at,
    };
    call.args.get(at).map(|value| &**value as &dyn Val).ok_or_else(|| call.error("an argument is missing"))
}
