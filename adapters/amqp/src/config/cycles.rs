//! Dead letter queues whose messages come back to the queue that they were set aside from. Pure.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crossdock_adapter_api::{EntryFinding, EntrySpec};

use super::{Entry, Rejected};

/// One finding for each cycle, at the first of its entries. Queues of one name on two listeners are two queues here: where both are
/// one broker's, only the count of hops at run time shows the cycle.
pub(crate) fn find(entries: &[&Arc<dyn EntrySpec>]) -> Vec<EntryFinding> {
    let mut next: HashMap<(&str, &str), (usize, &str)> = HashMap::new();
    for (number, entry) in entries.iter().enumerate() {
        let Some(entry) = entry.as_any().downcast_ref::<Entry>() else { continue };
        if let Rejected::DeadLetter(dead) = &entry.rejected {
            let listener: &str = &entry.listener;
            next.entry((listener, entry.queue.as_str())).or_insert((number, dead.as_str()));
        }
    }
    let mut reported: HashSet<(&str, &str)> = HashSet::new();
    let mut starts: Vec<_> = next.iter().map(|(from, (number, _))| (*number, *from)).collect();
    starts.sort_unstable();
    let mut findings = Vec::new();
    for (number, (listener, start)) in starts {
        let mut way = vec![start];
        while let Some((_, dead)) = way.last().and_then(|queue| next.get(&(listener, *queue))) {
            if way.contains(dead) {
                break;
            }
            way.push(dead);
        }
        let last = way.last().and_then(|queue| next.get(&(listener, *queue)));
        if last.is_none_or(|(_, dead)| *dead != start) || reported.contains(&(listener, start)) {
            continue;
        }
        reported.extend(way.iter().map(|queue| (listener, *queue)));
        way.push(start);
        let way = way.iter().map(|queue| format!("`{queue}`")).collect::<Vec<_>>().join(" to ");
        findings.push(EntryFinding {
            entry: number,
            message: format!("messages that fail go round in a circle: {way}"),
            help:
                "name a dead letter queue that no route consumes, or one whose route sets its failures aside elsewhere"
                    .to_owned(),
        });
    }
    findings
}
