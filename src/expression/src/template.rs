//! Where expressions stand in a text: `no order ${req.id}`.

use std::ops::Range;

use crate::problem::{Problem, Span};
use crate::syntax::closing_brace;

/// A part of a text, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Text as it is.
    Text(Range<usize>),
    /// An expression, without the `${` and `}` around it.
    Expression(Range<usize>),
}

/// Takes a text apart. An expression may have braces and texts with braces of its own.
///
/// # Errors
/// A [`Problem`] where a `${` has no `}`.
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
    fn braces_of_expressions_are_theirs() {
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
