//! An expression that was checked, ready to be evaluated many times.

use std::borrow::Cow;
use std::sync::Arc;

use crossdock_message::{ByteString, Value};

use crate::budget::Budget;
use crate::check::Checker;
use crate::cost::{Growth, growth, units};
use crate::eval::Machine;
use crate::failure::{Failure, Outcome};
use crate::functions::Host;
use crate::node::{Node, Root};
use crate::problem::{Problem, Span};
use crate::syntax::{self, Literal, Options};
use crate::types::Type;
use crate::value::{NoValue, Val};

/// A name that an expression may use.
#[derive(Debug, Clone)]
pub struct Variable {
    /// The name.
    pub name: ByteString,
    /// What it holds.
    pub of: Type,
}

/// What stands around an expression.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// Names that may be used.
    pub variables: Vec<Variable>,
    /// Names that would be bound elsewhere, with what has to come first.
    pub unbound: Vec<(ByteString, &'static str)>,
    /// The namespace that names are looked for in first.
    pub container: ByteString,
    /// The first field of a variable is an input of its own: no more of a message is read than is looked at.
    pub splits_inputs: bool,
    /// Nothing is refused for its types.
    pub is_unchecked: bool,
    /// How a source is read.
    pub options: Options,
}

/// What an expression looks at: a variable, or one field of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// The variable.
    pub variable: ByteString,
    /// Its field; nothing where all of it is needed.
    pub field: Option<ByteString>,
    /// Where it stands first.
    pub span: Span,
}

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// To a field.
    Field(ByteString),
    /// To an element, from 0.
    Index(usize),
}

/// The steps from an input to a node; nothing where it is no path.
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

/// What an expression is given for an input.
#[derive(Debug)]
pub enum Given<'d> {
    /// A value of a message; `true` where it is of the view of an XML document.
    Data(Cow<'d, Value>, bool),
    /// An element that an XML document does not have.
    MissingElement,
    /// Nothing is there.
    Nothing,
}

impl Given<'_> {
    #[inline]
    fn bound(&self) -> Option<Val<'_>> {
        match self {
            Self::Data(value, xml) => Some(Val::data(value, *xml)),
            Self::MissingElement => Some(Val::missing_element()),
            Self::Nothing => None,
        }
    }
}

/// Why there is no value.
#[derive(Debug)]
pub enum Unvalued {
    /// The evaluation failed.
    Failure(Box<Failure>),
    /// What it gave is no value of messages.
    NoValue(NoValue),
}

/// An expression that was checked.
#[derive(Debug, Clone)]
pub struct Program {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    node: Node,
    inputs: Vec<Input>,
    locals: usize,
    of: Type,
    /// Units of work of its nodes.
    weight: u64,
}

impl Program {
    /// Reads and checks a source.
    ///
    /// # Errors
    /// All [`Problem`]s that are found; of a source that cannot be read the first.
    pub fn compile(source: &str, environment: &Environment) -> Result<Self, Vec<Problem>> {
        let tree = syntax::parse(source, environment.options).map_err(|problem| vec![problem])?;
        let mut checker = Checker::new(environment);
        let (node, of) = checker.check(&tree);
        let of = checker.settled(&of);
        let Checker { inputs, locals_max, problems, .. } = checker;
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self { inner: Arc::new(Inner { weight: units(&node), node, inputs, locals: locals_max, of }) })
    }

    /// What it looks at; values are given in this order.
    #[must_use]
    pub fn inputs(&self) -> &[Input] {
        &self.inner.inputs
    }

    /// What it gives.
    #[must_use]
    pub fn result_type(&self) -> &Type {
        &self.inner.of
    }

    /// How its work grows with what it looks at.
    #[must_use]
    pub fn growth(&self) -> Growth {
        growth(&self.inner.node, 0)
    }

    /// The literal that it is.
    #[must_use]
    pub fn literal(&self) -> Option<&Literal> {
        match &self.inner.node {
            Node::Literal(literal) => Some(literal),
            _ => None,
        }
    }

    /// The fields and elements that it names, one below the other, where it is no more than that.
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

    /// Evaluates it over its inputs, one for each of [`Program::inputs`]; `None` where there is nothing.
    ///
    /// # Errors
    /// [`crate::Failure`].
    pub fn evaluate<'v>(&'v self, inputs: &'v [Option<Val<'v>>], budget: &Budget, host: &dyn Host) -> Outcome<Val<'v>> {
        budget.work(self.inner.weight).map_err(|spent| Failure::spent(Span::ZERO, spent))?;
        let mut machine = Machine::new(&self.inner.inputs, inputs, self.inner.locals, budget, host);
        machine.evaluate(&self.inner.node)
    }

    /// The value of a message that it gives over data, which `find` is asked for input by input.
    ///
    /// # Errors
    /// Those of `find`; within, why there is no value.
    pub fn value<'d, E>(
        &self,
        find: impl FnMut(&Input) -> Result<Given<'d>, E>,
        budget: &Budget,
        host: &dyn Host,
    ) -> Result<Result<Value, Unvalued>, E> {
        // Nearly all expressions look at few things: nothing is allocated for those.
        match self.inputs().len() {
            0 => Ok(self.valued(&[], budget, host)),
            1 => self.value_of_few::<1, E>(find, budget, host),
            2 => self.value_of_few::<2, E>(find, budget, host),
            3 => self.value_of_few::<3, E>(find, budget, host),
            _ => {
                let given = self.inputs().iter().map(find).collect::<Result<Vec<_>, E>>()?;
                let inputs: Vec<_> = given.iter().map(Given::bound).collect();
                Ok(self.valued(&inputs, budget, host))
            }
        }
    }

    fn value_of_few<'d, const COUNT: usize, E>(
        &self,
        mut find: impl FnMut(&Input) -> Result<Given<'d>, E>,
        budget: &Budget,
        host: &dyn Host,
    ) -> Result<Result<Value, Unvalued>, E> {
        let mut given = [const { Given::Nothing }; COUNT];
        for (place, input) in given.iter_mut().zip(self.inputs()) {
            *place = find(input)?;
        }
        let mut inputs = [const { None }; COUNT];
        for (place, given) in inputs.iter_mut().zip(&given) {
            *place = given.bound();
        }
        Ok(self.valued(&inputs, budget, host))
    }

    fn valued<'v>(
        &'v self,
        inputs: &'v [Option<Val<'v>>],
        budget: &Budget,
        host: &dyn Host,
    ) -> Result<Value, Unvalued> {
        let value = self.evaluate(inputs, budget, host).map_err(Unvalued::Failure)?;
        value.into_value(budget).map_err(Unvalued::NoValue)
    }
}
