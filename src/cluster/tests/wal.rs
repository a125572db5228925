//! The log, cut and damaged at every byte: everything acknowledged is recovered exactly, or the damage is reported.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use crossdock_cluster::wal::{Error, Identity, Options, Recovered, Wal, purge, save_snapshot};
use crossdock_zab::{Blob, Epoch, LogState, Txn, Write, Zxid};
use proptest::prelude::*;

const IDENTITY: Identity = Identity { cluster: 7, server: 1 };
const SMALL: Options = Options { segment_len: 4096 };

fn zxid(epoch: u32, counter: u32) -> Zxid {
    Zxid::new(Epoch(epoch), counter)
}

fn append(after: Zxid, counters: std::ops::Range<u32>, size: usize) -> Write {
    let epoch = if after.epoch == Epoch(0) { Epoch(1) } else { after.epoch };
    let txns = counters.map(|counter| {
        let payload = vec![u8::try_from(counter % 251).expect("a byte") + 1; size];
        Txn { zxid: Zxid::new(epoch, counter), payload: Bytes::from(payload) }
    });
    Write::Append { after, txns: txns.collect() }
}

/// Batches of a small log: an epoch, some transactions, a synchronisation that truncates, more transactions.
fn batches() -> Vec<Vec<Write>> {
    vec![
        vec![Write::AcceptEpoch(Epoch(1)), Write::SyncBegin(Epoch(1)), Write::EpochInstalled(Epoch(1))],
        vec![append(Zxid::ZERO, 1..4, 100)],
        vec![append(zxid(1, 3), 4..5, 600)],
        vec![Write::AcceptEpoch(Epoch(2)), Write::SyncBegin(Epoch(2)), Write::Truncate(zxid(1, 3))],
        vec![Write::EpochInstalled(Epoch(2))],
    ]
}

/// The state after these batches.
fn log_state(batches: &[Vec<Write>]) -> LogState {
    let mut log_state = LogState::default();
    for write in batches.iter().flatten() {
        log_state.apply(write).expect("a valid write");
    }
    log_state
}

fn written(folder: &Path, options: Options, batches: &[Vec<Write>]) {
    let mut wal = Wal::create(folder, IDENTITY, options).expect("a new log");
    for batch in batches {
        wal.append(batch).expect("a disk");
    }
}

fn opened(folder: &Path, options: Options) -> Result<Recovered, Error> {
    Wal::open(folder, IDENTITY, options).map(|(_, recovered)| recovered)
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("a file").path()).collect();
    found.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("log-")));
    found.sort();
    found
}

#[test]
fn a_log_is_recovered_unchanged() {
    let folder = tempfile::tempdir().expect("a folder");
    let batches = batches();
    written(folder.path(), SMALL, &batches);
    let recovered = opened(folder.path(), SMALL).expect("a good log");
    assert_eq!((recovered.log_state, recovered.cut), (log_state(&batches), 0));
    assert!(recovered.snapshot.is_none());
    let (mut wal, _) = Wal::open(folder.path(), IDENTITY, SMALL).expect("a good log");
    let more = vec![Write::AcceptEpoch(Epoch(5))];
    wal.append(&more).expect("a disk");
    drop(wal);
    let recovered = opened(folder.path(), SMALL).expect("a good log");
    assert_eq!(recovered.log_state, log_state(&[batches, vec![more]].concat()));
}

#[test]
fn a_log_that_replaces_a_lost_one_is_marked_until_everything_is_recovered() {
    let folder = tempfile::tempdir().expect("a folder");
    let batches = batches();
    let mut wal = Wal::create_after_loss(folder.path(), IDENTITY, SMALL).expect("a new log");
    let number = returning_after_reopen(&mut wal, folder.path());
    // Fill more than one segment.
    for batch in &batches {
        wal.append(batch).expect("a disk");
    }
    let mut last = zxid(1, 3);
    for counter in 1..20 {
        let next =
            Write::Append { after: last, txns: vec![Txn { zxid: zxid(2, counter), payload: vec![1; 900].into() }] };
        wal.append(&[next]).expect("a disk");
        last = zxid(2, counter);
    }
    save_snapshot(folder.path(), zxid(2, 9), b"state").expect("a disk");
    save_snapshot(folder.path(), zxid(2, 18), b"state").expect("a disk");
    assert!(purge(folder.path(), zxid(2, 18), wal.segment()).expect("a disk") > 0, "its beginning is gone");
    assert_eq!(returning_after_reopen(&mut wal, folder.path()), number);
    wal.append(&[Write::Returned]).expect("a disk");
    drop(wal);
    let recovered = opened(folder.path(), SMALL).expect("a good log");
    assert_eq!((recovered.log_state.returning(), recovered.log_state.history().last()), (None, last));
}

