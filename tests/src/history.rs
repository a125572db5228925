//! What clients of a list saw, and whether one order explains it (linearizability; Herlihy, Wing, 1990).
//!
//! Items of a list are appended, each once, and the whole list is read. The list at the end is the order of the appends; a read of n items
//! stands behind the n-th. So there is one order to look at, and it explains what was seen if no call stands before one that had
//! ended when it began.

use std::collections::BTreeMap;
use std::time::Instant;

/// What was asked, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// An item was appended.
    Appended(String),
    /// It was not.
    NotAppended(String),
    /// Nobody knows.
    MayHaveAppended(String),
    /// The list was read.
    Read(Vec<String>),
}

/// One call.
#[derive(Debug, Clone)]
pub struct Call {
    /// When it began.
    pub begun: Instant,
    /// When its answer was there.
    pub ended: Instant,
    /// What came of it.
    pub seen: Seen,
}

/// Checks what was seen of a list against what it is at the end.
///
/// # Errors
/// The first thing that no order explains.
pub fn check(calls: &[Call], list: &[String]) -> Result<(), String> {
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for (place, item) in list.iter().enumerate() {
        if places.insert(item, place).is_some() {
            return Err(format!("`{item}` was appended twice"));
        }
    }
    let mut asked = 0;
    // Where each call stands: as many items are before it.
    let mut stands: Vec<(Instant, Option<Instant>, usize, String)> = Vec::new();
    for call in calls {
        let (place, ended, told) = match &call.seen {
            Seen::Appended(item) => match places.get(&**item) {
                Some(place) => (*place, Some(call.ended), format!("append of {item}")),
                None => return Err(format!("`{item}` was acknowledged and is lost")),
            },
            Seen::NotAppended(item) if places.contains_key(&**item) => {
                return Err(format!("`{item}` was refused and is there"));
            }
            Seen::NotAppended(_) => continue,
            Seen::MayHaveAppended(item) => match places.get(&**item) {
                Some(place) => (*place, None, format!("append of {item}")),
                None => continue,
            },
            Seen::Read(items) => {
                if !list.starts_with(items) {
                    return Err(format!("a read of {} items is not the list's beginning", items.len()));
                }
                stands.push((call.begun, Some(call.ended), items.len(), format!("read of {} items", items.len())));
                continue;
            }
        };
        asked += 1;
        stands.push((call.begun, ended, place, told));
    }
    if asked < list.len() {
        return Err(format!("{} items were never asked for", list.len() - asked));
    }
    // By time: what had ended when a call began stands before it.
    let is_append = |told: &str| told.starts_with("append");
    let mut ends: Vec<(Instant, usize, &str)> = stands
        .iter()
        .filter_map(|(_, ended, place, told)| Some(((*ended)?, place + usize::from(is_append(told)), told.as_str())))
        .collect();
    ends.sort_by_key(|(ended, ..)| *ended);
    let mut begins: Vec<_> = stands.iter().map(|(begun, _, place, told)| (*begun, *place, told.as_str())).collect();
    begins.sort_by_key(|(begun, ..)| *begun);
    let mut ended = ends.into_iter().peekable();
    let mut last = (0, "nothing");
    for (begun, place, told) in begins {
        while let Some((_, behind, of)) = ended.next_if(|(ended, ..)| *ended < begun) {
            last = last.max((behind, of));
        }
        if place < last.0 {
            return Err(format!("the {told} stands before the {}, which had ended when it began", last.1));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn calls(list: &[(u64, u64, Seen)]) -> Vec<Call> {
        let zero = Instant::now();
        let at = |millis: u64| zero + Duration::from_millis(millis);
        list.iter()
            .map(|(begun, ended, seen)| Call { begun: at(*begun), ended: at(*ended), seen: seen.clone() })
            .collect()
    }

    fn items(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn appended(item: &str) -> Seen {
        Seen::Appended(item.to_owned())
    }

    fn read(text: &str) -> Seen {
        Seen::Read(items(text))
    }

    #[test]
    fn what_one_order_explains_is_good() {
        let unknown = Seen::MayHaveAppended("c".to_owned());
        let refused = Seen::NotAppended("d".to_owned());
        let seen = [
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
        assert_eq!(check(&calls(&seen), &items("b a c")), Ok(()));
    }

    #[test]
    fn what_none_explains_is_told() {
        let cases: [(&[(u64, u64, Seen)], &str, &str); 8] = [
            (&[(0, 1, appended("a"))], "", "is lost"),
            (&[(0, 1, appended("a"))], "a a", "twice"),
            (&[(0, 1, Seen::NotAppended("a".to_owned()))], "a", "refused and is there"),
            (&[(0, 1, read("a"))], "b a", "not the list's beginning"),
            (&[(0, 1, read(""))], "a", "never asked for"),
            (&[(0, 1, appended("a")), (2, 3, appended("b"))], "b a", "stands before"),
            (&[(0, 1, appended("a")), (2, 3, read(""))], "a", "stands before"),
            (&[(0, 9, appended("a")), (2, 3, read("a")), (4, 5, read(""))], "a", "stands before"),
        ];
        for (seen, list, problem) in cases {
            let found = check(&calls(seen), &items(list)).expect_err(problem);
            assert!(found.contains(problem), "{found}");
        }
    }
}
