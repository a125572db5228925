//! From source text to something that can be evaluated many times.

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
use crossdock_message::{ByteString, Code, Decimal, Fault, Value};

use super::built_in::built_in;
use super::contract::type_of;
use super::gives::Gives;
use super::path::{Path, PathStep};
use super::scope::Scope;
use super::spent;

/// The names that an expression may use.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// Variables that are bound where the expression stands.
    pub variables: Vec<ByteString>,
    /// Variables that would be bound elsewhere, with what has to come first.
    pub unbound: Vec<(ByteString, &'static str)>,
    /// The types that contracts give to variables.
    pub types: Vec<(ByteString, Arc<Typed>)>,
    /// Those variables that hold what a service sent, so that the caller is not to blame for what they lack.
    pub of_services: Vec<ByteString>,
}

impl Names {
    fn environment(&self) -> Environment {
        let variable = |name: &ByteString| {
            let typed = self.types.iter().find(|(root, _)| root == name);
            let ty = match (&**name, typed) {
                (_, Some((_, typed))) => type_of(typed),
                ("header", None) => Type::map(Type::Text, Type::Text),
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

/// An expression that was checked. A copy is shared.
#[derive(Clone)]
pub struct Expression(Arc<Inner>);

struct Inner {
    source: Box<str>,
    kind: Kind,
    /// It looks at nothing but what the caller sent.
    of_caller: bool,
    gives: Gives,
    of: Type,
    inputs: Box<[Input]>,
}

enum Kind {
    Constant(Value),
    Path(Path),
    /// With the paths of its inputs.
    Program(Program, Box<[Path]>),
}

impl std::fmt::Debug for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Expression({})", self.0.source)
    }
}

impl Expression {
    /// Checks a source text.
    ///
    /// # Errors
    /// All [`Problem`]s that are found.
    pub fn compile(source: &str, names: &Names) -> Result<Self, Vec<Problem>> {
        Self::compile_shown(source, source, names)
    }

    /// As [`Expression::compile`], for a source whose placeholders were replaced: faults show `shown` in its place.
    ///
    /// # Errors
    /// As [`Expression::compile`].
    pub fn compile_shown(source: &str, shown: &str, names: &Names) -> Result<Self, Vec<Problem>> {
        if let Some(value) = number(source) {
            return Ok(Self(Arc::new(Inner {
                source: shown.into(),
                kind: Kind::Constant(value),
                of_caller: true,
                gives: Gives::Number,
                of: Type::Decimal,
                inputs: Box::default(),
            })));
        }
        let program = Program::compile(source, &names.environment())?;
        let of_caller = !program.inputs().iter().any(|input| names.of_services.contains(&input.variable));
        let (mut gives, of) = (Gives::of(program.result_type()), program.result_type().clone());
        let inputs = program.inputs().into();
        let kind = match (program.literal().map(constant), program.path()) {
            (Some(value), _) => Kind::Constant(value),
            (None, Some((root, steps))) => {
                // Where it leads is looked up in the contract.
                gives = Gives::Anything;
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
        Ok(Self(Arc::new(Inner { source: shown.into(), kind, of_caller, gives, of, inputs })))
    }

    /// The text as written.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// Whether it looks at nothing but what the caller sent.
    #[must_use]
    pub fn is_of_caller(&self) -> bool {
        self.0.of_caller
    }

    /// The innermost of loops over the message inside one another, in bytes of the source.
    pub(crate) fn square(&self) -> Option<Range<usize>> {
        let Kind::Program(program, _) = &self.0.kind else { return None };
        let growth = program.growth();
        (growth.power > 1).then(|| growth.span.range())
    }

    /// What kind of value it gives, as far as its text says it.
    #[must_use]
    pub fn gives(&self) -> Gives {
        self.0.gives
    }

    /// The type of what it gives.
    #[must_use]
    pub fn result_type(&self) -> &Type {
        &self.0.of
    }

    /// What it looks at: variables, or one field of them.
    pub fn inputs(&self) -> impl Iterator<Item = (&ByteString, Option<&ByteString>)> {
        self.0.inputs.iter().map(|input| (&input.variable, input.field.as_ref()))
    }

    /// The value, where it is always the same.
    #[must_use]
    pub fn constant(&self) -> Option<&Value> {
        match &self.0.kind {
            Kind::Constant(value) => Some(value),
            _ => None,
        }
    }

    /// The path, where it is a plain one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match &self.0.kind {
            Kind::Path(path) => Some(path),
            _ => None,
        }
    }

    /// Whether it is a plain path: what is there is taken as it is.
    #[must_use]
    pub fn is_path(&self) -> bool {
        matches!(self.0.kind, Kind::Path(_))
    }

    /// The value; `None` where the path of a plain path expression leads nowhere.
    ///
    /// # Errors
    /// INVALID_ARGUMENT where the caller's message does not have what the expression needs, INTERNAL where a service's
    /// reply does not, and the fault of a body that has to be read and cannot be.
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

    /// The value.
    ///
    /// # Errors
    /// As [`Expression::evaluate_optional`], and for a path that leads nowhere.
    pub fn evaluate(&self, scope: &Scope<'_>) -> Result<Value, Fault> {
        if let Kind::Path(path) = &self.0.kind {
            return match scope.find(path)? {
                Ok(value) => self.copied(value, scope),
                // An element that is not there stands no times.
                Err(taken) if scope.is_missing_element(path, taken) => Ok(Value::List(Vec::new())),
                Err(taken) => Err(self.missing(&path.text_to((taken + 1).min(path.steps.len())))),
            };
        }
        match self.evaluate_optional(scope)? {
            Some(value) => Ok(value),
            None => Err(self.missing(&self.0.source)),
        }
    }

    /// The value that a path leads to, counted as a copy.
    fn copied(&self, value: Cow<'_, Value>, scope: &Scope<'_>) -> Result<Value, Fault> {
        scope.meter.charge_work(1).and_then(|()| scope.meter.charge_copy(&value)).map_err(|spent| self.spent(spent))?;
        Ok(value.into_owned())
    }

    /// The list that the value is, without a copy of it where it is one of the message's own; nothing where a plain path leads nowhere.
    ///
    /// # Errors
    /// As [`Expression::evaluate_optional`].
    pub(crate) fn borrow_optional<'v>(&self, scope: &Scope<'v>) -> Result<Option<Cow<'v, Value>>, Fault> {
        match &self.0.kind {
            Kind::Path(path) => {
                scope.meter.charge_work(1).map_err(|spent| self.spent(spent))?;
                Ok(scope.find(path)?.ok())
            }
            _ => Ok(self.evaluate_optional(scope)?.map(Cow::Owned)),
        }
    }

