//! A recursive-descent parser with precedence climbing.

use crossdock_message::{ByteString, Decimal};

use super::ast::{BinaryOp, Element, Entry, Expr, ExprKind, Literal, UnaryOp};
use super::lexer::{Lexer, Token};
use super::macros;
use crate::problem::{Problem, Span};

/// Limits on the size of an expression.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of the source.
    pub len: usize,
    /// Height of the tree. It bounds the stack, since the evaluator recurses as deep.
    pub depth: usize,
    /// Nodes of the tree.
    pub nodes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { len: 16 << 10, depth: 48, nodes: 4096 }
    }
}

/// Parser options.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Limits on the size.
    pub limits: Limits,
    /// Whether macros are expanded; otherwise they are parsed as function calls.
    pub macros: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { limits: Limits::default(), macros: true }
    }
}

/// Parses an expression.
///
/// # Errors
/// The first [`Problem`]; later ones are usually consequences of it.
pub fn parse(source: &str, options: Options) -> Result<Expr, Problem> {
    let whole = Span::new(0, source.len());
    if source.trim().is_empty() {
        let help = "write one such as `req.id`; quote strings: `'open'`";
        return Err(Problem::new(whole, "missing expression", help));
    }
    if source.len() > options.limits.len {
        let problem = format!("the expression is longer than {} bytes", options.limits.len);
        return Err(Problem::new(whole, problem, "split it into several steps"));
    }
    let mut lexer = Lexer::new(source);
    let (token, span) = lexer.next()?;
    let mut parser = Parser { lexer, token, span, last: Span::default(), options, depth: 0, nodes: 0 };
    let expression = parser.expression()?;
    match parser.token {
        Token::End => Ok(expression),
        _ => Err(parser.unexpected()),
    }
}

struct Parser<'s> {
    lexer: Lexer<'s>,
    token: Token,
    span: Span,
    /// The previous token.
    last: Span,
    options: Options,
    depth: usize,
    nodes: usize,
}

type Parsed = Result<Expr, Problem>;

