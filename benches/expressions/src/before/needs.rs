//! The fields that an expression references, and the projection of a message to them.

use cel::common::ast::{Expr, IdedExpr};
use crossdock_message::{ByteString, Value};

use super::values::CelValue;

/// The referenced fields below one value.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Needs {
    /// The whole value is referenced.
    whole: bool,
    fields: Vec<(ByteString, Needs)>,
}

impl Needs {
    /// Adds one path, with everything below it.
    fn add(&mut self, fields: &[ByteString]) {
        match fields.split_first() {
            None => self.whole = true,
            Some((first, rest)) => {
                let at = match self.fields.iter().position(|(name, _)| name == first) {
                    Some(at) => at,
                    None => {
                        self.fields.push((first.clone(), Self::default()));
                        self.fields.len() - 1
                    }
                };
                self.fields[at].1.add(rest);
            }
        }
    }

    fn project(&self, value: &Value) -> CelValue {
        match value {
            Value::Record(record) if !self.whole => {
                let found =
                    self.fields.iter().filter_map(|(name, needs)| Some((name, needs.project(record.get(name)?))));
                CelValue::record(found)
            }
            other => CelValue::from_value(other),
        }
    }

    /// The variable, projected to the referenced fields.
    pub(super) fn of_variable(&self, message: &Value) -> CelValue {
        if self.whole {
            return CelValue::from_value(message);
        }
        let mut fields = Vec::with_capacity(self.fields.len());
        for (name, needs) in &self.fields {
            if let Some(value) = message.get(name) {
                fields.push((name, needs.project(value)));
            }
        }
        CelValue::record(fields.into_iter())
    }

    /// Adds the fields of `req` that an expression references.
    pub(super) fn visit(&mut self, tree: &IdedExpr) {
        if let Some((root, fields)) = selection(tree) {
            if root == "req" {
                self.add(&fields);
            }
            return;
        }
        match &tree.expr {
            Expr::Call(call) => {
                call.target.iter().map(|target| &**target).chain(&call.args).for_each(|child| self.visit(child))
            }
            Expr::Select(select) => self.visit(&select.operand),
            Expr::List(list) => list.elements.iter().for_each(|item| self.visit(item)),
            Expr::Comprehension(comprehension) => {
                let comprehension = &**comprehension;
                for part in [
                    &comprehension.iter_range,
                    &comprehension.accu_init,
                    &comprehension.loop_cond,
                    &comprehension.loop_step,
                    &comprehension.result,
                ] {
                    self.visit(part);
                }
            }
            _ => {}
        }
    }
}

/// The variable and the fields of a chain of selections.
fn selection(tree: &IdedExpr) -> Option<(&str, Vec<ByteString>)> {
    match &tree.expr {
        Expr::Ident(name) => Some((name, Vec::new())),
        Expr::Select(select) => {
            let (root, mut fields) = selection(&select.operand)?;
            fields.push(select.field.as_str().into());
            Some((root, fields))
        }
        _ => None,
    }
}