    /// The value of a condition.
    ///
    /// # Errors
    /// As [`Expression::evaluate`]; INTERNAL where the value is neither true nor false.
    pub fn evaluate_condition(&self, scope: &Scope<'_>) -> Result<bool, Fault> {
        match self.evaluate(scope)? {
            Value::Bool(truth) => Ok(truth),
            other => {
                let problem = format!("`{}` gives {} where true or false is needed", self.0.source, other.kind());
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

    /// A fault of whoever sent what the expression looks at.
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
            // One for each input.
            let Some(path) = paths.next() else { return Ok(InputValue::Absent) };
            Ok(match scope.find(path)?.ok() {
                Some(value) => InputValue::Data(value, scope.is_xml(&path.root)),
                None if scope.is_missing_element(path, 0) => InputValue::MissingElement,
                None => InputValue::Absent,
            })
        };
        program.evaluate_to_value(find, scope.meter, scope.host)?.map_err(|problem| match problem {
            EvaluationError::Failure(failure) => self.failed(&failure),
            EvaluationError::Conversion(ConversionError::Exhausted(spent)) => self.spent(spent),
            EvaluationError::Conversion(ConversionError::UnsupportedKind(kind)) => {
                self.fault("EXPRESSION", format!("`{}` gives {kind}, which a message cannot hold", self.0.source))
            }
        })
    }

    /// There is nothing left for the message.
    pub(crate) fn spent(&self, spent: Exhausted) -> Fault {
        spent::fault(spent, self.0.of_caller, &self.0.source)
    }

    fn failed(&self, failure: &Failure) -> Fault {
        match failure.kind {
            FailureKind::Missing => self.missing(&failure.problem),
            FailureKind::Exhausted(spent) => self.spent(spent),
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

/// A whole number or decimal that is the whole expression: its digits are kept.
fn number(source: &str) -> Option<Value> {
    let decimal = Decimal::new(source.trim()).ok()?;
    let whole = decimal.as_str().parse::<i64>().ok().filter(|_| decimal.as_str() != "-0").map(Value::Int);
    Some(whole.unwrap_or(Value::Decimal(decimal)))
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
        // One that stands alone is a decimal: see `number`.
        Literal::Double(_, written) => Value::Decimal(written.clone()),
    }
}
