//! The binary format of batches.
//!
//! Header: magic (4), checksum of the segment's salt and the rest of the header (4), number (8), length of the records
//! (4), number of records (4), number of all-zero sectors (4), checksum of the previous batch (4), checksum of the
//! records (4), zeroes (12). Record: kind (1), epoch (4), zxid (8), time (8), hash (8), length of the payload (4),
//! payload: a command, or a membership as in `schemas/cluster.proto`. Numbers are little-endian; checksums are CRC-32C
//! (RFC 3720 §12.1).

use std::sync::Arc;

use bytes::Bytes;
use crossdock_zab::{Blob, Epoch, Membership, Payload, Point, Summary, Txn, Write, Zxid};
use prost::Message as _;

use super::SECTOR;
use crate::wire;

pub(super) const HEADER: usize = 48;
const MAGIC: [u8; 4] = *b"CDB2";
pub(super) const RECORD: usize = 33;

const ACCEPT: u8 = 1;
const SYNC: u8 = 2;
const TRUNCATE: u8 = 3;
const INSTALL: u8 = 4;
const TXN: u8 = 5;
const INSTALLED: u8 = 6;
const FORM: u8 = 7;
const MEMBERSHIP: u8 = 8;

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_le_bytes)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|eight| eight.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// Whether all bytes are zero.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

