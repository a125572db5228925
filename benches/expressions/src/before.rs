//! The `cel` crate as the gateway used it: the fields that an expression references are converted to CEL values, compared by functions that
//! support decimals, and the result is converted to a canonical value. The lookup of fields in a message is the same for both engines.

mod functions;
mod needs;
mod values;
mod work;

use cel::common::ast::{Expr, IdedExpr};
use cel::common::value::CowVal;
use cel::context::VariableResolver;
use cel::{Context, Value as Cel};

use self::functions::{ENVIRONMENT, ROOT, comparison};
use self::needs::Needs;
use self::values::CelValue;
pub(super) use self::values::to_value;
use self::work::{Meter, Work};
use super::{Measured, Workload, deadline};

struct Variables(Vec<(&'static str, CelValue)>);

impl VariableResolver for Variables {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        self.0.iter().find(|(root, _)| *root == name).map(|(_, value)| CowVal::Borrowed(value.as_val()))
    }
}

pub(super) fn run(workload: &Workload) -> Measured {
    if workload.source.starts_with("sum(") {
        // It supports neither sums nor decimal arithmetic.
        return None;
    }
    let parser = ENVIRONMENT.parser().max_recursion_depth(32).enable_optional_syntax(false);
    let mut tree = parser.parse(&workload.source).expect("an expression");
    let mut needs = Needs::default();
    needs.visit(&tree);
    replace_comparisons(&mut tree);
    let deadline = deadline();
    let evaluate = || {
        let meter = Meter::new(deadline);
        let _work = Work::begin(&meter);
        let mut variables = Variables(Vec::with_capacity(1));
        variables.0.push(("req", needs.of_variable(&workload.message)));
        let root: &Context<'_, '_> = &ROOT;
        let mut context = root.new_inner_scope();
        context.set_variable_resolver(&variables);
        let evaluated = Cel::resolve_val(&tree, &context);
        assert!(!Work::is_spent(), "the work budget is not exhausted");
        let value = evaluated.expect("a result");
        to_value(&*value).expect("a value of messages")
    };
    Some((workload.measure(evaluate), evaluate()))
}

/// Replaces CEL's comparison operators with functions of [`functions`].
fn replace_comparisons(tree: &mut IdedExpr) {
    match &mut tree.expr {
        Expr::Call(call) => {
            if let Some(function) = comparison(&call.func_name) {
                function.clone_into(&mut call.func_name);
            }
            if let Some(target) = &mut call.target {
                replace_comparisons(target);
            }
            call.args.iter_mut().for_each(replace_comparisons);
        }
        Expr::Select(select) => replace_comparisons(&mut select.operand),
        Expr::List(list) => list.elements.iter_mut().for_each(replace_comparisons),
        Expr::Comprehension(comprehension) => {
            let comprehension = &mut **comprehension;
            for part in [
                &mut comprehension.iter_range,
                &mut comprehension.accu_init,
                &mut comprehension.loop_cond,
                &mut comprehension.loop_step,
                &mut comprehension.result,
            ] {
                replace_comparisons(part);
            }
        }
        Expr::Map(_) | Expr::Struct(_) | Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => {}
    }
}
