//! The lexer.

use bytes::Bytes;
use crossdock_message::{ByteString, Decimal};

use super::ast::Literal;
use super::literal::{self, Quoted};
use crate::problem::{Problem, Span};

/// A token.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Literal(Literal),
    Ident(ByteString),
    /// A field name in backticks.
    Quoted(ByteString),
    /// A reserved word.
    Reserved(ByteString),
    /// Punctuation and operators.
    Symbol(&'static str),
    End,
}

/// Longer symbols first.
const SYMBOLS: &[&str] = &[
    "&&", "||", "==", "!=", "<=", ">=", "+", "-", "*", "/", "%", "<", ">", "!", "(", ")", "[", "]", "{", "}", ".", ",",
    ":", "?",
];

/// Reserved identifiers ("CEL language definition", Syntax).
const RESERVED: &[&str] = &[
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

pub(super) struct Lexer<'s> {
    source: &'s str,
    at: usize,
}

impl<'s> Lexer<'s> {
    pub(super) fn new(source: &'s str) -> Self {
        Self { source, at: 0 }
    }

    fn rest(&self) -> &'s str {
        &self.source[self.at..]
    }

    fn skip_whitespace(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start_matches([' ', '\t', '\n', '\r', '\x0c']);
            self.at += rest.len() - trimmed.len();
            if !trimmed.starts_with("//") {
                break;
            }
            self.at += trimmed.find('\n').unwrap_or(trimmed.len());
        }
    }

    pub(super) fn next(&mut self) -> Result<(Token, Span), Problem> {
        self.skip_whitespace();
        let start = self.at;
        let rest = self.rest();
        let Some(first) = rest.bytes().next() else { return Ok((Token::End, Span::new(start, start))) };
        let token =
            if first.is_ascii_digit() || (first == b'.' && rest[1..].starts_with(|next: char| next.is_ascii_digit())) {
                self.number()?
            } else if let Some(quoted) = literal::quoted_start(rest) {
                self.quoted(&quoted)?
            } else if first == b'_' || first.is_ascii_alphabetic() {
                self.word()
            } else if first == b'`' {
                self.backticks()?
            } else {
                self.symbol()?
            };
        Ok((token, Span::new(start, self.at)))
    }

    fn word(&mut self) -> Token {
        let rest = self.rest();
        let len = rest.find(|next: char| next != '_' && !next.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let word = &rest[..len];
        self.at += len;
        match word {
            "true" => Token::Literal(Literal::Bool(true)),
            "false" => Token::Literal(Literal::Bool(false)),
            "null" => Token::Literal(Literal::Null),
            "in" => Token::Symbol("in"),
            _ if RESERVED.contains(&word) => Token::Reserved(word.into()),
            _ => Token::Ident(word.into()),
        }
    }

    fn backticks(&mut self) -> Result<Token, Problem> {
        let rest = self.rest();
        let allowed = |next: char| next.is_ascii_alphanumeric() || "_.-/ ".contains(next);
        let len = rest[1..].find(|next: char| !allowed(next)).unwrap_or(rest.len() - 1);
        if len == 0 || rest.as_bytes().get(len + 1) != Some(&b'`') {
            let help = "a name in backticks consists of letters, digits, `_`, `.`, `-`, `/` and spaces, and ends with a backtick";
            return Err(Problem::new(Span::new(self.at, self.at + 1), "invalid name in backticks", help));
        }
        self.at += len + 2;
        Ok(Token::Quoted(rest[1..=len].into()))
    }

    fn symbol(&mut self) -> Result<Token, Problem> {
        let rest = self.rest();
        if let Some(symbol) = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
            self.at += symbol.len();
            return Ok(Token::Symbol(symbol));
        }
        let first = rest.chars().next().unwrap_or(' ');
        let span = Span::new(self.at, self.at + first.len_utf8());
        Err(match first {
            '=' => Problem::new(span, "`=` is not an operator", "write `==` to compare"),
            '&' => Problem::new(span, "`&` is not an operator", "write `&&`"),
            '|' => Problem::new(span, "`|` is not an operator", "write `||`"),
            '“' | '”' | '‘' | '’' => {
                Problem::new(span, "typographic quotation marks are not supported", "quote strings with `'` or `\"`")
            }
            ';' => Problem::new(span, "unexpected `;`", "remove it: an expression is a single value"),
            other => {
                let problem = format!("unexpected `{}`", other.escape_default());
                Problem::new(span, problem, "quote strings: `'open'`")
            }
        })
    }

    fn number(&mut self) -> Result<Token, Problem> {
        let (start, rest) = (self.at, self.rest());
        let bytes = rest.as_bytes();
        let digits = |from: usize| bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let is_unsigned = |len: usize| matches!(bytes.get(len), Some(b'u' | b'U'));
        let out_of_range = |end: usize| {
            let help = "write `decimal('…')` for larger numbers";
            Problem::new(Span::new(start, end), "the integer does not fit in 64 bits", help)
        };
        if bytes.len() > 2 && bytes[0] == b'0' && matches!(bytes[1], b'x' | b'X') {
            let len = 2 + bytes[2..].iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
            let read = u64::from_str_radix(&rest[2..len], 16);
            self.at += len;
            if len == 2 {
                return Err(Problem::new(
                    Span::new(start, self.at),
                    "a hexadecimal number needs digits",
                    "write `0xff`",
                ));
            }
            let read = read.map_err(|_| out_of_range(start + len))?;
            return self.integer(read, is_unsigned(len), start);
        }
        let mut len = digits(0);
        let mut is_double = false;
        if bytes.get(len) == Some(&b'.') && bytes.get(len + 1).is_some_and(u8::is_ascii_digit) {
            len += 1 + digits(len + 1);
            is_double = true;
        }
        if matches!(bytes.get(len), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(bytes.get(len + 1), Some(b'+' | b'-')));
            let exponent = digits(len + 1 + sign);
            if exponent > 0 {
                len += 1 + sign + exponent;
                is_double = true;
            }
        }
        self.at += len;
        let text = &rest[..len];
        if is_double {
            let number: f64 = text.parse().unwrap_or(f64::NAN);
            let plain = text.trim_start_matches('0');
            let plain = if plain.starts_with(|next: char| next.is_ascii_digit()) {
                plain.to_owned()
            } else {
                format!("0{plain}")
            };
            let written = Decimal::new(plain).ok();
            if number.is_infinite() {
                let help = format!("write `decimal('{text}')`");
                return Err(Problem::new(Span::new(start, self.at), "the number exceeds the range of a double", help));
            }
            return match written {
                Some(written) => Ok(Token::Literal(Literal::Double(number, written))),
                None => Err(Problem::new(Span::new(start, self.at), "invalid number", "")),
            };
        }
        let read = text.parse::<u64>().map_err(|_| out_of_range(start + len))?;
        self.integer(read, is_unsigned(len), start)
    }

    /// An integer; the parser accepts `9223372036854775808` only after a minus sign.
    fn integer(&mut self, number: u64, is_unsigned: bool, start: usize) -> Result<Token, Problem> {
        if is_unsigned {
            self.at += 1;
            return Ok(Token::Literal(Literal::UInt(number)));
        }
        match i64::try_from(number) {
            Ok(number) => Ok(Token::Literal(Literal::Int(number))),
            Err(_) if number == i64::MIN.unsigned_abs() => Ok(Token::Literal(Literal::Int(i64::MIN))),
            Err(_) => {
                let help = format!("write `{number}u`, or `decimal('{number}')`");
                Err(Problem::new(Span::new(start, self.at), "the integer does not fit in 64 signed bits", help))
            }
        }
    }

    fn quoted(&mut self, quoted: &Quoted) -> Result<Token, Problem> {
        let start = self.at;
        let content = start + quoted.prefix_len + quoted.mark.len();
        let rest = &self.source[content..];
        let Some(len) = literal::content_len(rest, quoted) else {
            let span = Span::new(start, content);
            return Err(Problem::new(span, "the string is not terminated", format!("end it with `{}`", quoted.mark)));
        };
        self.at = content + len + quoted.mark.len();
        let read = literal::unescape(&rest[..len], quoted).map_err(|(at, problem)| {
            let at = content + at;
            let help = "escapes are `\\n`, `\\t`, `\\\\`, `\\'`, `\\\"`, `\\xHH`, `\\uHHHH`, `\\UHHHHHHHH`; `r'…'` has no escapes";
            Problem::new(Span::new(at, at + escape_len(&self.source[at..content + len])), problem, help)
        })?;
        if quoted.is_bytes {
            return Ok(Token::Literal(Literal::Bytes(Bytes::from(read))));
        }
        let text = String::from_utf8(read).map_err(|_| {
            Problem::new(Span::new(start, self.at), "the string is not valid UTF-8", "write bytes as `b'…'`")
        })?;
        Ok(Token::Literal(Literal::Text(text.into())))
    }
}

/// Bytes of a backslash and the character after it.
fn escape_len(rest: &str) -> usize {
    rest.chars().take(2).map(char::len_utf8).sum()
}

/// The offset of the brace that closes the one before `source`; `None` if there is none.
pub(crate) fn closing_brace(source: &str) -> Option<usize> {
    let mut lexer = Lexer::new(source);
    let mut depth = 0_usize;
    loop {
        let before = lexer.at;
        match lexer.next() {
            Ok((Token::End, _)) => return None,
            Ok((Token::Symbol("{"), _)) => depth += 1,
            Ok((Token::Symbol("}"), span)) => match depth.checked_sub(1) {
                Some(less) => depth = less,
                None => return Some(span.range().start),
            },
            Ok(_) => {}
            // The parser will report the error.
            Err(_) => {
                lexer.at = lexer.at.max(before);
                return source[lexer.at..].find('}').map(|len| lexer.at + len);
            }
        }
    }
}
