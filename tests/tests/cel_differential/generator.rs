//! Generates random well-typed CEL expressions over random values.
//!
//! An expression is a tree, so that it can be shrunk when evaluators differ.

mod calls;
mod tree;

use std::fmt::Write as _;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

pub(crate) use self::tree::{Quirk, Tree};
use super::values::{Sort, Tagged};

/// The variables of every expression.
pub(crate) fn variables() -> Vec<(&'static str, Sort)> {
    vec![
        ("i", Sort::Int),
        ("j", Sort::Int),
        ("u", Sort::UInt),
        ("v", Sort::UInt),
        ("d", Sort::Double),
        ("e", Sort::Double),
        ("s", Sort::Text),
        ("p", Sort::Text),
        ("y", Sort::Bytes),
        ("b", Sort::Bool),
        ("l", Sort::list(Sort::Int)),
        ("k", Sort::list(Sort::Text)),
        ("m", Sort::map(Sort::Text, Sort::Int)),
        ("t", Sort::Time),
        ("r", Sort::Duration),
    ]
}

const INTS: &[i64] =
    &[0, 1, 2, 3, 5, 7, 10, 60, 255, 1 << 53, -1, -2, -7, i64::MAX, i64::MIN, i64::MAX - 1, i64::MIN + 1, 1 << 31];
const UINTS: &[u64] = &[0, 1, 2, 3, 7, 10, 64, 1 << 53, 1 << 63, i64::MAX as u64, u64::MAX, u64::MAX - 1];
const DOUBLES: &[f64] = &[
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    1.5,
    2.5,
    -2.5,
    0.1,
    3.0,
    100.0,
    1e15,
    1e21,
    1e-7,
    123_456_789.125,
    9_007_199_254_740_993.0,
    9_223_372_036_854_775_807.0,
    -9_223_372_036_854_775_808.0,
    18_446_744_073_709_551_615.0,
    f64::MAX,
    f64::MIN_POSITIVE,
    5e-324,
    f64::NAN,
    f64::INFINITY,
    f64::NEG_INFINITY,
];
/// Common characters, and ones with special treatment in scanners and Unicode algorithms.
const CHARACTERS: &[char] = &[
    'a',
    'b',
    'a',
    'b',
    'Z',
    'k',
    ' ',
    ',',
    '0',
    '7',
    '-',
    '.',
    '%',
    'é',
    'ß',
    'İ',
    '€',
    '😀',
    '\u{10ffff}',
    '\u{301}',
    '\n',
    '\t',
    '\\',
    '"',
    '\'',
    '\u{85}',
    '\u{a0}',
    '\u{2028}',
    '\u{3000}',
    '\u{200b}',
    '\u{180e}',
    '\u{feff}',
];
const TIMES: &[&str] = &[
    "1970-01-01T00:00:00Z",
    "2024-02-29T23:59:59.999999999Z",
    "2000-02-29T12:00:00Z",
    "1900-03-01T00:00:00Z",
    "1969-12-31T23:59:59.999999Z",
    "1883-11-18T12:03:58Z",
    "1604-02-29T01:02:03.004Z",
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999999Z",
    "2023-12-31T22:30:00.123456Z",
    "2024-03-31T01:00:00Z",
    "2024-10-27T00:59:59.5Z",
    "2038-01-19T03:14:08Z",
];
const NANOS: &[i64] = &[
    0,
    1_000,
    -1_000,
    500_000_000,
    1_500_000_000,
    -1_500_000_000,
    60_000_000_000,
    -3_600_000_000_000,
    86_400_000_000_000,
    1,
    -999_999_999,
    123_456_789_012_345_678,
    // Not near 2⁶³, where the others overflow in intermediate results and ours does not.
    1 << 61,
    -(1 << 61),
];
const ZONES: &[&str] = &[
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Pacific/Apia",
    "+02:00",
    "-03:30",
    "05:45",
    "Nowhere/Land",
];
/// Regular expressions that all evaluators interpret or reject alike, escaped for literals.
const PATTERNS: &[&str] = &[
    "",
    "a",
    "^a",
    "b$",
    "^[a-z]*$",
    ".",
    "a.b",
    "[0-9]+",
    "\\\\d",
    "\\\\D",
    "(a|b)+",
    "\\\\s",
    "\\\\S",
    "\\\\w",
    "\\\\W",
    "\\\\bk",
    "b\\\\B",
    "[\\\\s]",
    "[^\\\\w]",
    "^.{1,2}$",
    "(",
    "[[:alpha:]]",
    "[[:space:]]",
    "[[:^word:]]",
    "é",
    "^$",
    "(?i)K",
    "(?i)É",
    "(?s)^.+$",
    "(?m)^a$",
    "(?U)a+",
    "\\\\pL",
    "\\\\p{Greek}",
    "\\\\P{L}",
    "a{2}",
    "\\\\z",
    "\\\\Z",
    "\\\\A",
    "\\\\x{e9}",
    "(?P<n>a)",
    "(?<n>a)",
    "\\\\h",
    "\\\\/",
    "\\\\-",
    "\\\\a",
    "\\\\v",
    "\\\\é",
    "[]a]",
    "[^]a]",
    "a|",
    "()",
    "(?:)",
    "(?=a)",
    "(a)\\\\1",
    "]",
    "}",
    "(?-s).",
    "[a-]",
    "[b-a]",
    "\\\\%",
    "\\\\x41",
    "\\\\n",
    "(?i)\\\\x{212a}",
    "[^a]",
];

