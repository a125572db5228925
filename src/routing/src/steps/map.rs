//! `map`: a new body. The same syntax describes the bodies of `enrich`, `tap` and `respond`.

use crossdock_message::ByteString;
use crossdock_settings::{FromNode as _, Key, Kind, Node, Reader, Spanned};
use serde_json::{Value, json};

use super::nodes::{ExpressionNode, MapNode};
use super::types::{BodyState, Made};
use super::{Flow, StepPlan, StepReader, StepSpec};
use crate::map::{MapPlan, Source, Target};
use crate::plan::Plan;

crossdock_settings::settings! {
    /// a list of records
    struct EachSettings {
        /// The list, such as `req.lines`.
        each: ExpressionNode,
        /// The name of the item in expressions.
        r#as: Spanned<String>,
        /// The record that is made of each item.
        map: MapNode,
    }
}

/// Makes a new body.
#[derive(Debug)]
pub struct MapStep {
    /// How it is made.
    pub map: MapPlan,
}

impl StepSpec for MapStep {
    const FORM: &'static str = "map: { target: expression, … }";
    const SUMMARY: &'static str = "creates a new body; with the single target `.`, one expression is the whole body";

    fn schema() -> Value {
        MapNode::schema()
    }

    fn read(key: &Key, node: &Node, at: &mut StepReader<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let map = at.map(node, reader)?;
        at.refuse_in_stream("map", key.span, reader);
        at.state.fields = map.top_names();
        at.state.answered = true;
        at.state.body = BodyState::Made(Made { map: map.clone(), node: node.clone(), types: at.types() });
        Some(Self { map })
    }
}

impl StepPlan for MapStep {
    fn describe(&self, _: &Plan) -> String {
        match self.map.top_names() {
            Some(names) => format!("new body: {}", names.join(", ")),
            None => "new body from one expression".to_owned(),
        }
    }

    fn flow(&self) -> Flow<'_> {
        Flow::Continues
    }
}

/// The JSON Schema of targets and their expressions.
pub(crate) fn map_schema() -> Value {
    let source = json!({ "anyOf": [ExpressionNode::schema(), EachSettings::schema()] });
    json!({ "type": "object", "additionalProperties": source })
}

impl StepReader<'_> {
    /// Reads targets and their expressions.
    pub(super) fn map(&self, node: &Node, reader: &mut Reader<'_>) -> Option<MapPlan> {
        let Kind::Map(entries) = &node.kind else {
            reader.wrong_kind(node, "a map from fields to expressions", "write `field: req.other`, one per line");
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
                reader.error("target-clash", key.span, message, "a field has either a value or fields");
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
            reader.error("target-optional", node.span, "only a plain path can be optional", help);
        }
        Some(Source::Expression(expression))
    }

    fn each(&self, node: &Node, reader: &mut Reader<'_>) -> Option<Source> {
        let settings = EachSettings::from_node(node, reader)?;
        let items = self.expression(&settings.each.0, reader);
        let name = self.new_name(&settings.r#as, reader)?;
        let mut state = self.state.clone();
        state.bound.push(name.clone());
        if items.as_ref().is_some_and(|items| !items.is_of_caller()) {
            state.of_services.push(name.clone());
        }
        let inner = StepReader { state, ..*self };
        let map = inner.map(&settings.map.0, reader)?;
        Some(Source::Each { items: items?, name, map })
    }
}

/// Splits `a.b.{urn:x}c` at its dots, except for those in braces, which belong to a namespace.
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
