//! Divides the entries with `cluster: partitioned` of each route among the instances that read them.
//!
//! Each instance holds a lock that all readers of a route share; its holders are the members. All of them compute the same assignment
//! from the members and the entries. It only says who competes for an entry: that one instance reads it at a time is up to the lock of the
//! entry, so that no harm is done while two instances see other members.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossdock_coordination::{Lock, Mode, SessionId, View, hash_of, hex_of};
use crossdock_embedded::{Engine, LockRequest, Wait};
use crossdock_message::ByteString;
use crossdock_routing::RoutePlan;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

/// Interval between two looks at the members.
const INTERVAL: Duration = Duration::from_millis(250);

/// The names of the locks that this instance is to compete for.
pub(super) type Assigned = BTreeSet<ByteString>;

/// The entries of a route that are divided, in the order of their names.
type Entries = Arc<[ByteString]>;

/// What is divided, of all routes.
pub(super) struct Partitions {
    groups: Mutex<BTreeMap<(ByteString, Entries), AbortOnDropHandle<()>>>,
    assigned: watch::Sender<Assigned>,
}

impl Default for Partitions {
    fn default() -> Self {
        Self { groups: Mutex::default(), assigned: watch::Sender::new(Assigned::new()) }
    }
}

impl Partitions {
    /// Takes part in the division of the entries of these routes, and of no others. Must be called on a local task set.
    pub(super) fn divide<'r>(
        &self,
        engine: Option<&Engine>,
        routes: impl IntoIterator<Item = &'r RoutePlan>,
    ) -> watch::Receiver<Assigned> {
        let group = |route: &RoutePlan| {
            let entries: BTreeSet<_> = route.partitions().cloned().collect();
            (!entries.is_empty()).then(|| (route.name.clone(), Entries::from_iter(entries)))
        };
        let wanted: BTreeSet<_> = routes.into_iter().filter_map(group).collect();
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        groups.retain(|group, _| wanted.contains(group));
        let entries: BTreeSet<_> = wanted.iter().flat_map(|(_, entries)| entries.iter()).cloned().collect();
        self.assigned.send_if_modified(|assigned| {
            let before = assigned.len();
            assigned.retain(|entry| entries.contains(entry));
            assigned.len() != before
        });
        let Some(engine) = engine else { return self.assigned.subscribe() };
        for group in wanted {
            groups.entry(group).or_insert_with_key(|(route, entries)| {
                let task = take_part(engine.clone(), route.clone(), Arc::clone(entries), self.assigned.clone());
                AbortOnDropHandle::new(actix_rt::spawn(task))
            });
        }
        self.assigned.subscribe()
    }
}

/// Is a member of the readers of a route, and follows what is assigned to it.
async fn take_part(engine: Engine, route: ByteString, entries: Entries, assigned: watch::Sender<Assigned>) {
    let lock = format!("readers {}", shortened(&route));
    // Instances with other entries, as during a reload, are not members: they divide those among themselves.
    let metadata = digest(&entries.join("\n"));
    let request = LockRequest { metadata: metadata.clone(), ..LockRequest::new(&lock, Mode::Shared, Wait::Forever) };
    loop {
        let held = match engine.acquire(&request).await {
            Ok(held) => held,
            Err(problem) => {
                tracing::debug!(%route, %problem, "cannot take part in reading partitioned entries; retrying");
                sleep(INTERVAL).await;
                continue;
            }
        };
        let own = held.id().session;
        while held.validity().holds() {
            let members = members(&engine.view(), &lock, &metadata);
            if let Some(own) = members.iter().position(|(session, _)| *session == own) {
                let labels: Vec<_> = members.iter().map(|(_, label)| &**label).collect();
                let members = assign(&entries, &labels);
                assigned.send_if_modified(|assigned| {
                    let change = |(entry, member): (&ByteString, usize)| {
                        if member == own { assigned.insert(entry.clone()) } else { assigned.remove(entry) }
                    };
                    entries.iter().zip(members).map(change).filter(|is_changed| *is_changed).count() > 0
                });
            }
            sleep(INTERVAL).await;
        }
        tracing::info!(%route, "this instance is not among the readers of partitioned entries any more; joining again");
    }
}

/// The members with these entries, oldest first, and their labels.
fn members(view: &View, lock: &str, metadata: &str) -> Vec<(SessionId, Arc<str>)> {
    let holders = view.locks.get(lock).into_iter().flat_map(Lock::holders);
    let members = holders.filter_map(|(id, _)| {
        let request = view.locks.request(id).filter(|request| *request.metadata == *metadata)?;
        let label = Arc::clone(&view.sessions.get(id.session)?.label);
        request.token().map(|_| (id.session, label))
    });
    let by_session: BTreeMap<_, _> = members.collect();
    by_session.into_iter().collect()
}

/// The member of each entry. The numbers of entries of two members differ by at most one, and a member that joins or leaves moves few
/// entries: each has an order of preference, by a hash.
fn assign(entries: &[ByteString], members: &[&str]) -> Vec<usize> {
    let mut preferences = Vec::with_capacity(entries.len() * members.len());
    for (entry, name) in entries.iter().enumerate() {
        for (member, label) in members.iter().enumerate() {
            preferences.push((hash_of(format!("{label}\n{name}").as_bytes()), entry, member));
        }
    }
    preferences.sort_unstable();
    let (least, mut larger) = (entries.len() / members.len().max(1), entries.len() % members.len().max(1));
    let mut counts = vec![0; members.len()];
    let mut assigned = vec![None; entries.len()];
    for (_, entry, member) in preferences {
        if assigned[entry].is_some() || counts[member] > least || counts[member] == least && larger == 0 {
            continue;
        }
        larger -= usize::from(counts[member] == least);
        counts[member] += 1;
        assigned[entry] = Some(member);
    }
    assigned.into_iter().map(Option::unwrap_or_default).collect()
}

/// A part of the name of a lock, or a digest of it if it is too long.
fn shortened(name: &str) -> String {
    if name.len() <= 200 { name.to_owned() } else { digest(name) }
}

fn digest(text: &str) -> String {
    hex_of(&hash_of(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(count: usize) -> Vec<ByteString> {
        (0..count).map(|at| format!("entry broker/orders.{at}").into()).collect()
    }

    #[test]
    fn entries_are_divided_evenly_and_few_are_moved() {
        let labels = ["instance 1", "instance 2", "instance 3", "instance 4"];
        for count in [1, 2, 3, 7, 8, 16, 61] {
            let entries = entries(count);
            for members in 1..=4 {
                let assigned = assign(&entries, &labels[..members]);
                let of = |member| assigned.iter().filter(|of| **of == member).count();
                let counts: Vec<_> = (0..members).map(of).collect();
                let (most, least) = (counts.iter().max(), counts.iter().min());
                assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 1), "{counts:?}");
            }
        }
        let entries = entries(60);
        let (three, four) = (assign(&entries, &labels[..3]), assign(&entries, &labels));
        let moved = three.iter().zip(&four).filter(|(before, after)| before != after).count();
        assert!((15..=25).contains(&moved), "{moved} of 60 entries are moved, 15 have to be");
    }
}
