//! From source text to something that can be evaluated many times.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue, SourceInfo, operators};
use cel::common::value::CowVal;
use cel::context::VariableResolver;
use cel::{Context, ExecutionError};
use crossdock_contract::Typed;
use crossdock_message::{ByteString, Code, Decimal, Fault, Value};
use crossdock_settings::nearest;

use super::functions::{ENVIRONMENT, FUNCTIONS, ROOT, comparison};
use super::gives::{Gives, gives};
use super::path::{Path, PathStep};
use super::projection::Needs;
use super::scope::{ENVELOPE_FIELDS, Scope};
use super::values::{CelValue, to_value};
use super::work::{Spent, Work};

/// Bytes of one expression. CEL's parser recurses over operators without a limit of its own.
const SOURCE_LEN_MAX: usize = 1024;
/// Levels of one expression's tree.
const DEPTH_MAX: usize = 64;

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

/// Why an expression cannot be used: bytes of its text, what is wrong, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct ExpressionError {
    /// The bytes that are wrong.
    pub range: Range<usize>,
    /// What is wrong.
    pub problem: String,
    /// What to write instead; empty where nothing can be said.
    pub help: String,
}

/// An expression that was checked.
#[derive(Clone)]
pub struct Expression {
    source: Arc<str>,
    kind: Kind,
    /// It looks at nothing but what the caller sent.
    of_caller: bool,
    gives: Gives,
}

#[derive(Clone)]
enum Kind {
    Constant(Value),
    Path(Path),
    Cel { tree: Arc<IdedExpr>, needs: Vec<(ByteString, Needs)> },
}

impl std::fmt::Debug for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Expression({})", self.source)
    }
}

impl Expression {
    /// Checks a source text.
    ///
    /// # Errors
    /// All [`ExpressionError`]s that are found: no CEL, an unknown name or function, too long, too deep, a map literal
    /// (whose order CEL does not keep), or one comprehension inside another.
    pub fn compile(source: &str, names: &Names) -> Result<Self, Vec<ExpressionError>> {
        Self::compile_shown(source, source, names)
    }

    /// As [`Expression::compile`], for a source whose placeholders were replaced: faults show `shown` in its place.
    ///
    /// # Errors
    /// As [`Expression::compile`].
    pub fn compile_shown(source: &str, shown: &str, names: &Names) -> Result<Self, Vec<ExpressionError>> {
        let whole = 0..source.len();
        let refuse =
            |problem: String, help: &str| vec![ExpressionError { range: whole.clone(), problem, help: help.into() }];
        if source.trim().is_empty() {
            return Err(refuse(
                "an expression is missing".into(),
                "write one such as `req.id`; a text stands in quotes: `\"'open'\"`",
            ));
        }
        if source.len() > SOURCE_LEN_MAX {
            return Err(refuse(
                format!("the expression is longer than {SOURCE_LEN_MAX} bytes"),
                "split it over several fields",
            ));
        }
        if let Some(value) = number(source) {
            return Ok(Self {
                source: shown.into(),
                kind: Kind::Constant(value),
                of_caller: true,
                gives: Gives::Number,
            });
        }
        let parser = ENVIRONMENT.parser().max_recursion_depth(32).enable_optional_syntax(false);
        let (mut tree, info) = parser.parse_with_source_info(source).map_err(|errors| {
            errors.errors.iter().take(1).map(|error| parse_error(source, error.pos, &error.msg)).collect::<Vec<_>>()
        })?;
        let mut walk = Walk { names, info: &info, source, bound: Vec::new(), needs: Vec::new(), errors: Vec::new() };
        walk.visit(&tree, 0, false);
        let Walk { needs, errors, .. } = walk;
        if !errors.is_empty() {
            return Err(errors);
        }
        let gives = gives(&tree);
        let of_caller = !needs.iter().any(|(root, _)| names.of_services.contains(root));
        let kind = match (constant(&tree), path(&tree)) {
            (Some(value), _) => Kind::Constant(value),
            (None, Some(path)) => Kind::Path(path),
            (None, None) => {
                replace_comparisons(&mut tree);
                Kind::Cel { tree: Arc::new(tree), needs }
            }
        };
        Ok(Self { source: shown.into(), kind, of_caller, gives })
    }

