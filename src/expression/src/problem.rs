//! What is wrong with a source text.

use std::ops::Range;

/// Why a source text is no expression that can be used: bytes of the text, what is wrong, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct Problem {
    /// The bytes that are wrong.
    pub range: Range<usize>,
    /// What is wrong.
    pub problem: String,
    /// What to write instead; empty where nothing can be said.
    pub help: String,
}

impl Problem {
    pub(crate) fn new(span: Span, problem: impl Into<String>, help: impl Into<String>) -> Self {
        Self { range: span.range(), problem: problem.into(), help: help.into() }
    }

    /// The line of `source` where the problem is, with a caret under it, and the help.
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

/// Bytes of a source text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    pub(crate) const ZERO: Self = Self { start: 0, end: 0 };

    pub(crate) fn new(start: usize, end: usize) -> Self {
        // Sources are far shorter.
        let narrow = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Self { start: narrow(start), end: narrow(end) }
    }

    /// From the start of the one to the end of the other.
    pub(crate) fn to(self, end: Self) -> Self {
        Self { start: self.start, end: end.end }
    }

    /// The bytes.
    #[must_use]
    pub fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}
