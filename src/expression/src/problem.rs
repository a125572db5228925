//! Diagnostics of a source text.

use std::ops::Range;

/// An error in a source text: its range, what is wrong, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct Problem {
    /// The byte range in the source.
    pub range: Range<usize>,
    /// What is wrong.
    pub problem: String,
    /// What to write instead; may be empty.
    pub help: String,
}

impl Problem {
    pub(crate) fn new(span: Span, problem: impl Into<String>, help: impl Into<String>) -> Self {
        Self { range: span.range(), problem: problem.into(), help: help.into() }
    }

    /// The problem, the source line with carets under the range, and the help.
    #[must_use]
    pub fn show(&self, source: &str) -> String {
        let start = self.range.start.min(source.len());
        let line_start = source[..start].rfind('\n').map_or(0, |at| at + 1);
        let line = source[line_start..].lines().next().unwrap_or("");
        let column = source[line_start..start].chars().count();
        let marked = source.get(self.range.clone()).map_or(1, |text| text.lines().next().unwrap_or("").chars().count());
        let mut shown = format!("{}\n  {line}\n  {}{}", self.problem, " ".repeat(column), "^".repeat(marked.max(1)));
        if !self.help.is_empty() {
            shown.push_str("\n  ");
            shown.push_str(&self.help);
        }
        shown
    }
}

/// A byte range of a source text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    pub(crate) const ZERO: Self = Self { start: 0, end: 0 };

    pub(crate) fn new(start: usize, end: usize) -> Self {
        // The parser limits sources to far less.
        let narrow = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Self { start: narrow(start), end: narrow(end) }
    }

    /// From the start of `self` to the end of `end`.
    pub(crate) fn to(self, end: Self) -> Self {
        Self { start: self.start, end: end.end }
    }

    /// As a range.
    #[must_use]
    pub fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}
