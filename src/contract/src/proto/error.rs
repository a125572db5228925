//! Why a contract of protobuf cannot be read.

/// Why a contract cannot be used, and where in its files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct ProtoError {
    /// What is wrong.
    pub problem: String,
    /// The location of the error, if it is known.
    pub location: Option<SourceRange>,
}

/// A range of a file of a contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceRange {
    /// The file, by its name in imports.
    pub file: String,
    /// Its text.
    pub text: String,
    /// The range in bytes.
    pub range: std::ops::Range<usize>,
}

impl ProtoError {
    /// An error without a location.
    pub fn plain(problem: impl Into<String>) -> Self {
        Self { problem: problem.into(), location: None }
    }
}
