//! Paths into a value: `customer.lines[0].sku`.

use crossdock_message::{ByteString, Value};

/// One step down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathStep {
    /// The field of a record.
    Field(ByteString),
    /// The item of a list, from 0.
    Index(usize),
}

/// A variable and the steps down from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// The variable, such as `req`.
    pub root: ByteString,
    /// The steps.
    pub steps: Vec<PathStep>,
}

impl Path {
    /// The path as it is written.
    #[must_use]
    pub fn text(&self) -> String {
        self.text_to(self.steps.len())
    }

    /// The path as it is written, up to that many steps.
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

/// Follows steps; `Err` is how many were taken before one led nowhere.
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
