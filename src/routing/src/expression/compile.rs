//! Compiles source texts to expressions, which are evaluated many times.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use crossdock_contract::Typed;
use crossdock_expression::syntax::{Limits, Literal, Options};
use crossdock_expression::value::ConversionError;
use crossdock_expression::{
    Environment, EvaluationError, Exhausted, Failure, FailureKind, Input, InputValue, Problem, Program, Step, Type,
    Variable,
};
use crossdock_message::{ByteString, Code, Decimal, Fault, Reason, Value};

use super::built_in::built_in;
use super::contract::type_of;
use super::exhausted;
use super::path::{Path, PathStep};
use super::scope::Scope;
use super::value_kind::ValueKind;

/// The reason of the fault of an expression that needs a number of a sequence which its host does not have.
pub const NO_NUMBER: Reason = Reason::new("NO_NUMBER");

/// The names that an expression may use.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// The variables in scope.
    pub variables: Vec<ByteString>,
    /// Variables that are not bound at this point, with what must come first, and functions that cannot be used, with what to do instead.
    pub unbound: Vec<(ByteString, &'static str)>,
    /// The types of variables, from contracts.
    pub types: Vec<(ByteString, Arc<Typed>)>,
    /// The variables that hold data of services, for which the caller is not to blame.
    pub of_services: Vec<ByteString>,
}

impl Names {
    fn environment(&self) -> Environment {
        let variable = |name: &ByteString| {
            let typed = self.types.iter().find(|(root, _)| root == name);
            let ty = match (&**name, typed) {
                (_, Some((_, typed))) => type_of(typed),
                ("header", None) => Type::map(Type::Text, Type::Text),
                ("event", None) => Type::map(Type::Text, Type::Dyn),
                (name, None) => built_in(name).unwrap_or(Type::Dyn),
            };
            Variable { name: name.clone(), ty }
        };
        Environment {
            variables: self.variables.iter().map(variable).collect(),
            unbound: self.unbound.clone(),
            splits_inputs: true,
            options: Options { limits: Limits::default(), macros: true },
            ..Environment::default()
        }
    }
}

/// A checked expression. Cloning is cheap.
#[derive(Clone)]
pub struct Expression(Arc<Inner>);

struct Inner {
    source: Box<str>,
    kind: Kind,
    /// All its inputs are data of the caller.
    of_caller: bool,
    value_kind: ValueKind,
    ty: Type,
    inputs: Box<[Input]>,
}

enum Kind {
    Constant(Value),
    Path(Path),
    /// A program, and the paths of its inputs.
    Program(Program, Box<[Path]>),
}

impl std::fmt::Debug for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Expression({})", self.0.source)
    }
}

impl Expression {
    /// Parses and checks a source text.
    ///
    /// # Errors
    /// All [`Problem`]s found.
    pub fn compile(source: &str, names: &Names) -> Result<Self, Vec<Problem>> {
        Self::compile_shown(source, source, names)
    }

    /// As [`Expression::compile`], for a source whose placeholders were replaced: faults show `shown` instead.
    ///
    /// # Errors
    /// As [`Expression::compile`].
    pub fn compile_shown(source: &str, shown: &str, names: &Names) -> Result<Self, Vec<Problem>> {
        if let Some(value) = number(source) {
            return Ok(Self(Arc::new(Inner {
                source: shown.into(),
                kind: Kind::Constant(value),
                of_caller: true,
                value_kind: ValueKind::Number,
                ty: Type::Decimal,
                inputs: Box::default(),
            })));
        }
        let program = Program::compile(source, &names.environment())?;
        let of_caller = !program.inputs().iter().any(|input| names.of_services.contains(&input.variable));
        let (mut value_kind, ty) = (ValueKind::of(program.result_type()), program.result_type().clone());
        let inputs = program.inputs().into();
        let kind = match (program.literal().map(constant), program.path()) {
            (Some(value), _) => Kind::Constant(value),
            (None, Some((root, steps))) => {
                // The checker of steps looks up its type in the contract.
                value_kind = ValueKind::Any;
                Kind::Path(Path { root, steps: steps.into_iter().map(step).collect() })
            }
            (None, None) => {
                let path = |input: &Input| Path {
                    root: input.variable.clone(),
                    steps: input.field.iter().cloned().map(PathStep::Field).collect(),
                };
                let paths = program.inputs().iter().map(path).collect();
                Kind::Program(program, paths)
            }
        };
        Ok(Self(Arc::new(Inner { source: shown.into(), kind, of_caller, value_kind, ty, inputs })))
    }

