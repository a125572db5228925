//! Regular expressions: RE2's, on an engine that is linear in the text, with bounds on size and work.

use std::cell::RefCell;

use crossdock_message::ByteString;
use regex::{Regex, RegexBuilder};

use super::super::Call;
use crate::failure::Outcome;

/// Bytes of the source.
const LEN_MAX: usize = 1024;
/// Bytes that the compiled expression may take, and each of its caches.
const SIZE_MAX: usize = 256 << 10;
/// States that a text may be in at once, about: the length of the source with its counted repetitions written out.
const WEIGHT_MAX: usize = 4096;
/// Expressions that a thread keeps.
const KEPT_MAX: usize = 16;

thread_local! {
    static KEPT: RefCell<Vec<(ByteString, Result<Regex, &'static str>)>> = const { RefCell::new(Vec::new()) };
}

/// The length of a source with its counted repetitions written out, at most.
fn weight(source: &str) -> usize {
    let mut weight = source.len().max(1);
    for counted in source.split('{').skip(1) {
        let largest =
            counted.split('}').next().unwrap_or("").split(',').filter_map(|count| count.trim().parse().ok()).max();
        weight = weight.saturating_mul(largest.unwrap_or(1).max(1));
    }
    weight
}

/// The source with RE2's meaning of `\d`, `\s`, `\w` and `\b`, which is that of ASCII. Character classes may stand in one another.
fn ascii_classes(source: &str) -> String {
    let mut made = String::with_capacity(source.len() + 16);
    let mut characters = source.chars();
    let mut in_class = false;
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some('d') => made.push_str("[0-9]"),
                Some('D') => made.push_str("[^0-9]"),
                Some('s') => made.push_str("[\\t\\n\\f\\r ]"),
                Some('S') => made.push_str("[^\\t\\n\\f\\r ]"),
                Some('w') => made.push_str("[0-9A-Za-z_]"),
                Some('W') => made.push_str("[^0-9A-Za-z_]"),
                Some('b') if !in_class => made.push_str("(?-u:\\b)"),
                Some('B') if !in_class => made.push_str("(?-u:\\B)"),
                Some(other) => made.extend(['\\', other]),
                None => made.push('\\'),
            },
            // A class by its name, such as `[:alpha:]`.
            '[' if in_class && characters.as_str().starts_with(':') => {
                let rest = characters.as_str();
                let len = rest.find(":]").map_or(rest.len(), |at| at + 2);
                made.push('[');
                made.push_str(&rest[..len]);
                characters = rest[len..].chars();
            }
            '[' if in_class => made.push_str("\\["),
            _ => {
                in_class = match character {
                    '[' => true,
                    ']' => false,
                    _ => in_class,
                };
                made.push(character);
            }
        }
    }
    made
}

/// Compiles a regular expression within its bounds.
pub(crate) fn compile_regex(source: &str) -> Result<Regex, &'static str> {
    if source.len() > LEN_MAX || weight(source) > WEIGHT_MAX {
        return Err("the regular expression is too large");
    }
    let mut builder = RegexBuilder::new(&ascii_classes(source));
    let built = builder.size_limit(SIZE_MAX).dfa_size_limit(SIZE_MAX).nest_limit(32).build();
    built.map_err(|_| "the regular expression cannot be read, or is too large")
}

/// Whether an expression is found in a text.
pub(super) fn is_found(call: &Call<'_>, text: &str, source: &ByteString) -> Outcome<bool> {
    // Each byte may be looked at once for each state.
    let states = weight(source).min(WEIGHT_MAX);
    call.scan(text.len().saturating_mul(1 + states / 8))?;
    KEPT.with_borrow_mut(|kept| {
        if let Some(at) = kept.iter().position(|(known, _)| known == source) {
            let last = kept.len() - 1;
            kept.swap(at, last);
        } else {
            call.work(64 + states)?;
            let regex = compile_regex(source);
            if kept.len() == KEPT_MAX {
                drop(kept.remove(0));
            }
            // A copy: a part of a message would hold all of it.
            kept.push((ByteString::from(&**source), regex));
        }
        match kept.last() {
            Some((_, Ok(regex))) => Ok(regex.is_match(text)),
            Some((_, Err(problem))) => Err(call.fail(*problem)),
            None => Ok(false),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_those_of_re2() {
        for (pattern, text, is_found) in [
            (r"^\d+$", "12", true),
            (r"^\d+$", "١٢", false),
            (r"^\w$", "é", false),
            (r"^[\w.-]+$", "a.b-c", true),
            (r"^[^\d]$", "x", true),
            (r"^[^\d]$", "1", false),
            (r"\bfoo\b", "a foo b", true),
            (r"^[[:alpha:]]$", "a", true),
            (r"^.$", "😀", true),
            (r"^[[a]+$", "[a[", true),
            (r"\\d", r"\d", true),
            (r"^\D\S\W$", "x-é", true),
        ] {
            let regex = compile_regex(pattern).unwrap_or_else(|problem| panic!("{pattern}: {problem}"));
            assert_eq!(regex.is_match(text), is_found, "{pattern} in {text}");
        }
    }

    #[test]
    fn large_ones_are_refused() {
        for pattern in ["[01]*1[01]{900}x", "((a{99}){99}){99}", "(?=a)", "a**(", &"a".repeat(2000)] {
            assert!(compile_regex(pattern).is_err(), "{pattern}");
        }
    }
}
