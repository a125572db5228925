//! Paths into a value: `customer.lines[0].sku`.

use crossdock_message::{ByteString, Value};

/// A step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathStep {
    /// To a field of a record.
    Field(ByteString),
    /// To an item of a list, from 0.
    Index(usize),
}

/// A variable and the steps from it to a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// The variable, such as `req`.
    pub root: ByteString,
    /// The steps.
    pub steps: Vec<PathStep>,
}

impl Path {
    /// The path as text.
    #[must_use]
    pub fn text(&self) -> String {
        self.text_to(self.steps.len())
    }

    /// The first `steps` steps of the path as text.
    #[must_use]
    pub fn text_to(&self, steps: usize) -> String {
        let mut text = self.root.to_string();
        for step in &self.steps[..steps] {
            match step {
                PathStep::Field(name) => {
                    text.push('.');
                    text.push_str(name);
                }
                PathStep::Index(index) => text.push_str(&format!("[{index}]")),
            }
        }
        text
    }
}

/// Follows steps to a value. If it is missing, the error is the number of steps that succeeded.
pub(super) fn follow<'v>(start: &'v Value, steps: &[PathStep]) -> Result<&'v Value, usize> {
    let mut value = start;
    for (taken, step) in steps.iter().enumerate() {
        let next = match (step, value) {
            (PathStep::Field(name), Value::Record(record)) => record.get(name),
            (PathStep::Index(index), Value::List(items)) => items.get(*index),
            _ => None,
        };
        value = next.ok_or(taken)?;
    }
    Ok(value)
}