pub(crate) struct Generator {
    pub(crate) rng: StdRng,
    scope: Vec<(String, Sort)>,
}

impl Generator {
    pub(crate) fn new(seed: u64, number: u64) -> Self {
        // Each expression has its own generator, so that it can be reproduced alone.
        let rng = StdRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(number));
        let scope = variables().into_iter().map(|(name, sort)| (name.to_owned(), sort)).collect();
        Self { rng, scope }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_ratio(percent, 100)
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of.choose(&mut self.rng).expect("a non-empty slice").clone()
    }

    // Values.

    fn int(&mut self) -> i64 {
        if self.chance(50) { self.rng.random_range(-3..12) } else { self.pick(INTS) }
    }

    fn uint(&mut self) -> u64 {
        if self.chance(50) { self.rng.random_range(0..12) } else { self.pick(UINTS) }
    }

    fn double(&mut self) -> f64 {
        match self.rng.random_range(0..10) {
            0..6 => self.pick(DOUBLES),
            6..9 => f64::from(self.rng.random_range(-10_000..10_000)) / 100.0,
            _ => f64::from_bits(self.rng.random()),
        }
    }

    fn string(&mut self) -> String {
        match self.rng.random_range(0..8) {
            0 => String::new(),
            1 => {
                let known = ["12", "-7", "1.5", "true", "1e3", "a,b,c", "YWI=", "YQ", "NaN", "18446744073709551615"];
                self.pick(&known).to_owned()
            }
            _ => (0..self.rng.random_range(1..6)).map(|_| self.pick(CHARACTERS)).collect(),
        }
    }

    fn bytes(&mut self) -> Vec<u8> {
        if self.chance(50) {
            return self.string().into_bytes();
        }
        // Without NUL bytes, at which cel-cpp's Python package truncates.
        (0..self.rng.random_range(0..5)).map(|_| self.rng.random_range(1..=255)).collect()
    }

    /// A value for a variable.
    pub(crate) fn value(&mut self, sort: &Sort) -> Tagged {
        match sort {
            Sort::Int => Tagged::Int(self.int()),
            Sort::UInt => Tagged::UInt(self.uint()),
            Sort::Double => Tagged::Double(self.double()),
            Sort::Text => Tagged::Text(self.string()),
            Sort::Bytes => Tagged::Bytes(self.bytes()),
            Sort::Bool => Tagged::Bool(self.chance(50)),
            Sort::Time => Tagged::time(self.pick(TIMES)),
            Sort::Duration => {
                let nanos = self.pick(NANOS);
                Tagged::nanos(nanos)
            }
            Sort::List(of) => {
                let len = self.rng.random_range(0..5);
                Tagged::List((0..len).map(|_| self.value(of)).collect())
            }
            Sort::Map(key, of) => {
                let mut entries: Vec<(Tagged, Tagged)> = Vec::new();
                for name in ["a", "b", "key", "é"] {
                    if self.chance(50) {
                        let key = if **key == Sort::Text { Tagged::Text(name.to_owned()) } else { self.value(key) };
                        entries.push((key, self.value(of)));
                    }
                }
                Tagged::Map(entries)
            }
            Sort::Optional(_) => Tagged::Optional(None),
            Sort::Kind => Tagged::Kind("int".to_owned()),
        }
    }

    // Expressions.

    /// An expression of a random sort.
    pub(crate) fn expression(&mut self) -> Tree {
        let sorts = [
            Sort::Int,
            Sort::Int,
            Sort::UInt,
            Sort::Double,
            Sort::Text,
            Sort::Text,
            Sort::Bytes,
            Sort::Bool,
            Sort::Bool,
            Sort::Bool,
            Sort::Time,
            Sort::Duration,
            Sort::list(Sort::Int),
            Sort::list(Sort::Text),
            Sort::list(Sort::UInt),
            Sort::list(Sort::list(Sort::Double)),
            Sort::map(Sort::Text, Sort::Int),
            Sort::map(Sort::Int, Sort::Text),
            Sort::optional(Sort::Int),
            Sort::optional(Sort::Text),
            Sort::Kind,
        ];
        let sort = self.pick(&sorts);
        let depth = self.rng.random_range(1..5);
        self.tree(&sort, depth)
    }

    fn tree(&mut self, sort: &Sort, depth: u32) -> Tree {
        if depth == 0 {
            return self.leaf(sort);
        }
        if self.chance(10) {
            return self.any(sort, depth);
        }
        match sort {
            Sort::Int => self.of_int(depth),
            Sort::UInt => self.of_uint(depth),
            Sort::Double => self.of_double(depth),
            Sort::Text => self.of_text(depth),
            Sort::Bytes => self.of_bytes(depth),
            Sort::Bool => self.of_bool(depth),
            Sort::Time => self.of_time(depth),
            Sort::Duration => self.of_duration(depth),
            Sort::List(of) => self.of_list(of, depth),
            Sort::Map(key, of) => self.of_map(key, of, depth),
            Sort::Optional(of) => self.of_optional(of, depth),
            Sort::Kind => {
                let of = self.scalar();
                self.call(Sort::Kind, "type(§)", &[of], depth).without(Quirk::CppTypes)
            }
        }
    }

    fn scalar(&mut self) -> Sort {
        let scalars =
            [Sort::Int, Sort::UInt, Sort::Double, Sort::Text, Sort::Bytes, Sort::Bool, Sort::Time, Sort::Duration];
        self.pick(&scalars)
    }

    fn call(&mut self, sort: Sort, pattern: &str, of: &[Sort], depth: u32) -> Tree {
        let parts = of.iter().map(|of| self.tree(of, depth - 1)).collect();
        Tree::of(sort, pattern, parts)
    }

    /// One of several calls: the pattern, and the sorts of its arguments.
    fn one_of(&mut self, sort: Sort, calls: &[(&str, &[Sort])], depth: u32) -> Tree {
        let at = self.rng.random_range(0..calls.len());
        self.call(sort, calls[at].0, calls[at].1, depth)
    }

    fn leaf(&mut self, sort: &Sort) -> Tree {
        // Only the innermost variable of each name, as it shadows the others.
        let mut names: Vec<String> = Vec::new();
        for at in (0..self.scope.len()).rev() {
            let (name, of) = &self.scope[at];
            if of == sort && !self.scope[at + 1..].iter().any(|(inner, _)| inner == name) {
                names.push(name.clone());
            }
        }
        if !names.is_empty() && self.chance(65) {
            let name = self.pick(&names);
            return Tree::leaf(sort.clone(), name);
        }
        let text = match sort {
            Sort::Optional(of) => {
                let inner = self.leaf(of);
                if self.chance(25) {
                    // Both branches have the required sort.
                    return Tree::of(sort.clone(), "(false ? optional.of(§) : optional.none())", vec![inner]);
                }
                return Tree::of(sort.clone(), "optional.of(§)", vec![inner]);
            }
            Sort::List(of) => {
                let len = self.rng.random_range(0..4);
                return self.list_literal(of, len, 0);
            }
            Sort::Map(key, of) => return self.map_literal(key, of, 0),
            Sort::Kind => self.pick(&["int", "uint", "double", "string", "bytes", "bool", "list", "map"]).to_owned(),
            sort => {
                let value = self.value(sort);
                if self.chance(25) { self.spelled(&value) } else { literal(&value) }
            }
        };
        Tree::leaf(sort.clone(), text)
    }

    /// A literal in one of its other spellings.
    fn spelled(&mut self, value: &Tagged) -> String {
        match value {
            Tagged::Int(number) if *number < 0 => format!("(-{:#x})", number.unsigned_abs()),
            Tagged::Int(number) => format!("0x{number:X}"),
            Tagged::UInt(number) => {
                let suffix = self.pick(&["u", "U"]);
                format!("{number:#x}{suffix}")
            }
            Tagged::Double(number) if number.is_finite() && *number > 0.0 => {
                let exponent = self.pick(&["e", "E"]);
                format!("{number:e}").replace('e', exponent)
            }
            Tagged::Text(text) => {
                let is_raw = !text.contains(['\'', '"', '\n', '\\']);
                match self.rng.random_range(0..4) {
                    0 if is_raw => format!("r'{text}'"),
                    1 if is_raw => format!("R\"\"\"{text}\"\"\""),
                    2 if is_raw => format!("\'\'\'{text}\n\'\'\'"),
                    _ => {
                        let escaped = text.chars().map(|next| match u32::from(next) {
                            code @ 0..0x80 => format!("\\x{code:02X}"),
                            code @ 0x80..0x100 => format!("\\{code:03o}"),
                            code @ 0x100..0x1_0000 => format!("\\u{code:04x}"),
                            code => format!("\\U{code:08X}"),
                        });
                        format!("\"{}\"", escaped.collect::<String>())
                    }
                }
            }
            Tagged::Bytes(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) if !text.contains(['\'', '"', '\n', '\\']) => format!("b'{text}'"),
                _ => {
                    let escaped = bytes.iter().map(|byte| format!("\\{byte:03o}"));
                    format!("B\"{}\"", escaped.collect::<String>())
                }
            },
            other => literal(other),
        }
    }

    fn list_literal(&mut self, of: &Sort, len: usize, depth: u32) -> Tree {
        let mut parts = Vec::new();
        let mut pattern = String::from("[");
        for at in 0..len {
            let comma = if at > 0 { ", " } else { "" };
            if depth > 0 && self.chance(10) {
                let _ = write!(pattern, "{comma}?§");
                parts.push(self.tree(&Sort::optional(of.clone()), depth - 1));
            } else {
                let _ = write!(pattern, "{comma}§");
                parts.push(self.tree(of, depth.saturating_sub(1)));
            }
        }
        pattern.push(']');
        Tree::of(Sort::list(of.clone()), &pattern, parts)
    }

    fn map_literal(&mut self, key: &Sort, of: &Sort, depth: u32) -> Tree {
        let mut parts = Vec::new();
        let mut pattern = String::from("{");
        let mut names: Vec<String> = Vec::new();
        for at in 0..self.rng.random_range(0..4) {
            let name = match key {
                Sort::Text if self.chance(80) => literal(&Tagged::Text(["a", "b", "key", "é"][at].to_owned())),
                key => literal(&self.value(key)),
            };
            // A duplicate key fails in ours and in CEL's conformance tests; cel-go accepts it, and cel-cpp fails even if the map is never
            // evaluated.
            if names.contains(&name) {
                continue;
            }
            let comma = if names.is_empty() { "" } else { ", " };
            if depth > 0 && self.chance(10) {
                let _ = write!(pattern, "{comma}?{name}: §");
                parts.push(self.tree(&Sort::optional(of.clone()), depth - 1));
            } else {
                let _ = write!(pattern, "{comma}{name}: §");
                parts.push(self.tree(of, depth.saturating_sub(1)));
            }
            names.push(name);
        }
        pattern.push('}');
        Tree::of(Sort::map(key.clone(), of.clone()), &pattern, parts)
    }

    /// An expression that can have any sort.
    fn any(&mut self, sort: &Sort, depth: u32) -> Tree {
        let is_plain = !matches!(sort, Sort::Optional(_) | Sort::Kind);
        match self.rng.random_range(0..if is_plain { 8 } else { 2 }) {
            0 => {
                let parts = [Sort::Bool, sort.clone(), sort.clone()];
                self.call(sort.clone(), "(§ ? § : §)", &parts, depth)
            }
            1 => {
                let of = self.scalar();
                let bound = self.tree(&of, depth - 1);
                let name = self.name();
                let body = self.within(&[(&name, of)], sort, depth - 1);
                Tree::of(sort.clone(), &format!("cel.bind({name}, §, §)"), vec![bound, body])
            }
            2 => {
                let list = self.tree(&Sort::list(sort.clone()), depth - 1);
                let at = self.tree(&Sort::Int, (depth - 1).min(1));
                let pattern = ["§[§]", "§[(§) % 3]"][self.rng.random_range(0..2)];
                Tree::of(sort.clone(), pattern, vec![list, at])
            }
            3 => {
                let map = self.tree(&Sort::map(Sort::Text, sort.clone()), depth - 1);
                let pattern = self.pick(&["§.a", "§['b']", "§.key", "§['é']"]);
                Tree::of(sort.clone(), pattern, vec![map])
            }
            4 => {
                let parts = [Sort::optional(sort.clone()), sort.clone()];
                self.call(sort.clone(), "§.orValue(§)", &parts, depth)
            }
            5 => self.call(sort.clone(), "§.value()", &[Sort::optional(sort.clone())], depth),
            6 => {
                let parts = [Sort::map(Sort::Int, sort.clone()), Sort::Int];
                self.call(sort.clone(), "§[§]", &parts, depth)
            }
            _ => {
                let parts = [Sort::list(sort.clone())];
                self.call(sort.clone(), "§.reverse()[0]", &parts, depth)
            }
        }
    }

    fn name(&mut self) -> String {
        // Few names, so that inner variables shadow outer ones.
        self.pick(&["x", "z", "q", "i", "s"]).to_owned()
    }

    fn within(&mut self, locals: &[(&str, Sort)], sort: &Sort, depth: u32) -> Tree {
        let len = self.scope.len();
        self.scope.extend(locals.iter().map(|(name, sort)| ((*name).to_owned(), sort.clone())));
        let tree = self.tree(sort, depth);
        self.scope.truncate(len);
        tree
    }
}

