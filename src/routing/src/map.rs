//! The `map` step: a new body out of what there is.

use crossdock_message::{ByteString, Fault, Record, Value};

use crate::expression::{Expression, Scope, Work};

/// Makes a body.
#[derive(Debug, Clone)]
pub enum MapPlan {
    /// The body is what one expression gives.
    Whole(Expression),
    /// The body is a record of these targets, in their order.
    Fields(Vec<Target>),
}

/// One field of the new body.
#[derive(Debug, Clone)]
pub struct Target {
    /// Where it goes: the names from the body down.
    pub path: Vec<ByteString>,
    /// A plain path that leads nowhere leaves the field out.
    pub optional: bool,
    /// What goes there.
    pub source: Source,
}

/// What goes into a field.
#[derive(Debug, Clone)]
pub enum Source {
    /// What an expression gives.
    Expression(Expression),
    /// A list: a record for each item of another list.
    Each {
        /// The other list.
        items: Expression,
        /// What an item is called inside.
        name: ByteString,
        /// What becomes of it.
        map: MapPlan,
    },
}

impl MapPlan {
    /// The names of the top fields; `None` where they are only known when the body is there.
    #[must_use]
    pub fn top_names(&self) -> Option<Vec<ByteString>> {
        match self {
            Self::Whole(_) => None,
            Self::Fields(targets) => Some(targets.iter().filter_map(|target| target.path.first().cloned()).collect()),
        }
    }

    /// The new body.
    ///
    /// # Errors
    /// The fault of the expression that could not be evaluated.
    pub fn evaluate(&self, scope: &Scope<'_>) -> Result<Value, Fault> {
        let _work = Work::begin();
        match self {
            Self::Whole(expression) => expression.evaluate(scope),
            Self::Fields(targets) => {
                let mut record = Record::new();
                for target in targets {
                    if let Some(value) = target.value(scope)? {
                        place(&mut record, &target.path, value);
                    }
                }
                Ok(Value::Record(record))
            }
        }
    }
}

impl Target {
    fn value(&self, scope: &Scope<'_>) -> Result<Option<Value>, Fault> {
        match &self.source {
            Source::Expression(expression) if self.optional => expression.evaluate_optional(scope),
            Source::Expression(expression) => expression.evaluate(scope).map(Some),
            Source::Each { items, name, map } => {
                let list = match (items.evaluate_optional(scope)?, self.optional) {
                    (Some(list), _) => list,
                    (None, true) => return Ok(None),
                    (None, false) => items.evaluate(scope)?,
                };
                each(&list, items, name, map, scope).map(Some)
            }
        }
    }
}

fn each(
    list: &Value,
    source: &Expression,
    name: &ByteString,
    map: &MapPlan,
    scope: &Scope<'_>,
) -> Result<Value, Fault> {
    let Value::List(items) = list else {
        let problem = format!("`{}` gives {} where a list is needed", source.source(), list.kind());
        return Err(source.fault("NOT_A_LIST", problem));
    };
    let mut variables = scope.variables.to_vec();
    let mut mapped = Vec::with_capacity(items.len());
    for item in items {
        if !Work::spend(1) {
            return Err(source.too_much_work());
        }
        variables.push((name.clone(), item.clone()));
        let inner = Scope { variables: &variables, ..*scope };
        mapped.push(map.evaluate(&inner)?);
        variables.pop();
    }
    Ok(Value::List(mapped))
}

/// Puts a value at a path; records on the way are made where they are missing.
fn place(record: &mut Record, path: &[ByteString], value: Value) {
    let Some((name, rest)) = path.split_first() else { return };
    if rest.is_empty() {
        record.set(name.clone(), value);
        return;
    }
    if !matches!(record.get(name), Some(Value::Record(_))) {
        record.set(name.clone(), Value::Record(Record::new()));
    }
    if let Some(Value::Record(inner)) = record.get_mut(name) {
        place(inner, rest, value);
    }
}
