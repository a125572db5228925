//! After a power loss at any step, the log recovers everything that was acknowledged.
//!
//! The file operations of a log are recorded and replayed on a simulated disk. The power fails at each step: every
//! unsynced sector may or may not be there, and so may any of the unsynced name changes. The result is written to a
//! folder and opened (as in Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014). Then the power fails
//! again while the log is opened.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use crossdock_zab::{Blob, Epoch, LogState, Payload, Point, Summary, Txn, Write, Zxid};

use super::{Identity, Options, SECTOR, UNLIMITED, Wal, adopt_snapshot, purge, save_snapshot, snapshot_path};
use crate::platform::files::{FileOp, mark, start_recording, stop_recording};

const IDENTITY: Identity = Identity { cluster: 7, server: 1 };
const SMALL: Options = Options { segment_len: 8 * SECTOR as u64 };
/// Operations in the life of a log.
const STEPS: usize = 40;

/// A deterministic random number generator (splitmix64).
struct Rng(u64);

impl Rng {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % limit as u64).expect("below a usize")
    }

    fn coin(&mut self) -> bool {
        self.below(2) == 0
    }
}

/// A file: its durable content, its current content, and the sectors where they differ.
#[derive(Clone, Default)]
struct Inode {
    durable: Vec<u8>,
    now: Vec<u8>,
    dirty: BTreeSet<usize>,
}

/// A name change that is not durable yet.
#[derive(Clone)]
enum Change {
    Add(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

/// A disk with one folder.
#[derive(Clone, Default)]
struct Disk {
    inodes: Vec<Inode>,
    now: BTreeMap<PathBuf, usize>,
    durable: BTreeMap<PathBuf, usize>,
    unsynced: Vec<Change>,
}

fn change_names(names: &mut BTreeMap<PathBuf, usize>, change: &Change) {
    match change {
        Change::Add(path, inode) => {
            names.insert(path.clone(), *inode);
        }
        Change::Rename(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
        Change::Remove(path) => {
            names.remove(path);
        }
    }
}

impl Disk {
    /// A disk on which the files of a folder are durable.
    fn of(folder: &Path) -> Self {
        let mut this = Self::default();
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("a file").path();
            let bytes = std::fs::read(&path).expect("a file");
            this.inodes.push(Inode { durable: bytes.clone(), now: bytes, dirty: BTreeSet::new() });
            this.now.insert(path, this.inodes.len() - 1);
        }
        this.durable = this.now.clone();
        this
    }

    fn change_name(&mut self, one: Change) {
        change_names(&mut self.now, &one);
        self.unsynced.push(one);
    }

    fn apply(&mut self, path: &Path, op: &FileOp) {
        match op {
            FileOp::Create => match self.now.get(path) {
                Some(inode) => {
                    let inode = &mut self.inodes[*inode];
                    inode.dirty.extend(0..inode.now.len().div_ceil(SECTOR));
                    inode.now.clear();
                }
                None => {
                    self.inodes.push(Inode::default());
                    self.change_name(Change::Add(path.to_owned(), self.inodes.len() - 1));
                }
            },
            FileOp::Write { offset, bytes } => {
                let inode = &mut self.inodes[self.now[path]];
                let begin = usize::try_from(*offset).expect("a small file");
                let end = begin + bytes.len();
                inode.now.resize(inode.now.len().max(end), 0);
                inode.now[begin..end].copy_from_slice(bytes);
                inode.dirty.extend(begin / SECTOR..end.div_ceil(SECTOR));
            }
            FileOp::Sync => {
                let inode = &mut self.inodes[self.now[path]];
                inode.durable.clone_from(&inode.now);
                inode.dirty.clear();
            }
            FileOp::Rename(to) => self.change_name(Change::Rename(path.to_owned(), to.clone())),
            FileOp::Remove => self.change_name(Change::Remove(path.to_owned())),
            FileOp::SyncFolder => {
                self.durable = self.now.clone();
                self.unsynced.clear();
            }
            FileOp::Mark(_) => {}
        }
    }

    /// Writes what may be left after a power loss to a folder.
    fn write_remains(&self, folder: &Path, rng: &mut Rng) {
        let mut names = self.durable.clone();
        let in_order = rng.coin();
        let kept = rng.below(self.unsynced.len() + 1);
        for (at, one) in self.unsynced.iter().enumerate() {
            if if in_order { at < kept } else { rng.coin() } {
                change_names(&mut names, one);
            }
        }
        for (path, inode) in names {
            let inode = &self.inodes[inode];
            let len = if rng.coin() { inode.now.len() } else { inode.durable.len() };
            let mut bytes = inode.durable.clone();
            bytes.resize(len, 0);
            for sector in &inode.dirty {
                let (begin, end) = (sector * SECTOR, ((sector + 1) * SECTOR).min(inode.now.len()).min(len));
                if begin < end && rng.coin() {
                    bytes[begin..end].copy_from_slice(&inode.now[begin..end]);
                }
            }
            std::fs::write(folder.join(path.file_name().expect("a name")), bytes).expect("a file");
        }
    }
}

/// A recorded log.
struct RecordedLog {
    /// The log state after each `append`.
    after: Vec<LogState>,
    ops: Vec<(PathBuf, FileOp)>,
}

/// Runs a log through random operations: transactions, synchronisations with TRUNC, SNAP or a long DIFF, snapshots and purges.
fn run_log(folder: &Path, rng: &mut Rng) -> RecordedLog {
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
        match rng.below(10) {
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
                let counter = last.counter.saturating_sub(u32::try_from(rng.below(3)).expect("small")).max(1);
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
                let size = 1 + rng.below(1_000);
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

#[test]
fn a_power_loss_at_any_step_loses_nothing_acknowledged() {
    let lives: u64 = std::env::var("CROSSDOCK_LIVES").map_or(2, |text| text.parse().expect("a number"));
    let (mut losses, mut while_opened) = (0, 0);
    for seed in 1..=lives {
        let mut rng = Rng(seed);
        let home = tempfile::tempdir().expect("a folder");
        let life = run_log(home.path(), &mut rng);
        let mut disk = Disk::default();
        let (mut acknowledged, mut is_made) = (0, false);
        for (at, (path, op)) in life.ops.iter().enumerate() {
            disk.apply(path, op);
            if let FileOp::Mark(number) = op {
                (acknowledged, is_made) = (*number, true);
            }
            if !is_made {
                continue;
            }
            // The write after it may have been started.
            let begun = (acknowledged + 1).min(life.after.len() - 1);
            let left = tempfile::tempdir().expect("a folder");
            disk.write_remains(left.path(), &mut rng);
            let first = Disk::of(left.path());
            let ops = check_recovery(left.path(), (acknowledged, begun), &life, &format!("life {seed}, step {at}"));
            losses += 1;
            if ops.is_empty() || at % 4 != 0 {
                continue;
            }
            // Fail once more while it is opened.
            let mut again = first;
            let until = rng.below(ops.len());
            ops[..=until].iter().for_each(|(path, op)| again.apply(path, op));
            let left = tempfile::tempdir().expect("a folder");
            again.write_remains(left.path(), &mut rng);
            check_recovery(
                left.path(),
                (acknowledged, begun),
                &life,
                &format!("life {seed}, step {at}, recovery step {until}"),
            );
            while_opened += 1;
        }
    }
    println!("{lives} lives: {losses} power losses, and {while_opened} during recovery");
    assert!(losses > 300 && while_opened > 50, "{losses} and {while_opened}");
}