/// A scalar as a literal or constant expression.
fn literal(value: &Tagged) -> String {
    match value {
        Tagged::Bool(value) => value.to_string(),
        Tagged::Int(number) if *number < 0 => format!("({number})"),
        Tagged::Int(number) => number.to_string(),
        Tagged::UInt(number) => format!("{number}u"),
        Tagged::Double(number) if number.is_nan() => "(0.0 / 0.0)".to_owned(),
        Tagged::Double(number) if number.is_infinite() => {
            format!("({}1.0 / 0.0)", if *number < 0.0 { "-" } else { "" })
        }
        Tagged::Double(number) if number.is_sign_negative() => format!("({number:?})"),
        Tagged::Double(number) => format!("{number:?}"),
        Tagged::Text(text) => {
            let mut quoted = String::from("'");
            for character in text.chars() {
                match character {
                    '\'' | '\\' => quoted.extend(['\\', character]),
                    '\n' => quoted.push_str("\\n"),
                    '\t' => quoted.push_str("\\t"),
                    plain if plain.is_alphanumeric() || plain.is_ascii() => quoted.push(plain),
                    other => {
                        let _ = write!(quoted, "\\U{:08x}", u32::from(other));
                    }
                }
            }
            quoted.push('\'');
            quoted
        }
        Tagged::Bytes(bytes) => {
            format!("b'{}'", bytes.iter().fold(String::new(), |text, byte| format!("{text}\\x{byte:02x}")))
        }
        Tagged::Time(time) => format!("timestamp('{}')", time.text().unwrap_or_default()),
        Tagged::Duration(span) => format!("duration('{}')", span.text().unwrap_or_default()),
        other => unreachable!("{other:?} is not a scalar"),
    }
}