    /// The text as written.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it looks at nothing but what the caller sent.
    #[must_use]
    pub fn is_of_caller(&self) -> bool {
        self.of_caller
    }

    /// What kind of value it gives, as far as its text says it.
    #[must_use]
    pub fn gives(&self) -> Gives {
        self.gives
    }

    /// The value, where it is always the same.
    #[must_use]
    pub fn constant(&self) -> Option<&Value> {
        match &self.kind {
            Kind::Constant(value) => Some(value),
            _ => None,
        }
    }

    /// The path, where it is a plain one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match &self.kind {
            Kind::Path(path) => Some(path),
            _ => None,
        }
    }

    /// Whether it is a plain path: what is there is taken as it is.
    #[must_use]
    pub fn is_path(&self) -> bool {
        matches!(self.kind, Kind::Path(_))
    }

    /// The value; `None` where the path of a plain path expression leads nowhere.
    ///
    /// # Errors
    /// INVALID_ARGUMENT where the caller's message does not have what the expression needs, INTERNAL where a service's
    /// reply does not, and the fault of a body that has to be read and cannot be.
    pub fn evaluate_optional(&self, scope: &Scope<'_>) -> Result<Option<Value>, Fault> {
        match &self.kind {
            Kind::Constant(value) => Ok(Some(value.clone())),
            Kind::Path(path) => match scope.find(path)? {
                Ok(value) => self.copied(value, scope).map(Some),
                Err(_) => Ok(None),
            },
            Kind::Cel { tree, needs } => self.interpret(tree, needs, scope).map(Some),
        }
    }

    /// The value.
    ///
    /// # Errors
    /// As [`Expression::evaluate_optional`], and for a path that leads nowhere.
    pub fn evaluate(&self, scope: &Scope<'_>) -> Result<Value, Fault> {
        if let Kind::Path(path) = &self.kind {
            return match scope.find(path)? {
                Ok(value) => self.copied(value, scope),
                Err(taken) => Err(self.missing(&path.text_to((taken + 1).min(path.steps.len())))),
            };
        }
        match self.evaluate_optional(scope)? {
            Some(value) => Ok(value),
            None => Err(self.missing(&self.source)),
        }
    }

    /// The value that a path leads to, counted as a copy.
    fn copied(&self, value: Cow<'_, Value>, scope: &Scope<'_>) -> Result<Value, Fault> {
        scope.meter.work(1).and_then(|()| scope.meter.copy(&value)).map_err(|spent| self.spent(spent))?;
        Ok(value.into_owned())
    }

    /// The list that the value is, without a copy of it where it is one of the message's own; nothing where a plain path leads nowhere.
    ///
    /// # Errors
    /// As [`Expression::evaluate_optional`].
    pub(crate) fn borrow_optional<'v>(&self, scope: &Scope<'v>) -> Result<Option<Cow<'v, Value>>, Fault> {
        match &self.kind {
            Kind::Path(path) => {
                scope.meter.work(1).map_err(|spent| self.spent(spent))?;
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
                let problem = format!("`{}` gives {} where true or false is needed", self.source, other.kind());
                Err(Fault::new(
                    if self.of_caller { Code::InvalidArgument } else { Code::Internal },
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
        if self.of_caller {
            Fault::caller(Code::InvalidArgument, reason, message)
        } else {
            Fault::new(Code::Internal, reason, message)
        }
    }

    fn interpret(&self, tree: &IdedExpr, needs: &[(ByteString, Needs)], scope: &Scope<'_>) -> Result<Value, Fault> {
        let _work = Work::begin(scope.meter);
        let mut variables = Variables(Vec::with_capacity(needs.len()));
        for (root, needs) in needs {
            if let Some(value) = needs.of_variable(root, scope)? {
                variables.0.push((root.clone(), value));
            }
        }
        let root: &Context<'_, '_> = &ROOT;
        let mut context = root.new_inner_scope();
        context.set_variable_resolver(&variables);
        let evaluated = cel::Value::resolve_val(tree, &context);
        if Work::is_spent() {
            return Err(self.spent(Spent::Work));
        }
        let value = evaluated.map_err(|error| self.failed(&error))?;
        to_value(&*value).map_err(|kind| {
            self.fault("EXPRESSION", format!("`{}` gives a {kind}, which a message cannot hold", self.source))
        })
    }

    /// There is nothing left for the message.
    pub(crate) fn spent(&self, spent: Spent) -> Fault {
        spent.fault(self.of_caller, &self.source)
    }

    /// CEL's own texts carry values of the message; only what the expression's author wrote is told.
    fn failed(&self, error: &ExecutionError) -> Fault {
        let problem = match error {
            // Only what the author wrote is told, never a name that came with the message.
            ExecutionError::NoSuchKey(name) | ExecutionError::UndeclaredReference(name) => {
                if name.len() <= SOURCE_LEN_MAX && self.source.contains(name.as_str()) {
                    return self.missing(name);
                }
                "a field that it looks for is missing".to_owned()
            }
            ExecutionError::IndexOutOfBounds(_) => "an index is past the end of its list".to_owned(),
            ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => "a division by zero".to_owned(),
            ExecutionError::Overflow(..) => "a number does not fit in 64 bits".to_owned(),
            ExecutionError::FunctionError { function, message } if function.starts_with('@') => message.clone(),
            ExecutionError::FunctionError { function, message } => format!("{function}: {message}"),
            ExecutionError::NoSuchOverload(_)
            | ExecutionError::UnexpectedType { .. }
            | ExecutionError::ValuesNotComparable(..) => {
                "a value is of a kind that it cannot be used with there; a decimal number is only compared, or made a text by `text()`"
                    .to_owned()
            }
            _ => "the values do not fit the expression".to_owned(),
        };
        self.fault("EXPRESSION", format!("`{}` cannot be evaluated: {problem}", self.source))
    }
}

struct Variables(Vec<(ByteString, CelValue)>);

impl VariableResolver for Variables {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        self.0.iter().find(|(root, _)| *root == name).map(|(_, value)| CowVal::Borrowed(value.as_val()))
    }
}

/// CEL's parser speaks in the tokens of its grammar; the place is what helps.
fn parse_error(source: &str, (line, column): (isize, isize), message: &str) -> ExpressionError {
    let line = usize::try_from(line).unwrap_or(0).max(1);
    let column = usize::try_from(column).unwrap_or(0).max(1);
    let line_start: usize = source.split_inclusive('\n').take(line - 1).map(str::len).sum();
    let rest = source.get(line_start..).unwrap_or("");
    let offset = rest.char_indices().nth(column - 1).map_or(rest.len(), |(at, _)| at);
    let start = (line_start + offset).min(source.len());
    let end = source[start..].chars().next().map_or(start, |character| start + character.len_utf8());
    let problem = if message.contains("Recursion limit") {
        "the expression is nested too deep".to_owned()
    } else if start >= source.len() {
        "the expression ends too early".to_owned()
    } else {
        "the expression cannot be read here".to_owned()
    };
    let help = "expressions are CEL: `req.amount > 10 && has(req.note)`, texts in single quotes: `'open'`";
    ExpressionError { range: start..end, problem, help: help.into() }
}

/// A whole number or decimal that is the whole expression: its digits are kept.
fn number(source: &str) -> Option<Value> {
    let decimal = Decimal::new(source.trim()).ok()?;
    let whole = decimal.as_str().parse::<i64>().ok().filter(|_| decimal.as_str() != "-0").map(Value::Int);
    Some(whole.unwrap_or(Value::Decimal(decimal)))
}

/// Puts functions of ours in the place of CEL's comparisons.
fn replace_comparisons(tree: &mut IdedExpr) {
    match &mut tree.expr {
        Expr::Call(call) => {
            if let Some(function) = comparison(&call.func_name) {
                function.clone_into(&mut call.func_name);
            }
            if let Some(target) = &mut call.target {
                replace_comparisons(target);
            }
            call.args.iter_mut().for_each(replace_comparisons);
        }
        Expr::Select(select) => replace_comparisons(&mut select.operand),
        Expr::List(list) => list.elements.iter_mut().for_each(replace_comparisons),
        Expr::Comprehension(comprehension) => {
            let comprehension = &mut **comprehension;
            for part in [
                &mut comprehension.iter_range,
                &mut comprehension.accu_init,
                &mut comprehension.loop_cond,
                &mut comprehension.loop_step,
                &mut comprehension.result,
            ] {
                replace_comparisons(part);
            }
        }
        Expr::Map(_) | Expr::Struct(_) | Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => {}
    }
}

/// The value of a literal.
fn constant(tree: &IdedExpr) -> Option<Value> {
    match &tree.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(Value::from(text.inner())),
        Expr::Literal(LiteralValue::Int(number)) => Some(Value::Int(*number.inner())),
        Expr::Literal(LiteralValue::Boolean(truth)) => Some(Value::Bool(*truth.inner())),
        Expr::Literal(LiteralValue::Null) => Some(Value::Null),
        _ => None,
    }
}

