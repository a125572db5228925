//! The partitions that this member of the group owns.
//!
//! A settlement checks that its partition is still owned and stores the offset under one lock, so that a late one stores nothing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossdock_ports::SourceStatus;
use tokio_util::sync::CancellationToken;

use super::prefix::{Position, Prefix};

/// A partition with records from which none arrives for this time is reported.
const SILENCE_TIME: Duration = Duration::from_secs(30);
/// After this time, the client is replaced: some versions of librdkafka stop to fetch from a partition and never begin again.
const STALL_TIME: Duration = Duration::from_secs(60);
/// The end of a partition about which the client tells nothing is asked for after this time.
const UNKNOWN_TIME: Duration = Duration::from_secs(10);
/// The most partitions whose ends are asked for at once.
const QUESTIONS_MAX: usize = 50;

/// How long records in process, and those before them, may take after their partition is revoked. The group cannot continue before they end.
pub(super) const FINISH_TIME: Duration = Duration::from_secs(3);

/// The next number of an assignment, unique within the process.
static NEXT_NUMBER: AtomicU64 = AtomicU64::new(1);

/// A topic and a partition.
pub(super) type PartitionId = (Arc<str>, i32);

/// The memory of received records of a member, in bytes, from which on each partition has an equal share of it. All of them together use at most
/// twice as much.
const RECEIVED_LEN_MAX: usize = 128 << 20;
/// It is at most this fraction of the memory for bodies of the process.
const BODIES_DIVISOR: usize = 4;

/// The owned partitions.
#[derive(Debug, Default)]
pub(super) struct Assignment(Mutex<Owned>);

#[derive(Debug, Default)]
struct Owned {
    partitions: HashMap<PartitionId, Partition>,
    /// No record starts to be processed any more, of no partition.
    is_stopping: bool,
}

/// An owned partition.
#[derive(Debug)]
pub(super) struct Partition {
    /// Distinguishes this assignment of the partition from earlier ones.
    number: u64,
    prefix: Prefix,
    window: Window,
    /// Cancelled when the partition is being revoked, or the member stops.
    stop: CancellationToken,
    /// Until when records before the last one that began may still begin, once `stop` is cancelled.
    finish_until: Option<Instant>,
    /// The last record that began to be processed.
    begun: Option<i64>,
    /// Admitted records that did not end.
    active: usize,
    is_paused: bool,
    /// The highest known end of its log.
    end: Option<i64>,
    lag: Option<u64>,
    /// When a record arrived, or the partition was assigned.
    received_at: Instant,
    is_silent: bool,
}

/// The limits of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    /// Records from the first one that is not settled to the last one that is being processed.
    pub(super) count_max: usize,
    /// Bytes of records that were received and are not settled.
    pub(super) len_max: usize,
}

impl Window {
    /// Holds one record at a time, for a topic whose entry is not known.
    pub(super) const SINGLE: Self = Self { count_max: 1, len_max: 1 };
}

/// What is said about a subscribed topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subscription {
    /// The limits of its partitions.
    pub(super) window: Window,
    /// Its absence is an error.
    pub(super) must_exist: bool,
}

/// What is known about the log of a partition.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    /// The committed offset, or the start of the log.
    pub(super) start: Option<i64>,
    /// The next offset to fetch. It is also behind control records, such as those of transactions, which never arrive.
    pub(super) next: Option<i64>,
    /// The end, up to which records can be read.
    pub(super) end: Option<i64>,
}

/// Identifies a received record.
#[derive(Debug, Clone)]
pub(super) struct RecordId {
    pub(super) partition: PartitionId,
    /// The number of the assignment under which it was received.
    pub(super) assignment: u64,
    pub(super) offset: i64,
}

/// A record that was just received.
#[derive(Debug)]
pub(super) struct ReceivedId {
    pub(super) record: RecordId,
    /// Cancelled when its partition is being revoked.
    pub(super) stop: CancellationToken,
    /// The partition has no room for more.
    pub(super) is_full: bool,
}

impl Partition {
    fn new(window: Window) -> Self {
        Self {
            number: NEXT_NUMBER.fetch_add(1, Ordering::Relaxed),
            prefix: Prefix::new(window.count_max, window.len_max),
            window,
            stop: CancellationToken::new(),
            finish_until: None,
            begun: None,
            active: 0,
            is_paused: false,
            end: None,
            lag: None,
            received_at: Instant::now(),
            is_silent: false,
        }
    }

    /// No record is admitted any more. For this time, records before the last one that began may begin, so that no settled one is redelivered.
    fn stop(&mut self, finish_time: Duration) {
        self.finish_until.get_or_insert(Instant::now() + finish_time);
        self.stop.cancel();
    }

