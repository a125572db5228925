//! Errors and warnings with their spans.

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// Identifies a file of a [`Diagnostics`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(u32);

/// The byte range `start..end` of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The file.
    pub source: SourceId,
    /// The first byte.
    pub start: usize,
    /// The byte after the last.
    pub end: usize,
}

/// How serious a diagnostic is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The settings cannot be used.
    Error,
    /// The settings can be used.
    Warning,
}

/// An error or warning, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How serious it is.
    pub severity: Severity,
    /// A stable identifier, such as `unknown-key`.
    pub code: &'static str,
    /// Its place.
    pub span: Span,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

/// The sources that were read, and their errors and warnings.
#[derive(Debug, Default)]
pub struct Diagnostics {
    sources: Vec<(String, String)>,
    list: Vec<Diagnostic>,
    errors: usize,
    dropped: usize,
}

impl Diagnostics {
    /// Maximum number of errors, and of warnings. More are only counted.
    pub const LEN_MAX: usize = 100;

    /// Creates an empty collection.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file. Messages call it `name`.
    pub fn add_source(&mut self, name: impl Into<String>, text: impl Into<String>) -> SourceId {
        self.sources.push((name.into(), text.into()));
        SourceId(u32::try_from(self.sources.len() - 1).unwrap_or(u32::MAX))
    }

    /// The text of a file.
    #[must_use]
    pub fn text(&self, source: SourceId) -> &str {
        &self.sources[source.0 as usize].1
    }

    /// The name of a file.
    #[must_use]
    pub fn name(&self, source: SourceId) -> &str {
        &self.sources[source.0 as usize].0
    }

    /// Adds an error.
    pub fn error(&mut self, code: &'static str, span: Span, message: impl Into<String>, help: Option<String>) {
        self.add(Diagnostic { severity: Severity::Error, code, span, message: message.into(), help });
    }

    /// Adds a warning.
    pub fn warning(&mut self, code: &'static str, span: Span, message: impl Into<String>, help: Option<String>) {
        self.add(Diagnostic { severity: Severity::Warning, code, span, message: message.into(), help });
    }

    fn add(&mut self, diagnostic: Diagnostic) {
        if self.list.contains(&diagnostic) {
            return;
        }
        self.errors += usize::from(diagnostic.severity == Severity::Error);
        let count = self.list.iter().filter(|other| other.severity == diagnostic.severity).count();
        if count < Self::LEN_MAX {
            self.list.push(diagnostic);
        } else {
            self.dropped += 1;
        }
    }

    /// Whether there is an error.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// The number of errors.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.errors
    }

    /// All diagnostics, ordered by file and span.
    #[must_use]
    pub fn sorted(&self) -> Vec<&Diagnostic> {
        let mut all: Vec<&Diagnostic> = self.list.iter().collect();
        all.sort_by_key(|diagnostic| diagnostic.span);
        all
    }

    /// Line and column of the start of a span, both from 1; columns are characters.
    #[must_use]
    pub fn line_column(&self, span: Span) -> (usize, usize) {
        let text = self.text(span.source);
        let mut start = span.start.min(text.len());
        while !text.is_char_boundary(start) {
            start -= 1;
        }
        let before = &text[..start];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (1 + before.matches('\n').count(), 1 + before[line_start..].chars().count())
    }

    /// Renders for people: each diagnostic with its source line and carets.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() }.decor_style(DecorStyle::Ascii);
        let rendered: Vec<String> = self.sorted().into_iter().map(|one| self.render_one(&renderer, one)).collect();
        let mut text = rendered.join("\n\n");
        if !text.is_empty() {
            text.push('\n');
        }
        if self.dropped > 0 {
            text.push_str(&format!("\nand {} more\n", self.dropped));
        }
        text
    }

    fn render_one(&self, renderer: &Renderer, diagnostic: &Diagnostic) -> String {
        let text = self.text(diagnostic.span.source);
        let end = text.len();
        let start = text.floor_char_boundary(diagnostic.span.start.min(end));
        let stop = text.ceil_char_boundary(diagnostic.span.end.min(end)).max(start);
        // Mark the first line only: a span may be a long block.
        let stop = text[start..stop].find('\n').map_or(stop, |newline| start + newline).max(start);
        let level = match diagnostic.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group: Group<'_> = level.primary_title(&*diagnostic.message).id(diagnostic.code).element(
            Snippet::source(text)
                .path(self.name(diagnostic.span.source))
                .annotation(AnnotationKind::Primary.span(start..stop)),
        );
        if let Some(help) = &diagnostic.help {
            group = group.element(Level::HELP.message(&**help));
        }
        let rendered = renderer.render(&[group]);
        rendered.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
    }

    /// Renders one line per diagnostic: `file:line:column: severity[code]: message; help`.
    #[must_use]
    pub fn render_short(&self) -> String {
        let mut out = String::new();
        for diagnostic in self.sorted() {
            let (line, column) = self.line_column(diagnostic.span);
            let severity = match diagnostic.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            };
            let help = diagnostic.help.as_deref().map(|help| format!("; {help}")).unwrap_or_default();
            let name = self.name(diagnostic.span.source);
            out.push_str(&format!(
                "{name}:{line}:{column}: {severity}[{}]: {}{help}\n",
                diagnostic.code, diagnostic.message
            ));
        }
        out
    }

    /// A JSON array with `file`, `line`, `column`, `severity`, `code`, `message` and `help` of each diagnostic.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let all = self.sorted().into_iter().map(|diagnostic| {
            let (line, column) = self.line_column(diagnostic.span);
            serde_json::json!({
                "file": self.name(diagnostic.span.source),
                "line": line,
                "column": column,
                "severity": match diagnostic.severity { Severity::Error => "error", Severity::Warning => "warning" },
                "code": diagnostic.code,
                "message": diagnostic.message,
                "help": diagnostic.help,
            })
        });
        serde_json::Value::Array(all.collect())
    }
}

/// The candidate most similar to `written`; `None` if none is similar enough.
pub fn nearest<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distance_max = (written.chars().count() / 3).max(2);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&written.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= distance_max && *distance < candidate.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
