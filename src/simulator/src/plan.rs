//! Plans: a run as text, with its seed, the injected bug, and the parts of the world that are left out.
//!
//! ```text
//! # agreement: 2:1 is delivered where others delivered 1:4
//! seed 667
//! rule AckEpochBeforeFsync
//! without late, together
//! only 3, 17-29
//! ```

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crossdock_zab::InjectedBug;

/// A run: a seed, an injected bug, and what is left out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// The source of all randomness.
    pub seed: u64,
    /// The injected bug.
    pub rule: Option<InjectedBug>,
    /// Parts of the world that are left out.
    pub without: BTreeSet<Part>,
    /// The numbers of the faults and requests to keep; all if `None`.
    pub only: Option<BTreeSet<u32>>,
}

/// A property of the world that can be left out of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Inputs are batched.
    Together,
    /// Writes are reported late.
    Late,
    /// Clocks drift.
    Drift,
    /// High network latency.
    Latency,
    /// High disk latency.
    Disk,
    /// Limited bandwidth.
    Bandwidth,
    /// Elections choose an arbitrary leader.
    Chaos,
    /// An observer.
    Observers,
    /// Two servers stay disconnected after the faults.
    Apart,
    /// Servers send bogus numbers.
    Lies,
    /// The servers are new, and form a cluster.
    Forming,
    /// Voters are added and removed, and lost logs come back.
    Members,
    /// After the faults, few servers reach one another, but one of them reaches a quorum.
    Sparse,
}

impl Part {
    /// All parts.
    pub const ALL: [Self; 13] = [
        Self::Together,
        Self::Late,
        Self::Drift,
        Self::Latency,
        Self::Disk,
        Self::Bandwidth,
        Self::Chaos,
        Self::Observers,
        Self::Apart,
        Self::Lies,
        Self::Sparse,
        Self::Forming,
        Self::Members,
    ];

    fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

impl Plan {
    /// The full run of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// The same run with an injected bug.
    #[must_use]
    pub fn with_bug(self, rule: InjectedBug) -> Self {
        Self { rule: Some(rule), ..self }
    }

    pub(crate) fn has(&self, number: u32) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(&number))
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}", self.seed)?;
        if let Some(rule) = self.rule {
            writeln!(f, "rule {rule:?}")?;
        }
        if !self.without.is_empty() {
            let names: Vec<_> = self.without.iter().map(|part| part.name()).collect();
            writeln!(f, "without {}", names.join(", "))?;
        }
        if let Some(only) = &self.only {
            writeln!(f, "only {}", ranges(only).join(", "))?;
        }
        Ok(())
    }
}

impl FromStr for Plan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut plan = Self::default();
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        for line in lines {
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            let list = || value.split(',').map(str::trim).filter(|item| !item.is_empty());
            match key {
                "seed" => plan.seed = value.parse().map_err(|_| format!("`{value}` is not a seed"))?,
                "rule" => plan.rule = Some(rule(value).ok_or_else(|| format!("unknown rule `{value}`"))?),
                "without" => {
                    let part = |name: &str| Part::ALL.into_iter().find(|part| part.name() == name);
                    let parts = list().map(|name| part(name).ok_or_else(|| format!("unknown part `{name}`")));
                    plan.without = parts.collect::<Result<_, _>>()?;
                }
                "only" => plan.only = Some(numbers(list())?),
                _ => return Err(format!("unknown key `{key}`: must be seed, rule, without or only")),
            }
        }
        Ok(plan)
    }
}

/// Formats each run of consecutive numbers as `4` or `4-7`.
fn ranges(numbers: &BTreeSet<u32>) -> Vec<String> {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for number in numbers.iter().copied() {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let text = |(first, last): (u32, u32)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    runs.into_iter().map(text).collect()
}

fn numbers<'a>(items: impl Iterator<Item = &'a str>) -> Result<BTreeSet<u32>, String> {
    let mut numbers = BTreeSet::new();
    for item in items {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        let number = |text: &str| text.parse::<u32>().map_err(|_| format!("`{item}` is neither a number nor a range"));
        numbers.extend(number(first)?..=number(last)?);
    }
    Ok(numbers)
}

/// The injected bug with that name.
#[must_use]
pub fn rule(name: &str) -> Option<InjectedBug> {
    InjectedBug::ALL.into_iter().find(|rule| format!("{rule:?}") == name)
}

#[cfg(test)]
mod tests {
    use super::{Part, Plan};
    use crossdock_zab::InjectedBug;

    #[test]
    fn a_plan_is_the_text_that_it_is_written_as() {
        let mut plan = Plan::of(17).with_bug(InjectedBug::KeepHalfSync);
        plan.without = [Part::Late, Part::Chaos].into();
        plan.only = Some([4, 5, 6, 9, 1 << 20].into());
        assert_eq!(plan.to_string(), "seed 17\nrule KeepHalfSync\nwithout late, chaos\nonly 4-6, 9, 1048576\n");
        assert_eq!(plan.to_string().parse(), Ok(plan));
        assert_eq!("# why\nseed 3\n".parse(), Ok(Plan::of(3)));
        assert_eq!("only 3-x".parse::<Plan>(), Err("`3-x` is neither a number nor a range".to_owned()));
        assert_eq!("seed x".parse::<Plan>(), Err("`x` is not a seed".to_owned()));
    }
}