/// The path that a tree of selections and constant indices spells.
fn path(tree: &IdedExpr) -> Option<Path> {
    match &tree.expr {
        Expr::Ident(name) => Some(Path { root: name.as_str().into(), steps: Vec::new() }),
        Expr::Select(select) if !select.test => {
            let mut path = path(&select.operand)?;
            path.steps.push(PathStep::Field(select.field.as_str().into()));
            Some(path)
        }
        Expr::Call(call) if call.func_name == operators::INDEX => {
            let [operand, index] = call.args.as_slice() else { return None };
            let step = match constant(index)? {
                Value::Text(name) => PathStep::Field(name),
                Value::Int(number) => PathStep::Index(usize::try_from(number).ok()?),
                _ => return None,
            };
            let mut path = path(operand)?;
            path.steps.push(step);
            Some(path)
        }
        _ => None,
    }
}

/// Checks names and counts what is needed, with the variables of comprehensions in their scope.
struct Walk<'a> {
    names: &'a Names,
    info: &'a SourceInfo,
    source: &'a str,
    bound: Vec<&'a str>,
    needs: Vec<(ByteString, Needs)>,
    errors: Vec<ExpressionError>,
}

impl<'a> Walk<'a> {
    fn range(&self, id: u64) -> Range<usize> {
        match self.info.offset_for(id) {
            Some((start, stop)) => (start as usize).min(self.source.len())..(stop as usize + 1).min(self.source.len()),
            None => 0..self.source.len(),
        }
    }

