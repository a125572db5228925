//! Finds cycles of dead letter queues. Pure.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crossdock_ports::{EntryFinding, EntrySpec};

use super::{Entry, RejectPolicy};

/// One finding for each cycle, at its first entry. Queues with the same name on different listeners count as different queues: if both belong to one
/// broker, the cycle is only detected at run time, by `crossdock-hops`.
pub(crate) fn find(entries: &[&Arc<dyn EntrySpec>]) -> Vec<EntryFinding> {
    let mut next: HashMap<(&str, &str), (usize, &str)> = HashMap::new();
    for (number, entry) in entries.iter().enumerate() {
        let Some(entry) = entry.as_any().downcast_ref::<Entry>() else { continue };
        if let RejectPolicy::DeadLetter(dead) = &entry.reject_policy {
            let listener: &str = &entry.listener;
            next.entry((listener, entry.queue.as_str())).or_insert((number, dead.as_str()));
        }
    }
    let mut reported: HashSet<(&str, &str)> = HashSet::new();
    let mut starts: Vec<_> = next.iter().map(|(from, (number, _))| (*number, *from)).collect();
    starts.sort_unstable();
    let mut findings = Vec::new();
    for (number, (listener, start)) in starts {
        let mut path = vec![start];
        while let Some((_, dead)) = path.last().and_then(|queue| next.get(&(listener, *queue))) {
            if path.contains(dead) {
                break;
            }
            path.push(dead);
        }
        let last = path.last().and_then(|queue| next.get(&(listener, *queue)));
        if last.is_none_or(|(_, dead)| *dead != start) || reported.contains(&(listener, start)) {
            continue;
        }
        reported.extend(path.iter().map(|queue| (listener, *queue)));
        path.push(start);
        let path = path.iter().map(|queue| format!("`{queue}`")).collect::<Vec<_>>().join(" to ");
        findings.push(EntryFinding {
            entry: number,
            message: format!("dead letter queues form a cycle: {path}"),
            help: "name a dead letter queue that no route consumes, or one whose route dead-letters to another queue"
                .to_owned(),
        });
    }
    findings
}
