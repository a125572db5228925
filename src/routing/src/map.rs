//! The `map` step: a new body out of what there is.

use std::borrow::Cow;

use crossdock_message::{ByteString, Code, Fault, Record, Value};

use crate::expression::{Expression, Item, Scope};

/// Fields that a list of them has room for with its first.
const INNER_FIELDS: usize = 4;

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
        let value = self.made(scope)?;
        if let (Err(spent), Some(expression)) = (scope.meter.check_traversal(&value), self.first_expression()) {
            return Err(expression.spent(spent));
        }
        let max = scope.limits.written_len;
        if value.written_len(max) > max {
            let message = format!("the new body would be larger than the {max} bytes that may be written");
            return Err(if self.is_of_caller() {
                Fault::caller(Code::InvalidArgument, "BODY_TOO_LARGE", message)
            } else {
                Fault::new(Code::Internal, "BODY_TOO_LARGE", message)
            });
        }
        Ok(value)
    }

    fn made(&self, scope: &Scope<'_>) -> Result<Value, Fault> {
        match self {
            Self::Whole(expression) => expression.evaluate(scope),
            Self::Fields(targets) => {
                // Records in records have room for a few fields more than they get.
                let inner: usize = targets.iter().map(|target| target.path.len() - 1).sum();
                let len = Record::made_len(targets.len()) + inner * Record::made_len(INNER_FIELDS);
                if let (Err(spent), Some(expression)) = (scope.meter.charge_bytes(len), self.first_expression()) {
                    return Err(expression.spent(spent));
                }
                let mut record = Record::with_capacity(targets.len());
                for target in targets {
                    if let Some(value) = target.value(scope)? {
                        place(&mut record, &target.path, value);
                    }
                }
                Ok(Value::Record(record))
            }
        }
    }

    fn first_expression(&self) -> Option<&Expression> {
        match self {
            Self::Whole(expression) => Some(expression),
            Self::Fields(targets) => targets.first().map(|target| target.source.expression()),
        }
    }

    /// Whether it looks at nothing but what the caller sent.
    fn is_of_caller(&self) -> bool {
        match self {
            Self::Whole(expression) => expression.is_of_caller(),
            Self::Fields(targets) => targets.iter().all(|target| match &target.source {
                Source::Expression(expression) => expression.is_of_caller(),
                Source::Each { items, map, .. } => items.is_of_caller() && map.is_of_caller(),
            }),
        }
    }
}

impl Source {
    fn expression(&self) -> &Expression {
        match self {
            Self::Expression(expression) | Self::Each { items: expression, .. } => expression,
        }
    }
}

impl Target {
    fn value(&self, scope: &Scope<'_>) -> Result<Option<Value>, Fault> {
        match &self.source {
            Source::Expression(expression) if self.optional => expression.evaluate_optional(scope),
            Source::Expression(expression) => expression.evaluate(scope).map(Some),
            Source::Each { items, name, map } => {
                let list = match (items.borrow_optional(scope)?, self.optional) {
                    (Some(list), _) => list,
                    (None, true) => return Ok(None),
                    (None, false) => Cow::Owned(items.evaluate(scope)?),
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
    let taken = scope.meter.charge_bytes(items.len() * size_of::<Value>());
    taken.map_err(|spent| source.spent(spent))?;
    let mut mapped = Vec::with_capacity(items.len());
    let is_xml = source.path().is_some_and(|path| scope.is_xml(&path.root));
    for value in items {
        scope.meter.charge_work(1).map_err(|spent| source.spent(spent))?;
        let item = Item { name, value, is_xml, outer: scope.item };
        mapped.push(map.made(&Scope { item: Some(&item), ..*scope })?);
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