    fn error(&mut self, id: u64, problem: String, help: String) {
        let range = self.range(id);
        self.errors.push(ExpressionError { range, problem, help });
    }

    fn visit(&mut self, tree: &'a IdedExpr, depth: usize, in_comprehension: bool) {
        if depth > DEPTH_MAX {
            if self.errors.is_empty() {
                self.error(tree.id, "the expression is nested too deep".into(), "split it over several fields".into());
            }
            return;
        }
        if let Some((root, fields)) = selection(tree) {
            self.variable(tree, root, &fields);
            return;
        }
        let next = depth + 1;
        match &tree.expr {
            Expr::Call(call) => {
                let operator = call.func_name.contains(['_', '@', '!', '-']);
                if !operator && !FUNCTIONS.contains(&call.func_name.as_str()) {
                    let help = match nearest(&call.func_name, FUNCTIONS.iter().copied()) {
                        Some(meant) => format!("write `{meant}`"),
                        None => format!("functions are {}", FUNCTIONS.join(", ")),
                    };
                    self.error(tree.id, format!("there is no function `{}`", call.func_name), help);
                }
                if matches!(call.func_name.as_str(), "replace" | "join" | "split")
                    && !call.args.iter().all(is_short_text)
                {
                    let problem = format!("`{}` takes short texts that stand in the expression", call.func_name);
                    let help = "write each as a text of up to 16 characters: `req.id.replace(' ', '-')`".to_owned();
                    self.error(tree.id, problem, help);
                }
                for child in call.target.iter().map(|target| &**target).chain(&call.args) {
                    self.visit(child, next, in_comprehension);
                }
            }
            Expr::Select(select) => self.visit(&select.operand, next, in_comprehension),
            Expr::List(list) => list.elements.iter().for_each(|item| self.visit(item, next, in_comprehension)),
            Expr::Map(map) => {
                let help = "name the fields as targets of the map: `order.id: req.id`".to_owned();
                self.error(tree.id, "a map literal does not keep the order of its fields".into(), help);
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        self.visit(&entry.value, next, in_comprehension);
                    }
                }
            }
            Expr::Struct(_) => self.error(tree.id, "messages are not built in expressions".into(), "use `map`".into()),
            Expr::Comprehension(comprehension) => {
                if in_comprehension {
                    let help = "do it in two steps".to_owned();
                    self.error(tree.id, "one `map`, `filter`, `all` or `exists` stands inside another".into(), help);
                }
                self.visit(&comprehension.iter_range, next, in_comprehension);
                self.visit(&comprehension.accu_init, next, in_comprehension);
                let before = self.bound.len();
                self.bound.push(&comprehension.iter_var);
                self.bound.extend(comprehension.iter_var2.as_deref());
                self.bound.push(&comprehension.accu_var);
                for part in [&comprehension.loop_cond, &comprehension.loop_step, &comprehension.result] {
                    self.visit(part, next, true);
                }
                self.bound.truncate(before);
            }
            Expr::Literal(LiteralValue::Double(number)) => {
                let range = self.range(tree.id);
                let written = self.source.get(range).unwrap_or("");
                let read = Value::F64(*number.inner()).scalar_text().and_then(|text| Decimal::new(text).ok());
                let exact =
                    Decimal::new(written).ok().zip(read).is_some_and(|(written, read)| written.compare(&read).is_eq());
                if !exact && Decimal::new(written).is_ok() {
                    let help = format!("write `decimal('{written}')`");
                    self.error(tree.id, "the number has more digits than a double keeps".into(), help);
                }
            }
            Expr::Literal(_) | Expr::Ident(_) | Expr::Unspecified => {}
        }
    }

    fn variable(&mut self, tree: &IdedExpr, root: (&str, u64), fields: &[ByteString]) {
        let (name, id) = root;
        if self.bound.contains(&name) || name.starts_with('@') {
            return;
        }
        if let Some((_, first)) = self.names.unbound.iter().find(|(unbound, _)| *unbound == name) {
            self.error(id, format!("`{name}` is not there yet"), (*first).to_owned());
            return;
        }
        if !self.names.variables.iter().any(|variable| *variable == name) {
            let known: Vec<&str> = self.names.variables.iter().map(|variable| &**variable).collect();
            let help = match nearest(name, known.iter().copied()) {
                Some(meant) => format!("write `{meant}`"),
                None => format!("known here: {}; a text stands in single quotes: `'{name}'`", known.join(", ")),
            };
            self.error(id, format!("there is no `{name}` here"), help);
            return;
        }
        if let ("msg", Some(field)) = (name, fields.first())
            && !ENVELOPE_FIELDS.contains(&&**field)
        {
            let help = format!("`msg` has {}", ENVELOPE_FIELDS.join(", "));
            self.error(tree.id, format!("`msg` has no `{field}`"), help);
        }
        if let Some((_, typed)) = self.names.types.iter().find(|(root, _)| *root == name)
            && let Some((_, problem, help)) = crate::load::unknown_name(fields, typed)
        {
            self.error(tree.id, problem, help);
        }
        let at = match self.needs.iter().position(|(root, _)| *root == name) {
            Some(at) => at,
            None => {
                self.needs.push((name.into(), Needs::default()));
                self.needs.len() - 1
            }
        };
        self.needs[at].1.add(fields);
    }
}

fn is_short_text(tree: &IdedExpr) -> bool {
    matches!(constant(tree), Some(Value::Text(text)) if !text.is_empty() && text.chars().count() <= 16)
}

/// The variable and the fields that a chain of selections spells, `has(a.b)` included.
fn selection(tree: &IdedExpr) -> Option<((&str, u64), Vec<ByteString>)> {
    match &tree.expr {
        Expr::Ident(name) => Some(((name, tree.id), Vec::new())),
        Expr::Select(select) => {
            let (root, mut fields) = selection(&select.operand)?;
            fields.push(select.field.as_str().into());
            Some((root, fields))
        }
        Expr::Call(call) if call.func_name == operators::INDEX => {
            let [operand, index] = call.args.as_slice() else { return None };
            let Some(Value::Text(name)) = constant(index) else { return None };
            let (root, mut fields) = selection(operand)?;
            fields.push(name);
            Some((root, fields))
        }
        _ => None,
    }
}
