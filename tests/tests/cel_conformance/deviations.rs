//! The list of tests that fail, each with its reason.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crossdock_tests::repository;

use super::cases::Case;

/// What the list begins with where there is none yet.
const HEAD: &str = "\
# Tests of CEL's conformance suite that fail, and why. First the reasons, each a key and a sentence; behind the empty line a line for each
# test, or for all tests of a file or section that is out of scope. `CROSSDOCK_BLESS=1` writes the lines of tests anew.
message: messages of a type are not built in expressions; a map makes one
enumeration: values of enumerations are texts in messages, and have no constants
unset: a field with presence that is not set is missing, where CEL reads its default
extension: extensions of proto2 are fields like `m['[package.name]']`, and are not read by `proto.getExt`
exact: numbers are compared exactly, where CEL goes through doubles
whole: rounding takes whole numbers too, as data may say 5 or 5.0
declared: functions cannot be declared by a test
block: `cel.block` is what an optimizer writes, not an author
network: addresses of networks have no type of their own
";
/// Files that are out of scope.
const WHOLE: [(&str, &str); 3] = [("block_ext", "block"), ("network_ext", "network"), ("proto2_ext", "extension")];
/// The reason of a test that nobody has looked at, which stands for none.
const OPEN: &str = "todo";
/// The reason of tests that build messages, and what is said of them.
const MESSAGE: &str = "message";
const NO_MESSAGES: &str = "message literals are not supported";

/// One line.
struct Line {
    reason: String,
    /// It is a file's or a section's.
    is_whole: bool,
}

/// The list.
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
            assert!(is_reason, "{name}: no reason is called {}", line.reason);
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

    /// The reason of a test that is listed.
    pub(crate) fn reason(&self, name: &str) -> Option<&str> {
        let (section, _) = name.rsplit_once('/')?;
        let (file, _) = name.split_once('/')?;
        let whole = [format!("{file}/*"), format!("{section}/*")];
        let line = self.lines.get(name).or_else(|| whole.iter().find_map(|name| self.lines.get(name)));
        line.map(|line| line.reason.as_str())
    }

    /// Lines that no failing test stands in.
    pub(crate) fn stale(&self, failing: &[&str]) -> Vec<&str> {
        let fails = |name: &str| match name.strip_suffix('*') {
            Some(start) => failing.iter().any(|failed| failed.starts_with(start)),
            None => failing.contains(&name),
        };
        self.lines.keys().map(String::as_str).filter(|name| !fails(name)).collect()
    }

    /// Whether a test that is listed has a reason that fits what came.
    pub(crate) fn is_reasoned(&self, name: &str, got: &str) -> bool {
        match self.reason(name) {
            Some(OPEN) => false,
            Some(MESSAGE) => got.contains(NO_MESSAGES),
            _ => true,
        }
    }

    /// How many of those tests fail for each reason, as it is told.
    pub(crate) fn count(&self, failing: &[&str]) -> Vec<String> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for name in failing {
            *counts.entry(self.reason(name).unwrap_or("not listed")).or_default() += 1;
        }
        counts.into_iter().map(|(reason, count)| format!("{reason} {count}")).collect()
    }

    /// Writes the list of those tests, each with what came; a reason that is given and fits stays.
    pub(crate) fn bless<'c>(&mut self, failing: impl Iterator<Item = (&'c Case, &'c str)>) {
        let mut lines: BTreeMap<String, Line> = BTreeMap::new();
        for (case, got) in failing {
            let file = case.file();
            if let Some((_, reason)) = WHOLE.iter().find(|(whole, _)| *whole == file) {
                lines.insert(format!("{file}/*"), Line { reason: (*reason).to_owned(), is_whole: true });
                continue;
            }
            let reason = self.lines.get(&case.name).filter(|_| self.is_reasoned(&case.name, got));
            let reason = reason.map_or_else(|| reason_of(got).to_owned(), |line| line.reason.clone());
            lines.insert(case.name.clone(), Line { reason, is_whole: false });
        }
        self.lines = lines;
        let body: String = self.lines.iter().map(|(name, line)| format!("{name}  {}\n", line.reason)).collect();
        std::fs::write(path(), format!("{}\n\n{body}", self.head)).expect("the list is written");
    }
}

/// The reason that a test shows by itself.
fn reason_of(got: &str) -> &'static str {
    if got.contains(NO_MESSAGES) { MESSAGE } else { OPEN }
}