/// Reopens the log and returns the id of a log that replaces a lost one.
fn returning_after_reopen(wal: &mut Wal, folder: &Path) -> u64 {
    let elsewhere = tempfile::tempdir().expect("a folder");
    let other = Wal::create(elsewhere.path(), IDENTITY, SMALL).expect("a new log");
    drop(std::mem::replace(wal, other));
    let (opened, recovered) = Wal::open(folder, IDENTITY, SMALL).expect("a good log");
    *wal = opened;
    recovered.log_state.returning().expect("a log that replaces a lost one")
}

#[test]
fn a_changed_byte_is_always_detected() {
    let folder = tempfile::tempdir().expect("a folder");
    let batches = batches();
    written(folder.path(), SMALL, &batches);
    let whole = log_state(&batches);
    let path = segments(folder.path()).pop().expect("a segment");
    let bytes = std::fs::read(&path).expect("a segment");
    let file = OpenOptions::new().write(true).open(&path).expect("a segment");
    let (mut stopped, mut same) = (0, 0);
    for (at, byte) in bytes.iter().enumerate() {
        for flipped in [byte ^ 1, byte ^ 0x80, !byte, 0] {
            file.write_all_at(&[flipped], at as u64).expect("a segment");
            match opened(folder.path(), SMALL) {
                Ok(recovered) => {
                    assert_eq!(recovered.log_state, whole, "byte {at} is {flipped} and was {byte}");
                    same += 1;
                    // A change after the last batch is cut off and zeroed.
                }
                Err(Error::Damaged { .. }) => stopped += 1,
                Err(other) => panic!("byte {at}: {other}"),
            }
            file.write_all_at(&bytes, 0).expect("a segment");
        }
    }
    assert!(stopped > 3 * 2000 && same > 0, "{stopped} stopped, {same} were the same");
}

#[test]
fn a_truncated_file_is_always_detected() {
    let folder = tempfile::tempdir().expect("a folder");
    written(folder.path(), SMALL, &batches());
    let path = segments(folder.path()).pop().expect("a segment");
    let bytes = std::fs::read(&path).expect("a segment");
    for len in 0..bytes.len() {
        std::fs::write(&path, &bytes[..len]).expect("a segment");
        assert!(matches!(opened(folder.path(), SMALL), Err(Error::Damaged { .. })), "cut at byte {len}");
    }
}

#[test]
fn an_incomplete_batch_is_cut_off_whichever_sectors_remain() {
    let batches = batches();
    let options = Options { segment_len: 16 * 1024 };
    let txn = Txn { zxid: zxid(2, 1), payload: Bytes::from(vec![7; 1500]) };
    let large = Write::Append { after: zxid(1, 3), txns: vec![txn] };
    let folder = tempfile::tempdir().expect("a folder");
    written(folder.path(), options, &batches);
    let path = segments(folder.path()).pop().expect("a segment");
    let before = std::fs::read(&path).expect("a segment");
    let (mut wal, _) = Wal::open(folder.path(), IDENTITY, options).expect("a good log");
    wal.append(&[Write::AcceptEpoch(Epoch(3)), Write::SyncBegin(Epoch(3)), large]).expect("a disk");
    drop(wal);
    let after = std::fs::read(&path).expect("a segment");
    let changed: Vec<usize> =
        (0..after.len() / 512).filter(|sector| before[sector * 512..][..512] != after[sector * 512..][..512]).collect();
    assert!(changed.len() >= 2, "the batch has sectors: {changed:?}");
    for kept in 0..(1 << changed.len()) - 1 {
        let mut torn = before.clone();
        for (_, sector) in changed.iter().enumerate().filter(|(at, _)| kept & (1 << at) != 0) {
            torn[sector * 512..(sector + 1) * 512].copy_from_slice(&after[sector * 512..(sector + 1) * 512]);
        }
        std::fs::write(&path, &torn).expect("a segment");
        let recovered = opened(folder.path(), options).expect("a log with an incomplete last batch");
        assert_eq!(recovered.log_state, log_state(&batches), "sectors {kept:b}");
        assert_eq!(recovered.cut > 0, kept > 0);
        assert_eq!(std::fs::read(&path).expect("a segment"), before, "it is cut for good");
    }
}

