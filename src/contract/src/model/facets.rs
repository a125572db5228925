//! Facets: bounds on values beyond their type (XML Schema Part 2 §4.3, JSON Schema Validation §6).

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use crossdock_message::{ByteString, Decimal};

/// Decides whether text matches a pattern. The reader of the contract makes it, because pattern syntaxes differ.
pub type Matches = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// Bounds on the values of a field. Codecs check them on values that they read.
#[derive(Debug, Clone, Default)]
pub struct Facets {
    /// The least length: characters of text, bytes of binary data.
    pub length_min: Option<usize>,
    /// The greatest length: characters of text, bytes of binary data.
    pub length_max: Option<usize>,
    /// The least number.
    pub min: Option<Bound>,
    /// The greatest number.
    pub max: Option<Bound>,
    /// What text must match.
    pub pattern: Option<Pattern>,
    /// The values that are allowed, by their text; all if empty.
    pub values: Vec<ByteString>,
}

/// An end of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// The number.
    pub number: Decimal,
    /// The number itself is out of range.
    pub is_exclusive: bool,
}

/// A pattern of text.
#[derive(Clone)]
pub struct Pattern {
    /// As the contract writes it.
    pub source: String,
    /// Decides.
    pub matches: Matches,
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({:?})", self.source)
    }
}

/// The rule of a contract that a value violates.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FacetViolation {
    /// It is shorter than this.
    #[error("the length must be at least {min} {unit}")]
    TooShort {
        /// The minimum length.
        min: usize,
        /// `characters` or `bytes`.
        unit: &'static str,
    },
    /// It is longer than this.
    #[error("the length must be at most {max} {unit}")]
    TooLong {
        /// The maximum length.
        max: usize,
        /// `characters` or `bytes`.
        unit: &'static str,
    },
    /// It does not match this pattern.
    #[error("the text must match `{0}`")]
    Pattern(String),
    /// It is outside of this bound.
    #[error("the number must be {rule} {bound}")]
    Range {
        /// `at least`, `greater than`, `at most` or `less than`.
        rule: &'static str,
        /// The bound.
        bound: String,
    },
    /// It is none of these values.
    #[error("the value must be one of {}", .0.join(", "))]
    NotListed(Vec<String>),
}

impl Facets {
    /// Checks a text.
    ///
    /// # Errors
    /// The rule that it violates.
    pub fn check_text(&self, text: &str) -> Result<(), FacetViolation> {
        if self.length_min.is_some() || self.length_max.is_some() {
            self.check_length(text.chars().count(), "characters")?;
        }
        if let Some(pattern) = self.pattern.as_ref().filter(|pattern| !(pattern.matches)(text)) {
            return Err(FacetViolation::Pattern(pattern.source.clone()));
        }
        self.check_listed(text)
    }

    /// Checks the length of binary data.
    ///
    /// # Errors
    /// The rule that it violates.
    pub fn check_bytes(&self, len: usize) -> Result<(), FacetViolation> {
        self.check_length(len, "bytes")
    }

    /// Checks a number, given in JSON's grammar.
    ///
    /// # Errors
    /// The rule that it violates.
    pub fn check_number(&self, text: &str) -> Result<(), FacetViolation> {
        let Ok(number) = Decimal::new(text) else { return Ok(()) };
        let beyond = |bound: &Bound, side: Ordering| match number.compare(&bound.number) {
            Ordering::Equal => bound.is_exclusive,
            order => order == side,
        };
        if let Some(min) = self.min.as_ref().filter(|min| beyond(min, Ordering::Less)) {
            let rule = if min.is_exclusive { "greater than" } else { "at least" };
            return Err(FacetViolation::Range { rule, bound: min.number.as_str().to_owned() });
        }
        if let Some(max) = self.max.as_ref().filter(|max| beyond(max, Ordering::Greater)) {
            let rule = if max.is_exclusive { "less than" } else { "at most" };
            return Err(FacetViolation::Range { rule, bound: max.number.as_str().to_owned() });
        }
        self.check_listed(text)
    }

    fn check_length(&self, len: usize, unit: &'static str) -> Result<(), FacetViolation> {
        if let Some(min) = self.length_min.filter(|min| len < *min) {
            return Err(FacetViolation::TooShort { min, unit });
        }
        if let Some(max) = self.length_max.filter(|max| len > *max) {
            return Err(FacetViolation::TooLong { max, unit });
        }
        Ok(())
    }

    fn check_listed(&self, text: &str) -> Result<(), FacetViolation> {
        if self.values.is_empty() || self.values.iter().any(|value| *value == text) {
            return Ok(());
        }
        Err(FacetViolation::NotListed(self.values.iter().map(ToString::to_string).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(number: &'static str, is_exclusive: bool) -> Bound {
        Bound { number: Decimal::new(number).expect("a number"), is_exclusive }
    }

    #[test]
    fn lengths_are_checked_at_their_bounds() {
        let facets = Facets { length_min: Some(2), length_max: Some(3), ..Facets::default() };
        for (text, is_valid) in [("a", false), ("äb", true), ("abc", true), ("äöüß", false)] {
            assert_eq!(facets.check_text(text).is_ok(), is_valid, "{text}");
        }
        for (len, is_valid) in [(1, false), (2, true), (3, true), (4, false)] {
            assert_eq!(facets.check_bytes(len).is_ok(), is_valid, "{len}");
        }
    }

    #[test]
    fn ranges_compare_exactly() {
        let facets = Facets { min: Some(bound("0.1", false)), max: Some(bound("10", true)), ..Facets::default() };
        let cases = [
            ("0.09999999999999999999", false),
            ("0.1", true),
            ("1e-1", true),
            ("9.99999999999999999999", true),
            ("10.0", false),
        ];
        for (number, is_valid) in cases {
            assert_eq!(facets.check_number(number).is_ok(), is_valid, "{number}");
        }
        assert_eq!(facets.check_number("10").expect_err("out of range").to_string(), "the number must be less than 10");
    }

    #[test]
    fn patterns_and_enumerations_are_checked() {
        let matches: Matches = Arc::new(|text| text.starts_with('A'));
        let pattern = Some(Pattern { source: "A.*".into(), matches });
        let facets = Facets { pattern, values: vec!["A1".into(), "A2".into(), "B1".into()], ..Facets::default() };
        assert!(facets.check_text("A1").is_ok());
        assert_eq!(facets.check_text("B1").expect_err("no match").to_string(), "the text must match `A.*`");
        assert_eq!(facets.check_text("A3").expect_err("not listed").to_string(), "the value must be one of A1, A2, B1");
    }
}
