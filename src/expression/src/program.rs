//! A compiled expression, evaluated many times.

use std::borrow::Cow;
use std::sync::Arc;

use crossdock_message::{ByteString, Value};

use crate::budget::Budget;
use crate::check::Checker;
use crate::cost::{Growth, growth, units};
use crate::eval::Evaluator;
use crate::failure::{Failure, Outcome};
use crate::functions::Host;
use crate::node::{Node, Root};
use crate::problem::{Problem, Span};
use crate::syntax::{self, Literal, Options};
use crate::types::Type;
use crate::value::{ConversionError, Val};

/// A variable that an expression may use.
#[derive(Debug, Clone)]
pub struct Variable {
    /// The name.
    pub name: ByteString,
    /// Its type.
    pub ty: Type,
}

/// The compilation environment of an expression.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// The variables in scope.
    pub variables: Vec<Variable>,
    /// Variables that are not bound at this point, with what must come first, and functions that cannot be used, with what to do instead.
    pub unbound: Vec<(ByteString, &'static str)>,
    /// The namespace in which names are resolved first.
    pub container: ByteString,
    /// Makes the first field of a variable a separate input, so that only the fields in use are read from a message.
    pub splits_inputs: bool,
    /// Disables type errors.
    pub is_unchecked: bool,
    /// The parser options.
    pub options: Options,
}

/// An input of an expression: a variable, or one field of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// The variable.
    pub variable: ByteString,
    /// The field; `None` for the whole variable.
    pub field: Option<ByteString>,
    /// Its first occurrence.
    pub span: Span,
}

/// A step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// To a field.
    Field(ByteString),
    /// To an element, from 0.
    Index(usize),
}

/// The steps from an input to a node; `None` if the node is not a path.
fn steps_to(node: &Node, steps: &mut Vec<Step>) -> Option<usize> {
    match node {
        Node::Input(slot, _) => Some(*slot),
        Node::Path { root: Root::Input(slot, _), steps: fields } => {
            steps.extend(fields.iter().map(|(name, _)| Step::Field(name.clone())));
            Some(*slot)
        }
        Node::OrNull(operand) => steps_to(operand, steps),
        Node::Field { operand, name, optional: false, .. } => {
            let slot = steps_to(operand, steps)?;
            steps.push(Step::Field(name.clone()));
            Some(slot)
        }
        Node::Index { parts, optional: false, .. } => {
            let step = match &parts[1] {
                Node::Literal(Literal::Text(name)) => Step::Field(name.clone()),
                Node::Literal(Literal::Int(at)) => Step::Index(usize::try_from(*at).ok()?),
                _ => return None,
            };
            let slot = steps_to(&parts[0], steps)?;
            steps.push(step);
            Some(slot)
        }
        _ => None,
    }
}

/// The value of an input.
#[derive(Debug)]
pub enum InputValue<'d> {
    /// A message value; `true` if it is the view of an XML document.
    Data(Cow<'d, Value>, bool),
    /// An element that is missing from an XML document.
    MissingElement,
    /// No value.
    Absent,
}

impl InputValue<'_> {
    #[inline]
    fn bound(&self) -> Option<Val<'_>> {
        match self {
            Self::Data(value, xml) => Some(Val::data(value, *xml)),
            Self::MissingElement => Some(Val::missing_element()),
            Self::Absent => None,
        }
    }
}

/// Why an evaluation produced no message value.
#[derive(Debug)]
pub enum EvaluationError {
    /// The evaluation failed.
    Failure(Box<Failure>),
    /// The result has no representation in a message.
    Conversion(ConversionError),
}

/// A compiled expression. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Program {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    node: Node,
    inputs: Vec<Input>,
    locals: usize,
    ty: Type,
    /// Units of work to evaluate its nodes once.
    weight: u64,
}

