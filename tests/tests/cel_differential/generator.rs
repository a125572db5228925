//! Random expressions of CEL, well typed, over random values.
//!
//! An expression is a tree, so that one on which evaluators differ can be made smaller.

use std::fmt::Write as _;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

use super::values::{Sort, Tagged};

/// Why an evaluator is not asked about an expression. What all evaluators are not asked is in the head of `cel_differential.rs`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Unlike {
    /// Types as values do not come back from cel-cpp's package.
    CppTypes,
    /// cel-cpp's package has no insertion into maps, which `transformMap` needs.
    CppMapInsertion,
    /// cel-cpp has neither `unwrapOpt` nor `optional.unwrap`.
    CppUnwrap,
    /// cel-go takes a place past the end of a text; CEL's conformance tests (`string_ext`, `indexof_out_of_range`) have a failure there.
    GoPlaces,
    /// cel-cpp fails where an index behind an optional list is past its end; cel-go and the extension's description have none there.
    CppOptionalIndex,
    /// cel-cpp refuses an end behind characters of more than a byte.
    CppSubstring,
    /// cel-cpp has one part in an empty text that is split at an empty one; cel-go and ours have none.
    CppSplit,
    /// cel-cpp reads numbers, and base64, with white space around them; cel-go and ours do not.
    CppNumberText,
    /// cel-cpp has a list equivalent to an empty one.
    CppEquivalent,
    /// cel-cpp takes NaN for the greatest or the least number, or not, as the order of the arguments is; cel-go and ours fail.
    CppExtremesOfNaN,
    /// cel-go's text of a moment is in the offset that it was written with, and leaves out zeros; that of cel-cpp and ours is that of
    /// ProtoJSON, in UTC.
    GoTimeText,
    /// cel-go's parts of a length of time go through a double, and its milliseconds are all of it, not those of the second; CEL's
    /// conformance tests (`timestamps`, `get_milliseconds`) have the latter.
    GoDurationParts,
    /// cel-go's text of a length of time goes through a double, and leaves out zeros; that of cel-cpp and ours is that of ProtoJSON.
    GoDurationText,
}

impl Unlike {
    fn evaluator(self) -> &'static str {
        match self {
            Self::CppTypes
            | Self::CppEquivalent
            | Self::CppNumberText
            | Self::CppSubstring
            | Self::CppSplit
            | Self::CppMapInsertion
            | Self::CppUnwrap
            | Self::CppOptionalIndex
            | Self::CppExtremesOfNaN => "cel-cpp",
            Self::GoPlaces | Self::GoTimeText | Self::GoDurationParts | Self::GoDurationText => "cel-go",
        }
    }

    /// What a call is not like, whatever its arguments.
    fn of_pattern(pattern: &str) -> Vec<Self> {
        let table = [
            (".indexOf(§, §)", Self::GoPlaces),
            (".lastIndexOf(§, §)", Self::GoPlaces),
            (".substring(§, §)", Self::CppSubstring),
            (".split(", Self::CppSplit),
            ("int(§ + '')", Self::CppNumberText),
            ("double(§ + '')", Self::CppNumberText),
            ("base64.decode(", Self::CppNumberText),
            ("sets.equivalent(", Self::CppEquivalent),
            ("unwrapOpt()", Self::CppUnwrap),
            ("optional.unwrap(", Self::CppUnwrap),
            ("optional.of(§)[§]", Self::CppOptionalIndex),
            (".transformMap", Self::CppMapInsertion),
            ("duration(string(§))", Self::GoDurationText),
        ];
        table.into_iter().filter(|(part, _)| pattern.contains(part)).map(|(_, unlike)| unlike).collect()
    }
}

/// A part of an expression: texts with trees between them.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    pub(crate) sort: Sort,
    texts: Vec<String>,
    pub(crate) parts: Vec<Tree>,
    /// Evaluators that are not asked about an expression that has this part, and why.
    unlike: Vec<Unlike>,
}

impl Tree {
    pub(crate) fn leaf(sort: Sort, text: impl Into<String>) -> Self {
        Self { sort, texts: vec![text.into()], parts: Vec::new(), unlike: Vec::new() }
    }

    /// A `§` stands for each of the parts.
    fn of(sort: Sort, pattern: &str, parts: Vec<Tree>) -> Self {
        let texts: Vec<_> = pattern.split('§').map(str::to_owned).collect();
        assert_eq!(texts.len(), parts.len() + 1, "{pattern}");
        Self { sort, texts, parts, unlike: Unlike::of_pattern(pattern) }
    }

