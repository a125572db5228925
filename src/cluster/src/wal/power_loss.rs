//! After a power loss at any step, the log recovers everything that was acknowledged.
//!
//! The file operations of a log are recorded and replayed on a simulated disk. The power fails at each step: every
//! unsynced sector may or may not be there, and so may any of the unsynced name changes. The result is written to a
//! folder and opened (as in Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014). Then the power fails
//! again while the log is opened.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use crossdock_zab::{Blob, Epoch, LogState, Payload, Point, Summary, Txn, Write, Zxid};

use super::{Identity, Options, SECTOR, UNLIMITED, Wal, adopt_snapshot, purge, save_snapshot, snapshot_path};
use crate::platform::disk::Disk;
use crate::platform::files::{FileOp, mark, start_recording, stop_recording};
use crate::platform::seeded::Random;

const IDENTITY: Identity = Identity { cluster: 7, server: 1 };
const SMALL: Options = Options { segment_len: 8 * SECTOR as u64 };
/// Operations in the life of a log.
const STEPS: usize = 40;

/// A disk on which the files of a folder are durable.
fn disk_of(folder: &Path) -> Disk {
    let mut disk = Disk::default();
    for path in list_files(folder) {
        let inode = disk.create(&path);
        disk.write(inode, &std::fs::read(&path).expect("a file"), 0).expect("space");
        disk.sync(inode);
    }
    disk.sync_names();
    disk
}

fn list_files(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("a file").path()).collect()
}

fn apply(disk: &mut Disk, path: &Path, op: &FileOp) {
    let inode = disk.find(path);
    match op {
        FileOp::Create => {
            disk.create(path);
        }
        FileOp::Write { offset, bytes } => {
            let offset = usize::try_from(*offset).expect("a small file");
            disk.write(inode.expect("a file"), bytes, offset).expect("space");
        }
        FileOp::Sync => disk.sync(inode.expect("a file")),
        FileOp::Rename(to) => disk.rename(path, to).expect("a file"),
        FileOp::Remove => disk.remove(path).expect("a file"),
        FileOp::SyncFolder => disk.sync_names(),
        FileOp::Mark(_) => {}
    }
}

/// Writes what may be left after a power loss to a folder.
fn write_remains(disk: &Disk, folder: &Path, random: &mut Random) {
    let mut left = disk.clone();
    left.lose_power(random);
    write_files(&left, folder);
}

/// Writes the files of a disk to a folder, as a process sees them.
fn write_files(disk: &Disk, folder: &Path) {
    for (path, content) in disk.files() {
        std::fs::write(folder.join(path.file_name().expect("a name")), content).expect("a file");
    }
}

/// A recorded log.
struct RecordedLog {
    /// The log state after each `append`.
    after: Vec<LogState>,
    ops: Vec<(PathBuf, FileOp)>,
}

