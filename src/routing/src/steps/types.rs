//! What contracts say of routes: whether bodies are of the type that they are taken for.

use std::sync::Arc;

use crossdock_adapter_api::WriteFormat;
use crossdock_contract::{Arity, Contract, Field, Kind, RecordType, Scalar, Special, Typed};
use crossdock_message::{ByteString, Decimal, Value};
use crossdock_settings::{Node, Reader, Span, nearest};

use crate::expression::{Expression, Gives, Path, PathStep};
use crate::map::{MapPlan, Source, Target};

/// What is known of the body that a step works on.
#[derive(Clone)]
pub(super) enum BodyState {
    /// Nothing: no contract speaks of it.
    Unknown,
    /// It is of this type.
    Typed(Arc<Typed>),
    /// Messages of this type, one after another.
    Stream(Arc<Typed>),
    /// A map made it.
    Made(Made),
    /// It was, or may have been, made here in some way.
    Value,
    /// Bytes of protobuf that no contract describes.
    Opaque,
}

/// A body that a map made: how, where that stands, and what the names in it stood for.
#[derive(Clone)]
pub(super) struct Made {
    pub(super) map: MapPlan,
    pub(super) node: Node,
    pub(super) types: Vec<(ByteString, Arc<Typed>)>,
}

/// Checks that a body can be sent where a type is taken.
pub(super) fn check_body(body: &BodyState, taken: &Arc<Typed>, what: &str, span: Span, reader: &mut Reader<'_>) {
    match body {
        BodyState::Unknown | BodyState::Value | BodyState::Opaque => {}
        BodyState::Typed(given) => {
            let (given, taken) = (given.type_ref().name(), taken.type_ref().name());
            if given != taken {
                let message = format!("{what} is `{taken}`, and the body is `{given}`");
                reader.error("body-type", span, message, "put a `map` before it that makes the one from the other");
            }
        }
        BodyState::Stream(given) => {
            let message = format!("{what} is one message, and the body is a stream of `{}`", given.type_ref().name());
            reader.error("body-type", span, message, "call a method that takes a stream");
        }
        BodyState::Made(made) => check_map(made, taken, reader),
    }
}

/// Checks that a body which no contract describes can go where it is written in that format. Protobuf can be made by a contract
/// only, and without one nothing else can be made of it.
pub(super) fn check_opaque(body: &BodyState, format: &WriteFormat, what: &str, span: Span, reader: &mut Reader<'_>) {
    match (body, format) {
        (BodyState::Made(_) | BodyState::Value, WriteFormat::Protobuf) => {
            let message = format!("{what} is protobuf that no contract describes, and the body is made here");
            let help = "take out the step that makes it, or name a contract in the place of `opaque`";
            reader.error("opaque", span, message, help);
        }
        (BodyState::Opaque, WriteFormat::Json | WriteFormat::Xml { .. }) => {
            let message =
                format!("the body is protobuf that no contract describes, and {what} is {}", format.format().name());
            reader.error("opaque", span, message, "write the format `raw` there, for bytes as they are");
        }
        _ => {}
    }
}

fn check_map(made: &Made, taken: &Typed, reader: &mut Reader<'_>) {
    let contract = taken.type_ref().contract();
    let record = taken.type_ref().record();
    match &made.map {
        MapPlan::Fields(targets) => {
            let checker = Checker { contract, made };
            checker.targets(targets, record, &made.node, reader);
        }
        MapPlan::Whole(expression) => {
            if let Some(given) = path_kind(expression, &made.types).and_then(|given| given.record_name())
                && *given != record.name
            {
                let message = format!("`{}` is `{given}`, where `{}` is taken", expression.source(), record.name);
                reader.error("body-type", made.node.span, message, "name the fields one by one");
            }
        }
    }
}

struct Checker<'a> {
    contract: &'a Arc<Contract>,
    made: &'a Made,
}

