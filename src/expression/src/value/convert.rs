//! Made values as values of messages.

use std::rc::Rc;

use crossdock_message::{Record, Value};

use super::{List, Map, Val};
use crate::budget::{Budget, Spent};
use crate::number::Dec;

/// Why a value is none of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoValue {
    /// There is no such kind in messages.
    Kind(&'static str),
    /// It is over the budget.
    Spent(Spent),
}

impl From<Spent> for NoValue {
    fn from(spent: Spent) -> Self {
        Self::Spent(spent)
    }
}

impl Val<'_> {
    /// As [`Val::to_value`]; what was made is moved rather than shared.
    ///
    /// # Errors
    /// [`NoValue`].
    pub fn into_value(self, budget: &Budget) -> Result<Value, NoValue> {
        match self {
            Self::Text(text) => Ok(Value::Text(text.into_owned())),
            Self::Bytes(bytes) => Ok(Value::Bytes(bytes.into_owned())),
            Self::List(List::Made(items)) => {
                budget.work(items.len() as u64)?;
                budget.bytes(items.len() * size_of::<Value>())?;
                let mut made = Vec::with_capacity(items.len());
                match Rc::try_unwrap(items) {
                    Ok(items) => {
                        for item in items {
                            made.push(item.into_value(budget)?);
                        }
                    }
                    Err(items) => {
                        for item in &*items {
                            made.push(item.to_value(budget)?);
                        }
                    }
                }
                Ok(Value::List(made))
            }
            other => other.to_value(budget),
        }
    }

    /// The value of a message. Text, bytes and records are shared, lists are copied; an optional is its value, or null.
    ///
    /// # Errors
    /// [`NoValue`].
    pub fn to_value(&self, budget: &Budget) -> Result<Value, NoValue> {
        Ok(match self {
            Self::Null => Value::Null,
            Self::Bool(truth) => Value::Bool(*truth),
            Self::Int(number) => Value::Int(*number),
            Self::UInt(number) => Value::from(*number),
            Self::Double(number) => Value::F64(*number),
            Self::Decimal(number @ Dec::Written(_)) => Value::Decimal(number.to_decimal()),
            Self::Decimal(number) => {
                budget.work(2)?;
                budget.bytes(32 + number.weight())?;
                Value::Decimal(number.to_decimal())
            }
            Self::Text(text) => Value::Text((**text).clone()),
            Self::Bytes(bytes) => Value::Bytes((**bytes).clone()),
            Self::Time(time) => Value::Time(*time),
            Self::Duration(span) => Value::Duration(*span),
            Self::List(List::Data(items, _)) => {
                items.iter().try_for_each(|item| budget.copy(item))?;
                budget.bytes(size_of_val(*items))?;
                Value::List(items.to_vec())
            }
            Self::List(List::Made(items)) => {
                budget.work(items.len() as u64)?;
                budget.bytes(items.len() * size_of::<Value>())?;
                Value::List(items.iter().map(|item| item.to_value(budget)).collect::<Result<_, _>>()?)
            }
            Self::Map(Map::Data(record, _)) => Value::Record((*record).clone()),
            Self::Map(Map::Made(map)) => {
                budget.work(map.len() as u64)?;
                budget.bytes(Record::made_len(map.len()))?;
                let mut fields = Vec::with_capacity(map.len());
                for (key, value) in map.entries() {
                    let Val::Text(name) = key else {
                        return Err(NoValue::Kind("a map whose keys are not texts"));
                    };
                    fields.push(((**name).clone(), value.to_value(budget)?));
                }
                Value::Record(Record::from_unique(fields))
            }
            Self::Type(_) => return Err(NoValue::Kind("a type")),
            Self::Optional(None) => Value::Null,
            Self::Optional(Some(inner)) => inner.to_value(budget)?,
        })
    }
}
