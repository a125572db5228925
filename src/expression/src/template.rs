//! Text templates with expressions: `no order ${req.id}`.

use std::ops::Range;

use crate::problem::{Problem, Span};
use crate::syntax::closing_brace;

/// A part of a template, as a byte range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Literal text.
    Text(Range<usize>),
    /// An expression, without the enclosing `${` and `}`.
    Expression(Range<usize>),
}

/// Splits a template into its parts. Expressions may contain braces, also in string literals.
///
/// # Errors
/// A [`Problem`] if a `${` has no matching `}`.
pub fn parts(text: &str) -> Result<Vec<Part>, Problem> {
    let mut parts = Vec::new();
    let mut at = 0;
    while let Some(found) = text[at..].find("${") {
        let start = at + found;
        if start > at {
            parts.push(Part::Text(at..start));
        }
        let Some(len) = closing_brace(&text[start + 2..]) else {
            return Err(Problem::new(Span::new(start, text.len()), "the expression is not closed", "end it with `}`"));
        };
        parts.push(Part::Expression(start + 2..start + 2 + len));
        at = start + 3 + len;
    }
    if at < text.len() {
        parts.push(Part::Text(at..text.len()));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_inside_expressions_do_not_end_them() {
        for (text, expected) in [
            ("a ${b} c", vec!["a ", "b", " c"]),
            ("${{'a': 1}.a}", vec!["{'a': 1}.a"]),
            ("${'}' + \"{\"}x", vec!["'}' + \"{\"", "x"]),
            ("no", vec!["no"]),
            ("$a {b}", vec!["$a {b}"]),
        ] {
            let found: Vec<&str> = parts(text)
                .expect(text)
                .into_iter()
                .map(|part| match part {
                    Part::Text(range) | Part::Expression(range) => &text[range],
                })
                .collect();
            assert_eq!(found, expected, "{text}");
        }
        assert!(parts("${a").is_err());
    }
}