#[test]
fn segments_rotate_and_are_purged_once_a_snapshot_covers_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut wal = Wal::create(folder.path(), IDENTITY, SMALL).expect("a new log");
    let mut whole = LogState::default();
    let mut write = |wal: &mut Wal, write: Write| {
        whole.apply(&write).expect("a valid write");
        wal.append(&[write]).expect("a disk");
        whole.clone()
    };
    for first in [Write::AcceptEpoch(Epoch(1)), Write::SyncBegin(Epoch(1)), Write::EpochInstalled(Epoch(1))] {
        write(&mut wal, first);
    }
    let mut last = Zxid::ZERO;
    for counter in 1..=40 {
        write(&mut wal, append(last, counter..counter + 1, 600));
        last = zxid(1, counter);
    }
    assert!(segments(folder.path()).len() > 8);
    for snapshot in [10, 20, 30] {
        save_snapshot(folder.path(), zxid(1, snapshot), &[u8::try_from(snapshot).expect("small")]).expect("a disk");
    }
    let before = segments(folder.path()).len();
    let deleted = purge(folder.path(), zxid(1, 30), wal.segment()).expect("a disk");
    assert!(deleted > 3 && segments(folder.path()).len() == before - deleted, "{deleted} of {before}");
    let all = write(&mut wal, append(last, 41..42, 10));
    drop(wal);
    let recovered = opened(folder.path(), SMALL).expect("a good log");
    let (snapshot, state) = recovered.snapshot.expect("a snapshot");
    assert_eq!((snapshot.zxid, state), (zxid(1, 30), vec![30]));
    assert_eq!(recovered.log_state.history().last(), all.history().last());
    assert!(recovered.log_state.history().floor() <= zxid(1, 20), "the previous snapshot is still usable");

    // Files that a crash left unfinished are deleted.
    std::fs::write(folder.path().join("unfinished-0000000100000020"), b"half").expect("a file");
    assert!(opened(folder.path(), SMALL).is_ok() && !folder.path().join("unfinished-0000000100000020").exists());
    // The newest snapshot is damaged: the previous one is used.
    std::fs::write(folder.path().join("snapshot-000000010000001e"), b"broken").expect("a file");
    let recovered = opened(folder.path(), SMALL).expect("a good log");
    assert_eq!(recovered.snapshot.expect("a snapshot").0.zxid, zxid(1, 20));
    // Both snapshots are damaged, and the start of the log is purged.
    std::fs::write(folder.path().join("snapshot-0000000100000014"), b"broken").expect("a file");
    assert!(matches!(opened(folder.path(), SMALL), Err(Error::Damaged { .. })));
}

/// A synchronisation that spans segments must not keep them, nor all that follow, for ever.
#[test]
fn segments_that_begin_within_a_synchronisation_are_purged() {
    for spanned in [2, 8, 40] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut wal = Wal::create(folder.path(), IDENTITY, SMALL).expect("a new log");
        wal.append(&[Write::AcceptEpoch(Epoch(1)), Write::SyncBegin(Epoch(1))]).expect("a disk");
        let mut last = Zxid::ZERO;
        for counter in 1..=500 {
            wal.append(&[append(last, counter..counter + 1, 600)]).expect("a disk");
            last = zxid(1, counter);
            if counter == spanned {
                wal.append(&[Write::EpochInstalled(Epoch(1))]).expect("a disk");
            }
            if counter > spanned && counter % 50 == 0 {
                save_snapshot(folder.path(), last, b"state").expect("a disk");
                purge(folder.path(), last, wal.segment()).expect("a disk");
            }
        }
        assert!(wal.segment() > 80, "{} segments were written", wal.segment());
        let left = segments(folder.path()).len();
        assert!(left < 24, "{left} segments hold the transactions after the snapshot before the last");
        drop(wal);
        let recovered = opened(folder.path(), SMALL).expect("a good log");
        assert_eq!(recovered.log_state.history().last(), last);
        assert!(recovered.log_state.history().floor() >= zxid(1, 440), "{spanned}: the rest is not read again");
    }
}