    fn may_begin(&self, offset: i64) -> bool {
        let is_gap = || self.begun.is_some_and(|begun| offset < begun);
        !self.stop.is_cancelled() || (is_gap() && self.finish_until.is_some_and(|until| Instant::now() < until))
    }
}

impl Owned {
    /// The partition of a record, if it is still owned under the assignment under which the record was received.
    fn owned(&mut self, record: &RecordId) -> Option<&mut Partition> {
        self.partitions.get_mut(&record.partition).filter(|partition| partition.number == record.assignment)
    }
}

impl Assignment {
    fn lock(&self) -> MutexGuard<'_, Owned> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A partition was assigned.
    pub(super) fn add(&self, id: PartitionId, window: Window) {
        let mut partition = Partition::new(window);
        let mut owned = self.lock();
        if owned.is_stopping {
            partition.stop(Duration::ZERO);
        }
        if let Some(old) = owned.partitions.insert(id, partition) {
            old.stop.cancel();
        }
    }

    /// No record is admitted any more, of the owned partitions and of those that are still assigned.
    pub(super) fn stop(&self) {
        let mut owned = self.lock();
        owned.is_stopping = true;
        owned.partitions.values_mut().for_each(|partition| partition.stop(FINISH_TIME));
    }

    /// Whether [`Assignment::stop`] was called.
    pub(super) fn is_stopping(&self) -> bool {
        self.lock().is_stopping
    }

    /// Whether [`Assignment::stop`] was called, and all admitted records have ended.
    pub(super) fn is_stopped(&self) -> bool {
        let owned = self.lock();
        owned.is_stopping && owned.partitions.values().all(|partition| partition.active == 0)
    }

    /// Whether the partition of a record is still owned.
    pub(super) fn is_owned(&self, record: &RecordId) -> bool {
        self.lock().owned(record).is_some()
    }

    /// Whether a partition of a topic is owned.
    pub(super) fn owns_topic(&self, topic: &str) -> bool {
        self.lock().partitions.keys().any(|(owned, _)| **owned == *topic)
    }

