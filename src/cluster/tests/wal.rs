//! The log, cut and damaged at every byte: everything acknowledged is recovered exactly, or the damage is reported.

#[path = "wal/reading.rs"]
mod reading;

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use crossdock_cluster::wal::{Error, Identity, Opened, Options, Recovered, UNLIMITED, Wal, purge, save_snapshot};
use crossdock_zab::{Blob, Epoch, LogId, LogState, Membership, Payload, Point, ServerId, Summary, Txn, Write, Zxid};
use proptest::prelude::*;

const IDENTITY: Identity = Identity { cluster: 7, server: 1 };
const SMALL: Options = Options { segment_len: 4096 };

fn zxid(epoch: u32, counter: u32) -> Zxid {
    Zxid::new(Epoch(epoch), counter)
}

/// A transaction with this many bytes.
fn txn(after: Point, zxid: Zxid, size: usize) -> Txn {
    let byte = u8::try_from(zxid.counter % 251).expect("a byte") + 1;
    after.next(zxid, 7, Payload::Command(Bytes::from(vec![byte; size])))
}

/// Transactions of the epoch of the last one, or of the first epoch.
fn append(after: Point, counters: std::ops::Range<u32>, size: usize) -> Write {
    let epoch = after.zxid.epoch.max(Epoch(1));
    let mut last = after;
    let txns = counters.map(|counter| {
        let txn = txn(last, Zxid::new(epoch, counter), size);
        last = txn.point();
        txn
    });
    Write::Append { after: after.zxid, txns: txns.collect() }
}

fn end(write: &Write) -> Point {
    match write {
        Write::Append { txns, .. } => txns.last().expect("a transaction").point(),
        _ => panic!("not an append: {write:?}"),
    }
}

fn summary(point: Point) -> Summary {
    let membership = Membership::first([(ServerId(1), LogId(9))].into());
    Summary { point, membership: Some(membership.into()) }
}

/// Writes the state of a snapshot.
fn state(bytes: &[u8]) -> impl FnOnce(&mut dyn io::Write) -> io::Result<()> {
    move |to| to.write_all(bytes)
}

/// The last transaction in a snapshot, and its state.
fn content(mut opened: Opened) -> (Zxid, Vec<u8>) {
    let mut state = Vec::new();
    opened.state.read_to_end(&mut state).expect("a disk");
    (opened.summary.point.zxid, state)
}

fn create(folder: &Path, options: Options) -> Wal {
    Wal::create(folder, IDENTITY, options, false).expect("a new log")
}

/// The points of the log of [`batches`].
fn points() -> [Point; 4] {
    let first = append(Point::default(), 1..4, 100);
    let Write::Append { txns, .. } = &first else { panic!("an append") };
    [txns[0].point(), txns[1].point(), txns[2].point(), end(&append(end(&first), 4..5, 600))]
}

/// Batches of a small log: an epoch, some transactions, a synchronisation that truncates, more transactions.
fn batches() -> Vec<Vec<Write>> {
    vec![
        vec![Write::AcceptEpoch(Epoch(1)), Write::SyncBegin(Epoch(1)), Write::EpochInstalled(Epoch(1))],
        vec![append(Point::default(), 1..4, 100)],
        vec![append(points()[2], 4..5, 600)],
        vec![Write::AcceptEpoch(Epoch(2)), Write::SyncBegin(Epoch(2)), Write::Truncate(points()[2])],
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
    let mut wal = create(folder, options);
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
fn a_log_keeps_its_id_its_purpose_and_its_membership() {
    for founds in [false, true] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut wal = Wal::create(folder.path(), IDENTITY, SMALL, founds).expect("a new log");
        let log = wal.id();
        let first = summary(Point::default()).membership.expect("a membership");
        wal.append(&[Write::Form(first)]).expect("a disk");
        let mut now = log_state(&[]);
        for batch in &batches() {
            wal.append(batch).expect("a disk");
        }
        // Fill more than one segment; the membership changes on the way.
        let mut last = points()[2];
        let mut points = Vec::new();
        let second = Membership::first([(ServerId(1), LogId(9)), (ServerId(2), LogId(8))].into());
        for counter in 1..20 {
            let txn = match counter {
                5 => last.next(zxid(2, 5), 0, Payload::Membership(second.clone().into())),
                _ => txn(last, zxid(2, counter), 900),
            };
            let next = Write::Append { after: last.zxid, txns: vec![txn] };
            last = end(&next);
            points.push(last);
            wal.append(&[next]).expect("a disk");
        }
        for at in [9, 18] {
            let snapshot = Summary { point: points[at - 1], membership: Some(second.clone().into()) };
            save_snapshot(folder.path(), &snapshot, UNLIMITED, state(b"state")).expect("a disk");
        }
        assert!(purge(folder.path(), zxid(2, 18), wal.segment(), None).expect("a disk") > 0, "its beginning is gone");
        drop(wal);
        let recovered = opened(folder.path(), SMALL).expect("a good log");
        assert_eq!((recovered.log, recovered.founds), (log, founds));
        now.clone_from(&recovered.log_state);
        assert_eq!((now.history().end(), now.membership().map(|it| &**it)), (last, Some(&second)));
    }
    let ids: Vec<LogId> = (0..3).map(|_| create(tempfile::tempdir().expect("a folder").path(), SMALL).id()).collect();
    assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2], "{ids:?}");
}

