//! Linearizability check (Herlihy, Wing, 1990) for a list to which items are appended.
//!
//! Each item is appended at most once, and reads return the whole list. The final list is the order of the appends, and a read of n items
//! comes directly after the n-th. That leaves one order to check: it is a linearization if no call precedes one that had ended before it
//! began.

use std::collections::BTreeMap;
use std::time::Instant;

/// An operation and its outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The item was appended.
    Appended(String),
    /// The item was not appended.
    NotAppended(String),
    /// It is unknown whether the item was appended.
    MayHaveAppended(String),
    /// The list had these items.
    Read(Vec<String>),
}

/// One call.
#[derive(Debug, Clone)]
pub struct Call {
    /// When it began.
    pub begun: Instant,
    /// When its answer arrived.
    pub ended: Instant,
    /// The operation and its outcome.
    pub outcome: Outcome,
}

/// Checks a history against the final list.
///
/// # Errors
/// Describes the first violation.
pub fn check(calls: &[Call], list: &[String]) -> Result<(), String> {
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for (place, item) in list.iter().enumerate() {
        if places.insert(item, place).is_some() {
            return Err(format!("`{item}` was appended twice"));
        }
    }
    let mut explained = 0;
    // Begin, end, number of preceding items and description of each call.
    let mut positions: Vec<(Instant, Option<Instant>, usize, String)> = Vec::new();
    for call in calls {
        let (place, ended, description) = match &call.outcome {
            Outcome::Appended(item) => match places.get(&**item) {
                Some(place) => (*place, Some(call.ended), format!("append of {item}")),
                None => return Err(format!("`{item}` was acknowledged but is lost")),
            },
            Outcome::NotAppended(item) if places.contains_key(&**item) => {
                return Err(format!("`{item}` was refused but is in the list"));
            }
            Outcome::NotAppended(_) => continue,
            Outcome::MayHaveAppended(item) => match places.get(&**item) {
                Some(place) => (*place, None, format!("append of {item}")),
                None => continue,
            },
            Outcome::Read(items) => {
                if !list.starts_with(items) {
                    return Err(format!("a read of {} items is not a prefix of the list", items.len()));
                }
                positions.push((call.begun, Some(call.ended), items.len(), format!("read of {} items", items.len())));
                continue;
            }
        };
        explained += 1;
        positions.push((call.begun, ended, place, description));
    }
    if explained < list.len() {
        return Err(format!("{} items were never appended by a client", list.len() - explained));
    }
    // Ordered by time: calls that had ended before a call began must precede it.
    let is_append = |description: &str| description.starts_with("append");
    let mut ends: Vec<(Instant, usize, &str)> = positions
        .iter()
        .filter_map(|(_, ended, place, description)| {
            Some(((*ended)?, place + usize::from(is_append(description)), description.as_str()))
        })
        .collect();
    ends.sort_by_key(|(ended, ..)| *ended);
    let mut begins: Vec<_> =
        positions.iter().map(|(begun, _, place, description)| (*begun, *place, description.as_str())).collect();
    begins.sort_by_key(|(begun, ..)| *begun);
    let mut ended = ends.into_iter().peekable();
    let mut last = (0, "nothing");
    for (begun, place, description) in begins {
        while let Some((_, behind, earlier)) = ended.next_if(|(ended, ..)| *ended < begun) {
            last = last.max((behind, earlier));
        }
        if place < last.0 {
            return Err(format!("the {description} precedes the {}, which had ended when it began", last.1));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn calls(list: &[(u64, u64, Outcome)]) -> Vec<Call> {
        let zero = Instant::now();
        let at = |millis: u64| zero + Duration::from_millis(millis);
        list.iter()
            .map(|(begun, ended, outcome)| Call { begun: at(*begun), ended: at(*ended), outcome: outcome.clone() })
            .collect()
    }

    fn items(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn appended(item: &str) -> Outcome {
        Outcome::Appended(item.to_owned())
    }

    fn read(text: &str) -> Outcome {
        Outcome::Read(items(text))
    }

    #[test]
    fn a_linearizable_history_is_accepted() {
        let unknown = Outcome::MayHaveAppended("c".to_owned());
        let refused = Outcome::NotAppended("d".to_owned());
        let history = [
            (0, 10, appended("a")),
            (0, 10, appended("b")),
            (5, 6, read("b")),
            (5, 20, read("")),
            (11, 12, read("b a")),
            (13, 14, unknown),
            (50, 60, read("b a")),
            (70, 80, read("b a c")),
            (15, 16, refused),
        ];
        assert_eq!(check(&calls(&history), &items("b a c")), Ok(()));
    }

    #[test]
    fn violations_are_reported() {
        let cases: [(&[(u64, u64, Outcome)], &str, &str); 8] = [
            (&[(0, 1, appended("a"))], "", "is lost"),
            (&[(0, 1, appended("a"))], "a a", "twice"),
            (&[(0, 1, Outcome::NotAppended("a".to_owned()))], "a", "refused but is in the list"),
            (&[(0, 1, read("a"))], "b a", "not a prefix of the list"),
            (&[(0, 1, read(""))], "a", "never appended by a client"),
            (&[(0, 1, appended("a")), (2, 3, appended("b"))], "b a", "precedes"),
            (&[(0, 1, appended("a")), (2, 3, read(""))], "a", "precedes"),
            (&[(0, 9, appended("a")), (2, 3, read("a")), (4, 5, read(""))], "a", "precedes"),
        ];
        for (history, list, problem) in cases {
            let found = check(&calls(history), &items(list)).expect_err(problem);
            assert!(found.contains(problem), "{found}");
        }
    }
}
