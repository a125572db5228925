//! Why a document cannot be read or written by its contract, and where.

use crossdock_message::json::JsonErrorKind;

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The document is no JSON.
    #[error("{0}")]
    Json(JsonErrorKind),
    /// Protobuf's bytes end in the middle of a field.
    #[error("the bytes end in the middle of a field")]
    End,
    /// A number on the wire is longer than ten bytes or has too many bits.
    #[error("a number on the wire is too long")]
    Varint,
    /// A field number 0 or above 2²⁹ − 1, or a wire type that does not exist.
    #[error("no field has such a tag")]
    Tag,
    /// A group ends that did not begin, or the other way round.
    #[error("a group does not end where it should")]
    Group,
    /// A text is not UTF-8.
    #[error("the text is not valid UTF-8")]
    Utf8,
    /// More records inside one another than allowed.
    #[error("nested deeper than {0} levels")]
    Depth(usize),
    /// More `Any` inside one another than allowed.
    #[error("more than {0} `google.protobuf.Any` inside one another")]
    AnyDepth(usize),
    /// More values than allowed.
    #[error("the document has more than {0} values")]
    Nodes(usize),
    /// The contract has no such field.
    #[error("`{record}` has no field `{name}`{}", did_you_mean(.meant.as_deref()))]
    UnknownField {
        /// The record's name.
        record: String,
        /// What was written.
        name: String,
        /// What may have been meant.
        meant: Option<String>,
    },
    /// A field is given twice, perhaps under two names.
    #[error("`{0}` is given twice")]
    Twice(String),
    /// Two fields of a oneof are given.
    #[error("only one of `{0}` may be given, and a second one is")]
    OneofTwice(String),
    /// A value of another kind is needed.
    #[error("expected {expected}, found {found}")]
    Kind {
        /// What the contract says.
        expected: String,
        /// What is there.
        found: &'static str,
    },
    /// A value violates a facet of its field.
    #[error("{0}")]
    Facet(String),
    /// A number does not fit.
    #[error("the number does not fit in {0}")]
    Range(&'static str),
    /// The enumeration has no such value.
    #[error("`{name}` has no value `{value}`{}", did_you_mean(.meant.as_deref()))]
    EnumValue {
        /// The enumeration's name.
        name: String,
        /// What was written.
        value: String,
        /// What may have been meant.
        meant: Option<String>,
    },
    /// A list cannot hold null.
    #[error("null cannot stand in a list or map")]
    NullItem,
    /// A field that has to be there is missing.
    #[error("the field `{0}` has to be there")]
    Missing(String),
    /// An `Any` of a type that the contract does not hold.
    #[error("the contract does not know the type `{0}`")]
    AnyType(String),
    /// An `Any` without its type, or with something beside it.
    #[error("{0}")]
    AnyForm(&'static str),
    /// A value that the other format cannot say.
    #[error("{0}")]
    Unwritable(&'static str),
}

fn did_you_mean(meant: Option<&str>) -> String {
    meant.map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default()
}

/// What went wrong on the way through a document; the path is put together from the inside out.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) problem: Problem,
    /// Names of fields, indices and keys, the innermost first.
    path: Vec<String>,
}

pub(crate) type Done<T> = Result<T, Box<Failure>>;

#[cold]
pub(crate) fn fail<T>(problem: Problem) -> Done<T> {
    Err(Box::new(Failure { problem, path: Vec::new() }))
}

/// Parts of a path that are told.
const PATH_LEN_MAX: usize = 32;

#[expect(clippy::unnecessary_box_returns, reason = "a small result on the way that succeeds")]
impl Failure {
    #[cold]
    pub(crate) fn of(problem: Problem) -> Box<Self> {
        Box::new(Self { problem, path: Vec::new() })
    }

    /// The same, one level further out.
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

    pub(crate) fn told(self, place: Option<(usize, usize)>) -> CodecError {
        CodecError { path: self.path(), place, problem: self.problem }
    }
}

impl From<JsonErrorKind> for Box<Failure> {
    #[cold]
    fn from(kind: JsonErrorKind) -> Self {
        Failure::of(Problem::Json(kind))
    }
}

/// Why a document cannot be read or written by its contract, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodecError {
    /// What is wrong.
    pub problem: Problem,
    /// The field, from the document down: `lines[2].sku`; empty for the document itself.
    pub path: String,
    /// Line and column of a text, from 1.
    pub place: Option<(usize, usize)>,
}

impl std::fmt::Display for CodecError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some((line, column)) = self.place {
            write!(f, "line {line}, column {column}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "`{}`: ", self.path)?;
        }
        self.problem.fmt(f)
    }
}

impl std::error::Error for CodecError {}

/// The known name that is nearest to one that is not known, where one is near.
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
