//! Errors of reading and writing a document by its contract.

use crossdock_message::json::JsonErrorKind;
use crossdock_message::{Code, Fault};

use crate::model::FacetViolation;

/// The cause of an error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The document is not JSON.
    #[error("{0}")]
    Json(JsonErrorKind),
    /// The input ends within a field.
    #[error("the input ends in the middle of a field")]
    End,
    /// A varint is longer than ten bytes, or than five bytes in a tag.
    #[error("a varint is too long")]
    Varint,
    /// A field number 0 or above 2²⁹ − 1, or a wire type that does not exist.
    #[error("invalid field tag")]
    Tag,
    /// A group without its start or end tag.
    #[error("unbalanced group")]
    Group,
    /// A string is not UTF-8.
    #[error("the string is not valid UTF-8")]
    Utf8,
    /// Too many nested records.
    #[error("nested deeper than {0} levels")]
    Depth(usize),
    /// Too many nested `Any`.
    #[error("`google.protobuf.Any` is nested deeper than {0} levels")]
    AnyDepth(usize),
    /// Too many values.
    #[error("the document has more than {0} values")]
    Nodes(usize),
    /// The contract has no such field.
    #[error("`{record}` has no field `{name}`{}", did_you_mean(.suggestion.as_deref()))]
    UnknownField {
        /// The record's name.
        record: String,
        /// The unknown name.
        name: String,
        /// A similar name that exists.
        suggestion: Option<String>,
    },
    /// A field occurs twice, possibly under different names.
    #[error("duplicate field `{0}`")]
    DuplicateField(String),
    /// Two fields of a oneof are set.
    #[error("only one field of `{0}` can be set")]
    OneofConflict(String),
    /// A value has the wrong type.
    #[error("expected {expected}, found {found}")]
    WrongType {
        /// The expected type.
        expected: String,
        /// The actual type.
        found: &'static str,
    },
    /// A value violates a facet of its field.
    #[error("{0}")]
    Facet(FacetViolation),
    /// A number is outside the range of its type.
    #[error("the number does not fit in {0}")]
    Range(&'static str),
    /// The enumeration has no such value.
    #[error("`{name}` has no value `{value}`{}", did_you_mean(.suggestion.as_deref()))]
    EnumValue {
        /// The enumeration's name.
        name: String,
        /// The unknown value.
        value: String,
        /// A similar name that exists.
        suggestion: Option<String>,
    },
    /// Null in a list or map.
    #[error("null is not allowed in a list or map")]
    NullItem,
    /// A required field is missing.
    #[error("the required field `{0}` is missing")]
    MissingField(String),
    /// An `Any` of a type that the contract does not have.
    #[error("the contract has no type `{0}`")]
    AnyType(String),
    /// An `Any` without its type, or with unexpected fields.
    #[error("{0}")]
    MalformedAny(&'static str),
    /// A value that the target format cannot represent.
    #[error("{0}")]
    Unwritable(&'static str),
    /// A value is not of its type of Avro.
    #[error("{0}")]
    Avro(String),
}

fn did_you_mean(suggestion: Option<&str>) -> String {
    suggestion.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}

/// An error within a document. Its path is assembled from the inside out while the error is returned.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) problem: Problem,
    /// Field names, indices and keys, innermost first.
    path: Vec<String>,
}

pub(crate) type Outcome<T> = Result<T, Box<Failure>>;

#[cold]
pub(crate) fn fail<T>(problem: Problem) -> Outcome<T> {
    Err(Box::new(Failure { problem, path: Vec::new() }))
}

/// The maximum parts of a reported path.
const PATH_LEN_MAX: usize = 32;

#[expect(clippy::unnecessary_box_returns, reason = "failures are rare, and boxing them keeps results small")]
impl Failure {
    #[cold]
    pub(crate) fn of(problem: Problem) -> Box<Self> {
        Box::new(Self { problem, path: Vec::new() })
    }

    /// Adds the next outer part of the path.
    #[cold]
    pub(crate) fn inside(mut self: Box<Self>, part: &str) -> Box<Self> {
        self.path.push(part.chars().take(64).collect());
        self
    }

    #[cold]
    pub(crate) fn at_index(self: Box<Self>, index: usize) -> Box<Self> {
        self.inside(&format!("[{index}]"))
    }

    fn path(&self) -> String {
        let mut out = String::new();
        for part in self.path.iter().rev().take(PATH_LEN_MAX) {
            if !out.is_empty() && !part.starts_with('[') {
                out.push('.');
            }
            out.push_str(part);
        }
        if self.path.len() > PATH_LEN_MAX {
            out.push('…');
        }
        out
    }

    pub(crate) fn into_error(self, position: Option<(usize, usize)>) -> CodecError {
        CodecError { path: self.path(), position, problem: self.problem }
    }
}

impl From<JsonErrorKind> for Box<Failure> {
    #[cold]
    fn from(kind: JsonErrorKind) -> Self {
        Failure::of(Problem::Json(kind))
    }
}

/// An error of reading or writing a document by its contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodecError {
    /// The cause.
    pub problem: Problem,
    /// The path of the field, such as `lines[2].sku`; empty for the document itself.
    pub path: String,
    /// Line and column in a JSON text, from 1.
    pub position: Option<(usize, usize)>,
}

impl CodecError {
    /// The fault of a body that cannot be read as a type.
    pub(crate) fn unreadable(&self, type_name: &str) -> Fault {
        let message = format!("the body is not a valid {type_name}: {self}");
        let mut fault = Fault::caller(Code::InvalidArgument, "BODY_MALFORMED", message);
        if let Some((line, column)) = self.position {
            fault = fault.with_detail("line", line.to_string()).with_detail("column", column.to_string());
        }
        self.with_field(fault)
    }

    /// The fault of a body that cannot be written as a type.
    pub(crate) fn unwritable(&self, type_name: &str) -> Fault {
        let message = format!("the body cannot be written as {type_name}: {self}");
        self.with_field(Fault::caller(Code::InvalidArgument, "BODY_UNWRITABLE", message))
    }

    fn with_field(&self, fault: Fault) -> Fault {
        if self.path.is_empty() { fault } else { fault.with_detail("field", self.path.clone()) }
    }
}

impl std::fmt::Display for CodecError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some((line, column)) = self.position {
            write!(f, "line {line}, column {column}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "`{}`: ", self.path)?;
        }
        self.problem.fmt(f)
    }
}

impl std::error::Error for CodecError {}

/// The known name that is most similar to an unknown one; `None` if none is similar.
pub(crate) fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<String> {
    let near = |other: &&str| strsim::damerau_levenshtein(name, other) <= 1 + name.len() / 4;
    if name.len() > 64 {
        return None;
    }
    known
        .filter(|other| other.len() <= 64)
        .filter(near)
        .min_by_key(|other| strsim::damerau_levenshtein(name, other))
        .map(str::to_owned)
}