/// Runs a log through random operations: transactions, synchronisations with TRUNC, SNAP or a long DIFF, snapshots and purges.
fn run_log(folder: &Path, rng: &mut Random) -> RecordedLog {
    start_recording(folder);
    let mut wal = Wal::create(folder, IDENTITY, SMALL, true).expect("a new log");
    let mut after = vec![LogState::default()];
    mark(folder, 0);
    let mut write = |wal: &mut Wal, writes: &[Write]| {
        let mut log_state = after.last().expect("one").clone();
        for write in writes {
            log_state.apply(write).expect("a valid write");
        }
        after.push(log_state.clone());
        wal.append(writes).expect("a disk");
        mark(folder, after.len() - 1);
        log_state
    };
    let begin = |epoch: u32| [Write::AcceptEpoch(Epoch(epoch)), Write::SyncBegin(Epoch(epoch))];
    let mut epoch = 1;
    let [accept, sync] = begin(1);
    let mut now = write(&mut wal, &[accept, sync, Write::EpochInstalled(Epoch(1))]);
    for _ in 0..STEPS {
        let end = now.history().end();
        let last = end.zxid;
        match rng.index(10) {
            0 => {
                save_snapshot(folder, &Summary { point: end, membership: None }, UNLIMITED, |to| {
                    to.write_all(b"state")
                })
                .expect("a disk");
                purge(folder, last, wal.segment(), None).expect("a disk");
            }
            1 => {
                epoch += 1;
                write(&mut wal, &begin(epoch));
                let counter = last.counter.saturating_sub(u32::try_from(rng.index(3)).expect("small")).max(1);
                let to = Zxid::new(last.epoch, counter);
                if let Some(to) = now.history().point_at(to).filter(|_| last != Zxid::ZERO) {
                    write(&mut wal, &[Write::Truncate(to)]);
                }
                now = write(&mut wal, &[Write::EpochInstalled(Epoch(epoch))]);
            }
            2 => {
                // A snapshot received from another instance.
                epoch += 1;
                let zxid = Zxid::new(Epoch(epoch - 1), 1_000 + last.counter);
                let summary = |zxid| Summary { point: Point { zxid, time: 5, hash: 6 }, membership: None };
                let elsewhere = summary(Zxid::new(Epoch(9_999), 1));
                save_snapshot(folder, &elsewhere, UNLIMITED, |to| to.write_all(b"state")).expect("a disk");
                let incoming = snapshot_path(folder, elsewhere.point.zxid);
                let sum = snapshot_of(&summary(zxid));
                let file = crate::platform::files::create(&incoming).expect("a disk");
                crate::platform::files::write_at(&file, &incoming, &sum, 0).expect("a disk");
                crate::platform::files::sync_all(&file, &incoming).expect("a disk");
                adopt_snapshot(folder, zxid, &incoming).expect("a disk");
                let [accept, sync] = begin(epoch);
                let install = Write::Install { summary: summary(zxid), blob: Blob(0) };
                now = write(&mut wal, &[accept, sync, install, Write::EpochInstalled(Epoch(epoch))]);
            }
            3 => {
                // More transactions than a segment holds.
                write(&mut wal, &begin(epoch + 1));
                let of = if last.epoch == Epoch(0) { Epoch(1) } else { last.epoch };
                let mut after = end;
                for counter in last.counter + 1..last.counter + 8 {
                    let txn = txn(after, Zxid::new(of, counter), 700);
                    write(&mut wal, &[Write::Append { after: after.zxid, txns: vec![txn.clone()] }]);
                    after = txn.point();
                }
                epoch += 1;
                now = write(&mut wal, &[Write::EpochInstalled(Epoch(epoch))]);
            }
            _ => {
                let (first, count) = if last.epoch == Epoch(epoch) { (last.counter + 1, 2) } else { (1, 1) };
                let size = 1 + rng.index(1_000);
                let mut after = end;
                let next = |counter| {
                    let txn = txn(after, Zxid::new(Epoch(epoch), counter), size);
                    after = txn.point();
                    txn
                };
                let txns = (first..first + count).map(next).collect();
                now = write(&mut wal, &[Write::Append { after: last, txns }]);
            }
        }
    }
    drop(wal);
    RecordedLog { after, ops: stop_recording(folder) }
}

/// A transaction with this many bytes.
fn txn(after: Point, zxid: Zxid, size: usize) -> Txn {
    let payload = Bytes::from(vec![u8::try_from(zxid.counter % 251).expect("a byte") + 1; size]);
    after.next(zxid, 5, Payload::Command(payload))
}

/// The content of a snapshot file.
fn snapshot_of(summary: &Summary) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    save_snapshot(folder.path(), summary, UNLIMITED, |to| to.write_all(b"state")).expect("a disk");
    std::fs::read(snapshot_path(folder.path(), summary.point.zxid)).expect("a file")
}

/// Whether a recovered state equals the written one, except for transactions that a snapshot covers.
fn matches(back: &LogState, written: &LogState) -> bool {
    let of = |log_state: &LogState| {
        (
            log_state.accepted_epoch(),
            log_state.current_epoch(),
            log_state.history().end(),
            log_state.end(),
            log_state.is_syncing(),
        )
    };
    let floor = back.history().floor().max(written.history().floor());
    let behind = |log_state: &LogState| {
        log_state.history().between(floor, log_state.history().last()).cloned().collect::<Vec<_>>()
    };
    of(back) == of(written) && behind(back) == behind(written)
}

/// Opens what is left, checks it, and returns the file operations of opening.
fn check_recovery(
    folder: &Path,
    (acknowledged, begun): (usize, usize),
    life: &RecordedLog,
    why: &str,
) -> Vec<(PathBuf, FileOp)> {
    start_recording(folder);
    let opened = Wal::open(folder, IDENTITY, SMALL).map(|(_, recovered)| recovered);
    let ops = stop_recording(folder);
    let recovered = opened.unwrap_or_else(|problem| panic!("{why}: {problem}"));
    let is_one = life.after[acknowledged..=begun].iter().any(|log_state| matches(&recovered.log_state, log_state));
    let (back, least) = (&recovered.log_state, &life.after[acknowledged]);
    assert!(is_one, "{why}: recovered {back:?}, but {least:?} was acknowledged");
    let snapshot = recovered.snapshot.map(|mut opened| {
        let mut state = Vec::new();
        opened.state.read_to_end(&mut state).expect("a disk");
        (opened.summary.point.zxid, state)
    });
    let has_floor = snapshot.as_ref().is_none_or(|(zxid, state)| *zxid >= back.history().floor() && state == b"state");
    assert!(has_floor, "{why}: wrong snapshot {snapshot:?}");
    ops
}