    /// The source text, as written in the route file.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// Whether all its inputs are data of the caller.
    #[must_use]
    pub fn is_of_caller(&self) -> bool {
        self.0.of_caller
    }

    /// The range of the innermost of nested loops over the message, in bytes of the source; `None` if loops are not nested.
    pub(crate) fn quadratic_loop(&self) -> Option<Range<usize>> {
        let Kind::Program(program, _) = &self.0.kind else { return None };
        let growth = program.growth();
        (growth.power > 1).then(|| growth.span.range())
    }

    /// The kind of its value, as far as its source determines it.
    #[must_use]
    pub fn value_kind(&self) -> ValueKind {
        self.0.value_kind
    }

    /// The type of its value.
    #[must_use]
    pub fn result_type(&self) -> &Type {
        &self.0.ty
    }

    /// Its inputs: variables, or one field of a variable.
    pub fn inputs(&self) -> impl Iterator<Item = (&ByteString, Option<&ByteString>)> {
        self.0.inputs.iter().map(|input| (&input.variable, input.field.as_ref()))
    }

    /// The value, if it is constant.
    #[must_use]
    pub fn constant(&self) -> Option<&Value> {
        match &self.0.kind {
            Kind::Constant(value) => Some(value),
            _ => None,
        }
    }

    /// The path, if it is a plain path.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match &self.0.kind {
            Kind::Path(path) => Some(path),
            _ => None,
        }
    }

    /// Whether it is a plain path.
    #[must_use]
    pub fn is_path(&self) -> bool {
        matches!(self.0.kind, Kind::Path(_))
    }

    /// Evaluates it; `None` if it is a plain path to a missing value.
    ///
    /// # Errors
    /// INVALID_ARGUMENT if it fails on data of the caller, INTERNAL if it fails on data of a service, and the fault of a body that cannot be
    /// parsed.
    pub fn evaluate_optional(&self, scope: &Scope<'_>) -> Result<Option<Value>, Fault> {
        match &self.0.kind {
            Kind::Constant(value) => Ok(Some(value.clone())),
            Kind::Path(path) => match scope.find(path)? {
                Ok(value) => self.copied(value, scope).map(Some),
                Err(_) => Ok(None),
            },
            Kind::Program(program, paths) => self.run(program, paths, scope).map(Some),
        }
    }

    /// Evaluates it.
    ///
    /// # Errors
    /// As [`Expression::evaluate_optional`], and for a plain path to a missing value.
    pub fn evaluate(&self, scope: &Scope<'_>) -> Result<Value, Fault> {
        if let Kind::Path(path) = &self.0.kind {
            return match scope.find(path)? {
                Ok(value) => self.copied(value, scope),
                // A missing element of XML is an empty list.
                Err(taken) if scope.is_missing_element(path, taken) => Ok(Value::List(Vec::new())),
                Err(taken) => Err(self.missing(&path.text_to((taken + 1).min(path.steps.len())))),
            };
        }
        match self.evaluate_optional(scope)? {
            Some(value) => Ok(value),
            None => Err(self.missing(&self.0.source)),
        }
    }

    /// Copies the value of a path, and charges the copy.
    fn copied(&self, value: Cow<'_, Value>, scope: &Scope<'_>) -> Result<Value, Fault> {
        scope
            .meter
            .charge_work(1)
            .and_then(|()| scope.meter.charge_copy(&value))
            .map_err(|cause| self.exhausted(cause))?;
        Ok(value.into_owned())
    }

    /// Evaluates it without copying the value of a plain path; `None` if it is a plain path to a missing value.
    ///
    /// # Errors
    /// As [`Expression::evaluate_optional`].
    pub(crate) fn borrow_optional<'v>(&self, scope: &Scope<'v>) -> Result<Option<Cow<'v, Value>>, Fault> {
        match &self.0.kind {
            Kind::Path(path) => {
                scope.meter.charge_work(1).map_err(|cause| self.exhausted(cause))?;
                Ok(scope.find(path)?.ok())
            }
            _ => Ok(self.evaluate_optional(scope)?.map(Cow::Owned)),
        }
    }

    /// Evaluates a condition.
    ///
    /// # Errors
    /// As [`Expression::evaluate`], and if the value is not a boolean.
    pub fn evaluate_condition(&self, scope: &Scope<'_>) -> Result<bool, Fault> {
        match self.evaluate(scope)? {
            Value::Bool(truth) => Ok(truth),
            other => {
                let problem = format!("`{}` is {}, but a condition must be true or false", self.0.source, other.kind());
                Err(Fault::new(
                    if self.0.of_caller { Code::InvalidArgument } else { Code::Internal },
                    "CONDITION",
                    problem,
                ))
            }
        }
    }

    fn missing(&self, what: &str) -> Fault {
        self.fault("FIELD_MISSING", format!("`{what}` is missing")).with_detail("field", what)
    }

    /// A fault of the caller, or an internal one if an input is data of a service.
    pub(crate) fn fault(&self, reason: &'static str, message: String) -> Fault {
        if self.0.of_caller {
            Fault::caller(Code::InvalidArgument, reason, message)
        } else {
            Fault::new(Code::Internal, reason, message)
        }
    }

    fn run(&self, program: &Program, paths: &[Path], scope: &Scope<'_>) -> Result<Value, Fault> {
        let mut paths = paths.iter();
        let find = |_: &Input| {
            // Called once per input, in order.
            let Some(path) = paths.next() else { return Ok(InputValue::Absent) };
            Ok(match scope.find(path)?.ok() {
                Some(value) => InputValue::Data(value, scope.is_xml(&path.root)),
                None if scope.is_missing_element(path, 0) => InputValue::MissingElement,
                None => InputValue::Absent,
            })
        };
        program.evaluate_to_value(find, scope.meter, scope.host)?.map_err(|problem| match problem {
            EvaluationError::Failure(failure) => self.failed(&failure),
            EvaluationError::Conversion(ConversionError::Exhausted(cause)) => self.exhausted(cause),
            EvaluationError::Conversion(ConversionError::UnsupportedKind(kind)) => {
                self.fault("EXPRESSION", format!("`{}` is {kind}, which a message cannot contain", self.0.source))
            }
        })
    }

    /// The fault of an exhausted budget.
    pub(crate) fn exhausted(&self, cause: Exhausted) -> Fault {
        exhausted::fault(cause, self.0.of_caller, &self.0.source)
    }

    fn failed(&self, failure: &Failure) -> Fault {
        match failure.kind {
            FailureKind::Missing => self.missing(&failure.problem),
            FailureKind::Exhausted(cause) => self.exhausted(cause),
            FailureKind::NoNumber => {
                let message = format!("`{}` needs a number of a sequence, which is not available", self.0.source);
                Fault::new(Code::Internal, NO_NUMBER, message)
            }
            FailureKind::Value => {
                self.fault("EXPRESSION", format!("`{}` cannot be evaluated: {}", self.0.source, failure.problem))
            }
        }
    }
}

fn step(step: Step) -> PathStep {
    match step {
        Step::Field(name) => PathStep::Field(name),
        Step::Index(at) => PathStep::Index(at),
    }
}

/// The value of an expression that is only a number. Its digits are kept.
fn number(source: &str) -> Option<Value> {
    let decimal = Decimal::new(source.trim()).ok()?;
    let integer = decimal.as_str().parse::<i64>().ok().filter(|_| decimal.as_str() != "-0").map(Value::Int);
    Some(integer.unwrap_or(Value::Decimal(decimal)))
}

/// The value of a literal.
fn constant(literal: &Literal) -> Value {
    match literal {
        Literal::Null => Value::Null,
        Literal::Bool(truth) => Value::Bool(*truth),
        Literal::Int(number) => Value::Int(*number),
        Literal::UInt(number) => Value::from(*number),
        Literal::Text(text) => Value::Text(text.clone()),
        Literal::Bytes(bytes) => Value::Bytes(bytes.clone()),
        // A double literal on its own is a decimal; see `number`.
        Literal::Double(_, written) => Value::Decimal(written.clone()),
    }
}
