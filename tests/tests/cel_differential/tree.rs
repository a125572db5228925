//! Expressions as trees of texts, and what evaluators do in a way of their own.

use crate::values::Sort;

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
            | Self::CppExtremesOfNaN => "cel-cpp",
            Self::GoPlaces | Self::GoTimeText | Self::GoDurationParts | Self::GoDurationText => "cel-go",
        }
    }

    /// What a call is not like, whatever its arguments.
    pub(super) fn of_pattern(pattern: &str) -> Vec<Self> {
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
    pub(super) fn of(sort: Sort, pattern: &str, parts: Vec<Tree>) -> Self {
        let texts: Vec<_> = pattern.split('§').map(str::to_owned).collect();
        assert_eq!(texts.len(), parts.len() + 1, "{pattern}");
        Self { sort, texts, parts, unlike: Unlike::of_pattern(pattern) }
    }

    pub(super) fn without(mut self, unlike: Unlike) -> Self {
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

    pub(super) fn descendants<'t>(&'t self, found: &mut Vec<&'t Tree>) {
        for part in &self.parts {
            found.push(part);
            part.descendants(found);
        }
    }
}