#[test]
fn a_missing_segment_is_detected() {
    let folder = tempfile::tempdir().expect("a folder");
    let writes: Vec<Vec<Write>> = (1..30)
        .map(|counter| {
            vec![append(if counter == 1 { Zxid::ZERO } else { zxid(1, counter - 1) }, counter..counter + 1, 600)]
        })
        .collect();
    written(folder.path(), SMALL, &[batches()[..1].to_vec(), writes].concat());
    let all = segments(folder.path());
    for path in &all[..all.len() - 1] {
        let bytes = std::fs::read(path).expect("a segment");
        std::fs::remove_file(path).expect("a segment");
        assert!(matches!(opened(folder.path(), SMALL), Err(Error::Damaged { .. })), "without {}", path.display());
        std::fs::write(path, bytes).expect("a segment");
    }
    assert!(opened(folder.path(), SMALL).is_ok());
}

#[test]
fn a_log_belongs_to_one_server() {
    let folder = tempfile::tempdir().expect("a folder");
    assert!(matches!(opened(folder.path(), SMALL), Err(Error::Missing(_))), "an empty folder is not a log");
    assert!(matches!(opened(&folder.path().join("none"), SMALL), Err(Error::Missing(_))));
    written(folder.path(), SMALL, &batches());
    let other = Identity { server: 2, ..IDENTITY };
    assert!(matches!(Wal::open(folder.path(), other, SMALL), Err(Error::Foreign { server: 1, .. })));
    assert!(matches!(Wal::create(folder.path(), IDENTITY, SMALL), Err(Error::Exists(_))));
    let (mut wal, _) = Wal::open(folder.path(), IDENTITY, SMALL).expect("a good log");
    assert!(matches!(wal.append(&[append(zxid(1, 3), 4..5, 9000)]), Err(Error::TooLarge(_))));
}

#[test]
fn a_payload_that_looks_like_a_batch_is_not_taken_for_one() {
    let options = Options { segment_len: 64 * 1024 };
    let folder = tempfile::tempdir().expect("a folder");
    let batches = batches();
    written(folder.path(), options, &batches);
    let path = segments(folder.path()).pop().expect("a segment");
    let before = std::fs::read(&path).expect("a segment");
    // Complete batches of another log, with later numbers, at every offset within a sector.
    let other = tempfile::tempdir().expect("a folder");
    written(other.path(), options, &[batches.clone(), vec![vec![Write::AcceptEpoch(Epoch(7))]; 1]].concat());
    let theirs = std::fs::read(segments(other.path()).pop().expect("a segment")).expect("a segment");
    let payload: Vec<u8> =
        (0..512).flat_map(|shift| [vec![1; shift], theirs[512..1024].to_vec()].concat()).take(40_000).collect();
    let (mut wal, _) = Wal::open(folder.path(), IDENTITY, options).expect("a good log");
    let txn = Txn { zxid: zxid(2, 1), payload: Bytes::from(payload) };
    wal.append(&[Write::Append { after: zxid(1, 3), txns: vec![txn] }]).expect("a disk");
    drop(wal);
    let mut torn = std::fs::read(&path).expect("a segment");
    let first = (0..torn.len() / 512).find(|sector| torn[sector * 512..][..512] != before[sector * 512..][..512]);
    let first = first.expect("a batch");
    torn[first * 512..(first + 1) * 512].fill(0);
    std::fs::write(&path, torn).expect("a segment");
    let recovered = opened(folder.path(), options).expect("a log with an incomplete last batch");
    assert_eq!(recovered.log_state, log_state(&batches));
}

#[test]
fn a_log_is_not_created_beside_foreign_snapshots_nor_opened_twice() {
    let folder = tempfile::tempdir().expect("a folder");
    save_snapshot(folder.path(), zxid(1, 3), b"of an earlier life").expect("a disk");
    assert!(matches!(Wal::create(folder.path(), IDENTITY, SMALL), Err(Error::Exists(_))));
    let folder = tempfile::tempdir().expect("a folder");
    let wal = Wal::create(folder.path(), IDENTITY, SMALL).expect("a new log");
    assert!(matches!(opened(folder.path(), SMALL), Err(Error::InUse(_))));
    drop(wal);
    assert!(opened(folder.path(), SMALL).is_ok());
}

