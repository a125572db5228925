//! Filling typed values from [`Node`]s.

use crate::{Diagnostics, Key, Node, Span, nearest};

/// Where `${env:NAME}` and `${file:PATH}` get their text from.
pub trait Resolve {
    /// The value of an environment variable.
    ///
    /// # Errors
    /// A sentence for the person who wrote the file.
    fn env(&self, name: &str) -> Result<String, String>;

    /// The text of a file, without the line break at its end.
    ///
    /// # Errors
    /// A sentence for the person who wrote the file.
    fn file(&self, path: &str) -> Result<String, String>;
}

/// What reading needs besides the node: where errors go, and placeholders come from.
pub struct Reader<'a> {
    /// Where errors go.
    pub diagnostics: &'a mut Diagnostics,
    resolve: &'a dyn Resolve,
}

/// A type that is read from a node.
pub trait FromNode: Sized {
    /// Reads it; `None` says that an error was reported.
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self>;

    /// What a missing key means; `None` where the key is required.
    fn absent() -> Option<Self> {
        None
    }

    /// The JSON Schema (draft 2020-12) of what is read.
    fn schema() -> serde_json::Value;
}

impl<'a> Reader<'a> {
    /// Reads with these.
    pub fn new(diagnostics: &'a mut Diagnostics, resolve: &'a dyn Resolve) -> Self {
        Self { diagnostics, resolve }
    }

    /// Reports an error.
    pub fn error(&mut self, code: &'static str, span: Span, message: impl Into<String>, help: impl Into<String>) {
        let help = help.into();
        self.diagnostics.error(code, span, message, (!help.is_empty()).then_some(help));
    }

    /// Reports that another kind of value is needed here.
    pub fn wrong_kind(&mut self, node: &Node, expected: &str, example: &str) {
        self.error("wrong-kind", node.span, format!("expected {expected}, found {}", node.kind_name()), example);
    }

    /// Opens a map to read its keys; `None` where the node is none.
    pub fn fields<'n>(&mut self, node: &'n Node, what: &'static str) -> Option<Fields<'n>> {
        if let crate::Kind::Map(entries) = &node.kind {
            return Some(Fields { node, entries, known: Vec::new(), what });
        }
        self.wrong_kind(
            node,
            &format!("a map ({what})"),
            "write `key: value`, one a line below it, or `{ key: value }`",
        );
        None
    }

    /// The text of a scalar with its placeholders replaced; the flag says whether there were any.
    pub fn text(&mut self, node: &Node) -> Option<(String, bool)> {
        let Some(text) = node.text() else {
            self.wrong_kind(node, "a text", "write one value; quotes make anything a text");
            return None;
        };
        if node.is_null() {
            self.error(
                "missing-value",
                node.span,
                "a value is missing here",
                "write it behind the colon; quotes make an empty text",
            );
            return None;
        }
        self.resolve_text(node, text)
    }

    fn resolve_text(&mut self, node: &Node, text: &str) -> Option<(String, bool)> {
        let mut out = String::new();
        let mut resolved = false;
        let mut at = 0;
        while let Some(found) = text[at..].find("${") {
            let start = at + found;
            let inner = &text[start + 2..];
            out.push_str(&text[at..start]);
            let Some((from_env, name_at)) = placeholder_kind(inner) else {
                // Not ours: an expression of a template.
                out.push_str("${");
                at = start + 2;
                continue;
            };
            let Some(len) = inner.find('}') else {
                let span = node.span_of(start..text.len());
                self.error("placeholder", span, "the placeholder is not closed", "end it with `}`");
                return None;
            };
            let name = &inner[name_at..len];
            let value = if from_env { self.resolve.env(name) } else { self.resolve.file(name) };
            at = start + 2 + len + 1;
            match value {
                Ok(value) => out.push_str(&value),
                Err(problem) => {
                    let help = if from_env {
                        format!("set it, or write what to take instead: `${{env:{name}:-…}}`")
                    } else {
                        "name a file that can be read, from the folder of crossdock.yaml on".to_owned()
                    };
                    self.error("placeholder", node.span_of(start..at), problem, help);
                    return None;
                }
            }
            resolved = true;
        }
        out.push_str(&text[at..]);
        Some((out, resolved))
    }
}

/// Whether the text behind `${` is a placeholder of ours, from the environment or a file, and where its name starts.
fn placeholder_kind(inner: &str) -> Option<(bool, usize)> {
    let kinds = [("env:", true), ("file:", false)];
    kinds.into_iter().find(|(prefix, _)| inner.starts_with(prefix)).map(|(prefix, from_env)| (from_env, prefix.len()))
}

/// The keys of a map while they are read; those that nobody asked for are unknown.
pub struct Fields<'n> {
    node: &'n Node,
    entries: &'n [(Key, Node)],
    known: Vec<&'static str>,
    what: &'static str,
}

impl<'n> Fields<'n> {
    /// The map itself.
    #[must_use]
    pub fn node(&self) -> &'n Node {
        self.node
    }

    /// The value of a key, which is known from now on.
    pub fn take(&mut self, name: &'static str) -> Option<&'n Node> {
        self.known.push(name);
        self.entries.iter().find(|(key, _)| key.name == name).map(|(_, value)| value)
    }

    /// Reads a key, or what its absence means; reports it where it is required and missing.
    pub fn read<T: FromNode>(&mut self, name: &'static str, reader: &mut Reader<'_>) -> Option<T> {
        match self.take(name) {
            Some(node) => T::from_node(node, reader),
            None => {
                let absent = T::absent();
                if absent.is_none() {
                    self.report_missing(name, reader);
                }
                absent
            }
        }
    }

    /// Reads a key, or takes the default where it is missing.
    pub fn read_or<T: FromNode>(&mut self, name: &'static str, default: T, reader: &mut Reader<'_>) -> Option<T> {
        match self.take(name) {
            Some(node) => T::from_node(node, reader),
            None => Some(default),
        }
    }

    fn report_missing(&self, name: &'static str, reader: &mut Reader<'_>) {
        let span = Span { end: self.node.span.start, ..self.node.span };
        let span = self.entries.first().map_or(span, |(key, _)| key.span);
        let unknown = self.entries.iter().map(|(key, _)| key.name.as_str());
        let help = match nearest(name, unknown) {
            Some(written) => format!("write `{name}` instead of `{written}`"),
            None => format!("add `{name}: …`"),
        };
        reader.error("missing-key", span, format!("{} needs `{name}`", self.what), help);
    }

    /// Reports every key that nobody asked for.
    pub fn finish(self, reader: &mut Reader<'_>) {
        for (key, _) in self.entries {
            if self.known.contains(&key.name.as_str()) {
                continue;
            }
            let help = match nearest(&key.name, self.known.iter().copied()) {
                Some(meant) => format!("write `{meant}`"),
                None if self.known.is_empty() => "leave it out".to_owned(),
                None => format!("known here: {}", self.known.join(", ")),
            };
            reader.error("unknown-key", key.span, format!("{} has no `{}`", self.what, key.name), help);
        }
    }
}