    fn without(mut self, unlike: Unlike) -> Self {
        self.unlike.push(unlike);
        self
    }

    /// Whether an evaluator is to be asked.
    pub(crate) fn is_for(&self, name: &str) -> bool {
        self.unlike.iter().all(|unlike| unlike.evaluator() != name) && self.parts.iter().all(|part| part.is_for(name))
    }

    pub(crate) fn size(&self) -> usize {
        1 + self.parts.iter().map(Tree::size).sum::<usize>()
    }

    pub(crate) fn text(&self) -> String {
        let mut text = self.texts[0].clone();
        for (part, behind) in self.parts.iter().zip(&self.texts[1..]) {
            text.push_str(&part.text());
            text.push_str(behind);
        }
        text
    }

    /// All smaller trees with one part replaced by a part of its own, or by a plain value of its sort.
    pub(crate) fn smaller(&self) -> Vec<Tree> {
        let mut found = Vec::new();
        let mut below = Vec::new();
        self.descendants(&mut below);
        found.extend(below.into_iter().filter(|tree| tree.sort == self.sort).cloned());
        let plain = Tree::leaf(self.sort.clone(), self.sort.plain());
        if !self.parts.is_empty() {
            found.push(plain);
        }
        for (at, part) in self.parts.iter().enumerate() {
            for replacement in part.smaller() {
                let mut tree = self.clone();
                tree.parts[at] = replacement;
                found.push(tree);
            }
        }
        found
    }