#[test]
fn writes_too_large_for_one_batch_are_split() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut wal = Wal::create(folder.path(), IDENTITY, SMALL).expect("a new log");
    let mut writes = batches()[0].clone();
    writes.push(append(Zxid::ZERO, 1..40, 700));
    writes.push(append(zxid(1, 39), 40..41, SMALL.payload_max()));
    writes.extend([Write::AcceptEpoch(Epoch(2)), Write::SyncBegin(Epoch(2))]);
    writes.push(Write::Append {
        after: zxid(1, 40),
        txns: vec![Txn { zxid: zxid(2, 1), payload: Bytes::from(vec![1; 3000]) }],
    });
    writes.push(Write::EpochInstalled(Epoch(2)));
    wal.append(&writes).expect("a disk");
    drop(wal);
    let recovered = opened(folder.path(), SMALL).expect("a good log");
    assert_eq!(recovered.log_state, log_state(&[writes]));
}

/// A step in the life of a log.
#[derive(Debug, Clone)]
enum Step {
    Epoch { truncate: bool, install: bool, whole: bool },
    Append { count: u32, size: usize },
    Reopen,
    Snapshot,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (any::<bool>(), prop::bool::weighted(0.2), prop::bool::weighted(0.8))
            .prop_map(|(truncate, install, whole)| Step::Epoch { truncate, install, whole }),
        6 => (1..4_u32, 0..900_usize).prop_map(|(count, size)| Step::Append { count, size }),
        1 => Just(Step::Reopen),
        1 => Just(Step::Snapshot),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn everything_written_is_recovered(steps in prop::collection::vec(step(), 1..40)) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut wal = Wal::create(folder.path(), IDENTITY, SMALL).expect("a new log");
        let mut whole = LogState::default();
        for step in steps {
            let mut writes = Vec::new();
            match step {
                Step::Epoch { truncate, install, whole: is_whole } => {
                    let epoch = Epoch(whole.accepted_epoch().0 + 1);
                    writes.extend([Write::AcceptEpoch(epoch), Write::SyncBegin(epoch)]);
                    let history = whole.history();
                    if install {
                        let last = history.last();
                        let zxid = Zxid::new(last.epoch.max(Epoch(1)), last.counter + 5);
                        save_snapshot(folder.path(), zxid, b"state").expect("a disk");
                        writes.push(Write::Install { zxid, blob: Blob(0) });
                    } else if truncate {
                        writes.push(Write::Truncate(history.snapshot()));
                    }
                    if is_whole {
                        writes.push(Write::EpochInstalled(epoch));
                    }
                }
                Step::Append { count, size } if !whole.is_syncing() && whole.current_epoch() > Epoch(0) => {
                    let last = whole.end();
                    let first = if last.epoch == whole.current_epoch() { last.counter + 1 } else { 1 };
                    let txns = (first..first + count).map(|counter| Txn {
                        zxid: Zxid::new(whole.current_epoch(), counter),
                        payload: Bytes::from(vec![0; size]),
                    });
                    writes.push(Write::Append { after: last, txns: txns.collect() });
                }
                Step::Append { .. } => {}
                Step::Reopen => {
                    drop(wal);
                    let (again, recovered) = Wal::open(folder.path(), IDENTITY, SMALL).expect("a good log");
                    prop_assert_eq!(recovered.log_state.history().last(), whole.history().last());
                    prop_assert_eq!(recovered.log_state.end(), whole.end());
                    wal = again;
                }
                Step::Snapshot if !whole.is_syncing() => {
                    let last = whole.history().last();
                    if last > Zxid::ZERO {
                        save_snapshot(folder.path(), last, b"state").expect("a disk");
                        whole.snapshot_taken(last, usize::MAX, usize::MAX);
                        purge(folder.path(), last, wal.segment()).expect("a disk");
                    }
                }
                Step::Snapshot => {}
            }
            if !writes.is_empty() {
                for write in &writes {
                    whole.apply(write).expect("a valid write");
                }
                wal.append(&writes).expect("a disk");
            }
        }
        drop(wal);
        let recovered = opened(folder.path(), SMALL).expect("a good log");
        prop_assert_eq!(recovered.cut, 0);
        let (ours, theirs) = (&recovered.log_state, &whole);
        prop_assert_eq!((ours.accepted_epoch(), ours.current_epoch(), ours.end()), (theirs.accepted_epoch(), theirs.current_epoch(), theirs.end()));
        let from = ours.history().floor().max(theirs.history().floor());
        let read: Vec<&Txn> = ours.history().between(from, ours.history().last()).collect();
        let meant: Vec<&Txn> = theirs.history().between(from, theirs.history().last()).collect();
        prop_assert_eq!(read, meant);
    }
}