/// A snapshot of another history, as of a copied folder, is not taken for one of this log.
#[test]
fn a_snapshot_of_another_history_is_not_used() {
    let folder = tempfile::tempdir().expect("a folder");
    written(folder.path(), SMALL, &batches());
    let other = Point { hash: 1, ..points()[2] };
    save_snapshot(folder.path(), &summary(other), UNLIMITED, state(b"other")).expect("a disk");
    assert!(opened(folder.path(), SMALL).expect("a good log").snapshot.is_none());
    save_snapshot(folder.path(), &summary(points()[1]), UNLIMITED, state(b"state")).expect("a disk");
    assert_eq!(
        opened(folder.path(), SMALL).expect("a good log").snapshot.map(content),
        Some((points()[1].zxid, b"state".to_vec()))
    );
}

#[test]
fn a_log_of_another_release_is_not_damaged() {
    let folder = tempfile::tempdir().expect("a folder");
    written(folder.path(), SMALL, &batches());
    let path = segments(folder.path()).pop().expect("a segment");
    OpenOptions::new().write(true).open(&path).and_then(|file| file.write_all_at(b"01", 6)).expect("a segment");
    let problem = opened(folder.path(), SMALL).expect_err("another format");
    assert!(matches!(&problem, Error::Version(of) if *of == path), "{problem}");
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
                // The two bytes of the version.
                Err(Error::Version(_)) if (6..8).contains(&at) => stopped += 1,
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
    let large = Write::Append { after: zxid(1, 3), txns: vec![txn(points()[2], zxid(2, 1), 1500)] };
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
    let mut wal = create(folder.path(), SMALL);
    let mut whole = LogState::default();
    let mut write = |wal: &mut Wal, write: Write| {
        whole.apply(&write).expect("a valid write");
        wal.append(&[write]).expect("a disk");
        whole.clone()
    };
    for first in [Write::AcceptEpoch(Epoch(1)), Write::SyncBegin(Epoch(1)), Write::EpochInstalled(Epoch(1))] {
        write(&mut wal, first);
    }
    let mut last = Point::default();
    let mut points = Vec::new();
    for counter in 1..=40 {
        let next = append(last, counter..counter + 1, 600);
        last = end(&next);
        points.push(last);
        write(&mut wal, next);
    }
    assert!(segments(folder.path()).len() > 8);
    for snapshot in [10_u8, 20, 30] {
        let summary = summary(points[usize::from(snapshot) - 1]);
        save_snapshot(folder.path(), &summary, UNLIMITED, state(&[snapshot])).expect("a disk");
    }
    let before = segments(folder.path()).len();
    let deleted = purge(folder.path(), zxid(1, 30), wal.segment(), None).expect("a disk");
    assert!(deleted > 3 && segments(folder.path()).len() == before - deleted, "{deleted} of {before}");
    let all = write(&mut wal, append(last, 41..42, 10));
    drop(wal);
    let recovered = opened(folder.path(), SMALL).expect("a good log");
    assert_eq!(recovered.snapshot.map(content), Some((zxid(1, 30), vec![30])));
    assert_eq!(recovered.log_state.history().last(), all.history().last());
    assert!(recovered.log_state.history().floor() <= zxid(1, 20), "the previous snapshot is still usable");

    // Files that a crash left unfinished are deleted.
    std::fs::write(folder.path().join("unfinished-0000000100000020"), b"half").expect("a file");
    assert!(opened(folder.path(), SMALL).is_ok() && !folder.path().join("unfinished-0000000100000020").exists());
    // The newest snapshot is damaged: the previous one is used.
    std::fs::write(folder.path().join("snapshot-000000010000001e"), b"broken").expect("a file");
    let recovered = opened(folder.path(), SMALL).expect("a good log");
    assert_eq!(recovered.snapshot.map(content), Some((zxid(1, 20), vec![20])));
    // Both snapshots are damaged, and the start of the log is purged.
    std::fs::write(folder.path().join("snapshot-0000000100000014"), b"broken").expect("a file");
    assert!(matches!(opened(folder.path(), SMALL), Err(Error::Damaged { .. })));
}