    /// Partitions are being revoked: none of their records is admitted any more. Those before the last one that began may begin within this time.
    pub(super) fn begin_revocation<'i>(&self, ids: impl IntoIterator<Item = &'i PartitionId>, finish_time: Duration) {
        let mut owned = self.lock();
        for id in ids {
            if let Some(partition) = owned.partitions.get_mut(id) {
                partition.stop(finish_time);
            }
        }
    }

    /// Whether all admitted records of these partitions have ended.
    pub(super) fn is_drained<'i>(&self, ids: impl IntoIterator<Item = &'i PartitionId>) -> bool {
        let owned = self.lock();
        ids.into_iter().filter_map(|id| owned.partitions.get(id)).all(|partition| partition.active == 0)
    }

    /// Partitions are no longer owned.
    pub(super) fn remove<'i>(&self, ids: impl IntoIterator<Item = &'i PartitionId>) {
        let mut owned = self.lock();
        for id in ids {
            if let Some(partition) = owned.partitions.remove(id) {
                partition.stop.cancel();
            }
        }
    }

    /// All owned partitions.
    pub(super) fn ids(&self) -> Vec<PartitionId> {
        self.lock().partitions.keys().cloned().collect()
    }

    /// The ends of partitions, as the client last saw them.
    pub(super) fn set_ends(&self, ends: impl IntoIterator<Item = (PartitionId, Extent)>) {
        let mut owned = self.lock();
        for (id, Extent { start, next, end }) in ends {
            if let Some(partition) = owned.partitions.get_mut(&id) {
                let next = next.filter(|_| partition.prefix.unsettled() == 0);
                let start = start.max(partition.prefix.settled_up_to()).max(next);
                // The client's is old while the partition is paused.
                partition.end = end.max(partition.end);
                // What was asked for is not forgotten when the client tells nothing.
                let Some((start, end)) = start.zip(partition.end) else { continue };
                let lag = u64::try_from(end - start).unwrap_or(0);
                let is_silent = lag > 0
                    && !partition.is_paused
                    && partition.prefix.unsettled() == 0
                    && partition.received_at.elapsed() > SILENCE_TIME;
                if is_silent && !partition.is_silent {
                    tracing::error!(topic = %id.0, partition = id.1, lag, "partition is assigned and has records, but none arrives");
                }
                (partition.lag, partition.is_silent) = (Some(lag), is_silent);
            }
        }
    }

    /// Partitions whose ends the client does not tell: from those that are paused nothing is read, and others may have stalled.
    pub(super) fn unknown(&self) -> Vec<PartitionId> {
        let owned = self.lock();
        let is_unknown = |partition: &Partition| {
            partition.is_paused || (partition.lag.is_none() && partition.received_at.elapsed() > UNKNOWN_TIME)
        };
        let unknown = owned.partitions.iter().filter(|(_, partition)| is_unknown(partition));
        unknown.map(|(id, _)| id.clone()).take(QUESTIONS_MAX).collect()
    }

    /// Silent partitions from which nothing will arrive any more.
    pub(super) fn stalled(&self) -> Vec<PartitionId> {
        let owned = self.lock();
        let is_stalled = |partition: &Partition| partition.is_silent && partition.received_at.elapsed() > STALL_TIME;
        owned.partitions.iter().filter(|(_, partition)| is_stalled(partition)).map(|(id, _)| id.clone()).collect()
    }

    /// The partitions that have records, but from which none arrives.
    pub(super) fn silent(&self) -> Vec<PartitionId> {
        let owned = self.lock();
        owned.partitions.iter().filter(|(_, partition)| partition.is_silent).map(|(id, _)| id.clone()).collect()
    }

    /// The status of the owned partitions, in the order of their names.
    pub(super) fn sources(&self) -> Vec<SourceStatus> {
        let owned = self.lock();
        let sources = owned.partitions.iter().map(|((topic, number), partition)| SourceStatus {
            name: format!("{topic}/{number}"),
            is_paused: partition.is_paused,
            unsettled: partition.prefix.unsettled(),
            lag: partition.lag,
        });
        let mut sources: Vec<_> = sources.collect();
        sources.sort_by(|a, b| a.name.cmp(&b.name));
        sources
    }

    /// A record was received; `None` if its partition is not owned, is being revoked, or the record was received before.
    pub(super) fn received(&self, id: &PartitionId, offset: i64, len: usize) -> Option<ReceivedId> {
        let mut owned = self.lock();
        let partition = owned.partitions.get_mut(id).filter(|partition| !partition.stop.is_cancelled())?;
        match partition.prefix.position(offset) {
            Position::Next => {}
            Position::Again => return None,
            Position::Back => {
                tracing::error!(topic = %id.0, partition = id.1, offset, "offsets of a partition went back: truncated, or created again");
                partition.stop.cancel();
                *partition = Partition::new(partition.window);
            }
        }
        (partition.received_at, partition.is_silent) = (Instant::now(), false);
        partition.prefix.received(offset, len);
        let record = RecordId { partition: id.clone(), assignment: partition.number, offset };
        Some(ReceivedId { record, stop: partition.stop.clone(), is_full: !partition.prefix.has_room() })
    }

    /// Admits the next record of a partition for processing, in the order of their receipt; `false` while its window is full. Each admitted record
    /// has to [`end`](Self::end).
    pub(super) fn admit(&self, record: &RecordId) -> bool {
        let mut owned = self.lock();
        let Some(partition) = owned.owned(record).filter(|partition| !partition.stop.is_cancelled()) else {
            return false;
        };
        let is_admitted = partition.prefix.admit();
        partition.active += usize::from(is_admitted);
        is_admitted
    }

    /// Changes the windows of the partitions of these topics.
    pub(super) fn set_windows(&self, topics: &HashMap<String, Subscription>) {
        for ((topic, _), partition) in &mut self.lock().partitions {
            if let Some(Subscription { window, .. }) = topics.get(&**topic) {
                partition.window = *window;
                partition.prefix.set_limits(window.count_max, window.len_max);
            }
        }
    }

    /// An admitted record is about to be processed; `false` if its partition is no longer owned, or if it must be left to the next owner.
    pub(super) fn begin(&self, record: &RecordId) -> bool {
        let mut owned = self.lock();
        let partition = owned.owned(record).filter(|partition| partition.may_begin(record.offset));
        let Some(partition) = partition else { return false };
        partition.begun = partition.begun.max(Some(record.offset));
        true
    }

    /// An admitted record is no longer processed. If it is settled and its partition still owned, calls `store` with the offset to store, if that
    /// advances.
    pub(super) fn end(&self, record: &RecordId, is_settled: bool, store: impl FnOnce(&PartitionId, i64)) {
        let mut owned = self.lock();
        let Some(partition) = owned.owned(record) else { return };
        partition.active -= 1;
        if is_settled && let Some(offset) = partition.prefix.settle(record.offset) {
            store(&record.partition, offset);
        }
    }

    /// The partitions to pause, which have no room, and those to resume; `has_room` tells whether there is memory for more bodies, of which the
    /// process may hold `bodies_max` bytes.
    pub(super) fn flow(&self, has_room: bool, bodies_max: usize) -> (Vec<PartitionId>, Vec<PartitionId>) {
        let (mut paused, mut resumed) = (Vec::new(), Vec::new());
        let mut owned = self.lock();
        let len: usize = owned.partitions.values().map(|partition| partition.prefix.len()).sum();
        let len_max = RECEIVED_LEN_MAX.min(bodies_max / BODIES_DIVISOR);
        // A partition whose records cannot be processed must not starve the others.
        let share = if len < len_max { usize::MAX } else { len_max / owned.partitions.len().max(1) };
        for (id, partition) in &mut owned.partitions {
            let has_room = has_room && partition.prefix.has_room() && partition.prefix.len() < share.max(1);
            if !partition.is_paused && !has_room {
                partition.is_paused = true;
                paused.push(id.clone());
            } else if partition.is_paused
                && has_room
                && partition.prefix.is_half_free()
                && partition.prefix.len() <= share / 2
            {
                partition.is_paused = false;
                resumed.push(id.clone());
            }
        }
        (paused, resumed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For four records of one byte.
    const WINDOW: Window = Window { count_max: 10, len_max: 4 * 257 };

    fn begin(assignment: &Assignment, record: &RecordId) -> bool {
        assignment.admit(record) && assignment.begin(record)
    }

    fn stored(assignment: &Assignment, record: &RecordId, is_settled: bool) -> Option<i64> {
        let mut stored = None;
        assignment.end(record, is_settled, |_, offset| stored = Some(offset));
        stored
    }

    #[test]
    fn a_settlement_after_a_revocation_stores_nothing() {
        let (assignment, id) = (Assignment::default(), (Arc::from("t"), 0));
        assignment.add(id.clone(), WINDOW);
        let ReceivedId { record: first, stop, .. } = assignment.received(&id, 5, 1).expect("an owned partition");
        let second = assignment.received(&id, 6, 1).expect("an owned partition").record;
        assert!(assignment.received(&id, 6, 1).is_none(), "the same record again");
        assert!(begin(&assignment, &first) && assignment.admit(&second));
        assignment.begin_revocation([&id], FINISH_TIME);
        assert!(
            stop.is_cancelled() && !assignment.begin(&second),
            "nothing behind the last one begins during a revocation"
        );
        assert_eq!(stored(&assignment, &second, false), None);
        assert!(!assignment.is_drained([&id]));
        assert!(assignment.received(&id, 7, 1).is_none());
        assert_eq!(stored(&assignment, &first, true), Some(6), "what is settled in time is stored");
        assert!(assignment.is_drained([&id]));
        assignment.remove([&id]);
        assignment.add(id.clone(), WINDOW);
        let again = assignment.received(&id, 6, 1).expect("the record is redelivered").record;
        assert!(begin(&assignment, &again));
        assert_eq!(stored(&assignment, &second, true), None, "the record of an earlier assignment");
        assert_eq!(stored(&assignment, &again, false), None, "a record that is not settled");
    }

    #[test]
    fn records_before_a_settled_one_begin_during_a_revocation() {
        let (assignment, id) = (Assignment::default(), (Arc::from("t"), 0));
        for (finish_time, expected) in [(FINISH_TIME, Some(12)), (Duration::ZERO, None)] {
            assignment.add(id.clone(), WINDOW);
            let receive = |offset| assignment.received(&id, offset, 1).expect("an owned partition").record;
            let records = [10, 11, 12, 13].map(receive);
            assert!(records[..3].iter().all(|record| assignment.admit(record)));
            assert!(assignment.begin(&records[1]));
            assert_eq!(stored(&assignment, &records[1], true), None, "the first one is not settled");
            assignment.begin_revocation([&id], finish_time);
            assert!(!assignment.is_drained([&id]) && !assignment.admit(&records[3]));
            let begins = assignment.begin(&records[0]);
            assert_eq!(begins, expected.is_some());
            assert!(!assignment.begin(&records[2]), "nothing depends on it");
            assert_eq!(stored(&assignment, &records[0], begins), expected);
            assert_eq!(stored(&assignment, &records[2], false), None);
            assert!(assignment.is_drained([&id]));
        }
    }

    #[test]
    fn a_full_partition_is_paused_until_half_of_its_room_is_free() {
        let (assignment, id) = (Assignment::default(), (Arc::from("t"), 0));
        assignment.add(id.clone(), WINDOW);
        let records: Vec<_> =
            (0..4).map(|offset| assignment.received(&id, offset, 1).expect("an owned partition").record).collect();
        assert_eq!(assignment.flow(true, usize::MAX), (vec![id.clone()], vec![]));
        assert_eq!(assignment.flow(true, usize::MAX), (vec![], vec![]));
        for (record, resumed) in records.iter().zip([false, true, false, false]) {
            assert!(begin(&assignment, record));
            stored(&assignment, record, true);
            assert_eq!(!assignment.flow(true, usize::MAX).1.is_empty(), resumed, "{record:?}");
        }
        assert_eq!(assignment.flow(false, usize::MAX), (vec![id.clone()], vec![]), "no memory for bodies");
        assert_eq!(assignment.flow(true, usize::MAX), (vec![], vec![id]));
    }

    #[test]
    fn a_full_partition_does_not_starve_the_others() {
        let (assignment, full, other) = (Assignment::default(), (Arc::from("t"), 0), (Arc::from("t"), 1));
        let window = Window { count_max: 10, len_max: 1 << 20 };
        assignment.add(full.clone(), window);
        assignment.add(other.clone(), window);
        for offset in 0..10 {
            assert!(assignment.received(&full, offset, 10_000).is_some());
        }
        let bodies_max = 100_000 * BODIES_DIVISOR;
        assert_eq!(assignment.flow(true, bodies_max), (vec![full], vec![]));
        assert!(assignment.received(&other, 0, 10_000).is_some());
        assert_eq!(assignment.flow(true, bodies_max), (vec![], vec![]), "it has its share");
        for offset in 1..5 {
            assert!(assignment.received(&other, offset, 10_000).is_some());
        }
        assert_eq!(assignment.flow(true, bodies_max), (vec![other], vec![]));
    }

    #[test]
    fn a_partition_whose_offsets_go_back_starts_again() {
        let (assignment, id) = (Assignment::default(), (Arc::from("t"), 0));
        assignment.add(id.clone(), WINDOW);
        let before = assignment.received(&id, 100, 1).expect("an owned partition");
        assert!(begin(&assignment, &before.record));
        let after = assignment.received(&id, 3, 1).expect("the new log");
        assert!(before.stop.is_cancelled());
        assert_eq!(stored(&assignment, &before.record, true), None, "an offset of the old log");
        assert!(begin(&assignment, &after.record));
        assert_eq!(stored(&assignment, &after.record, true), Some(4));
    }

    #[test]
    fn a_partition_that_has_records_and_delivers_none_is_reported_and_then_stalled() {
        let (assignment, id) = (Assignment::default(), (Arc::from("t"), 0));
        assignment.add(id.clone(), WINDOW);
        let record = assignment.received(&id, 5, 1).expect("an owned partition").record;
        assert!(begin(&assignment, &record));
        let wait = |time: Duration| {
            let mut owned = assignment.lock();
            let partition = owned.partitions.get_mut(&id).expect("an owned partition");
            partition.received_at =
                Instant::now().checked_sub(time + Duration::from_secs(1)).expect("the machine runs");
        };
        let told = |start, next, end| {
            assignment.set_ends([(id.clone(), Extent { start: Some(start), next, end: Some(end) })]);
            (assignment.sources()[0].lag, assignment.silent().len(), assignment.stalled().len())
        };
        wait(STALL_TIME);
        assert_eq!(told(5, Some(9), 9), (Some(4), 0, 0), "a record is being processed");
        stored(&assignment, &record, true);
        assert_eq!(told(5, Some(9), 9), (Some(0), 0, 0), "the others are control records");
        assert_eq!(told(5, Some(6), 9), (Some(3), 1, 1));
        wait(SILENCE_TIME);
        assert_eq!(told(5, Some(6), 9), (Some(3), 1, 0));
        assignment.received(&id, 6, 1).expect("an owned partition");
        assert_eq!(told(5, Some(7), 9), (Some(3), 0, 0), "a record arrived");
        // The client knows neither where the group is nor where the log ends.
        assignment.add(id.clone(), WINDOW);
        assert!(assignment.unknown().is_empty());
        wait(SILENCE_TIME);
        assert_eq!(assignment.unknown(), std::slice::from_ref(&id));
        assert_eq!(told(5, None, 9), (Some(4), 1, 0));
    }

    #[test]
    fn nothing_starts_in_partitions_that_are_assigned_during_a_stop() {
        let (assignment, id) = (Assignment::default(), (Arc::from("t"), 0));
        assignment.stop();
        assignment.add(id.clone(), WINDOW);
        assert!(assignment.received(&id, 0, 1).is_none() && assignment.is_stopped());
    }
}
