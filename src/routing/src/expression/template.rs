//! Texts that contain expressions: `no order ${req.id}`.

use crossdock_expression::Problem;
use crossdock_expression::template::{Part as SourcePart, parts};
use crossdock_message::{ByteString, Fault};

use super::compile::{Expression, Names};
use super::scope::Scope;

/// The maximum bytes of a text, which is a header or the message of a fault.
const LEN_MAX: usize = 64 << 10;

/// A text that contains expressions in `${…}`.
#[derive(Debug, Clone)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone)]
enum Part {
    Text(ByteString),
    Expression(Expression),
}

impl Template {
    /// Parses and checks a template.
    ///
    /// # Errors
    /// The [`Problem`]s of its expressions, with their positions in the whole text, and a `${` without a `}`.
    pub fn compile(text: &str, names: &Names) -> Result<Self, Vec<Problem>> {
        let mut compiled = Vec::new();
        let mut problems = Vec::new();
        for part in parts(text).map_err(|problem| vec![problem])? {
            match part {
                SourcePart::Text(range) => compiled.push(Part::Text(text[range].into())),
                SourcePart::Expression(range) => match Expression::compile(&text[range.clone()], names) {
                    Ok(expression) => compiled.push(Part::Expression(expression)),
                    Err(inner) => problems.extend(inner.into_iter().map(|mut problem| {
                        problem.range = problem.range.start + range.start..problem.range.end + range.start;
                        problem
                    })),
                },
            }
        }
        if problems.is_empty() { Ok(Self { parts: compiled }) } else { Err(problems) }
    }

    /// The text, if it is constant.
    #[must_use]
    pub fn constant(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The text as it was written.
    #[must_use]
    pub fn source(&self) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.to_string(),
            Part::Expression(expression) => format!("${{{}}}", expression.source()),
        };
        self.parts.iter().map(part).collect()
    }

    /// Its expressions.
    pub(crate) fn expressions(&self) -> impl Iterator<Item = &Expression> {
        self.parts.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Expression(expression) => Some(expression),
        })
    }

    /// Whether all inputs of its expressions are data of the caller.
    #[must_use]
    pub fn is_of_caller(&self) -> bool {
        self.parts.iter().all(|part| match part {
            Part::Text(_) => true,
            Part::Expression(expression) => expression.is_of_caller(),
        })
    }

    /// Evaluates its expressions, and returns the text.
    ///
    /// # Errors
    /// As [`Expression::evaluate`]; also if a value cannot be written as text, or the text is too long.
    pub fn render(&self, scope: &Scope<'_>) -> Result<ByteString, Fault> {
        if let [Part::Text(text)] = self.parts.as_slice() {
            return Ok(text.clone());
        }
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Expression(expression) => {
                    let value = expression.evaluate(scope)?;
                    let text = value.scalar_text().ok_or_else(|| {
                        let problem =
                            format!("`{}` is {}, which cannot be written as text", expression.source(), value.kind());
                        expression.fault("NO_TEXT", problem)
                    })?;
                    scope.meter.charge_bytes(text.len()).map_err(|cause| expression.exhausted(cause))?;
                    if out.len() + text.len() > LEN_MAX {
                        let problem = format!("`{}` makes the text longer than {LEN_MAX} bytes", expression.source());
                        return Err(expression.fault("TEXT_TOO_LONG", problem));
                    }
                    out.push_str(&text);
                }
            }
        }
        Ok(out.into())
    }
}
