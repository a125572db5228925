//! Maps: new bodies from expressions.

use std::borrow::Cow;

use crossdock_message::{ByteString, Code, Fault, Record, Value};

use crate::expression::{Expression, Item, Scope};

/// The field capacity of a record after its first insertion.
const INNER_CAPACITY: usize = 4;

/// How a body is made.
#[derive(Debug, Clone)]
pub enum MapPlan {
    /// The body is the value of one expression.
    Whole(Expression),
    /// The body is a record of these targets, in their order.
    Fields(Vec<Target>),
}

/// One field of the new body.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its path in the body.
    pub path: Vec<ByteString>,
    /// The field is omitted if its source is a plain path to a missing value.
    pub optional: bool,
    /// Its value.
    pub source: Source,
}

/// The source of a field's value.
#[derive(Debug, Clone)]
pub enum Source {
    /// The value of an expression.
    Expression(Expression),
    /// A list, with one mapped item per item of another list.
    Each {
        /// The other list.
        items: Expression,
        /// The name of the item in expressions.
        name: ByteString,
        /// How an item is mapped.
        map: MapPlan,
    },
}

impl MapPlan {
    /// The names of the top-level fields; `None` if they are known only at run time.
    #[must_use]
    pub fn top_names(&self) -> Option<Vec<ByteString>> {
        match self {
            Self::Whole(_) => None,
            Self::Fields(targets) => {
                let mut names: Vec<ByteString> = Vec::new();
                for name in targets.iter().filter_map(|target| target.path.first()) {
                    if !names.contains(name) {
                        names.push(name.clone());
                    }
                }
                Some(names)
            }
        }
    }

    /// Makes the new body.
    ///
    /// # Errors
    /// The fault of an expression, or BODY_TOO_LARGE.
    pub fn evaluate(&self, scope: &Scope<'_>) -> Result<Value, Fault> {
        let value = self.build(scope)?;
        if let (Err(cause), Some(expression)) = (scope.meter.check_traversal(&value), self.first_expression()) {
            return Err(expression.exhausted(cause));
        }
        let max = scope.limits.written_len;
        if value.written_len(max) > max {
            let message = format!("the new body exceeds the limit of {max} bytes");
            return Err(if self.is_of_caller() {
                Fault::caller(Code::InvalidArgument, "BODY_TOO_LARGE", message)
            } else {
                Fault::new(Code::Internal, "BODY_TOO_LARGE", message)
            });
        }
        Ok(value)
    }

    fn build(&self, scope: &Scope<'_>) -> Result<Value, Fault> {
        match self {
            Self::Whole(expression) => expression.evaluate(scope),
            Self::Fields(targets) => {
                // Nested records allocate more capacity than they use.
                let inner: usize = targets.iter().map(|target| target.path.len() - 1).sum();
                let len = Record::made_len(targets.len()) + inner * Record::made_len(INNER_CAPACITY);
                if let (Err(cause), Some(expression)) = (scope.meter.charge_bytes(len), self.first_expression()) {
                    return Err(expression.exhausted(cause));
                }
                let mut record = Record::with_capacity(targets.len());
                for target in targets {
                    if let Some(value) = target.value(scope)? {
                        insert(&mut record, &target.path, value);
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

    /// Whether all its inputs are data of the caller.
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
        let problem = format!("`{}` is {}, but `each` needs a list", source.source(), list.kind());
        return Err(source.fault("NOT_A_LIST", problem));
    };
    let charged = scope.meter.charge_bytes(items.len() * size_of::<Value>());
    charged.map_err(|cause| source.exhausted(cause))?;
    let mut mapped = Vec::with_capacity(items.len());
    let is_xml = source.path().is_some_and(|path| scope.is_xml(&path.root));
    for value in items {
        scope.meter.charge_work(1).map_err(|cause| source.exhausted(cause))?;
        let item = Item { name, value, is_xml, outer: scope.item };
        mapped.push(map.build(&Scope { item: Some(&item), ..*scope })?);
    }
    Ok(Value::List(mapped))
}

/// Inserts a value at a path, and creates the records on the way.
fn insert(record: &mut Record, path: &[ByteString], value: Value) {
    let Some((name, rest)) = path.split_first() else { return };
    if rest.is_empty() {
        record.set(name.clone(), value);
        return;
    }
    if !matches!(record.get(name), Some(Value::Record(_))) {
        record.set(name.clone(), Value::Record(Record::new()));
    }
    if let Some(Value::Record(inner)) = record.get_mut(name) {
        insert(inner, rest, value);
    }
}