/// Lets the power fail, and checks what is left.
fn check_loss(disk: &Disk, steps: (usize, usize), life: &RecordedLog, random: &mut Random, why: &str) {
    let left = tempfile::tempdir().expect("a folder");
    write_remains(disk, left.path(), random);
    check_recovery(left.path(), steps, life, why);
}

/// Opens a log again after a failed sync, appends a write, and lets the power fail: what the sync has not written may come
/// back, and must not be in the way.
fn check_failed_sync(disk: &mut Disk, folder: &Path, random: &mut Random, why: &str) {
    for path in list_files(folder) {
        std::fs::remove_file(path).expect("a file");
    }
    write_files(disk, folder);
    start_recording(folder);
    let (mut wal, recovered) = Wal::open(folder, IDENTITY, SMALL).unwrap_or_else(|problem| panic!("{why}: {problem}"));
    let mut written = recovered.log_state;
    let accept = Write::AcceptEpoch(written.accepted_epoch().next().expect("a small one"));
    written.apply(&accept).expect("a valid write");
    wal.append(&[accept]).expect("a disk");
    drop(wal);
    for (path, op) in stop_recording(folder) {
        apply(disk, &path, &op);
    }
    let left = tempfile::tempdir().expect("a folder");
    write_remains(disk, left.path(), random);
    let opened = Wal::open(left.path(), IDENTITY, SMALL);
    let (_, back) = opened.unwrap_or_else(|problem| panic!("{why}, then a power loss: {problem}"));
    assert!(matches(&back.log_state, &written), "{why}, then a power loss: {:?}, not {written:?}", back.log_state);
}

#[test]
fn a_power_loss_at_any_step_loses_nothing_acknowledged() {
    let lives: u64 = std::env::var("CROSSDOCK_LIVES").map_or(2, |text| text.parse().expect("a number"));
    let (mut losses, mut while_opened, mut failed_syncs) = (0, 0, 0);
    for seed in 1..=lives {
        let mut rng = Random::new(seed);
        let home = tempfile::tempdir().expect("a folder");
        let life = run_log(home.path(), &mut rng);
        let mut disk = Disk::default();
        let (mut acknowledged, mut is_made) = (0, false);
        for (at, (path, op)) in life.ops.iter().enumerate() {
            apply(&mut disk, path, op);
            if let FileOp::Mark(number) = op {
                (acknowledged, is_made) = (*number, true);
            }
            if !is_made {
                continue;
            }
            // The write after it may have been started.
            let begun = (acknowledged + 1).min(life.after.len() - 1);
            let left = tempfile::tempdir().expect("a folder");
            write_remains(&disk, left.path(), &mut rng);
            let first = disk_of(left.path());
            let ops = check_recovery(left.path(), (acknowledged, begun), &life, &format!("life {seed}, step {at}"));
            losses += 1;
            if ops.is_empty() || at % 4 != 0 {
                continue;
            }
            // Fail once more while it is opened.
            let mut again = first.clone();
            let until = rng.index(ops.len());
            let why = format!("life {seed}, step {at}, recovery step {until}");
            ops[..=until].iter().for_each(|(path, op)| apply(&mut again, path, op));
            check_loss(&again, (acknowledged, begun), &life, &mut rng, &why);
            while_opened += 1;
            // A sync fails while it is opened, and once more after it was opened again.
            let is_sync = |(_, op): &&(PathBuf, FileOp)| matches!(op, FileOp::Sync);
            let Some((failing, _)) = ops[until..].iter().find(is_sync) else { continue };
            let mut again = first;
            ops[..until].iter().for_each(|(path, op)| apply(&mut again, path, op));
            if let Ok(inode) = again.find(failing) {
                again.fail_sync(inode, &mut rng);
            }
            check_failed_sync(&mut again, left.path(), &mut rng, &format!("{why}, failed sync"));
            failed_syncs += 1;
        }
    }
    println!(
        "{lives} lives: {losses} power losses, {while_opened} during recovery, {failed_syncs} after a failed sync"
    );
    assert!(losses > 300 && while_opened > 50 && failed_syncs > 20, "{losses}, {while_opened} and {failed_syncs}");
}
