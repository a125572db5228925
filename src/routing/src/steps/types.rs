//! Checks bodies against the types that contracts give them.

use std::sync::Arc;

use crossdock_contract::{Cardinality, Contract, Field, Kind, RecordType, Scalar, Typed};
use crossdock_message::{ByteString, Decimal, Value};
use crossdock_ports::WriteFormat;
use crossdock_settings::{Node, Reader, Span, nearest};

use crate::expression::{Expression, Path, PathStep, ValueKind};
use crate::map::{MapPlan, Source, Target};

/// What is known about the body that a step works on.
#[derive(Clone)]
pub(super) enum BodyState {
    /// Nothing: no contract describes it.
    Unknown,
    /// It is of this type.
    Typed(Arc<Typed>),
    /// A stream of messages of this type.
    Stream(Arc<Typed>),
    /// A map made it.
    Made(Made),
    /// It was, or may have been, made by a step.
    Value,
    /// Protobuf without a contract.
    Opaque,
}

/// A body that a map made: how, where it is written, and the types of the names in it.
#[derive(Clone)]
pub(super) struct Made {
    pub(super) map: MapPlan,
    pub(super) node: Node,
    pub(super) types: Vec<(ByteString, Arc<Typed>)>,
}

/// Checks that a body can be sent where a type is expected.
pub(super) fn check_body(body: &BodyState, taken: &Arc<Typed>, what: &str, span: Span, reader: &mut Reader<'_>) {
    match body {
        BodyState::Unknown | BodyState::Value | BodyState::Opaque => {}
        BodyState::Typed(given) => {
            let (given, taken) = (given.type_ref().name(), taken.type_ref().name());
            if given != taken {
                let message = format!("{what} is `{taken}`, but the body is `{given}`");
                reader.error("body-type", span, message, "add a `map` before it that makes one from the other");
            }
        }
        BodyState::Stream(given) => {
            let message =
                format!("{what} is a single message, but the body is a stream of `{}`", given.type_ref().name());
            reader.error("body-type", span, message, "call a method that accepts a stream");
        }
        BodyState::Made(made) => check_map(made, taken, reader),
    }
}