impl Parser<'_> {
    fn advance(&mut self) -> Result<Token, Problem> {
        let (next, span) = self.lexer.next()?;
        self.last = std::mem::replace(&mut self.span, span);
        Ok(std::mem::replace(&mut self.token, next))
    }

    fn is(&self, symbol: &str) -> bool {
        matches!(self.token, Token::Symbol(token) if token == symbol)
    }

    fn take(&mut self, symbol: &str) -> Result<bool, Problem> {
        let is = self.is(symbol);
        if is {
            self.advance()?;
        }
        Ok(is)
    }

    fn expect(&mut self, symbol: &str, opened: Span) -> Result<(), Problem> {
        if self.take(symbol)? {
            return Ok(());
        }
        if self.token == Token::End {
            return Err(Problem::new(opened, format!("missing closing `{symbol}`"), format!("add `{symbol}`")));
        }
        Err(self.unexpected())
    }

    fn unexpected(&self) -> Problem {
        let problem = |problem: &str, help: &str| Problem::new(self.span, problem, help);
        match &self.token {
            Token::End => problem("unexpected end of the expression", "complete it"),
            Token::Ident(word) => match &**word {
                "and" | "AND" => problem("`and` is not an operator", "write `&&`"),
                "or" | "OR" => problem("`or` is not an operator", "write `||`"),
                "not" | "NOT" => problem("`not` is not an operator", "write `!`"),
                "is" | "eq" => problem(&format!("`{word}` is not an operator"), "write `==`"),
                "ne" => problem("`ne` is not an operator", "write `!=`"),
                _ => {
                    let help = "put an operator before it, such as `+`, `==` or `&&`, or quote a string";
                    problem(&format!("unexpected `{word}`"), help)
                }
            },
            Token::Reserved(word) => {
                problem(&format!("`{word}` is a reserved word"), "write `x['name']` for a field of that name")
            }
            Token::Symbol(symbol) => {
                problem(&format!("unexpected `{symbol}`"), "write a value before it, or remove it")
            }
            Token::Literal(_) | Token::Quoted(_) => {
                problem("unexpected value", "put an operator before it, such as `+`, `==` or `&&`")
            }
        }
    }

    fn node(&mut self, span: Span, kind: ExprKind) -> Parsed {
        self.nodes += 1;
        if self.nodes > self.options.limits.nodes {
            let problem = format!("the expression has more than {} nodes", self.options.limits.nodes);
            return Err(Problem::new(span, problem, "split it into several steps"));
        }
        let mut height = 0;
        kind.visit_parts(&mut |part| height = height.max(part.height));
        if height >= self.options.limits.depth {
            return Err(self.too_deep(span));
        }
        Ok(Expr { span, height: height + 1, kind })
    }

    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Problem>) -> Result<T, Problem> {
        self.depth += 1;
        if self.depth > self.options.limits.depth {
            return Err(self.too_deep(self.span));
        }
        let read = read(self);
        self.depth -= 1;
        read
    }

    fn too_deep(&self, span: Span) -> Problem {
        let problem = format!("the expression is nested more than {} levels deep", self.options.limits.depth);
        Problem::new(span, problem, "split it into several steps")
    }

    fn expression(&mut self) -> Parsed {
        self.deeper(|parser| {
            let condition = parser.or()?;
            if !parser.take("?")? {
                return Ok(condition);
            }
            let yes = parser.or()?;
            let opened = condition.span;
            parser.expect(":", opened)?;
            let no = parser.expression()?;
            let span = condition.span.to(no.span);
            parser.node(span, ExprKind::Conditional(Box::new([condition, yes, no])))
        })
    }

    fn or(&mut self) -> Parsed {
        self.chain("||", Self::and, ExprKind::Or)
    }

    fn and(&mut self) -> Parsed {
        self.chain("&&", |parser| parser.binary(3), ExprKind::And)
    }

    fn chain(
        &mut self,
        symbol: &str,
        operand: impl Fn(&mut Self) -> Parsed,
        kind: impl FnOnce(Vec<Expr>) -> ExprKind,
    ) -> Parsed {
        let first = operand(self)?;
        if !self.is(symbol) {
            return Ok(first);
        }
        let mut span = first.span;
        let mut operands = vec![first];
        while self.take(symbol)? {
            let next = operand(self)?;
            span = span.to(next.span);
            operands.push(next);
        }
        self.node(span, kind(operands))
    }

    fn binary_operator(&self) -> Option<BinaryOp> {
        let Token::Symbol(symbol) = self.token else { return None };
        Some(match symbol {
            "+" => BinaryOp::Add,
            "-" => BinaryOp::Subtract,
            "*" => BinaryOp::Multiply,
            "/" => BinaryOp::Divide,
            "%" => BinaryOp::Remainder,
            "==" => BinaryOp::Equal,
            "!=" => BinaryOp::NotEqual,
            "<" => BinaryOp::Less,
            "<=" => BinaryOp::LessEqual,
            ">" => BinaryOp::Greater,
            ">=" => BinaryOp::GreaterEqual,
            "in" => BinaryOp::In,
            _ => return None,
        })
    }

    /// Binary operators with at least this precedence.
    fn binary(&mut self, precedence_min: u8) -> Parsed {
        let mut left = self.unary()?;
        while let Some(operator) = self.binary_operator().filter(|operator| operator.precedence() >= precedence_min) {
            self.advance()?;
            let right = self.deeper(|parser| parser.binary(operator.precedence() + 1))?;
            let span = left.span.to(right.span);
            left = self.node(span, ExprKind::Binary(operator, Box::new(left), Box::new(right)))?;
        }
        Ok(left)
    }

    fn unary(&mut self) -> Parsed {
        let start = self.span;
        if self.take("!")? {
            let operand = self.deeper(Self::unary)?;
            let span = start.to(operand.span);
            return self.node(span, ExprKind::Unary(UnaryOp::Not, Box::new(operand)));
        }
        if !self.take("-")? {
            return self.member();
        }
        if let Token::Literal(literal @ (Literal::Int(_) | Literal::Double(..))) = &self.token {
            let negated = match literal {
                Literal::Int(number) => Literal::Int(number.wrapping_neg()),
                Literal::Double(number, written) => {
                    let text = format!("-{written}");
                    Literal::Double(-number, Decimal::new(text).unwrap_or_else(|_| written.clone()))
                }
                other => other.clone(),
            };
            let span = start.to(self.span);
            self.advance()?;
            let literal = self.node(span, ExprKind::Literal(negated))?;
            return self.member_of(literal);
        }
        let operand = self.deeper(Self::unary)?;
        let span = start.to(operand.span);
        self.node(span, ExprKind::Unary(UnaryOp::Negate, Box::new(operand)))
    }

    fn member(&mut self) -> Parsed {
        let primary = self.primary()?;
        self.member_of(primary)
    }

    fn member_of(&mut self, mut value: Expr) -> Parsed {
        loop {
            let opened = self.span;
            if self.take(".")? {
                let optional = self.take("?")?;
                value = self.selected(value, optional)?;
            } else if self.take("[")? {
                let optional = self.take("?")?;
                let index = self.expression()?;
                self.expect("]", opened)?;
                let span = value.span.to(self.last);
                let kind = ExprKind::Index { operand: Box::new(value), index: Box::new(index), optional };
                value = self.node(span, kind)?;
            } else if self.is("{") {
                let Some(name) = qualified_name(&value) else { return Err(self.unexpected()) };
                self.advance()?;
                value = self.message(value.span, name, opened)?;
            } else {
                return Ok(value);
            }
        }
    }

    fn selected(&mut self, value: Expr, optional: bool) -> Parsed {
        let field_span = self.span;
        let field = match &self.token {
            Token::Ident(name) | Token::Reserved(name) | Token::Quoted(name) => name.clone(),
            Token::Symbol("in") => return Err(self.keyword("in")),
            Token::Literal(Literal::Bool(truth)) => return Err(self.keyword(if *truth { "true" } else { "false" })),
            Token::Literal(Literal::Null) => return Err(self.keyword("null")),
            Token::End => return Err(self.unexpected()),
            _ => {
                let help = "write a field name after `.`, or `x['name']` for other names";
                return Err(Problem::new(self.span, "missing field name", help));
            }
        };
        let is_quoted = matches!(self.token, Token::Quoted(_));
        self.advance()?;
        let opened = self.span;
        if !optional && !is_quoted && self.take("(")? {
            let arguments = self.arguments(")", opened)?;
            let span = value.span.to(self.last);
            return self.call(span, field, field_span, Some(value), arguments);
        }
        let span = value.span.to(field_span);
        let kind = ExprKind::Select { operand: Box::new(value), field, field_span, test: false, optional };
        self.node(span, kind)
    }

    fn keyword(&self, name: &str) -> Problem {
        let problem = format!("`{name}` is a keyword");
        Problem::new(self.span, problem, format!("write `x['{name}']` for a field of that name"))
    }

    fn primary(&mut self) -> Parsed {
        let span = self.span;
        match &self.token {
            Token::Literal(Literal::Int(i64::MIN)) => {
                let help = "write `9223372036854775808u`, or `decimal('9223372036854775808')`";
                Err(Problem::new(span, "the integer does not fit in 64 signed bits", help))
            }
            Token::Literal(literal) => {
                let literal = literal.clone();
                self.advance()?;
                self.node(span, ExprKind::Literal(literal))
            }
            Token::Ident(_) => self.named(span, false),
            Token::Symbol(".") => {
                self.advance()?;
                if !matches!(self.token, Token::Ident(_)) {
                    return Err(self.unexpected());
                }
                self.named(span, true)
            }
            Token::Symbol("(") => {
                self.advance()?;
                let mut inner = self.expression()?;
                self.expect(")", span)?;
                inner.span = span.to(self.last);
                Ok(inner)
            }
            Token::Symbol("[") => {
                self.advance()?;
                let elements = self.elements(span)?;
                let span = span.to(self.last);
                self.node(span, ExprKind::List(elements))
            }
            Token::Symbol("{") => {
                self.advance()?;
                let entries = self.entries(span)?;
                let span = span.to(self.last);
                self.node(span, ExprKind::Map(entries))
            }
            _ => Err(self.unexpected()),
        }
    }

    fn named(&mut self, start: Span, is_absolute: bool) -> Parsed {
        let name_span = self.span;
        let Token::Ident(name) = self.advance()? else { return Err(self.unexpected()) };
        if &*name == "not" && !self.is("(") && !self.is(".") && self.token != Token::End {
            return Err(Problem::new(name_span, "`not` is not an operator", "write `!`"));
        }
        let name = if is_absolute { format!(".{name}").into() } else { name };
        let span = start.to(name_span);
        let opened = self.span;
        if self.take("(")? {
            let arguments = self.arguments(")", opened)?;
            let span = span.to(self.last);
            return self.call(span, name, name_span, None, arguments);
        }
        self.node(span, ExprKind::Ident(name))
    }

    fn call(
        &mut self,
        span: Span,
        function: ByteString,
        function_span: Span,
        target: Option<Expr>,
        arguments: Vec<Expr>,
    ) -> Parsed {
        let kind = if self.options.macros {
            macros::expand(&function, function_span, span, target, arguments)?
        } else {
            ExprKind::Call { function, function_span, target: target.map(Box::new), arguments }
        };
        self.node(span, kind)
    }

    /// Comma-separated values up to the closing symbol.
    fn arguments(&mut self, close: &str, opened: Span) -> Result<Vec<Expr>, Problem> {
        let mut arguments = Vec::new();
        if self.take(close)? {
            return Ok(arguments);
        }
        loop {
            arguments.push(self.expression()?);
            if !self.take(",")? {
                self.expect(close, opened)?;
                return Ok(arguments);
            }
        }
    }

    fn elements(&mut self, opened: Span) -> Result<Vec<Element>, Problem> {
        let mut elements = Vec::new();
        while !self.take("]")? {
            let optional = self.take("?")?;
            elements.push(Element { value: self.expression()?, optional });
            if !self.take(",")? {
                self.expect("]", opened)?;
                break;
            }
        }
        Ok(elements)
    }

    fn entries(&mut self, opened: Span) -> Result<Vec<Entry>, Problem> {
        let mut entries = Vec::new();
        while !self.take("}")? {
            let optional = self.take("?")?;
            let key = self.expression()?;
            if !self.take(":")? {
                return Err(match self.token {
                    Token::End => Problem::new(opened, "missing closing `}`", "add `}`"),
                    _ => Problem::new(self.span, "missing `:` after a key", "write `{'key': value}`"),
                });
            }
            entries.push(Entry { key, value: self.expression()?, optional });
            if !self.take(",")? {
                self.expect("}", opened)?;
                break;
            }
        }
        Ok(entries)
    }

    fn message(&mut self, start: Span, name: ByteString, opened: Span) -> Parsed {
        let mut fields = Vec::new();
        while !self.take("}")? {
            let optional = self.take("?")?;
            let field_span = self.span;
            let (Token::Ident(field) | Token::Reserved(field) | Token::Quoted(field)) = self.advance()? else {
                return Err(Problem::new(field_span, "missing field name", "write `Name{field: value}`"));
            };
            self.expect(":", field_span)?;
            fields.push((field, field_span, self.expression()?, optional));
            if !self.take(",")? {
                self.expect("}", opened)?;
                break;
            }
        }
        let span = start.to(self.last);
        self.node(span, ExprKind::Struct { name, fields })
    }
}

/// The dotted name that a chain of field selections forms.
pub(super) fn qualified_name(expression: &Expr) -> Option<ByteString> {
    match &expression.kind {
        ExprKind::Ident(name) => Some(name.clone()),
        ExprKind::Select { operand, field, test: false, optional: false, .. } => {
            Some(format!("{}.{field}", qualified_name(operand)?).into())
        }
        _ => None,
    }
}
