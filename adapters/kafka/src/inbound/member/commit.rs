//! Settles records and commits their offsets.

use std::collections::{BTreeMap, HashMap};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::super::assignment::{PartitionId, RecordId};
use super::rebalance::list;
use super::{CLOSE_TIMEOUT, Member, POLL_TIME};
use crate::transaction::{TransactionError, TransactionalProducer};

/// How often the last offsets are committed before the group is left.
const COMMIT_ATTEMPTS_MAX: u32 = 10;

impl Member {
    /// An admitted record is no longer processed.
    pub(in crate::inbound) fn end(&self, record: &RecordId, is_settled: bool) {
        self.assignment().end(record, is_settled, |partition, offset| self.store(partition, offset));
    }

    /// Like [`Member::end`], for a record whose offset is committed by other means.
    pub(in crate::inbound) fn end_without_store(&self, record: &RecordId, is_settled: bool) {
        self.assignment().end(record, is_settled, |_, _| {});
    }

    /// Commits the open transaction of a producer with the offsets to continue at. Blocks.
    ///
    /// # Errors
    /// As those of [`TransactionalProducer::commit`].
    pub(in crate::inbound) fn commit_in_transaction(
        &self,
        producer: &TransactionalProducer,
        offsets: &BTreeMap<PartitionId, i64>,
        records: &[RecordId],
    ) -> Result<(), TransactionError> {
        let abort = |problem: String| TransactionError::Abort(problem);
        let list = offsets_list(offsets).map_err(|error| abort(error.to_string()))?;
        // Before the check: a later generation of the group may belong to other owners.
        let group = self.consumer.group_metadata().ok_or_else(|| abort("the group was left".to_owned()))?;
        let is_owned =
            || !self.consumer.assignment_lost() && records.iter().all(|record| self.assignment().is_owned(record));
        if !is_owned() {
            return Err(abort("the partitions have other owners".to_owned()));
        }
        producer.commit(&list, &group, is_owned)
    }

    /// Whether the committed offsets of the group are these or later ones. Blocks.
    ///
    /// # Errors
    /// The brokers do not tell.
    pub(in crate::inbound) fn are_committed(&self, offsets: &BTreeMap<PartitionId, i64>) -> Result<bool, KafkaError> {
        let ids: Vec<PartitionId> = offsets.keys().cloned().collect();
        let committed = self.consumer.committed_offsets(list(&ids), CLOSE_TIMEOUT)?;
        Ok(committed.elements().iter().all(|element| {
            let wanted = offsets
                .iter()
                .find(|((topic, partition), _)| **topic == *element.topic() && *partition == element.partition());
            matches!((element.offset(), wanted), (Offset::Offset(found), Some((_, wanted))) if found >= *wanted)
        }))
    }

    /// Commits the offsets that are stored now, if there are any. Blocks, possibly for as long as the group has no coordinator.
    pub(in crate::inbound) fn commit_stored_once(&self) {
        let has_stored = &self.shared().has_stored;
        if !has_stored.swap(false, Ordering::AcqRel) {
            return;
        }
        if let Err(error) = self.consumer.commit_consumer_state(CommitMode::Sync)
            && error.rdkafka_error_code() != Some(RDKafkaErrorCode::NoOffset)
        {
            has_stored.store(true, Ordering::Release);
            tracing::warn!(group = %self.shared().group, %error, "stored offsets not committed");
        }
    }

    /// Commits the stored offsets. The brokers refuse that for a moment during a rebalance.
    pub(super) fn commit_stored(&self) {
        if !self.shared().has_stored.load(Ordering::Acquire) {
            return;
        }
        for _ in 0..COMMIT_ATTEMPTS_MAX {
            match self.consumer.commit_consumer_state(CommitMode::Sync) {
                Ok(()) | Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) => return,
                Err(error) => {
                    tracing::debug!(group = %self.shared().group, %error, "offsets not committed; retrying");
                    // Serves the rebalance. Records that arrive are redelivered later, as no more start to be processed.
                    self.consumer.poll(POLL_TIME);
                }
            }
        }
        tracing::warn!(group = %self.shared().group, "last offsets not committed; records may be redelivered");
    }

    /// Commits the offsets behind records, before they are processed at most once, unless later ones of the same assignment are committed. Blocks.
    ///
    /// # Errors
    /// For each record: its offset may not be committed, so it must not be processed.
    pub(in crate::inbound) fn commit(&self, ids: &[RecordId]) -> Vec<Result<(), KafkaError>> {
        // Held over the commit, so that the committed offset never goes back.
        let mut committed = self.shared().committed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut offsets = BTreeMap::new();
        for id in ids.iter().filter(|id| !is_committed(&committed, id) && self.assignment().is_owned(id)) {
            let behind = (id.assignment, id.offset + 1);
            let highest = offsets.entry(id.partition.clone()).or_insert(behind);
            *highest = behind.max(*highest);
        }
        let send = |offsets: &BTreeMap<PartitionId, (u64, i64)>| {
            let list = offsets.iter().map(|(partition, (_, offset))| (partition.clone(), *offset)).collect();
            self.consumer.commit(&offsets_list(&list)?, CommitMode::Sync)
        };
        let mut failed = None;
        match if offsets.is_empty() { Ok(()) } else { send(&offsets) } {
            Ok(()) => committed.extend(offsets),
            Err(error) if offsets.len() == 1 => failed = Some(error),
            // Some of them may be committed: the client reports the failure of any partition as that of all.
            Err(_) => {
                for alone in offsets.into_iter().map(|offset| BTreeMap::from([offset])) {
                    match send(&alone) {
                        Ok(()) => committed.extend(alone),
                        Err(error) => failed = Some(error),
                    }
                }
            }
        }
        let failed = failed.unwrap_or(KafkaError::ConsumerCommit(RDKafkaErrorCode::AssignmentLost));
        let of_record = |id| if is_committed(&committed, id) { Ok(()) } else { Err(failed.clone()) };
        ids.iter().map(of_record).collect()
    }

    fn store(&self, (topic, partition): &PartitionId, offset: i64) {
        let mut list = TopicPartitionList::with_capacity(1);
        let added = list.add_partition_offset(topic, *partition, Offset::Offset(offset));
        if let Err(error) = added.and_then(|()| self.consumer.store_offsets(&list)) {
            // The partition was revoked: its next owner receives the record again.
            tracing::debug!(%topic, partition, offset, %error, "offset not stored");
            return;
        }
        self.shared().has_stored.store(true, Ordering::Release);
    }
}

/// Whether an offset behind a record was committed during its assignment.
fn is_committed(committed: &HashMap<PartitionId, (u64, i64)>, id: &RecordId) -> bool {
    committed.get(&id.partition).is_some_and(|(of, offset)| *of == id.assignment && *offset > id.offset)
}

fn offsets_list(offsets: &BTreeMap<PartitionId, i64>) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::with_capacity(offsets.len());
    for ((topic, partition), offset) in offsets {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
    }
    Ok(list)
}
