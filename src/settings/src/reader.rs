//! Reading typed values from [`Node`]s.

use crate::{Diagnostics, Key, Node, Span, nearest};

/// Supplies the text of `${env:NAME}` and `${file:PATH}`.
pub trait Resolve {
    /// The value of an environment variable.
    ///
    /// # Errors
    /// A human-readable reason.
    fn env(&self, name: &str) -> Result<String, String>;

    /// The text of a file, without a final line break.
    ///
    /// # Errors
    /// A human-readable reason.
    fn file(&self, path: &str) -> Result<String, String>;
}

/// Rejects all placeholders, for settings that are written in code.
#[derive(Debug, Clone, Copy)]
pub struct NoPlaceholders;

impl Resolve for NoPlaceholders {
    fn env(&self, name: &str) -> Result<String, String> {
        Err(format!("the environment variable `{name}` is not available here"))
    }

    fn file(&self, path: &str) -> Result<String, String> {
        Err(format!("the file `{path}` is not available here"))
    }
}

/// The context of reading: collects errors and resolves placeholders.
pub struct Reader<'a> {
    /// The collected errors and warnings.
    pub diagnostics: &'a mut Diagnostics,
    resolve: &'a dyn Resolve,
}

/// A type that can be read from a node.
pub trait FromNode: Sized {
    /// Reads the value. Returns `None` after reporting an error.
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self>;

    /// The value of a missing key; `None` if the key is required.
    fn absent() -> Option<Self> {
        None
    }

    /// The JSON Schema (draft 2020-12) of the type.
    fn schema() -> serde_json::Value;
}

/// A struct declared by [`settings!`](crate::settings!), whose keys may also be read from a map together with other keys.
pub trait Settings: FromNode {
    /// Reads its keys. All of them are read, whatever errors there are; `None` if an error was reported.
    fn read_fields(fields: &mut Fields<'_>, reader: &mut Reader<'_>) -> Option<Self>;

    /// The JSON Schemas of its keys, each with its description.
    fn properties() -> serde_json::Map<String, serde_json::Value>;
}

/// A JSON Schema with a description for editors.
#[must_use]
pub fn described(mut schema: serde_json::Value, description: &str) -> serde_json::Value {
    if let serde_json::Value::Object(fields) = &mut schema {
        fields.insert("description".to_owned(), description.into());
    }
    schema
}

impl<'a> Reader<'a> {
    /// Creates a reader.
    pub fn new(diagnostics: &'a mut Diagnostics, resolve: &'a dyn Resolve) -> Self {
        Self { diagnostics, resolve }
    }

    /// Reports an error. An empty `help` is omitted.
    pub fn error(&mut self, code: &'static str, span: Span, message: impl Into<String>, help: impl Into<String>) {
        let help = help.into();
        self.diagnostics.error(code, span, message, (!help.is_empty()).then_some(help));
    }

    /// Reports that a node is of the wrong kind.
    pub fn wrong_kind(&mut self, node: &Node, expected: &str, example: &str) {
        self.error("wrong-kind", node.span, format!("expected {expected}, found {}", node.kind_name()), example);
    }

    /// Opens a map to read its keys. Reports an error and returns `None` if the node is not a map. `what` names the map in errors.
    pub fn fields<'n>(&mut self, node: &'n Node, what: &'static str) -> Option<Fields<'n>> {
        if let crate::Kind::Map(entries) = &node.kind {
            return Some(Fields { node, entries, known: Vec::new(), what });
        }
        self.wrong_kind(node, &format!("a map ({what})"), "write `key: value` on lines below it, or `{ key: value }`");
        None
    }

    /// The text of a scalar with placeholders replaced, and whether there were any. Reports an error and returns `None` if there is no text.
    pub fn text(&mut self, node: &Node) -> Option<(String, bool)> {
        let Some(text) = node.text() else {
            self.wrong_kind(node, "a string", "write a single value, in quotes if it has special characters");
            return None;
        };
        if node.is_null() {
            self.error(
                "missing-value",
                node.span,
                "a value is required",
                "write it after the colon, or `\"\"` for empty text",
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
                // An expression of a template.
                out.push_str("${");
                at = start + 2;
                continue;
            };
            let Some(len) = inner.find('}') else {
                let span = node.span_of(start..text.len());
                self.error("placeholder", span, "the placeholder is not closed", "close it with `}`");
                return None;
            };
            let name = &inner[name_at..len];
            let value = if from_env { self.resolve.env(name) } else { self.resolve.file(name) };
            at = start + 2 + len + 1;
            match value {
                Ok(value) => out.push_str(&value),
                Err(problem) => {
                    let help = if from_env {
                        format!("set it, or write a default: `${{env:{name}:-…}}`")
                    } else {
                        "name a readable file, relative to the directory of crossdock.yaml".to_owned()
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

/// If the text after `${` is a placeholder: whether it is an environment variable rather than a file, and where its name starts.
fn placeholder_kind(inner: &str) -> Option<(bool, usize)> {
    let kinds = [("env:", true), ("file:", false)];
    kinds.into_iter().find(|(prefix, _)| inner.starts_with(prefix)).map(|(prefix, from_env)| (from_env, prefix.len()))
}

/// The keys of a map while it is read. Keys that are never read are unknown.
pub struct Fields<'n> {
    node: &'n Node,
    entries: &'n [(Key, Node)],
    known: Vec<&'static str>,
    what: &'static str,
}

impl<'n> Fields<'n> {
    /// The map.
    #[must_use]
    pub fn node(&self) -> &'n Node {
        self.node
    }

    /// The value of a key. Marks the key as known.
    pub fn take(&mut self, name: &'static str) -> Option<&'n Node> {
        self.known.push(name);
        self.entries.iter().find(|(key, _)| key.name == name).map(|(_, value)| value)
    }

    /// Reads a key; if it is missing, returns [`FromNode::absent`] or reports that the key is required.
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

    /// Reads a key; if it is missing, returns `default`.
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

    /// Reports every unknown key.
    pub fn finish(self, reader: &mut Reader<'_>) {
        for (key, _) in self.entries {
            if self.known.contains(&key.name.as_str()) {
                continue;
            }
            let help = match nearest(&key.name, self.known.iter().copied()) {
                Some(meant) => format!("write `{meant}`"),
                None if self.known.is_empty() => "remove it".to_owned(),
                None => format!("known keys: {}", self.known.join(", ")),
            };
            reader.error("unknown-key", key.span, format!("unknown key `{}` in {}", key.name, self.what), help);
        }
    }
}