/// Checks that a body without a contract can be written in a format. Protobuf can only be made, and converted to other formats, by a
/// contract.
pub(super) fn check_opaque(body: &BodyState, format: &WriteFormat, what: &str, span: Span, reader: &mut Reader<'_>) {
    match body {
        BodyState::Made(_) | BodyState::Value if format.needs_contract() => {
            let message = format!("{what} is protobuf without a contract, and a step makes the body");
            let help = "remove the step that makes it, or name a contract instead of `opaque`";
            reader.error("opaque", span, message, help);
        }
        BodyState::Opaque if !format.needs_contract() && !format.accepts_any_bytes() => {
            let message = format!("the body is protobuf without a contract, and {what} is {}", format.format().name());
            reader.error("opaque", span, message, "write the format `raw` there, which forwards bytes unchanged");
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
                let message = format!("`{}` is `{given}`, but `{}` is expected", expression.source(), record.name);
                reader.error("body-type", made.node.span, message, "map the fields one by one");
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
        if record.well_known.is_some() {
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
        for field in record.fields.iter().filter(|field| field.cardinality == Cardinality::Required) {
            let filled = |target: &Target| target.path.first().is_some_and(|name| *name == field.name);
            if !targets.iter().any(|target| filled(target) && !target.optional) {
                let message = format!("`{}` requires `{}`, and the map does not set it", record.name, field.name);
                reader.error("field-missing", node.span, message, format!("add `{}: …`", field.name));
            }
        }
    }

    /// The field that a target refers to; `None` below a field of any type.
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
                Kind::Record(id) if !field.is_collection() => {
                    record = self.contract.record(id);
                    if record.well_known.is_some() {
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
                if field.cardinality != Cardinality::Repeated {
                    let message = format!("`{}` is not a list", field.name);
                    reader.error("field-kind", node.span, message, "write an expression for a single value");
                    return;
                }
                if let (Kind::Record(id), MapPlan::Fields(targets), Some(node)) = (field.kind, map, node.get("map")) {
                    self.targets(targets, self.contract.record(id), node, reader);
                }
            }
            Source::Expression(expression) => {
                if let Some(problem) = self.misfit(expression, field) {
                    let help = "write an expression of the type of the field; `text()` converts a number to text";
                    reader.error("field-kind", node.span, problem, help);
                }
            }
        }
    }

    /// Why the value of an expression can never be that of a field; `None` if it may be.
    fn misfit(&self, expression: &Expression, field: &Field) -> Option<String> {
        let wanted = self.describe(field);
        if let Some(constant) = expression.constant() {
            let fits = match (constant, field.kind, field.cardinality) {
                (_, _, Cardinality::Repeated | Cardinality::Map(_)) => false,
                (Value::Null, ..) => true,
                (Value::Text(_), Kind::Scalar(Scalar::Bool), _) => false,
                (Value::Text(text), Kind::Enum(id), _) => self.contract.enumeration(id).number_of(text).is_some(),
                (Value::Text(_), Kind::Scalar(Scalar::Text | Scalar::Bytes), _) => true,
                (Value::Text(text), Kind::Scalar(_), _) => {
                    Decimal::new(text.clone()).is_ok() || matches!(&**text, "NaN" | "Infinity" | "-Infinity")
                }
                (Value::Bool(_), Kind::Scalar(Scalar::Bool), _) => true,
                (
                    Value::Int(_) | Value::UInt(_) | Value::Decimal(_),
                    Kind::Scalar(Scalar::Bool | Scalar::Text | Scalar::Bytes),
                    _,
                ) => false,
                (Value::Int(_) | Value::UInt(_) | Value::Decimal(_), Kind::Scalar(_) | Kind::Enum(_), _) => true,
                (_, Kind::Record(id), _) => self.contract.record(id).well_known.is_some(),
                _ => false,
            };
            return (!fits).then(|| format!("`{}` is {wanted}, but this is {}", field.name, constant.kind()));
        }
        if let Some(given) = expression.value_kind().describe() {
            let fits = kind_fits(expression.value_kind(), field, self.contract);
            return (!fits).then(|| format!("`{}` is {wanted}, but `{}` is {given}", field.name, expression.source()));
        }
        let given = path_kind(expression, &self.made.types)?;
        given
            .misfit(field, self.contract)
            .then(|| format!("`{}` is {wanted}, but `{}` is {}", field.name, expression.source(), given.describe()))
    }

    fn describe(&self, field: &Field) -> String {
        describe(field.kind, field.cardinality, self.contract)
    }
}

fn describe(kind: Kind, cardinality: Cardinality, contract: &Contract) -> String {
    let one = match kind {
        Kind::Scalar(scalar) => scalar.name().to_owned(),
        Kind::Enum(id) => format!("`{}`", contract.enumeration(id).name),
        Kind::Record(id) => format!("`{}`", contract.record(id).name),
    };
    match cardinality {
        Cardinality::Repeated => format!("a list of {one}"),
        Cardinality::Map(_) => format!("a map of {one}"),
        _ => one,
    }
}

/// What a path of a known type refers to.
struct PathKind<'t> {
    contract: &'t Contract,
    kind: Kind,
    cardinality: Cardinality,
}

impl<'t> PathKind<'t> {
    fn describe(&self) -> String {
        describe(self.kind, self.cardinality, self.contract)
    }

    fn record_name(&self) -> Option<&'t ByteString> {
        match (self.kind, self.cardinality) {
            (Kind::Record(id), cardinality) if !matches!(cardinality, Cardinality::Repeated | Cardinality::Map(_)) => {
                let contract: &'t Contract = self.contract;
                let record = contract.record(id);
                (record.well_known.is_none()).then_some(&record.name)
            }
            _ => None,
        }
    }

    /// Whether it can never be the value of a field. Text may contain a number, so it passes.
    fn misfit(&self, field: &Field, contract: &Contract) -> bool {
        let is_list = |cardinality| cardinality == Cardinality::Repeated;
        let is_map = |cardinality| matches!(cardinality, Cardinality::Map(_));
        if is_list(self.cardinality) != is_list(field.cardinality)
            || is_map(self.cardinality) != is_map(field.cardinality)
        {
            return !takes_anything(field.kind, contract);
        }
        let numeric = |scalar: Scalar| scalar.is_number();
        match (self.kind, field.kind) {
            (_, Kind::Record(id)) if contract.record(id).well_known.is_some() => false,
            (Kind::Record(id), _) if self.contract.record(id).well_known.is_some() => false,
            (Kind::Record(given), Kind::Record(wanted)) => {
                self.contract.record(given).name != contract.record(wanted).name
            }
            (Kind::Record(_), _) | (_, Kind::Record(_)) => true,
            (Kind::Scalar(given), Kind::Scalar(wanted)) => match (given, wanted) {
                (Scalar::Bool, wanted) => wanted != Scalar::Bool,
                (Scalar::Text, wanted) => wanted == Scalar::Bool,
                (Scalar::Bytes, wanted) => wanted != Scalar::Bytes,
                (_, wanted) => !numeric(wanted),
            },
            (Kind::Enum(_), Kind::Scalar(wanted)) => wanted != Scalar::Text,
            (Kind::Scalar(given), Kind::Enum(_)) => matches!(given, Scalar::Bool | Scalar::Bytes),
            (Kind::Enum(_), Kind::Enum(_)) => false,
        }
    }
}