/// A synchronisation that spans segments must not keep them, nor all that follow, for ever.
#[test]
fn segments_that_begin_within_a_synchronisation_are_purged() {
    for spanned in [2, 8, 40] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut wal = create(folder.path(), SMALL);
        wal.append(&[Write::AcceptEpoch(Epoch(1)), Write::SyncBegin(Epoch(1))]).expect("a disk");
        let mut last = Point::default();
        for counter in 1..=500 {
            let next = append(last, counter..counter + 1, 600);
            last = end(&next);
            wal.append(&[next]).expect("a disk");
            if counter == spanned {
                wal.append(&[Write::EpochInstalled(Epoch(1))]).expect("a disk");
            }
            if counter > spanned && counter % 50 == 0 {
                save_snapshot(folder.path(), &summary(last), UNLIMITED, state(b"state")).expect("a disk");
                purge(folder.path(), last.zxid, wal.segment(), None).expect("a disk");
            }
        }
        assert!(wal.segment() > 80, "{} segments were written", wal.segment());
        let left = segments(folder.path()).len();
        assert!(left < 24, "{left} segments hold the transactions after the snapshot before the last");
        drop(wal);
        let recovered = opened(folder.path(), SMALL).expect("a good log");
        assert_eq!(recovered.log_state.history().end(), last);
        assert!(recovered.log_state.history().floor() >= zxid(1, 440), "{spanned}: the rest is not read again");
    }
}

#[test]
fn a_missing_segment_is_detected() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut last = Point::default();
    let writes = (1..30).map(|counter| {
        let next = append(last, counter..counter + 1, 600);
        last = end(&next);
        vec![next]
    });
    let writes: Vec<Vec<Write>> = writes.collect();
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
    assert!(matches!(Wal::create(folder.path(), IDENTITY, SMALL, false), Err(Error::Exists(_))));
    let (mut wal, _) = Wal::open(folder.path(), IDENTITY, SMALL).expect("a good log");
    assert!(matches!(wal.append(&[append(points()[2], 4..5, 9000)]), Err(Error::TooLarge(_))));
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
    let txn = points()[2].next(zxid(2, 1), 0, Payload::Command(Bytes::from(payload)));
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
    save_snapshot(folder.path(), &summary(points()[2]), UNLIMITED, state(b"of an earlier life")).expect("a disk");
    assert!(matches!(Wal::create(folder.path(), IDENTITY, SMALL, false), Err(Error::Exists(_))));
    let folder = tempfile::tempdir().expect("a folder");
    let wal = create(folder.path(), SMALL);
    assert!(matches!(opened(folder.path(), SMALL), Err(Error::InUse(_))));
    drop(wal);
    assert!(opened(folder.path(), SMALL).is_ok());
}

#[test]
fn writes_too_large_for_one_batch_are_split() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut wal = create(folder.path(), SMALL);
    let mut writes = batches()[0].clone();
    writes.push(append(Point::default(), 1..40, 700));
    writes.push(append(end(&writes[writes.len() - 1]), 40..41, SMALL.payload_max()));
    let last = end(&writes[writes.len() - 1]);
    writes.extend([Write::AcceptEpoch(Epoch(2)), Write::SyncBegin(Epoch(2))]);
    writes.push(Write::Append { after: zxid(1, 40), txns: vec![txn(last, zxid(2, 1), 2900)] });
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
        let mut wal = create(folder.path(), SMALL);
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
                        let summary = summary(Point { zxid, time: 0, hash: 5 });
                        save_snapshot(folder.path(), &summary, UNLIMITED, state(b"state")).expect("a disk");
                        writes.push(Write::Install { summary, blob: Blob(0) });
                    } else if truncate {
                        writes.push(Write::Truncate(history.point_at(history.snapshot()).expect("it is in memory")));
                    }
                    if is_whole {
                        writes.push(Write::EpochInstalled(epoch));
                    }
                }
                Step::Append { count, size } if !whole.is_syncing() && whole.current_epoch() > Epoch(0) => {
                    let after = whole.end();
                    let epoch = whole.current_epoch();
                    let first = if after.zxid.epoch == epoch { after.zxid.counter + 1 } else { 1 };
                    let mut last = after;
                    let txns = (first..first + count).map(|counter| {
                        let txn = txn(last, Zxid::new(epoch, counter), size);
                        last = txn.point();
                        txn
                    });
                    writes.push(Write::Append { after: after.zxid, txns: txns.collect() });
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
                    let last = whole.history().end();
                    if last.zxid > Zxid::ZERO {
                        save_snapshot(folder.path(), &summary(last), UNLIMITED, state(b"state")).expect("a disk");
                        whole.snapshot_taken(last.zxid, usize::MAX, usize::MAX);
                        purge(folder.path(), last.zxid, wal.segment(), None).expect("a disk");
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