impl Program {
    /// Parses and checks a source.
    ///
    /// # Errors
    /// All [`Problem`]s found; only the first syntax error.
    pub fn compile(source: &str, environment: &Environment) -> Result<Self, Vec<Problem>> {
        let tree = syntax::parse(source, environment.options).map_err(|problem| vec![problem])?;
        let mut checker = Checker::new(environment);
        let (node, ty) = checker.check(&tree);
        let ty = checker.resolved(&ty);
        let Checker { inputs, locals_max, problems, .. } = checker;
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self { inner: Arc::new(Inner { weight: units(&node), node, inputs, locals: locals_max, ty }) })
    }

    /// Its inputs, in the order in which [`Program::evaluate`] expects their values.
    #[must_use]
    pub fn inputs(&self) -> &[Input] {
        &self.inner.inputs
    }

    /// The type of the result.
    #[must_use]
    pub fn result_type(&self) -> &Type {
        &self.inner.ty
    }

    /// How its work grows with the size of its inputs.
    #[must_use]
    pub fn growth(&self) -> Growth {
        growth(&self.inner.node, 0)
    }

    /// The literal, if it is one.
    #[must_use]
    pub fn literal(&self) -> Option<&Literal> {
        match &self.inner.node {
            Node::Literal(literal) => Some(literal),
            _ => None,
        }
    }

    /// The variable and its steps, if it is a plain path.
    #[must_use]
    pub fn path(&self) -> Option<(ByteString, Vec<Step>)> {
        let mut steps = Vec::new();
        let slot = steps_to(&self.inner.node, &mut steps)?;
        let input = self.inner.inputs.get(slot)?;
        if let Some(field) = &input.field {
            steps.insert(0, Step::Field(field.clone()));
        }
        Some((input.variable.clone(), steps))
    }

    /// Evaluates it with one value per input of [`Program::inputs`]; `None` for a missing one.
    ///
    /// # Errors
    /// [`crate::Failure`].
    pub fn evaluate<'v>(&'v self, inputs: &'v [Option<Val<'v>>], budget: &Budget, host: &dyn Host) -> Outcome<Val<'v>> {
        budget.charge_work(self.inner.weight).map_err(|cause| Failure::exhausted(Span::ZERO, cause))?;
        let mut evaluator = Evaluator::new(&self.inner.inputs, inputs, self.inner.locals, budget, host);
        evaluator.evaluate(&self.inner.node)
    }

    /// Evaluates it to a message value. `find` is called once per input, in order.
    ///
    /// # Errors
    /// The outer result holds errors of `find`, the inner one those of the evaluation.
    pub fn evaluate_to_value<'d, E>(
        &self,
        find: impl FnMut(&Input) -> Result<InputValue<'d>, E>,
        budget: &Budget,
        host: &dyn Host,
    ) -> Result<Result<Value, EvaluationError>, E> {
        // Nearly all expressions have few inputs: avoid allocating for them.
        match self.inputs().len() {
            0 => Ok(self.evaluate_bound(&[], budget, host)),
            1 => self.evaluate_few_inputs::<1, E>(find, budget, host),
            2 => self.evaluate_few_inputs::<2, E>(find, budget, host),
            3 => self.evaluate_few_inputs::<3, E>(find, budget, host),
            _ => {
                let values = self.inputs().iter().map(find).collect::<Result<Vec<_>, E>>()?;
                let inputs: Vec<_> = values.iter().map(InputValue::bound).collect();
                Ok(self.evaluate_bound(&inputs, budget, host))
            }
        }
    }

    fn evaluate_few_inputs<'d, const COUNT: usize, E>(
        &self,
        mut find: impl FnMut(&Input) -> Result<InputValue<'d>, E>,
        budget: &Budget,
        host: &dyn Host,
    ) -> Result<Result<Value, EvaluationError>, E> {
        let mut values = [const { InputValue::Absent }; COUNT];
        for (slot, input) in values.iter_mut().zip(self.inputs()) {
            *slot = find(input)?;
        }
        let mut inputs = [const { None }; COUNT];
        for (slot, value) in inputs.iter_mut().zip(&values) {
            *slot = value.bound();
        }
        Ok(self.evaluate_bound(&inputs, budget, host))
    }

    fn evaluate_bound<'v>(
        &'v self,
        inputs: &'v [Option<Val<'v>>],
        budget: &Budget,
        host: &dyn Host,
    ) -> Result<Value, EvaluationError> {
        let value = self.evaluate(inputs, budget, host).map_err(EvaluationError::Failure)?;
        value.into_value(budget).map_err(EvaluationError::Conversion)
    }
}
