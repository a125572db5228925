//! Errors with the path of the value that they are about.

use std::fmt::{self, Write as _};

use crossdock_message::{Code, Fault};

/// Why bytes or a value are not of a type.
#[derive(Debug)]
pub(super) struct Failure {
    problem: String,
    /// From the innermost value outwards.
    path: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    Field(String),
    Item(usize),
}

pub(super) type Outcome<T> = Result<T, Failure>;

impl Failure {
    pub(super) fn new(problem: impl Into<String>) -> Self {
        Self { problem: problem.into(), path: Vec::new() }
    }

    /// The failure of a record, whose field failed.
    pub(super) fn in_field(mut self, name: &str) -> Self {
        self.path.push(Part::Field(name.to_owned()));
        self
    }

    /// The failure of a list, whose item failed.
    pub(super) fn in_item(mut self, index: usize) -> Self {
        self.path.push(Part::Item(index));
        self
    }

    /// The path, such as `items[3].price`; empty for the document.
    pub(super) fn path(&self) -> String {
        let mut path = String::new();
        for part in self.path.iter().rev() {
            // Never fails.
            let _ = match part {
                Part::Field(name) if path.is_empty() => write!(path, "{name}"),
                Part::Field(name) => write!(path, ".{name}"),
                Part::Item(index) => write!(path, "[{index}]"),
            };
        }
        path
    }

    pub(super) fn to_fault(&self, reason: &'static str, message: &str) -> Fault {
        let fault = Fault::caller(Code::InvalidArgument, reason, format!("{message}: {self}"));
        match self.path() {
            path if path.is_empty() => fault,
            path => fault.with_detail("field", path),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path() {
            path if path.is_empty() => f.write_str(&self.problem),
            path => write!(f, "`{path}`: {}", self.problem),
        }
    }
}

pub(super) fn fail<T>(problem: impl Into<String>) -> Outcome<T> {
    Err(Failure::new(problem))
}
