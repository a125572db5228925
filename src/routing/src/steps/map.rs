//! The `map` step and its like.

use crossdock_message::ByteString;
use crossdock_settings::{Kind, Node, Reader, Spanned};

use super::steps::StepReader;
use crate::map::{MapPlan, Source, Target};

impl StepReader<'_> {
    pub(super) fn map(&self, node: &Node, reader: &mut Reader<'_>) -> Option<MapPlan> {
        let Kind::Map(entries) = &node.kind else {
            reader.wrong_kind(node, "a map from fields to expressions", "write `field: req.other`, one a line");
            return None;
        };
        if let [(key, value)] = entries.as_slice()
            && key.name == "."
        {
            return self.expression(value, reader).map(MapPlan::Whole);
        }
        let mut targets: Vec<Target> = Vec::with_capacity(entries.len());
        let mut complete = true;
        for (key, value) in entries {
            let (name, optional) = key.name.strip_suffix('?').map_or((key.name.as_str(), false), |name| (name, true));
            let path = target_path(name);
            if path.iter().any(|part| part.is_empty()) {
                let help = "write `field`, `field.inner`, `\"@attribute\"`, `$text`, or `.` for the whole body";
                reader.error("target", key.span, format!("`{}` is not a target", key.name), help);
                complete = false;
                continue;
            }
            let clash = targets.iter().find(|other| other.path.starts_with(&path) || path.starts_with(&other.path));
            if let Some(other) = clash {
                let message = format!("`{name}` and `{}` cannot both be set", other.path.join("."));
                reader.error("target-clash", key.span, message, "a field is either a value or has fields of its own");
                complete = false;
            }
            match self.source(value, optional, reader) {
                Some(source) => targets.push(Target { path, optional, source }),
                None => complete = false,
            }
        }
        complete.then_some(MapPlan::Fields(targets))
    }

    fn source(&self, node: &Node, optional: bool, reader: &mut Reader<'_>) -> Option<Source> {
        if matches!(node.kind, Kind::Map(_)) {
            return self.each(node, reader);
        }
        let expression = self.expression(node, reader)?;
        if optional && !expression.is_path() {
            let help = "write a plain path such as `req.note`, or `has(req.note) ? … : …` without the `?`";
            reader.error(
                "target-optional",
                node.span,
                "only a plain path can be left out where it leads nowhere",
                help,
            );
        }
        Some(Source::Expression(expression))
    }

    fn each(&self, node: &Node, reader: &mut Reader<'_>) -> Option<Source> {
        let mut fields = reader.fields(node, "a list of records")?;
        let items = fields.take("each");
        let name: Option<Spanned<String>> = fields.read("as", reader);
        let map = fields.take("map");
        if items.is_none() || map.is_none() {
            let help = "write `{ each: req.lines, as: line, map: { sku: line.sku } }`";
            reader.error("missing-key", node.span, "a list of records needs `each`, `as` and `map`", help);
        }
        fields.finish(reader);
        let items = self.expression(items?, reader);
        let name = self.new_name(&name?, reader)?;
        let mut state = self.state.clone();
        state.bound.push(name.clone());
        if items.as_ref().is_some_and(|items| !items.is_of_caller()) {
            state.of_services.push(name.clone());
        }
        let inner = StepReader { state, ..*self };
        let map = inner.map(map?, reader)?;
        Some(Source::Each { items: items?, name, map })
    }
}

/// Splits `a.b.{urn:x}c` at its dots; those in braces belong to a namespace.
fn target_path(text: &str) -> Vec<ByteString> {
    let mut parts = Vec::new();
    let mut part = String::new();
    let mut in_braces = false;
    for character in text.chars() {
        match character {
            '.' if !in_braces => parts.push(std::mem::take(&mut part).into()),
            _ => {
                in_braces = (in_braces || character == '{') && character != '}';
                part.push(character);
            }
        }
    }
    parts.push(part.into());
    parts
}