impl Checker<'_> {
    fn targets(&self, targets: &[Target], record: &RecordType, node: &Node, reader: &mut Reader<'_>) {
        if record.special != Special::None {
            return;
        }
        for (target, (key, value)) in targets.iter().zip(node.entries()) {
            match self.find(record, &target.path) {
                Ok(None) => {}
                Ok(Some(field)) => self.source(target, field, value, reader),
                Err((record, name)) => {
                    let help = match nearest(name, record.field_names()) {
                        Some(meant) => format!("write `{meant}`"),
                        None => format!("it has {}", record.field_names().collect::<Vec<_>>().join(", ")),
                    };
                    let message = format!("`{}` has no field `{name}`", record.name);
                    reader.error("unknown-field", key.span, message, help);
                }
            }
        }
        for field in record.fields.iter().filter(|field| field.arity == Arity::Required) {
            let filled = |target: &Target| target.path.first().is_some_and(|name| *name == field.name);
            if !targets.iter().any(|target| filled(target) && !target.optional) {
                let message = format!("`{}` has to have `{}`, and the map does not fill it", record.name, field.name);
                reader.error("field-missing", node.span, message, format!("add `{}: …`", field.name));
            }
        }
    }

    /// The field that a target leads to; nothing below a field that holds anything.
    fn find<'c>(
        &'c self,
        record: &'c RecordType,
        path: &'c [ByteString],
    ) -> Result<Option<&'c Field>, (&'c RecordType, &'c str)> {
        let mut record = record;
        for (index, name) in path.iter().enumerate() {
            let field = record.field(name).ok_or((record, &**name))?;
            if index + 1 == path.len() {
                return Ok(Some(field));
            }
            match field.kind {
                Kind::Record(id) if field.arity != Arity::Map && field.arity != Arity::Many => {
                    record = self.contract.record(id);
                    if record.special != Special::None {
                        return Ok(None);
                    }
                }
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    fn source(&self, target: &Target, field: &Field, node: &Node, reader: &mut Reader<'_>) {
        match &target.source {
            Source::Each { map, .. } => {
                if field.arity != Arity::Many {
                    let message = format!("`{}` is no list", field.name);
                    reader.error("field-kind", node.span, message, "write an expression that gives one value");
                    return;
                }
                if let (Kind::Record(id), MapPlan::Fields(targets), Some(node)) = (field.kind, map, node.get("map")) {
                    self.targets(targets, self.contract.record(id), node, reader);
                }
            }
            Source::Expression(expression) => {
                if let Some(problem) = self.misfit(expression, field) {
                    let help = "write an expression that gives what the field holds; `text()` makes a text of a number";
                    reader.error("field-kind", node.span, problem, help);
                }
            }
        }
    }

    /// Why what an expression gives can never stand in a field; nothing where it may.
    fn misfit(&self, expression: &Expression, field: &Field) -> Option<String> {
        let wanted = self.describe(field);
        if let Some(constant) = expression.constant() {
            let fits = match (constant, field.kind, field.arity) {
                (_, _, Arity::Many | Arity::Map) => false,
                (Value::Null, ..) => true,
                (Value::Text(_), Kind::Scalar(Scalar::Bool), _) => false,
                (Value::Text(text), Kind::Enum(id), _) => self.contract.enumeration(id).number_of(text).is_some(),
                (Value::Text(_), Kind::Scalar(Scalar::String | Scalar::Bytes), _) => true,
                (Value::Text(text), Kind::Scalar(_), _) => {
                    Decimal::new(text.clone()).is_ok() || matches!(&**text, "NaN" | "Infinity" | "-Infinity")
                }
                (Value::Bool(_), Kind::Scalar(Scalar::Bool), _) => true,
                (
                    Value::Int(_) | Value::UInt(_) | Value::Decimal(_),
                    Kind::Scalar(Scalar::Bool | Scalar::String | Scalar::Bytes),
                    _,
                ) => false,
                (Value::Int(_) | Value::UInt(_) | Value::Decimal(_), Kind::Scalar(_) | Kind::Enum(_), _) => true,
                (_, Kind::Record(id), _) => self.contract.record(id).special != Special::None,
                _ => false,
            };
            return (!fits).then(|| format!("`{}` is {wanted}, and this is {}", field.name, constant.kind()));
        }
        if let Some(given) = expression.gives().describe() {
            let fits = gives_what_fits(expression.gives(), field, self.contract);
            return (!fits)
                .then(|| format!("`{}` is {wanted}, and `{}` gives {given}", field.name, expression.source()));
        }
        let given = path_kind(expression, &self.made.types)?;
        given
            .misfit(field, self.contract)
            .then(|| format!("`{}` is {wanted}, and `{}` is {}", field.name, expression.source(), given.describe()))
    }

    fn describe(&self, field: &Field) -> String {
        describe(field.kind, field.arity, self.contract)
    }
}

fn describe(kind: Kind, arity: Arity, contract: &Contract) -> String {
    let one = match kind {
        Kind::Scalar(scalar) => scalar.name().to_owned(),
        Kind::Enum(id) => format!("`{}`", contract.enumeration(id).name),
        Kind::Record(id) => format!("`{}`", contract.record(id).name),
    };
    match arity {
        Arity::Many => format!("a list of {one}"),
        Arity::Map => format!("a map of {one}"),
        _ => one,
    }
}

/// What a path of a known type leads to.
struct PathKind<'t> {
    contract: &'t Contract,
    kind: Kind,
    arity: Arity,
}

impl<'t> PathKind<'t> {
    fn describe(&self) -> String {
        describe(self.kind, self.arity, self.contract)
    }

