//! Regular expressions in RE2 syntax. Matching is linear in the length of the string; size and work are bounded.

use std::cell::RefCell;

use crossdock_message::ByteString;
use regex::{Regex, RegexBuilder};

use super::super::Call;
use crate::failure::Outcome;

/// Bytes of the source.
const LEN_MAX: usize = 1024;
/// Bytes of the compiled expression, and of each of its caches.
const SIZE_MAX: usize = 256 << 10;
/// Approximate limit on simultaneous states: the length of the source with counted repetitions expanded.
const WEIGHT_MAX: usize = 4096;
/// Compiled expressions cached per thread.
const CACHE_LEN_MAX: usize = 16;

thread_local! {
    static CACHE: RefCell<Vec<(ByteString, Result<Regex, &'static str>)>> = const { RefCell::new(Vec::new()) };
}

/// An upper bound of the length of the source with counted repetitions expanded.
fn weight(source: &str) -> usize {
    let mut weight = source.len().max(1);
    for counted in source.split('{').skip(1) {
        let largest =
            counted.split('}').next().unwrap_or("").split(',').filter_map(|count| count.trim().parse().ok()).max();
        weight = weight.saturating_mul(largest.unwrap_or(1).max(1));
    }
    weight
}

/// Rewrites `\d`, `\s`, `\w`, `\b` and their negations to ASCII, as in RE2. In a class, `[` is escaped, since the engine supports nested classes.
fn ascii_classes(source: &str) -> String {
    let mut rewritten = String::with_capacity(source.len() + 16);
    let mut characters = source.chars();
    let mut in_class = false;
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some('d') => rewritten.push_str("[0-9]"),
                Some('D') => rewritten.push_str("[^0-9]"),
                Some('s') => rewritten.push_str("[\\t\\n\\f\\r ]"),
                Some('S') => rewritten.push_str("[^\\t\\n\\f\\r ]"),
                Some('w') => rewritten.push_str("[0-9A-Za-z_]"),
                Some('W') => rewritten.push_str("[^0-9A-Za-z_]"),
                Some('b') if !in_class => rewritten.push_str("(?-u:\\b)"),
                Some('B') if !in_class => rewritten.push_str("(?-u:\\B)"),
                Some(other) => rewritten.extend(['\\', other]),
                None => rewritten.push('\\'),
            },
            // A named class such as `[:alpha:]`.
            '[' if in_class && characters.as_str().starts_with(':') => {
                let rest = characters.as_str();
                let len = rest.find(":]").map_or(rest.len(), |at| at + 2);
                rewritten.push('[');
                rewritten.push_str(&rest[..len]);
                characters = rest[len..].chars();
            }
            '[' if in_class => rewritten.push_str("\\["),
            _ => {
                in_class = match character {
                    '[' => true,
                    ']' => false,
                    _ => in_class,
                };
                rewritten.push(character);
            }
        }
    }
    rewritten
}

/// Compiles a regular expression within the limits.
pub(crate) fn compile_regex(source: &str) -> Result<Regex, &'static str> {
    if source.len() > LEN_MAX || weight(source) > WEIGHT_MAX {
        return Err("the regular expression is too large");
    }
    let mut builder = RegexBuilder::new(&ascii_classes(source));
    let built = builder.size_limit(SIZE_MAX).dfa_size_limit(SIZE_MAX).nest_limit(32).build();
    built.map_err(|_| "the regular expression is invalid or too large")
}

/// Whether the expression matches a part of the string.
pub(super) fn is_match(call: &Call<'_>, text: &str, source: &ByteString) -> Outcome<bool> {
    // Each byte may be visited once per state.
    let states = weight(source).min(WEIGHT_MAX);
    call.charge_scan(text.len().saturating_mul(1 + states / 8))?;
    CACHE.with_borrow_mut(|cache| {
        if let Some(at) = cache.iter().position(|(known, _)| known == source) {
            let last = cache.len() - 1;
            cache.swap(at, last);
        } else {
            call.charge_work(64 + states)?;
            let regex = compile_regex(source);
            if cache.len() == CACHE_LEN_MAX {
                drop(cache.remove(0));
            }
            // A copy: a slice would keep the whole message alive.
            cache.push((ByteString::from(&**source), regex));
        }
        match cache.last() {
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
    fn character_classes_match_re2() {
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
    fn invalid_and_large_expressions_are_rejected() {
        for pattern in ["[01]*1[01]{900}x", "((a{99}){99}){99}", "(?=a)", "a**(", &"a".repeat(2000)] {
            assert!(compile_regex(pattern).is_err(), "{pattern}");
        }
    }
}
