//! Conversion of run-time values to message values.

use std::rc::Rc;

use crossdock_message::{Record, Value};

use super::{List, Map, Val};
use crate::budget::{Budget, Exhausted};
use crate::number::Dec;

/// Why a value cannot be converted to a message value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConversionError {
    /// Messages cannot hold this kind of value.
    UnsupportedKind(&'static str),
    /// The conversion exceeds the budget.
    Exhausted(Exhausted),
}

impl From<Exhausted> for ConversionError {
    fn from(cause: Exhausted) -> Self {
        Self::Exhausted(cause)
    }
}

impl Val<'_> {
    /// As [`Val::to_value`]; moves computed values instead of sharing them.
    ///
    /// # Errors
    /// [`ConversionError`].
    pub fn into_value(self, budget: &Budget) -> Result<Value, ConversionError> {
        match self {
            Self::Text(text) => Ok(Value::Text(text.into_owned())),
            Self::Bytes(bytes) => Ok(Value::Bytes(bytes.into_owned())),
            Self::List(List::Owned(items)) => {
                budget.charge_work(items.len() as u64)?;
                budget.charge_bytes(items.len() * size_of::<Value>())?;
                let mut result = Vec::with_capacity(items.len());
                match Rc::try_unwrap(items) {
                    Ok(items) => {
                        for item in items {
                            result.push(item.into_value(budget)?);
                        }
                    }
                    Err(items) => {
                        for item in &*items {
                            result.push(item.to_value(budget)?);
                        }
                    }
                }
                Ok(Value::List(result))
            }
            other => other.to_value(budget),
        }
    }

    /// Converts it to a message value. Strings, bytes and records are shared, lists are copied; an empty optional becomes null.
    ///
    /// # Errors
    /// [`ConversionError`].
    pub fn to_value(&self, budget: &Budget) -> Result<Value, ConversionError> {
        Ok(match self {
            Self::Null => Value::Null,
            Self::Bool(truth) => Value::Bool(*truth),
            Self::Int(number) => Value::Int(*number),
            Self::UInt(number) => Value::from(*number),
            Self::Double(number) => Value::F64(*number),
            Self::Decimal(number @ Dec::Written(_)) => Value::Decimal(number.to_decimal()),
            Self::Decimal(number) => {
                budget.charge_work(2)?;
                budget.charge_bytes(32 + number.weight())?;
                Value::Decimal(number.to_decimal())
            }
            Self::Text(text) => Value::Text((**text).clone()),
            Self::Bytes(bytes) => Value::Bytes((**bytes).clone()),
            Self::Time(time) => Value::Time(*time),
            Self::Duration(span) => Value::Duration(*span),
            Self::List(List::Data(items, _)) => {
                items.iter().try_for_each(|item| budget.charge_copy(item))?;
                budget.charge_bytes(size_of_val(*items))?;
                Value::List(items.to_vec())
            }
            Self::List(List::Owned(items)) => {
                budget.charge_work(items.len() as u64)?;
                budget.charge_bytes(items.len() * size_of::<Value>())?;
                Value::List(items.iter().map(|item| item.to_value(budget)).collect::<Result<_, _>>()?)
            }
            Self::Map(Map::Data(record, _)) => Value::Record((*record).clone()),
            Self::Map(Map::Owned(map)) => {
                budget.charge_work(map.len() as u64)?;
                budget.charge_bytes(Record::made_len(map.len()))?;
                let mut fields = Vec::with_capacity(map.len());
                for (key, value) in map.entries() {
                    let Val::Text(name) = key else {
                        return Err(ConversionError::UnsupportedKind("a map whose keys are not strings"));
                    };
                    fields.push(((**name).clone(), value.to_value(budget)?));
                }
                Value::Record(Record::from_unique(fields))
            }
            Self::Type(_) => return Err(ConversionError::UnsupportedKind("a type")),
            Self::Optional(None) => Value::Null,
            Self::Optional(Some(inner)) => inner.to_value(budget)?,
        })
    }
}