    fn record_name(&self) -> Option<&'t ByteString> {
        match (self.kind, self.arity) {
            (Kind::Record(id), arity) if !matches!(arity, Arity::Many | Arity::Map) => {
                let contract: &'t Contract = self.contract;
                let record = contract.record(id);
                (record.special == Special::None).then_some(&record.name)
            }
            _ => None,
        }
    }

    /// Whether it can never stand in a field. Texts may hold numbers, so that they are let through.
    fn misfit(&self, field: &Field, contract: &Contract) -> bool {
        let is = |arity: Arity, wanted: Arity| arity == wanted;
        if is(self.arity, Arity::Many) != is(field.arity, Arity::Many)
            || is(self.arity, Arity::Map) != is(field.arity, Arity::Map)
        {
            return !takes_anything(field.kind, contract);
        }
        let numeric = |scalar: Scalar| !matches!(scalar, Scalar::Bool | Scalar::String | Scalar::Bytes);
        match (self.kind, field.kind) {
            (_, Kind::Record(id)) if contract.record(id).special != Special::None => false,
            (Kind::Record(id), _) if self.contract.record(id).special != Special::None => false,
            (Kind::Record(given), Kind::Record(wanted)) => {
                self.contract.record(given).name != contract.record(wanted).name
            }
            (Kind::Record(_), _) | (_, Kind::Record(_)) => true,
            (Kind::Scalar(given), Kind::Scalar(wanted)) => match (given, wanted) {
                (Scalar::Bool, wanted) => wanted != Scalar::Bool,
                (Scalar::String, wanted) => wanted == Scalar::Bool,
                (Scalar::Bytes, wanted) => wanted != Scalar::Bytes,
                (_, wanted) => !numeric(wanted),
            },
            (Kind::Enum(_), Kind::Scalar(wanted)) => wanted != Scalar::String,
            (Kind::Scalar(given), Kind::Enum(_)) => matches!(given, Scalar::Bool | Scalar::Bytes),
            (Kind::Enum(_), Kind::Enum(_)) => false,
        }
    }
}

/// Whether a kind of value may stand in a field. Texts may hold numbers, names of enumerations and base64.
fn gives_what_fits(gives: Gives, field: &Field, contract: &Contract) -> bool {
    if takes_anything(field.kind, contract) && !matches!(field.arity, Arity::Many | Arity::Map) {
        return true;
    }
    match (gives, field.arity, field.kind) {
        (Gives::Anything, ..) => true,
        (Gives::List, arity, _) => arity == Arity::Many,
        (_, Arity::Many | Arity::Map, _) | (_, _, Kind::Record(_)) => false,
        (Gives::Bool, _, kind) => matches!(kind, Kind::Scalar(Scalar::Bool)),
        (Gives::Bytes, _, kind) => matches!(kind, Kind::Scalar(Scalar::Bytes)),
        (Gives::Text, _, kind) => !matches!(kind, Kind::Scalar(Scalar::Bool)),
        (Gives::Number, _, kind) => !matches!(kind, Kind::Scalar(Scalar::Bool | Scalar::String | Scalar::Bytes)),
    }
}

/// Checks that what decides is true or false, as far as its text or a contract says it.
pub(super) fn check_condition(
    condition: &Expression,
    types: &[(ByteString, Arc<Typed>)],
    span: Span,
    reader: &mut Reader<'_>,
) {
    let given = match (condition.gives(), path_kind(condition, types)) {
        (Gives::Bool, _) => None,
        (Gives::Anything, Some(path)) if matches!((path.kind, path.arity), (Kind::Scalar(Scalar::Bool), arity) if !matches!(arity, Arity::Many | Arity::Map)) => {
            None
        }
        (Gives::Anything, Some(path)) if !takes_anything(path.kind, path.contract) => {
            Some(format!("`{}` is {}", condition.source(), path.describe()))
        }
        (gives, _) => gives.describe().map(|kind| format!("`{}` gives {kind}", condition.source())),
    };
    if let Some(given) = given {
        let help = "write what is true or false, such as `size(req.lines) > 0` or `has(req.note)`";
        reader.error("condition", span, format!("{given}, where true or false is needed"), help);
    }
}

fn takes_anything(kind: Kind, contract: &Contract) -> bool {
    matches!(kind, Kind::Record(id) if contract.record(id).special != Special::None)
}

fn path_kind<'t>(expression: &Expression, types: &'t [(ByteString, Arc<Typed>)]) -> Option<PathKind<'t>> {
    let path = expression.path()?;
    let (_, typed) = types.iter().find(|(root, _)| *root == path.root)?;
    follow(path, typed).ok().flatten()
}

/// Where a path leads; nothing where no contract says it. The error is the record that lacks a field, and its name.
fn follow<'t, 'p>(path: &'p Path, typed: &'t Typed) -> Result<Option<PathKind<'t>>, (&'t RecordType, &'p str)> {
    let contract = typed.type_ref().contract();
    let mut at = PathKind { contract, kind: Kind::Record(typed.type_ref().id()), arity: Arity::Optional };
    for step in &path.steps {
        at = match (step, at.kind, at.arity) {
            (PathStep::Index(_), _, Arity::Many) => PathKind { arity: Arity::Optional, ..at },
            (PathStep::Field(_), _, Arity::Map) => PathKind { arity: Arity::Optional, ..at },
            (PathStep::Field(name), Kind::Record(id), arity) if arity != Arity::Many => {
                let record = contract.record(id);
                if record.special != Special::None {
                    return Ok(None);
                }
                let field = record.field(name).ok_or((record, &**name))?;
                PathKind { contract, kind: field.kind, arity: field.arity }
            }
            _ => return Ok(None),
        };
    }
    Ok(Some(at))
}