    fn descendants<'t>(&'t self, found: &mut Vec<&'t Tree>) {
        for part in &self.parts {
            found.push(part);
            part.descendants(found);
        }
    }
}

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
/// Those that scanners of texts treat in a way of their own, beside common ones.
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
    // Not the ends of 64 bits: there, others lose a moment on the way to a difference that fits, and ours does not.
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
/// Regular expressions that all read alike, or refuse alike, as literals have them.
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
        // Each expression has a generator of its own, so that any of them can be had again alone.
        let rng = StdRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(number));
        let scope = variables().into_iter().map(|(name, sort)| (name.to_owned(), sort)).collect();
        Self { rng, scope }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_ratio(percent, 100)
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of.choose(&mut self.rng).expect("something to choose from").clone()
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
        // Without zero bytes, at which cel-cpp's package ends.
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
                self.call(Sort::Kind, "type(§)", &[of], depth).without(Unlike::CppTypes)
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
        // The innermost of a name only: it hides the others.
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
                    // Both branches have the type that is wanted.
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
            // A key that comes twice is a failure in ours and in CEL's conformance tests; cel-go takes it, and cel-cpp fails
            // even where the map is never evaluated.
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

    /// What gives a value of any sort.
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
        // Few names, so that inner ones hide outer ones.
        self.pick(&["x", "z", "q", "i", "s"]).to_owned()
    }

    fn within(&mut self, locals: &[(&str, Sort)], sort: &Sort, depth: u32) -> Tree {
        let len = self.scope.len();
        self.scope.extend(locals.iter().map(|(name, sort)| ((*name).to_owned(), sort.clone())));
        let tree = self.tree(sort, depth);
        self.scope.truncate(len);
        tree
    }

    fn of_int(&mut self, depth: u32) -> Tree {
        let (list, map) = (Sort::list(Sort::Int), Sort::map(Sort::Text, Sort::Int));
        let part: &str = self.pick(&[
            "getFullYear",
            "getMonth",
            "getDate",
            "getDayOfMonth",
            "getDayOfWeek",
            "getDayOfYear",
            "getHours",
            "getMinutes",
            "getSeconds",
            "getMilliseconds",
        ]);
        match self.rng.random_range(0..10) {
            0..4 => {
                let calls: &[(&str, &[Sort])] = &[
                    ("(§ + §)", &[Sort::Int, Sort::Int]),
                    ("(§ - §)", &[Sort::Int, Sort::Int]),
                    ("(§ * §)", &[Sort::Int, Sort::Int]),
                    ("(§ / §)", &[Sort::Int, Sort::Int]),
                    ("(§ % §)", &[Sort::Int, Sort::Int]),
                    ("(-§)", &[Sort::Int]),
                ];
                self.one_of(Sort::Int, calls, depth)
            }
            4..6 => {
                let calls: &[(&str, &[Sort])] = &[
                    ("int(§)", &[Sort::UInt]),
                    ("int(§)", &[Sort::Double]),
                    ("int(§ + '')", &[Sort::Text]),
                    ("int(§)", &[Sort::Time]),
                    ("size(§)", &[Sort::Text]),
                    ("size(§)", &[Sort::Bytes]),
                    ("§.size()", std::slice::from_ref(&list)),
                    ("size(§)", std::slice::from_ref(&map)),
                ];
                self.one_of(Sort::Int, calls, depth)
            }
            6 => {
                let calls: &[(&str, &[Sort])] = &[
                    ("math.greatest(§, §)", &[Sort::Int, Sort::Int]),
                    ("math.least(§)", std::slice::from_ref(&list)),
                    ("math.least(§, §, §)", &[Sort::Int, Sort::Int, Sort::Int]),
                    ("math.abs(§)", &[Sort::Int]),
                    ("math.sign(§)", &[Sort::Int]),
                    ("math.bitAnd(§, §)", &[Sort::Int, Sort::Int]),
                    ("math.bitOr(§, §)", &[Sort::Int, Sort::Int]),
                    ("math.bitXor(§, §)", &[Sort::Int, Sort::Int]),
                    ("math.bitNot(§)", &[Sort::Int]),
                    ("math.bitShiftLeft(§, §)", &[Sort::Int, Sort::Int]),
                    ("math.bitShiftRight(§, §)", &[Sort::Int, Sort::Int]),
                ];
                self.one_of(Sort::Int, calls, depth)
            }
            7 => {
                let calls: &[(&str, &[Sort])] = &[
                    ("§.indexOf(§)", &[Sort::Text, Sort::Text]),
                    ("§.indexOf(§, §)", &[Sort::Text, Sort::Text, Sort::Int]),
                    ("§.lastIndexOf(§)", &[Sort::Text, Sort::Text]),
                    ("§.lastIndexOf(§, §)", &[Sort::Text, Sort::Text, Sort::Int]),
                    ("(§ + 'béa').indexOf(§, 2)", &[Sort::Text, Sort::Text]),
                    ("(§ + 'béa').lastIndexOf(§, 2)", &[Sort::Text, Sort::Text]),
                ];
                self.one_of(Sort::Int, calls, depth)
            }
            8 => match self.rng.random_range(0..3) {
                0 => self.call(Sort::Int, &format!("§.{part}()"), &[Sort::Time], depth),
                1 => {
                    let zone = self.pick(ZONES);
                    self.call(Sort::Int, &format!("§.{part}('{zone}')"), &[Sort::Time], depth)
                }
                _ => {
                    let part = self.pick(&["getHours", "getMinutes", "getSeconds", "getMilliseconds"]);
                    let tree = self.call(Sort::Int, &format!("§.{part}()"), &[Sort::Duration], depth);
                    tree.without(Unlike::GoDurationParts)
                }
            },
            _ => self.any(&Sort::Int, depth),
        }
    }

    fn of_uint(&mut self, depth: u32) -> Tree {
        let two = &[Sort::UInt, Sort::UInt];
        let shift = &[Sort::UInt, Sort::Int];
        let calls: &[(&str, &[Sort])] = &[
            ("(§ + §)", two),
            ("(§ - §)", two),
            ("(§ * §)", two),
            ("(§ / §)", two),
            ("(§ % §)", two),
            ("uint(§)", &[Sort::Int]),
            ("uint(§)", &[Sort::Double]),
            ("uint(§ + '')", &[Sort::Text]),
            ("math.greatest(§, §)", two),
            ("math.least(§, §)", two),
            ("math.abs(§)", &[Sort::UInt]),
            ("math.sign(§)", &[Sort::UInt]),
            ("math.bitAnd(§, §)", two),
            ("math.bitOr(§, §)", two),
            ("math.bitXor(§, §)", two),
            ("math.bitNot(§)", &[Sort::UInt]),
            ("math.bitShiftLeft(§, §)", shift),
            ("math.bitShiftRight(§, §)", shift),
        ];
        self.one_of(Sort::UInt, calls, depth)
    }

    fn of_double(&mut self, depth: u32) -> Tree {
        let one = &[Sort::Double];
        let two = &[Sort::Double, Sort::Double];
        let calls: &[(&str, &[Sort])] = &[
            ("(§ + §)", two),
            ("(§ - §)", two),
            ("(§ * §)", two),
            ("(§ / §)", two),
            ("(-§)", one),
            ("double(§)", &[Sort::Int]),
            ("double(§)", &[Sort::UInt]),
            ("double(§ + '')", &[Sort::Text]),
            ("math.greatest(§, §)", two),
            ("math.least(§, §)", two),
            ("math.abs(§)", one),
            ("math.sign(§)", one),
            ("math.ceil(§)", one),
            ("math.floor(§)", one),
            ("math.round(§)", one),
            ("math.trunc(§)", one),
            ("math.sqrt(§)", one),
            ("math.sqrt(§)", &[Sort::Int]),
        ];
        let tree = self.one_of(Sort::Double, calls, depth);
        let is_extreme = tree.texts[0].starts_with("math.greatest") || tree.texts[0].starts_with("math.least");
        if is_extreme { tree.without(Unlike::CppExtremesOfNaN) } else { tree }
    }

    fn of_text(&mut self, depth: u32) -> Tree {
        let one = &[Sort::Text];
        let list = Sort::list(Sort::Text);
        match self.rng.random_range(0..10) {
            0..2 => self.call(Sort::Text, "(§ + §)", &[Sort::Text, Sort::Text], depth),
            2..4 => {
                match self.scalar() {
                    // Where a double is written with an exponent, and whether it is, evaluators differ.
                    Sort::Double => self.call(Sort::Text, "string(double(§ % 1000000) / 8.0)", &[Sort::Int], depth),
                    of @ Sort::Duration => {
                        self.call(Sort::Text, "string(§)", &[of], depth).without(Unlike::GoDurationText)
                    }
                    of @ Sort::Time => self.call(Sort::Text, "string(§)", &[of], depth).without(Unlike::GoTimeText),
                    of => self.call(Sort::Text, "string(§)", &[of], depth),
                }
            }
            4..8 => {
                let calls: &[(&str, &[Sort])] = &[
                    ("§.charAt(§)", &[Sort::Text, Sort::Int]),
                    ("§.substring(§)", &[Sort::Text, Sort::Int]),
                    ("§.substring(§, §)", &[Sort::Text, Sort::Int, Sort::Int]),
                    ("§.replace(§, §)", &[Sort::Text, Sort::Text, Sort::Text]),
                    ("§.replace(§, §, §)", &[Sort::Text, Sort::Text, Sort::Text, Sort::Int]),
                    ("§.lowerAscii()", one),
                    ("§.upperAscii()", one),
                    ("§.trim()", one),
                    ("§.reverse()", one),
                    ("strings.quote(§)", one),
                    ("§.join()", std::slice::from_ref(&list)),
                    ("§.join(§)", &[list.clone(), Sort::Text]),
                    ("base64.encode(§)", &[Sort::Bytes]),
                ];
                self.one_of(Sort::Text, calls, depth)
            }
            8 => {
                let (pattern, of) = match self.rng.random_range(0..10) {
                    8 => ("'%s'.format([§])", vec![Sort::map(Sort::Text, Sort::Int)]),
                    0 => ("'%d|%d'.format([§, §])", vec![Sort::Int, Sort::Int]),
                    1 => ("'%x %X'.format([§, §])", vec![Sort::Int, Sort::Int]),
                    2 => ("'%b-%o%%'.format([§, §])", vec![Sort::Int, Sort::Int]),
                    3 => ("'%.2f'.format([§])", vec![Sort::Double]),
                    4 => ("'%.3e'.format([§])", vec![Sort::Double]),
                    5 => ("'%x'.format([§])", vec![Sort::Bytes]),
                    6 => ("'%f'.format([§])", vec![Sort::Double]),
                    7 => ("'%s'.format([§])", vec![Sort::list(Sort::Text)]),
                    _ => {
                        let of = self.pick(&[Sort::Int, Sort::UInt, Sort::Text, Sort::Bytes, Sort::Bool]);
                        if of == Sort::Bytes {
                            // Bytes that are no UTF-8 are a text in cel-go, which ours has none of.
                            ("'<%s>'.format([bytes(§)])", vec![Sort::Text])
                        } else {
                            ("'<%s>'.format([§])", vec![of])
                        }
                    }
                };
                self.call(Sort::Text, pattern, &of, depth)
            }
            _ => self.any(&Sort::Text, depth),
        }
    }

    fn of_bytes(&mut self, depth: u32) -> Tree {
        let calls: &[(&str, &[Sort])] = &[
            ("(§ + §)", &[Sort::Bytes, Sort::Bytes]),
            ("bytes(§)", &[Sort::Text]),
            ("bytes(§)", &[Sort::Bytes]),
            ("base64.decode(§)", &[Sort::Text]),
            ("base64.decode(base64.encode(§))", &[Sort::Bytes]),
        ];
        self.one_of(Sort::Bytes, calls, depth)
    }

    fn of_time(&mut self, depth: u32) -> Tree {
        match self.rng.random_range(0..5) {
            0 => {
                let text = self.pick(&[
                    "2024-02-29T12:00:00+05:45",
                    "2023-02-29T12:00:00Z",
                    "2024-06-30T23:59:59.1-11:00",
                    "1970-01-01",
                    "0001-01-01T00:00:00Z",
                    "9999-12-31T23:59:59.999999999Z",
                    "10000-01-01T00:00:00Z",
                ]);
                Tree::leaf(Sort::Time, format!("timestamp('{text}')"))
            }
            1 => self.call(Sort::Time, "timestamp(§)", &[Sort::Int], depth),
            _ => {
                let calls: &[(&str, &[Sort])] = &[
                    ("(§ + §)", &[Sort::Time, Sort::Duration]),
                    ("(§ + §)", &[Sort::Duration, Sort::Time]),
                    ("(§ - §)", &[Sort::Time, Sort::Duration]),
                    ("timestamp(string(§))", &[Sort::Time]),
                ];
                self.one_of(Sort::Time, calls, depth)
            }
        }
    }

    fn of_duration(&mut self, depth: u32) -> Tree {
        if self.chance(25) {
            let text = self.pick(&[
                "1h30m",
                "-1.5s",
                "100ms",
                "1us",
                "-7ns",
                "0",
                "1.000000001s",
                "2540400h",
                "1d",
                "",
                "5",
                "+3m",
                "1h-1m",
            ]);
            return Tree::leaf(Sort::Duration, format!("duration('{text}')"));
        }
        let calls: &[(&str, &[Sort])] = &[
            ("(§ + §)", &[Sort::Duration, Sort::Duration]),
            ("(§ - §)", &[Sort::Duration, Sort::Duration]),
            ("(§ - §)", &[Sort::Time, Sort::Time]),
            ("duration(string(§))", &[Sort::Duration]),
        ];
        self.one_of(Sort::Duration, calls, depth)
    }

    fn of_bool(&mut self, depth: u32) -> Tree {
        let list = Sort::list(Sort::Int);
        match self.rng.random_range(0..16) {
            0..3 => {
                let calls: &[(&str, &[Sort])] = &[
                    ("(§ && §)", &[Sort::Bool, Sort::Bool]),
                    ("(§ || §)", &[Sort::Bool, Sort::Bool]),
                    ("(§ && § && §)", &[Sort::Bool, Sort::Bool, Sort::Bool]),
                    ("(§ || § || §)", &[Sort::Bool, Sort::Bool, Sort::Bool]),
                    ("!§", &[Sort::Bool]),
                ];
                self.one_of(Sort::Bool, calls, depth)
            }
            3..5 => {
                let of = self.scalar();
                let operator = self.pick(&["<", "<=", ">", ">="]);
                self.call(Sort::Bool, &format!("(§ {operator} §)"), &[of.clone(), of], depth)
            }
            5..7 => {
                let sorts = [
                    self.scalar(),
                    Sort::list(Sort::Double),
                    Sort::list(Sort::Text),
                    Sort::map(Sort::Text, Sort::Int),
                    Sort::optional(Sort::Int),
                ];
                let of = self.pick(&sorts);
                let operator = self.pick(&["==", "!="]);
                self.call(Sort::Bool, &format!("(§ {operator} §)"), &[of.clone(), of], depth)
            }
            7 => self.of_two_kinds(depth),
            8 => {
                let of = self.scalar();
                let key = Sort::map(Sort::Text, Sort::Int);
                match self.rng.random_range(0..3) {
                    0 => self.call(Sort::Bool, "(§ in §)", &[of.clone(), Sort::list(of)], depth),
                    1 => self.call(Sort::Bool, "(§ in §)", &[Sort::Text, key], depth),
                    _ => self.call(Sort::Bool, "(§ in §)", &[Sort::Int, Sort::map(Sort::Int, Sort::Text)], depth),
                }
            }
            9 => {
                let pattern = self.pick(&["has(§.a)", "has(§.key)", "has(§.b)"]);
                self.call(Sort::Bool, pattern, &[Sort::map(Sort::Text, Sort::Int)], depth)
            }
            10 => {
                if self.chance(30) {
                    // No literal: ours reads one when it checks, and refuses it though it may never be evaluated.
                    let pattern = self.pick(PATTERNS);
                    return self.call(Sort::Bool, &format!("§.matches('{pattern}' + '')"), &[Sort::Text], depth);
                }
                let calls: &[(&str, &[Sort])] = &[
                    ("§.contains(§)", &[Sort::Text, Sort::Text]),
                    ("§.startsWith(§)", &[Sort::Text, Sort::Text]),
                    ("§.endsWith(§)", &[Sort::Text, Sort::Text]),
                    ("bool(§)", &[Sort::Text]),
                    ("math.isNaN(§)", &[Sort::Double]),
                    ("math.isInf(§)", &[Sort::Double]),
                    ("math.isFinite(§)", &[Sort::Double]),
                ];
                self.one_of(Sort::Bool, calls, depth)
            }
            11 => {
                let calls: &[(&str, &[Sort])] = &[
                    ("sets.contains(§, §)", &[list.clone(), list.clone()]),
                    ("sets.equivalent(§, §)", &[list.clone(), list.clone()]),
                    ("sets.intersects(§, §)", &[list.clone(), list.clone()]),
                    ("sets.intersects(§, §)", &[Sort::list(Sort::Double), Sort::list(Sort::Double)]),
                    ("sets.contains(§, §)", &[Sort::list(Sort::Text), Sort::list(Sort::Text)]),
                    ("§.hasValue()", &[Sort::optional(Sort::Int)]),
                    ("§.hasValue()", &[Sort::optional(Sort::Text)]),
                ];
                self.one_of(Sort::Bool, calls, depth)
            }
            12 => {
                let of = self.scalar();
                let name =
                    self.pick(&["int", "uint", "double", "string", "bytes", "bool", "google.protobuf.Timestamp"]);
                self.call(Sort::Bool, &format!("(type(§) == {name})"), &[of], depth)
            }
            _ => self.condition_of_all(depth),
        }
    }

    /// Numbers of two kinds beside one another.
    ///
    /// Whole numbers beside doubles are kept within 53 bits: beyond, ours are compared exactly (see the head of `cel_differential.rs`).
    fn of_two_kinds(&mut self, depth: u32) -> Tree {
        let operator = self.pick(&["==", "!=", "<", "<=", ">", ">="]);
        match self.rng.random_range(0..9) {
            6 => self.call(Sort::Bool, "(dyn(§) in {1: 'a', 2: 'b', 7: 'c'})", &[Sort::Double], depth),
            7 => self.call(Sort::Bool, "({1u: 'a', 3u: 'b'}[dyn(§)] == §)", &[Sort::Int, Sort::Text], depth),
            8 => self.call(Sort::Bool, "(§[dyn(§)] == §)", &[Sort::list(Sort::Int), Sort::Double, Sort::Int], depth),
            0 => self.call(Sort::Bool, &format!("(dyn(§) {operator} §)"), &[Sort::Int, Sort::UInt], depth),
            1 => self.call(Sort::Bool, &format!("(§ {operator} dyn(§))"), &[Sort::Int, Sort::UInt], depth),
            2 => {
                let pattern = format!("(dyn(§ % 9007199254740992) {operator} §)");
                self.call(Sort::Bool, &pattern, &[Sort::Int, Sort::Double], depth)
            }
            3 => {
                let pattern = format!("(dyn(§) {operator} § % 9007199254740992u)");
                self.call(Sort::Bool, &pattern, &[Sort::Double, Sort::UInt], depth)
            }
            4 => self.call(Sort::Bool, "(dyn(§) in §)", &[Sort::UInt, Sort::list(Sort::Int)], depth),
            _ => self.call(Sort::Bool, "(dyn([§]) == [§])", &[Sort::UInt, Sort::Int], depth),
        }
    }

    fn condition_of_all(&mut self, depth: u32) -> Tree {
        let macro_name = self.pick(&["all", "exists", "exists_one"]);
        let of = self.pick(&[Sort::Int, Sort::Text, Sort::Double]);
        let name = self.name();
        match self.rng.random_range(0..4) {
            0..2 => {
                let range = self.tree(&Sort::list(of.clone()), depth - 1);
                let body = self.within(&[(&name, of)], &Sort::Bool, depth - 1);
                Tree::of(Sort::Bool, &format!("§.{macro_name}({name}, §)"), vec![range, body])
            }
            2 => {
                let range = self.tree(&Sort::map(Sort::Text, Sort::Int), depth - 1);
                let body = self.within(&[(&name, Sort::Text)], &Sort::Bool, depth - 1);
                Tree::of(Sort::Bool, &format!("§.{macro_name}({name}, §)"), vec![range, body])
            }
            _ => {
                let macro_name = if macro_name == "exists_one" { "existsOne" } else { macro_name };
                let (range, locals) = if self.chance(50) {
                    (Sort::list(of.clone()), [(&*name, Sort::Int), ("w", of)])
                } else {
                    (Sort::map(Sort::Text, Sort::Int), [(&*name, Sort::Text), ("w", Sort::Int)])
                };
                let range = self.tree(&range, depth - 1);
                let body = self.within(&locals, &Sort::Bool, depth - 1);
                Tree::of(Sort::Bool, &format!("§.{macro_name}({name}, w, §)"), vec![range, body])
            }
        }
    }

    fn of_list(&mut self, of: &Sort, depth: u32) -> Tree {
        let sort = Sort::list(of.clone());
        let name = self.name();
        match self.rng.random_range(0..14) {
            0..2 => {
                let len = self.rng.random_range(0..4);
                self.list_literal(of, len, depth)
            }
            2 => self.call(sort.clone(), "(§ + §)", &[sort.clone(), sort], depth),
            3..5 => {
                let from = self.pick(&[Sort::Int, Sort::Text, Sort::UInt, Sort::Double]);
                let range = self.tree(&Sort::list(from.clone()), depth - 1);
                let body = self.within(&[(&name, from.clone())], of, depth - 1);
                if self.chance(70) {
                    return Tree::of(sort, &format!("§.map({name}, §)"), vec![range, body]);
                }
                let filter = self.within(&[(&name, from)], &Sort::Bool, depth - 1);
                Tree::of(sort, &format!("§.map({name}, §, §)"), vec![range, filter, body])
            }
            5..7 => {
                let range = self.tree(&sort, depth - 1);
                let body = self.within(&[(&name, of.clone())], &Sort::Bool, depth - 1);
                Tree::of(sort, &format!("§.filter({name}, §)"), vec![range, body])
            }
            7 => {
                let range = self.tree(&Sort::list(Sort::Int), depth - 1);
                let locals = [(&*name, Sort::Int), ("w", Sort::Int)];
                let body = self.within(&locals, of, depth - 1);
                if self.chance(60) {
                    return Tree::of(sort, &format!("§.transformList({name}, w, §)"), vec![range, body]);
                }
                let filter = self.within(&locals, &Sort::Bool, depth - 1);
                Tree::of(sort, &format!("§.transformList({name}, w, §, §)"), vec![range, filter, body])
            }
            8 => self.call(sort.clone(), "§.reverse()", &[sort], depth),
            9 => {
                let calls: &[(&str, &[Sort])] = &[
                    ("§.slice(§, §)", &[sort.clone(), Sort::Int, Sort::Int]),
                    ("§.distinct()", std::slice::from_ref(&sort)),
                ];
                self.one_of(sort.clone(), calls, depth)
            }
            10 if matches!(of, Sort::Int | Sort::UInt | Sort::Text) => {
                if self.chance(60) {
                    return self.call(sort.clone(), "§.sort()", &[sort], depth);
                }
                let range = self.tree(&sort, depth - 1);
                let key = self.pick(&[Sort::Int, Sort::Text, Sort::Bool]);
                let body = self.within(&[(&name, of.clone())], &key, depth - 1);
                Tree::of(sort, &format!("§.sortBy({name}, §)"), vec![range, body])
            }
            11 => self.call(sort.clone(), "§.flatten()", &[Sort::list(sort)], depth),
            12 => match of {
                Sort::Int => self.call(sort, "lists.range(§ % 6)", &[Sort::Int], depth),
                Sort::Text => {
                    let calls: &[(&str, &[Sort])] = &[
                        ("§.split(§)", &[Sort::Text, Sort::Text]),
                        ("§.split(§, §)", &[Sort::Text, Sort::Text, Sort::Int]),
                        // The order of a map's entries is not the language's.
                        ("§.map(o, o).sort()", &[Sort::map(Sort::Text, Sort::Int)]),
                    ];
                    self.one_of(sort, calls, depth)
                }
                _ => self.call(sort.clone(), "optional.unwrap(§)", &[Sort::list(Sort::optional(of.clone()))], depth),
            },
            _ => self.call(sort, "[§].unwrapOpt()", &[Sort::optional(of.clone())], depth),
        }
    }

    fn of_map(&mut self, key: &Sort, of: &Sort, depth: u32) -> Tree {
        let sort = Sort::map(key.clone(), of.clone());
        let name = self.name();
        let range_sort = match key {
            Sort::Int if self.chance(70) => Sort::list(Sort::Int),
            key => Sort::map(key.clone(), Sort::Int),
        };
        match self.rng.random_range(0..4) {
            0..2 => self.map_literal(key, of, depth),
            2 => {
                let range = self.tree(&range_sort, depth - 1);
                let locals = [(&*name, key.clone()), ("w", Sort::Int)];
                let body = self.within(&locals, of, depth - 1);
                if self.chance(60) {
                    Tree::of(sort, &format!("§.transformMap({name}, w, §)"), vec![range, body])
                } else {
                    let filter = self.within(&locals, &Sort::Bool, depth - 1);
                    Tree::of(sort, &format!("§.transformMap({name}, w, §, §)"), vec![range, filter, body])
                }
            }
            _ => {
                let range = self.tree(&range_sort, depth - 1);
                let locals = [(&*name, key.clone()), ("w", Sort::Int)];
                let new_key = self.within(&locals, key, (depth - 1).min(1));
                let body = self.within(&locals, of, depth - 1);
                let pattern = format!("§.transformMapEntry({name}, w, {{§: §}})");
                Tree::of(sort, &pattern, vec![range, new_key, body])
            }
        }
    }

    fn of_optional(&mut self, of: &Sort, depth: u32) -> Tree {
        let sort = Sort::optional(of.clone());
        let (list, map) = (Sort::list(of.clone()), Sort::map(Sort::Text, of.clone()));
        let name = self.name();
        match self.rng.random_range(0..8) {
            0 => self.call(sort, "optional.of(§)", std::slice::from_ref(of), depth),
            // cel-go's zero of moments is another: the first of them, and not that of 1970.
            1 if *of != Sort::Time => self.call(sort, "optional.ofNonZeroValue(§)", std::slice::from_ref(of), depth),
            2..5 => {
                let calls: &[(&str, &[Sort])] = &[
                    ("§.?a", std::slice::from_ref(&map)),
                    ("§[?'é']", std::slice::from_ref(&map)),
                    ("§[?§]", &[map.clone(), Sort::Text]),
                    ("§[?§]", &[list.clone(), Sort::Int]),
                    ("§.first()", std::slice::from_ref(&list)),
                    ("§.last()", std::slice::from_ref(&list)),
                    ("optional.of(§).a", std::slice::from_ref(&map)),
                    ("optional.of(§)[§]", &[list.clone(), Sort::Int]),
                ];
                self.one_of(sort, calls, depth)
            }
            5 => self.call(sort.clone(), "§.or(§)", &[sort.clone(), sort], depth),
            _ => {
                let from = self.pick(&[Sort::Int, Sort::Text]);
                let optional = self.tree(&Sort::optional(from.clone()), depth - 1);
                let flat = self.chance(40);
                let body_sort = if flat { &sort } else { of };
                let body = self.within(&[(&name, from)], body_sort, depth - 1);
                let call = if flat { "optFlatMap" } else { "optMap" };
                Tree::of(sort, &format!("§.{call}({name}, §)"), vec![optional, body])
            }
        }
    }
}

/// A scalar as an expression.
fn literal(value: &Tagged) -> String {
    match value {
        Tagged::Bool(truth) => truth.to_string(),
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
        other => unreachable!("{other:?} is no scalar"),
    }
}