/// Whether a kind of value may be that of a field. Text may contain a number, the name of an enumeration's value, or base64.
fn kind_fits(value: ValueKind, field: &Field, contract: &Contract) -> bool {
    if takes_anything(field.kind, contract) && !matches!(field.cardinality, Cardinality::Repeated | Cardinality::Map(_))
    {
        return true;
    }
    match (value, field.cardinality, field.kind) {
        (ValueKind::Any, ..) => true,
        (ValueKind::List, cardinality, _) => cardinality == Cardinality::Repeated,
        (_, Cardinality::Repeated | Cardinality::Map(_), _) | (_, _, Kind::Record(_)) => false,
        (ValueKind::Bool, _, kind) => matches!(kind, Kind::Scalar(Scalar::Bool)),
        (ValueKind::Bytes, _, kind) => matches!(kind, Kind::Scalar(Scalar::Bytes)),
        (ValueKind::Text, _, kind) => !matches!(kind, Kind::Scalar(Scalar::Bool)),
        (ValueKind::Number, _, kind) => !matches!(kind, Kind::Scalar(Scalar::Bool | Scalar::Text | Scalar::Bytes)),
    }
}

/// Checks that a condition is true or false, as far as its text and contracts tell.
pub(super) fn check_condition(
    condition: &Expression,
    types: &[(ByteString, Arc<Typed>)],
    span: Span,
    reader: &mut Reader<'_>,
) {
    let given = match (condition.value_kind(), path_kind(condition, types)) {
        (ValueKind::Bool, _) => None,
        (ValueKind::Any, Some(path)) if matches!((path.kind, path.cardinality), (Kind::Scalar(Scalar::Bool), cardinality) if !matches!(cardinality, Cardinality::Repeated | Cardinality::Map(_))) => {
            None
        }
        (ValueKind::Any, Some(path)) if !takes_anything(path.kind, path.contract) => {
            Some(format!("`{}` is {}", condition.source(), path.describe()))
        }
        (value, _) => value.describe().map(|kind| format!("`{}` is {kind}", condition.source())),
    };
    if let Some(given) = given {
        let help = "write a condition such as `size(req.lines) > 0` or `has(req.note)`";
        reader.error("condition", span, format!("{given}, but a condition must be true or false"), help);
    }
}

fn takes_anything(kind: Kind, contract: &Contract) -> bool {
    matches!(kind, Kind::Record(id) if contract.record(id).well_known.is_some())
}

fn path_kind<'t>(expression: &Expression, types: &'t [(ByteString, Arc<Typed>)]) -> Option<PathKind<'t>> {
    let path = expression.path()?;
    let (_, typed) = types.iter().find(|(root, _)| *root == path.root)?;
    follow(path, typed).ok().flatten()
}

/// What a path refers to; `None` if no contract tells. The error is the record that lacks a field, and the name of the field.
fn follow<'t, 'p>(path: &'p Path, typed: &'t Typed) -> Result<Option<PathKind<'t>>, (&'t RecordType, &'p str)> {
    let contract = typed.type_ref().contract();
    let mut at = PathKind { contract, kind: Kind::Record(typed.type_ref().id()), cardinality: Cardinality::Optional };
    for step in &path.steps {
        at = match (step, at.kind, at.cardinality) {
            (PathStep::Index(_), _, Cardinality::Repeated) => PathKind { cardinality: Cardinality::Optional, ..at },
            (PathStep::Field(_), _, Cardinality::Map(_)) => PathKind { cardinality: Cardinality::Optional, ..at },
            (PathStep::Field(name), Kind::Record(id), cardinality) if cardinality != Cardinality::Repeated => {
                let record = contract.record(id);
                if record.well_known.is_some() {
                    return Ok(None);
                }
                let field = record.field(name).ok_or((record, &**name))?;
                PathKind { contract, kind: field.kind, cardinality: field.cardinality }
            }
            _ => return Ok(None),
        };
    }
    Ok(Some(at))
}
