//! Which fields an expression names, and the messages cut down to them.

use crossdock_message::{ByteString, Fault, Value};

use super::path::{Path, PathStep};
use super::scope::Scope;
use super::values::CelValue;

/// The fields that are needed below one value.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Needs {
    /// All of it.
    whole: bool,
    fields: Vec<(ByteString, Needs)>,
}

impl Needs {
    /// Adds the fields of one path; everything below its end is needed.
    pub(super) fn add(&mut self, fields: &[ByteString]) {
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

    /// The variable, cut down to what is needed; nothing where it is not bound.
    ///
    /// # Errors
    /// A fault where a body has to be read for it and cannot be.
    pub(super) fn of_variable(&self, root: &ByteString, scope: &Scope<'_>) -> Result<Option<CelValue>, Fault> {
        if self.whole {
            let found = scope.find(&Path { root: root.clone(), steps: Vec::new() })?;
            return Ok(found.ok().map(|value| CelValue::from_value(&value)));
        }
        let mut fields = Vec::with_capacity(self.fields.len());
        for (name, needs) in &self.fields {
            let path = Path { root: root.clone(), steps: vec![PathStep::Field(name.clone())] };
            if let Ok(value) = scope.find(&path)? {
                fields.push((name, needs.project(&value)));
            }
        }
        Ok(Some(CelValue::record(fields.into_iter())))
    }
}
