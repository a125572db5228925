//! The list of tests that are expected to fail, each with a reason.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crossdock_tests::repository;

use super::cases::Case;

/// The head of a new list.
const HEAD: &str = "\
# Tests of CEL's conformance suite that are expected to fail. First the reasons, each with a key; after the empty line, a line for each test,
# or for all tests of a file or section that is out of scope. `CROSSDOCK_BLESS=1` regenerates the lines of tests.
message: message literals are not supported; a map step builds messages
enumeration: enum values are strings in messages, and enum constants are not supported
unset: an unset field with presence is missing, while CEL reads its default
extension: proto2 extensions are fields like `m['[package.name]']`; `proto.getExt` is not supported
exact: numbers are compared exactly, while CEL converts them to doubles
whole: rounding functions accept integers too, as data may contain 5 or 5.0
declared: tests cannot declare functions
block: `cel.block` is written by optimizers, not by authors
network: there is no type for network addresses
";
/// Files that are out of scope.
const WHOLE: [(&str, &str); 3] = [("block_ext", "block"), ("network_ext", "network"), ("proto2_ext", "extension")];
/// The placeholder for a missing reason.
const OPEN: &str = "todo";
/// The reason of tests with message literals, and the error that they must give.
const MESSAGE: &str = "message";
const NO_MESSAGES: &str = "message literals are not supported";

/// A line of the list.
struct Line {
    reason: String,
    /// Whether it applies to a whole file or section.
    is_whole: bool,
}

/// The list of deviations.
pub(crate) struct Deviations {
    head: String,
    lines: BTreeMap<String, Line>,
}

fn path() -> PathBuf {
    repository().join("tests/tests/cel_conformance/deviations.txt")
}

impl Deviations {
    /// Reads the list.
    pub(crate) fn read() -> Self {
        let written = std::fs::read_to_string(path()).unwrap_or_else(|_| HEAD.to_owned());
        let (head, body) = written.split_once("\n\n").unwrap_or((written.trim_end(), ""));
        let mut lines = BTreeMap::new();
        for line in body.lines().filter(|line| !line.trim().is_empty()) {
            let (name, reason) = line.rsplit_once("  ").unwrap_or_else(|| panic!("{line}: no reason"));
            let line = Line { reason: reason.to_owned(), is_whole: name.ends_with("/*") };
            assert!(lines.insert(name.trim_end().to_owned(), line).is_none(), "{name} is listed twice");
        }
        let list = Self { head: head.to_owned(), lines };
        for (name, line) in &list.lines {
            let is_reason = line.reason == OPEN || list.keys().any(|key| key == line.reason);
            assert!(is_reason, "{name}: unknown reason {}", line.reason);
            let file = name.split('/').next().unwrap_or("");
            let may_be_whole = WHOLE.iter().any(|(whole, _)| *whole == file);
            assert!(!line.is_whole || may_be_whole, "{name}: the file is not out of scope");
        }
        list
    }

    fn keys(&self) -> impl Iterator<Item = &str> {
        let reasons = self.head.lines().filter(|line| !line.starts_with('#'));
        reasons.filter_map(|line| line.split_once(": ").map(|(key, _)| key))
    }

    /// The reason of a listed test.
    pub(crate) fn reason(&self, name: &str) -> Option<&str> {
        let (section, _) = name.rsplit_once('/')?;
        let (file, _) = name.split_once('/')?;
        let whole = [format!("{file}/*"), format!("{section}/*")];
        let line = self.lines.get(name).or_else(|| whole.iter().find_map(|name| self.lines.get(name)));
        line.map(|line| line.reason.as_str())
    }

    /// Lines that match no failing test.
    pub(crate) fn stale(&self, failing: &[&str]) -> Vec<&str> {
        let fails = |name: &str| match name.strip_suffix('*') {
            Some(start) => failing.iter().any(|failed| failed.starts_with(start)),
            None => failing.contains(&name),
        };
        self.lines.keys().map(String::as_str).filter(|name| !fails(name)).collect()
    }

    /// Whether a listed test has a reason that is consistent with its actual result.
    pub(crate) fn has_valid_reason(&self, name: &str, actual: &str) -> bool {
        match self.reason(name) {
            Some(OPEN) => false,
            Some(MESSAGE) => actual.contains(NO_MESSAGES),
            _ => true,
        }
    }

    /// The number of failing tests per reason, formatted.
    pub(crate) fn count(&self, failing: &[&str]) -> Vec<String> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for name in failing {
            *counts.entry(self.reason(name).unwrap_or("not listed")).or_default() += 1;
        }
        counts.into_iter().map(|(reason, count)| format!("{reason} {count}")).collect()
    }

    /// Rewrites the list for the failing tests and their actual results; valid reasons are kept.
    pub(crate) fn bless<'c>(&mut self, failing: impl Iterator<Item = (&'c Case, &'c str)>) {
        let mut lines: BTreeMap<String, Line> = BTreeMap::new();
        for (case, actual) in failing {
            let file = case.file();
            if let Some((_, reason)) = WHOLE.iter().find(|(whole, _)| *whole == file) {
                lines.insert(format!("{file}/*"), Line { reason: (*reason).to_owned(), is_whole: true });
                continue;
            }
            let reason = self.lines.get(&case.name).filter(|_| self.has_valid_reason(&case.name, actual));
            let reason = reason.map_or_else(|| default_reason(actual).to_owned(), |line| line.reason.clone());
            lines.insert(case.name.clone(), Line { reason, is_whole: false });
        }
        self.lines = lines;
        let body: String = self.lines.iter().map(|(name, line)| format!("{name}  {}\n", line.reason)).collect();
        std::fs::write(path(), format!("{}\n\n{body}", self.head)).expect("the list is written");
    }
}

/// The reason that follows from the actual result.
fn default_reason(actual: &str) -> &'static str {
    if actual.contains(NO_MESSAGES) { MESSAGE } else { OPEN }
}
