//! Builds [`Node`]s from YAML events.

use std::collections::HashMap;
use std::ops::Range;

use granit_parser::{Event, Parser, ScalarStyle};

use crate::{Diagnostics, Key, Kind, Node, SourceId, Span};

/// Maximum length of a file in bytes.
const FILE_LEN_MAX: usize = 1 << 20;
/// Maximum nesting of maps and lists.
const DEPTH_MAX: usize = 32;
/// Maximum number of values in a file.
const NODES_MAX: usize = 100_000;

/// Parses a file that was added with [`Diagnostics::add_source`].
///
/// Returns `None` after reporting an error if the file is not valid YAML. Anchors, aliases, tags and duplicate keys are reported, and parsing
/// continues.
pub fn parse(source: SourceId, diagnostics: &mut Diagnostics) -> Option<Node> {
    let text = diagnostics.text(source).to_owned();
    let whole = Span { source, start: 0, end: 0 };
    if text.len() > FILE_LEN_MAX {
        let help = "split it into smaller files".to_owned();
        let message = format!("a file must not exceed {FILE_LEN_MAX} bytes");
        diagnostics.error("file-size", whole, message, Some(help));
        return None;
    }
    let mut builder = Builder { source, text: &text, diagnostics, open: Vec::new(), root: None, nodes: 0 };
    let options = granit_parser::options! {
        emit_unresolved_aliases: true,
        disallow_directives: true,
        block_nesting_limit: DEPTH_MAX,
        flow_nesting_limit: DEPTH_MAX,
    };
    let mut parser = Parser::new_from_str_with_options(&text, options);
    while let Some(event) = parser.next_event() {
        match event {
            Ok((event, span)) => builder.event(event, span.byte_range().unwrap_or(0..0))?,
            Err(error) => {
                let at = error.marker().byte_offset().unwrap_or(0).min(text.len());
                let span = Span { source, start: at, end: at };
                let help = "close brackets and quotes, indent with spaces, and quote text that contains `: `, ` #`, `{` or `[`, and expressions with `,` inside `{ … }`";
                builder.diagnostics.error(
                    "yaml",
                    span,
                    format!("not valid YAML: {}", error.info()),
                    Some(help.to_owned()),
                );
                return None;
            }
        }
    }
    let Some(root) = builder.root else {
        diagnostics.error("empty-file", whole, "the file is empty", Some("start it with `version: 1`".into()));
        return None;
    };
    Some(root)
}

enum Open {
    List { start: usize, items: Vec<Node> },
    Map { start: usize, entries: Vec<(Key, Node)>, key: Option<Key>, seen: HashMap<String, Span> },
}

struct Builder<'a> {
    source: SourceId,
    text: &'a str,
    diagnostics: &'a mut Diagnostics,
    open: Vec<Open>,
    root: Option<Node>,
    nodes: usize,
}

impl Builder<'_> {
    fn span(&self, range: Range<usize>) -> Span {
        Span { source: self.source, start: range.start, end: range.end }
    }

    /// Returns `None` to stop parsing after reporting an error.
    fn event(&mut self, event: Event<'_>, range: Range<usize>) -> Option<()> {
        if event.tag().is_some() {
            let help = "remove the tag; quote a value to make it text".to_owned();
            self.diagnostics.error("yaml-tag", self.span(range.clone()), "tags (`!…`) are not supported", Some(help));
        }
        if event.anchor_id().is_some_and(|id| id > 0) || event.is_alias() {
            let help = "repeat the value, or define a policy".to_owned();
            let message = "anchors and aliases (`&…`, `*…`) are not supported";
            self.diagnostics.error("yaml-anchor", self.span(range.clone()), message, Some(help));
        }
        match event {
            Event::DocumentStart(..) if self.root.is_some() => {
                let help = "move it to a separate file".to_owned();
                self.diagnostics.error(
                    "yaml-documents",
                    self.span(range),
                    "a file must contain a single document",
                    Some(help),
                );
                return None;
            }
            Event::Scalar(text, style, ..) => {
                let node = self.scalar(&text, style, range);
                return self.value(node);
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                let kind = Kind::Scalar { text: String::new(), plain: true, verbatim_from: None };
                let node = Node { span: self.span(range), kind };
                return self.value(node);
            }
            Event::SequenceStart(..) => self.open.push(Open::List { start: range.start, items: Vec::new() }),
            Event::MappingStart(..) => {
                self.open.push(Open::Map { start: range.start, entries: Vec::new(), key: None, seen: HashMap::new() });
            }
            Event::SequenceEnd | Event::MappingEnd => return self.close(&range),
            _ => {}
        }
        Some(())
    }

    fn scalar(&self, text: &str, style: ScalarStyle, range: Range<usize>) -> Node {
        let plain = style == ScalarStyle::Plain;
        let missing = plain && range.is_empty();
        let inner = range.start + usize::from(!plain);
        let verbatim = self.text.get(inner..).is_some_and(|rest| rest.starts_with(text));
        let text = if missing { String::new() } else { text.to_owned() };
        let verbatim_from = (verbatim && !missing).then_some(inner);
        Node { span: self.span(range), kind: Kind::Scalar { text, plain, verbatim_from } }
    }

    fn close(&mut self, range: &Range<usize>) -> Option<()> {
        let node = match self.open.pop()? {
            Open::List { start, items } => {
                let end = items.last().map_or(range.end, |item| item.span.end);
                Node { span: self.span(start..end.max(start)), kind: Kind::List(items) }
            }
            Open::Map { start, entries, .. } => {
                let end = entries.last().map_or(range.end, |(key, value)| value.span.end.max(key.span.end));
                Node { span: self.span(start..end.max(start)), kind: Kind::Map(entries) }
            }
        };
        self.value(node)
    }

    fn value(&mut self, node: Node) -> Option<()> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            let help = "split it into smaller files".to_owned();
            let message = format!("a file must not contain more than {NODES_MAX} values");
            self.diagnostics.error("file-size", node.span, message, Some(help));
            return None;
        }
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map { entries, key, seen, .. }) => match key.take() {
                Some(key) => {
                    if let Some(first) = seen.insert(key.name.clone(), key.span) {
                        let (line, _) = self.diagnostics.line_column(first);
                        let message = format!("duplicate key `{}`", key.name);
                        let help = format!("it is already on line {line}; keep one of them");
                        self.diagnostics.error("duplicate-key", key.span, message, Some(help));
                    } else {
                        entries.push((key, node));
                    }
                }
                None => match node.kind {
                    Kind::Scalar { text, .. } => *key = Some(Key { span: node.span, name: text }),
                    _ => {
                        let help = "write `key: value`; quote a key that has special characters".to_owned();
                        self.diagnostics.error("yaml-key", node.span, "a key must be a scalar", Some(help));
                        return None;
                    }
                },
            },
        }
        Some(())
    }
}
