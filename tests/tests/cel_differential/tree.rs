//! Expression trees, and the known quirks of the other evaluators.

use crate::values::Sort;

/// A known deviation of one evaluator, which does not get expressions that are affected. Exclusions for all evaluators are listed in
/// `cel_differential.rs`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Quirk {
    /// cel-cpp's Python package does not return type values.
    CppTypes,
    /// cel-cpp's Python package lacks map insertion, which `transformMap` needs.
    CppMapInsertion,
    /// cel-cpp has neither `unwrapOpt` nor `optional.unwrap`.
    CppUnwrap,
    /// cel-go accepts an offset past the end of a string; CEL's conformance tests (`string_ext`, `indexof_out_of_range`) expect an error.
    GoOffsets,
    /// cel-cpp fails if the index into an optional list is past its end; cel-go and the extension's specification return none.
    CppOptionalIndex,
    /// cel-cpp rejects an end offset behind multi-byte characters.
    CppSubstring,
    /// cel-cpp returns one part when an empty string is split at an empty separator; cel-go and ours return none.
    CppSplit,
    /// cel-cpp accepts white space around numbers and base64; cel-go and ours do not.
    CppNumberText,
    /// cel-cpp considers any list equivalent to an empty one.
    CppEquivalent,
    /// In cel-cpp, the result of `math.greatest` and `math.least` with NaN depends on the argument order; cel-go and ours fail.
    CppExtremesOfNaN,
    /// cel-go writes a timestamp with its original offset and without trailing zeros; cel-cpp and ours write ProtoJSON, in UTC.
    GoTimeText,
    /// cel-go computes duration parts with doubles, and returns the total milliseconds instead of those within the second, which CEL's
    /// conformance tests (`timestamps`, `get_milliseconds`) expect.
    GoDurationParts,
    /// cel-go writes durations by way of doubles and without trailing zeros; cel-cpp and ours write ProtoJSON.
    GoDurationText,
    /// A negative argument of `lists.range` is a C++ exception in cel-cpp, which ends the evaluation instead of being absorbed by `&&`, `||`
    /// or a quantifier.
    CppNegativeRange,
}

impl Quirk {
    pub(super) fn evaluator(self) -> &'static str {
        match self {
            Self::CppTypes
            | Self::CppEquivalent
            | Self::CppNumberText
            | Self::CppSubstring
            | Self::CppSplit
            | Self::CppMapInsertion
            | Self::CppUnwrap
            | Self::CppOptionalIndex
            | Self::CppNegativeRange
            | Self::CppExtremesOfNaN => "cel-cpp",
            Self::GoOffsets | Self::GoTimeText | Self::GoDurationParts | Self::GoDurationText => "cel-go",
        }
    }

    /// The quirks of a call, independent of its arguments.
    pub(super) fn of_pattern(pattern: &str) -> Vec<Self> {
        let table = [
            (".indexOf(§, §)", Self::GoOffsets),
            (".lastIndexOf(§, §)", Self::GoOffsets),
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
            ("lists.range(§ % 6)", Self::CppNegativeRange),
        ];
        table.into_iter().filter(|(part, _)| pattern.contains(part)).map(|(_, quirk)| quirk).collect()
    }
}

/// An expression: fragments of source text with subtrees between them.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    pub(crate) sort: Sort,
    texts: Vec<String>,
    pub(crate) parts: Vec<Tree>,
    /// Quirks that exclude evaluators from expressions with this subtree.
    quirks: Vec<Quirk>,
}

impl Tree {
    pub(crate) fn leaf(sort: Sort, text: impl Into<String>) -> Self {
        Self { sort, texts: vec![text.into()], parts: Vec::new(), quirks: Vec::new() }
    }

    /// Creates a tree from a pattern with a `§` for each of the parts.
    pub(super) fn of(sort: Sort, pattern: &str, parts: Vec<Tree>) -> Self {
        let texts: Vec<_> = pattern.split('§').map(str::to_owned).collect();
        assert_eq!(texts.len(), parts.len() + 1, "{pattern}");
        Self { sort, texts, parts, quirks: Quirk::of_pattern(pattern) }
    }

    pub(super) fn without(mut self, quirk: Quirk) -> Self {
        self.quirks.push(quirk);
        self
    }

    /// Whether the expression is sent to an evaluator.
    pub(crate) fn is_for(&self, name: &str) -> bool {
        let is_sound = name != "cel-cpp" || !self.binds_beside_quantifier();
        is_sound
            && self.quirks.iter().all(|quirk| quirk.evaluator() != name)
            && self.parts.iter().all(|part| part.is_for(name))
    }

    /// Whether one part has a quantifier, and another one a bound variable.
    ///
    /// A quantifier of cel-cpp that is decided before the last element leaves the next element behind, and a later `cel.bind` takes it for
    /// the value of its variable: `[1, 2].exists(x, true) ? cel.bind(y, 'a', y) : ''` is 2. If one of the two is within the other, they use
    /// different slots. In the body of a loop, the quantifier may also be the second one.
    fn binds_beside_quantifier(&self) -> bool {
        let with = |is_wanted: fn(&Tree) -> bool| {
            let found = self.parts.iter().enumerate().filter(move |(_, part)| part.contains(is_wanted));
            found.map(|(at, _)| at).collect::<Vec<_>>()
        };
        let (quantifiers, bindings) = (with(Tree::is_quantifier), with(Tree::is_binding));
        // The macro `optMap` repeats the optional outside of its binding.
        let is_repeated = self.calls(&[".optMap(", ".optFlatMap("]) && quantifiers.contains(&0);
        is_repeated || quantifiers.iter().any(|at| bindings.iter().any(|other| other != at))
    }

    fn contains(&self, is_wanted: fn(&Tree) -> bool) -> bool {
        is_wanted(self) || self.parts.iter().any(|part| part.contains(is_wanted))
    }

    /// Whether it is a call of one of the methods.
    fn calls(&self, methods: &[&str]) -> bool {
        self.texts.get(1).is_some_and(|text| methods.iter().any(|method| text.starts_with(method)))
    }

    /// Whether it is a quantifier that may be decided before the last element.
    fn is_quantifier(&self) -> bool {
        self.calls(&[".all(", ".exists("])
    }

    /// Whether it is a `cel.bind`, or a macro that makes one.
    fn is_binding(&self) -> bool {
        self.texts[0].starts_with("cel.bind(") || self.calls(&[".optMap(", ".optFlatMap(", ".sortBy("])
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

    /// All trees in which one subtree is replaced by one of its descendants or by a plain value of its sort.
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

    pub(super) fn descendants<'t>(&'t self, found: &mut Vec<&'t Tree>) {
        for part in &self.parts {
            found.push(part);
            part.descendants(found);
        }
    }
}
