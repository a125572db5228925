//! The log, cut and damaged at every byte: what was acknowledged comes back exactly, or the log says clearly that it cannot.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use crossdock_cluster::wal::{Error, Identity, Options, Recovered, Wal, keep_snapshot, purge};
use crossdock_zab::{Blob, Epoch, Ledger, Txn, Write, Zxid};
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

/// What the first of the batches come to.
fn ledger(batches: &[Vec<Write>]) -> Ledger {
    let mut ledger = Ledger::default();
    for write in batches.iter().flatten() {
        ledger.apply(write).expect("it stands where it may");
    }
    ledger
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
fn a_log_comes_back_as_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let batches = batches();
    written(folder.path(), SMALL, &batches);
    let recovered = opened(folder.path(), SMALL).expect("a good log");
    assert_eq!((recovered.ledger, recovered.cut), (ledger(&batches), 0));
    assert!(recovered.snapshot.is_none());
    let (mut wal, _) = Wal::open(folder.path(), IDENTITY, SMALL).expect("a good log");
    let more = vec![Write::AcceptEpoch(Epoch(5))];
    wal.append(&more).expect("a disk");
    drop(wal);
    let recovered = opened(folder.path(), SMALL).expect("a good log");
    assert_eq!(recovered.ledger, ledger(&[batches, vec![more]].concat()));
}

#[test]
fn a_log_in_the_place_of_a_lost_one_says_so_until_all_is_there_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let batches = batches();
    let mut wal = Wal::create_again(folder.path(), IDENTITY, SMALL).expect("a new log");
    let number = opened_while_open(&mut wal, folder.path());
    // Over more than a segment.
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
    keep_snapshot(folder.path(), zxid(2, 9), b"state").expect("a disk");
    keep_snapshot(folder.path(), zxid(2, 18), b"state").expect("a disk");
    assert!(purge(folder.path(), zxid(2, 18), wal.segment()).expect("a disk") > 0, "its beginning is gone");
    assert_eq!(opened_while_open(&mut wal, folder.path()), number);
    wal.append(&[Write::Returned]).expect("a disk");
    drop(wal);
    let recovered = opened(folder.path(), SMALL).expect("a good log");
    assert_eq!((recovered.ledger.returning(), recovered.ledger.history().last()), (None, last));
}

/// The number of a log that has the place of a lost one. The log is opened anew.
fn opened_while_open(wal: &mut Wal, folder: &Path) -> u64 {
    let elsewhere = tempfile::tempdir().expect("a folder");
    let other = Wal::create(elsewhere.path(), IDENTITY, SMALL).expect("a new log");
    drop(std::mem::replace(wal, other));
    let (opened, recovered) = Wal::open(folder, IDENTITY, SMALL).expect("a good log");
    *wal = opened;
    recovered.ledger.returning().expect("it is in the place of a lost one")
}