pub(super) fn zero_sectors(bytes: &[u8]) -> u32 {
    let count = bytes.chunks(SECTOR).filter(|sector| is_zero(sector)).count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// The checksum of an encoded batch, with which the next one is chained.
pub(super) fn chain_of(batch: &[u8]) -> u32 {
    u32_at(batch, 32)
}

/// A membership as it is stored.
pub(super) fn membership_bytes(membership: &Membership) -> Vec<u8> {
    wire::Membership::from(membership).encode_to_vec()
}

pub(super) fn membership_at(bytes: &[u8]) -> Option<Arc<Membership>> {
    wire::Membership::decode(bytes).ok().map(wire::Membership::into_zab)
}

/// An upper bound of the length of a membership in bytes.
fn membership_len(membership: &Membership) -> usize {
    let messages = membership.voters.len() + membership.replacing.len() + 1;
    // Two numbers with their tags and the length of the message.
    24 * messages
}

fn txn_len(txn: &Txn) -> usize {
    RECORD
        + match &txn.payload {
            Payload::Command(command) => command.len(),
            Payload::Membership(membership) => membership_len(membership),
        }
}

fn write_len(write: &Write) -> usize {
    match write {
        Write::Append { txns, .. } => txns.iter().map(txn_len).sum(),
        Write::Form(membership) => RECORD + membership_len(membership),
        Write::Install { summary, .. } => {
            RECORD + summary.membership.as_ref().map_or(0, |membership| membership_len(membership))
        }
        _ => RECORD,
    }
}

/// An upper bound of the encoded length of the records in bytes.
pub(super) fn records_len(writes: &[Write]) -> usize {
    writes.iter().map(write_len).sum()
}

/// Splits writes, in order, into parts whose records take at most `max` bytes each. An append may be divided.
pub(super) fn split(writes: &[Write], max: usize) -> Vec<Vec<Write>> {
    let mut parts: Vec<Vec<Write>> = vec![Vec::new()];
    let mut left = max;
    for write in writes {
        let Write::Append { after, txns } = write else {
            let bytes = write_len(write);
            if left < bytes {
                parts.push(Vec::new());
                left = max;
            }
            left = left.saturating_sub(bytes);
            if let Some(part) = parts.last_mut() {
                part.push(write.clone());
            }
            continue;
        };
        let mut after = *after;
        for txn in txns {
            let bytes = txn_len(txn);
            if left < bytes {
                parts.push(Vec::new());
                left = max;
            }
            left = left.saturating_sub(bytes);
            if let Some(part) = parts.last_mut() {
                match part.last_mut() {
                    Some(Write::Append { txns, .. }) => txns.push(txn.clone()),
                    _ => part.push(Write::Append { after, txns: vec![txn.clone()] }),
                }
            }
            after = txn.zxid;
        }
    }
    parts
}

/// Encodes a batch as whole sectors.
pub(super) fn write(buffer: &mut Vec<u8>, number: u64, (chain, salt): (u32, u32), writes: &[Write]) {
    buffer.clear();
    buffer.resize(HEADER, 0);
    let mut count: u32 = 0;
    let mut record = |kind: u8, epoch: Epoch, point: Point, payload: &[u8]| {
        buffer.push(kind);
        buffer.extend_from_slice(&epoch.0.to_le_bytes());
        buffer.extend_from_slice(&point.zxid.to_u64().to_le_bytes());
        buffer.extend_from_slice(&point.time.to_le_bytes());
        buffer.extend_from_slice(&point.hash.to_le_bytes());
        buffer.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
        buffer.extend_from_slice(payload);
        count += 1;
    };
    for write in writes {
        let none = (Epoch(0), Point::default());
        match write {
            Write::Form(membership) => record(FORM, none.0, none.1, &membership_bytes(membership)),
            Write::AcceptEpoch(epoch) => record(ACCEPT, *epoch, none.1, &[]),
            Write::SyncBegin(epoch) => record(SYNC, *epoch, none.1, &[]),
            Write::Truncate(point) => record(TRUNCATE, none.0, *point, &[]),
            Write::Install { summary, .. } => {
                let membership = summary.membership.as_ref().map(|membership| membership_bytes(membership));
                record(INSTALL, none.0, summary.point, &membership.unwrap_or_default());
            }
            Write::Append { txns, .. } => {
                for txn in txns {
                    match &txn.payload {
                        Payload::Command(command) => record(TXN, none.0, txn.point(), command),
                        Payload::Membership(membership) => {
                            record(MEMBERSHIP, none.0, txn.point(), &membership_bytes(membership));
                        }
                    }
                }
            }
            Write::EpochInstalled(epoch) => record(INSTALLED, *epoch, none.1, &[]),
        }
    }
    let len = u32::try_from(buffer.len() - HEADER).unwrap_or(u32::MAX);
    buffer.resize(buffer.len().next_multiple_of(SECTOR), 0);
    let sum = crc32c::crc32c_append(chain, &buffer[HEADER..]);
    buffer[0..4].copy_from_slice(&MAGIC);
    buffer[8..16].copy_from_slice(&number.to_le_bytes());
    buffer[16..20].copy_from_slice(&len.to_le_bytes());
    buffer[20..24].copy_from_slice(&count.to_le_bytes());
    let zeroes = zero_sectors(buffer);
    buffer[24..28].copy_from_slice(&zeroes.to_le_bytes());
    buffer[28..32].copy_from_slice(&chain.to_le_bytes());
    buffer[32..36].copy_from_slice(&sum.to_le_bytes());
    let header = crc32c::crc32c_append(salt, &buffer[8..HEADER]);
    buffer[4..8].copy_from_slice(&header.to_le_bytes());
}

/// The result of reading a batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BatchRead {
    /// A complete batch: its length, its checksum and its writes.
    Whole { len: usize, chain: u32, writes: Vec<Write> },
    /// All zeroes: nothing was written, or the header did not reach the disk.
    Empty,
    /// Some sectors did not reach the disk.
    Torn,
    /// It was complete once.
    Damaged(&'static str),
}

/// The number of the batch whose header is here, if there is one.
pub(super) fn number_at(bytes: &[u8], salt: u32) -> Option<u64> {
    let has_sum = |bytes: &[u8]| u32_at(bytes, 4) == crc32c::crc32c_append(salt, &bytes[8..HEADER]);
    let is_header = bytes.len() >= HEADER && bytes[..4] == MAGIC && has_sum(bytes);
    is_header.then(|| u64_at(bytes, 8))
}

/// Reads the batch with that number at the start of `bytes`.
pub(super) fn read(bytes: &[u8], number: u64, (chain, salt): (u32, u32)) -> BatchRead {
    let sector = &bytes[..SECTOR.min(bytes.len())];
    if is_zero(sector) {
        return BatchRead::Empty;
    }
    match number_at(bytes, salt) {
        None => return BatchRead::Damaged("wrong checksum of a batch header"),
        Some(found) if found != number => return BatchRead::Damaged("wrong number of a batch"),
        Some(_) => {}
    }
    let (len, count) = (u32_at(bytes, 16) as usize, u32_at(bytes, 20));
    let whole = (HEADER + len).next_multiple_of(SECTOR);
    if u32_at(bytes, 28) != chain {
        return BatchRead::Damaged("the batch does not follow the previous one");
    }
    let Some(batch) = bytes.get(..whole) else {
        return BatchRead::Damaged("the batch is longer than its segment");
    };
    let sum = crc32c::crc32c_append(chain, &batch[HEADER..]);
    if sum != u32_at(bytes, 32) {
        return if zero_sectors(batch) > u32_at(bytes, 24) {
            BatchRead::Torn
        } else {
            BatchRead::Damaged("wrong checksum of a batch")
        };
    }
    match records(&batch[HEADER..HEADER + len], count) {
        Some(writes) => BatchRead::Whole { len: whole, chain: sum, writes },
        None => BatchRead::Damaged("the batch has invalid records"),
    }
}

fn records(mut bytes: &[u8], count: u32) -> Option<Vec<Write>> {
    let mut writes: Vec<Write> = Vec::new();
    for _ in 0..count {
        let head = bytes.get(..RECORD)?;
        let epoch = Epoch(u32_at(head, 1));
        let point = Point { zxid: Zxid::from_u64(u64_at(head, 5)), time: u64_at(head, 13), hash: u64_at(head, 21) };
        let len = u32_at(head, 29) as usize;
        let payload = bytes.get(RECORD..RECORD + len)?;
        bytes = &bytes[RECORD + len..];
        let write = match head[0] {
            FORM => Write::Form(membership_at(payload)?),
            ACCEPT => Write::AcceptEpoch(epoch),
            SYNC => Write::SyncBegin(epoch),
            TRUNCATE => Write::Truncate(point),
            INSTALL if payload.is_empty() => {
                Write::Install { summary: Summary { point, membership: None }, blob: Blob(0) }
            }
            INSTALL => {
                let membership = Some(membership_at(payload)?);
                Write::Install { summary: Summary { point, membership }, blob: Blob(0) }
            }
            INSTALLED => Write::EpochInstalled(epoch),
            TXN | MEMBERSHIP => {
                let payload = match head[0] {
                    TXN => Payload::Command(Bytes::copy_from_slice(payload)),
                    _ => Payload::Membership(membership_at(payload)?),
                };
                let txn = Txn { zxid: point.zxid, time: point.time, hash: point.hash, payload };
                // The zxid before them is not recorded; recovery inserts it.
                match writes.last_mut() {
                    Some(Write::Append { txns, .. }) => txns.push(txn),
                    _ => writes.push(Write::Append { after: Zxid::ZERO, txns: vec![txn] }),
                }
                continue;
            }
            _ => return None,
        };
        writes.push(write);
    }
    bytes.is_empty().then_some(writes)
}

#[cfg(test)]
mod tests {
    use crossdock_zab::{LogId, ServerId};

    use super::*;

    #[test]
    fn every_write_comes_back_and_its_length_is_bounded() {
        let voters = (0..9).map(|id| (ServerId(u64::MAX - id), LogId(u64::MAX)));
        let mut membership = Membership::first(voters.collect());
        membership.replacing.extend((0..9).map(ServerId));
        let membership = Arc::new(membership);
        let point = Point { zxid: Zxid::new(Epoch(2), 7), time: 1 << 41, hash: u64::MAX };
        let summary = Summary { point, membership: Some(Arc::clone(&membership)) };
        let first = point.next(Zxid::new(Epoch(2), 8), 0, Payload::Membership(Arc::clone(&membership)));
        let second = first.point().next(Zxid::new(Epoch(2), 9), 0, Payload::Command(Bytes::new()));
        let writes = [
            Write::Form(membership),
            Write::AcceptEpoch(Epoch(u32::MAX)),
            Write::SyncBegin(Epoch(1)),
            Write::Truncate(point),
            Write::Install { summary, blob: Blob(0) },
            Write::Install { summary: Summary::default(), blob: Blob(0) },
            Write::Append { after: Zxid::ZERO, txns: vec![first, second] },
            Write::EpochInstalled(Epoch(1)),
        ];
        let mut batch = Vec::new();
        write(&mut batch, 1, (0, 0), &writes);
        let BatchRead::Whole { writes: found, .. } = read(&batch, 1, (0, 0)) else { panic!("a whole batch") };
        assert_eq!(found, writes);
        assert!(u32_at(&batch, 16) as usize <= records_len(&writes));
        let parts = split(&writes, 4 * RECORD);
        assert!(parts.len() > 3 && parts.concat().len() >= writes.len());
    }

    #[test]
    fn a_batch_comes_back_and_no_byte_of_it_can_change() {
        let txn = Point::default().next(Zxid::new(Epoch(2), 7), 1 << 41, Payload::Command(vec![9; 700].into()));
        let writes = [Write::AcceptEpoch(Epoch(3)), Write::Append { after: Zxid::ZERO, txns: vec![txn] }];
        let mut batch = Vec::new();
        write(&mut batch, 5, (77, 99), &writes);
        assert_eq!(batch.len(), 2 * SECTOR);
        let read_back = read(&batch, 5, (77, 99));
        assert!(matches!(read(&batch, 5, (77, 98)), BatchRead::Damaged(_)), "the salt of another segment");
        assert_eq!(read_back, BatchRead::Whole { len: 2 * SECTOR, chain: chain_of(&batch), writes: writes.to_vec() });
        for at in 0..batch.len() {
            let mut changed = batch.clone();
            changed[at] ^= 0x40;
            assert!(matches!(read(&changed, 5, (77, 99)), BatchRead::Damaged(_)), "byte {at}");
        }
        for sector in 0..2 {
            let mut torn = batch.clone();
            torn[sector * SECTOR..(sector + 1) * SECTOR].fill(0);
            let expected = if sector == 0 { BatchRead::Empty } else { BatchRead::Torn };
            assert_eq!(read(&torn, 5, (77, 99)), expected, "sector {sector}");
        }
    }
}