#[test]
fn a_byte_that_changed_is_never_passed_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let batches = batches();
    written(folder.path(), SMALL, &batches);
    let whole = ledger(&batches);
    let path = segments(folder.path()).pop().expect("a segment");
    let bytes = std::fs::read(&path).expect("a segment");
    let file = OpenOptions::new().write(true).open(&path).expect("a segment");
    let (mut stopped, mut same) = (0, 0);
    for (at, byte) in bytes.iter().enumerate() {
        for flipped in [byte ^ 1, byte ^ 0x80, !byte, 0] {
            file.write_all_at(&[flipped], at as u64).expect("a segment");
            match opened(folder.path(), SMALL) {
                Ok(recovered) => {
                    assert_eq!(recovered.ledger, whole, "byte {at} is {flipped} and was {byte}");
                    same += 1;
                    // What was cut off behind the end was zeroed.
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
fn a_file_that_was_cut_is_never_passed_over() {
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
fn a_batch_that_was_not_durable_is_cut_whatever_of_it_is_there() {
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
        let recovered = opened(folder.path(), options).expect("a log whose last batch is not whole");
        assert_eq!(recovered.ledger, ledger(&batches), "sectors {kept:b}");
        assert_eq!(recovered.cut > 0, kept > 0);
        assert_eq!(std::fs::read(&path).expect("a segment"), before, "it is cut for good");
    }
}

#[test]
fn segments_follow_one_another_and_go_when_a_snapshot_has_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut wal = Wal::create(folder.path(), IDENTITY, SMALL).expect("a new log");
    let mut whole = Ledger::default();
    let mut write = |wal: &mut Wal, write: Write| {
        whole.apply(&write).expect("it stands where it may");
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
        keep_snapshot(folder.path(), zxid(1, snapshot), &[u8::try_from(snapshot).expect("small")]).expect("a disk");
    }
    let before = segments(folder.path()).len();
    let deleted = purge(folder.path(), zxid(1, 30), wal.segment()).expect("a disk");
    assert!(deleted > 3 && segments(folder.path()).len() == before - deleted, "{deleted} of {before}");
    let all = write(&mut wal, append(last, 41..42, 10));
    drop(wal);
    let recovered = opened(folder.path(), SMALL).expect("a good log");
    let (snapshot, state) = recovered.snapshot.expect("a snapshot");
    assert_eq!((snapshot.zxid, state), (zxid(1, 30), vec![30]));
    assert_eq!(recovered.ledger.history().last(), all.history().last());
    assert!(recovered.ledger.history().floor() <= zxid(1, 20), "the snapshot before it is good for something too");

    // What was being written when the process ended goes.
    std::fs::write(folder.path().join("unfinished-0000000100000020"), b"half").expect("a file");
    assert!(opened(folder.path(), SMALL).is_ok() && !folder.path().join("unfinished-0000000100000020").exists());
    // The newest cannot be read: the one before serves.
    std::fs::write(folder.path().join("snapshot-000000010000001e"), b"broken").expect("a file");
    let recovered = opened(folder.path(), SMALL).expect("a good log");
    assert_eq!(recovered.snapshot.expect("a snapshot").0.zxid, zxid(1, 20));
    // None can be read, and the beginning is gone.
    std::fs::write(folder.path().join("snapshot-0000000100000014"), b"broken").expect("a file");
    assert!(matches!(opened(folder.path(), SMALL), Err(Error::Damaged { .. })));
}

#[test]
fn a_segment_that_is_missing_is_noticed() {
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
fn a_log_is_one_servers() {
    let folder = tempfile::tempdir().expect("a folder");
    assert!(matches!(opened(folder.path(), SMALL), Err(Error::Missing(_))), "an empty folder is no log");
    assert!(matches!(opened(&folder.path().join("none"), SMALL), Err(Error::Missing(_))));
    written(folder.path(), SMALL, &batches());
    let other = Identity { server: 2, ..IDENTITY };
    assert!(matches!(Wal::open(folder.path(), other, SMALL), Err(Error::Foreign { server: 1, .. })));
    assert!(matches!(Wal::create(folder.path(), IDENTITY, SMALL), Err(Error::Exists(_))));
    let (mut wal, _) = Wal::open(folder.path(), IDENTITY, SMALL).expect("a good log");
    assert!(matches!(wal.append(&[append(zxid(1, 3), 4..5, 9000)]), Err(Error::TooLarge(_))));
}

#[test]
fn a_payload_that_looks_like_a_batch_is_none() {
    let options = Options { segment_len: 64 * 1024 };
    let folder = tempfile::tempdir().expect("a folder");
    let batches = batches();
    written(folder.path(), options, &batches);
    let path = segments(folder.path()).pop().expect("a segment");
    let before = std::fs::read(&path).expect("a segment");
    // Whole batches of another log, with later numbers, at every place in a payload.
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
    let recovered = opened(folder.path(), options).expect("a log whose last batch is not whole");
    assert_eq!(recovered.ledger, ledger(&batches));
}

#[test]
fn a_log_is_not_made_beside_snapshots_of_another_nor_opened_twice() {
    let folder = tempfile::tempdir().expect("a folder");
    keep_snapshot(folder.path(), zxid(1, 3), b"of an earlier life").expect("a disk");
    assert!(matches!(Wal::create(folder.path(), IDENTITY, SMALL), Err(Error::Exists(_))));
    let folder = tempfile::tempdir().expect("a folder");
    let wal = Wal::create(folder.path(), IDENTITY, SMALL).expect("a new log");
    assert!(matches!(opened(folder.path(), SMALL), Err(Error::InUse(_))));
    drop(wal);
    assert!(opened(folder.path(), SMALL).is_ok());
}

#[test]
fn writes_that_one_batch_cannot_hold_go_in_several() {
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
    assert_eq!(recovered.ledger, ledger(&[writes]));
}

/// A step of a server's life, as far as its log sees it.
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
    fn whatever_was_written_comes_back(steps in prop::collection::vec(step(), 1..40)) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut wal = Wal::create(folder.path(), IDENTITY, SMALL).expect("a new log");
        let mut whole = Ledger::default();
        for step in steps {
            let mut writes = Vec::new();
            match step {
                Step::Epoch { truncate, install, whole: is_whole } => {
                    let epoch = Epoch(whole.accepted().0 + 1);
                    writes.extend([Write::AcceptEpoch(epoch), Write::SyncBegin(epoch)]);
                    let history = whole.history();
                    if install {
                        let last = history.last();
                        let zxid = Zxid::new(last.epoch.max(Epoch(1)), last.counter + 5);
                        keep_snapshot(folder.path(), zxid, b"state").expect("a disk");
                        writes.push(Write::Install { zxid, blob: Blob(0) });
                    } else if truncate {
                        writes.push(Write::Truncate(history.snapshot()));
                    }
                    if is_whole {
                        writes.push(Write::EpochInstalled(epoch));
                    }
                }
                Step::Append { count, size } if !whole.is_syncing() && whole.current() > Epoch(0) => {
                    let last = whole.end();
                    let first = if last.epoch == whole.current() { last.counter + 1 } else { 1 };
                    let txns = (first..first + count).map(|counter| Txn {
                        zxid: Zxid::new(whole.current(), counter),
                        payload: Bytes::from(vec![0; size]),
                    });
                    writes.push(Write::Append { after: last, txns: txns.collect() });
                }
                Step::Append { .. } => {}
                Step::Reopen => {
                    drop(wal);
                    let (again, recovered) = Wal::open(folder.path(), IDENTITY, SMALL).expect("a good log");
                    prop_assert_eq!(recovered.ledger.history().last(), whole.history().last());
                    prop_assert_eq!(recovered.ledger.end(), whole.end());
                    wal = again;
                }
                Step::Snapshot if !whole.is_syncing() => {
                    let last = whole.history().last();
                    if last > Zxid::ZERO {
                        keep_snapshot(folder.path(), last, b"state").expect("a disk");
                        whole.snapshot_taken(last, usize::MAX, usize::MAX);
                        purge(folder.path(), last, wal.segment()).expect("a disk");
                    }
                }
                Step::Snapshot => {}
            }
            if !writes.is_empty() {
                for write in &writes {
                    whole.apply(write).expect("it stands where it may");
                }
                wal.append(&writes).expect("a disk");
            }
        }
        drop(wal);
        let recovered = opened(folder.path(), SMALL).expect("a good log");
        prop_assert_eq!(recovered.cut, 0);
        let (ours, theirs) = (&recovered.ledger, &whole);
        prop_assert_eq!((ours.accepted(), ours.current(), ours.end()), (theirs.accepted(), theirs.current(), theirs.end()));
        let from = ours.history().floor().max(theirs.history().floor());
        let read: Vec<&Txn> = ours.history().between(from, ours.history().last()).collect();
        let meant: Vec<&Txn> = theirs.history().between(from, theirs.history().last()).collect();
        prop_assert_eq!(read, meant);
    }
}
