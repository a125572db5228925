//! The power goes at any moment: whatever of what was not synced is on the disk then, the log comes back with all that was acknowledged.
//!
//! All that a log does to its files is noted, and done again to files of a simulated disk. At each step the power goes: of what was written and not
//! synced, each sector is there or not; of names that changed, a beginning or any part. What is left then is put into a folder and
//! opened (as in Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014). Then the power goes while it is opened.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use crossdock_zab::{Blob, Epoch, Ledger, Txn, Write, Zxid};

use super::files::{Done, end_noting, mark, note_all_of};
use super::{Identity, Options, SECTOR, Wal, adopt_snapshot, keep_snapshot, purge};

const IDENTITY: Identity = Identity { cluster: 7, server: 1 };
const SMALL: Options = Options { segment_len: 8 * SECTOR as u64 };
/// Steps of a log's life.
const STEPS: usize = 40;

/// Numbers that are the same in each run (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % limit as u64).expect("below a usize")
    }

    fn often(&mut self) -> bool {
        self.below(2) == 0
    }
}

/// A file: what is durable of it, and what is there while the power is.
#[derive(Clone, Default)]
struct Inode {
    durable: Vec<u8>,
    now: Vec<u8>,
    dirty: BTreeSet<usize>,
}

/// A change of names that is not durable.
#[derive(Clone)]
enum Change {
    Is(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

/// A disk with one folder.
#[derive(Clone, Default)]
struct Disk {
    inodes: Vec<Inode>,
    now: BTreeMap<PathBuf, usize>,
    durable: BTreeMap<PathBuf, usize>,
    open: Vec<Change>,
}

fn change(names: &mut BTreeMap<PathBuf, usize>, change: &Change) {
    match change {
        Change::Is(path, inode) => {
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
    /// A disk on which a folder's files are durable.
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

    fn names(&mut self, one: Change) {
        change(&mut self.now, &one);
        self.open.push(one);
    }

    fn does(&mut self, path: &Path, done: &Done) {
        match done {
            Done::Create => match self.now.get(path) {
                Some(inode) => {
                    let inode = &mut self.inodes[*inode];
                    inode.dirty.extend(0..inode.now.len().div_ceil(SECTOR));
                    inode.now.clear();
                }
                None => {
                    self.inodes.push(Inode::default());
                    self.names(Change::Is(path.to_owned(), self.inodes.len() - 1));
                }
            },
            Done::Write { offset, bytes } => {
                let inode = &mut self.inodes[self.now[path]];
                let begin = usize::try_from(*offset).expect("a small file");
                let end = begin + bytes.len();
                inode.now.resize(inode.now.len().max(end), 0);
                inode.now[begin..end].copy_from_slice(bytes);
                inode.dirty.extend(begin / SECTOR..end.div_ceil(SECTOR));
            }
            Done::Sync => {
                let inode = &mut self.inodes[self.now[path]];
                inode.durable.clone_from(&inode.now);
                inode.dirty.clear();
            }
            Done::Rename(to) => self.names(Change::Rename(path.to_owned(), to.clone())),
            Done::Remove => self.names(Change::Remove(path.to_owned())),
            Done::SyncFolder => {
                self.durable = self.now.clone();
                self.open.clear();
            }
            Done::Mark(_) => {}
        }
    }

    /// Puts into a folder what the power leaves.
    fn leave(&self, folder: &Path, dice: &mut Dice) {
        let mut names = self.durable.clone();
        let in_order = dice.often();
        let kept = dice.below(self.open.len() + 1);
        for (at, one) in self.open.iter().enumerate() {
            if if in_order { at < kept } else { dice.often() } {
                change(&mut names, one);
            }
        }
        for (path, inode) in names {
            let inode = &self.inodes[inode];
            let len = if dice.often() { inode.now.len() } else { inode.durable.len() };
            let mut bytes = inode.durable.clone();
            bytes.resize(len, 0);
            for sector in &inode.dirty {
                let (begin, end) = (sector * SECTOR, ((sector + 1) * SECTOR).min(inode.now.len()).min(len));
                if begin < end && dice.often() {
                    bytes[begin..end].copy_from_slice(&inode.now[begin..end]);
                }
            }
            std::fs::write(folder.join(path.file_name().expect("a name")), bytes).expect("a file");
        }
    }
}

/// What a log was told, write by write.
struct Life {
    /// What the writes come to, after each `append`.
    after: Vec<Ledger>,
    notes: Vec<(PathBuf, Done)>,
}

/// A log that lives for some steps: transactions, synchronisations that truncate or take a snapshot, snapshots and what they make needless.
fn live(folder: &Path, dice: &mut Dice) -> Life {
    note_all_of(folder);
    let mut wal = Wal::create(folder, IDENTITY, SMALL).expect("a new log");
    let mut after = vec![Ledger::default()];
    mark(folder, 0);
    let mut write = |wal: &mut Wal, writes: &[Write]| {
        let mut ledger = after.last().expect("one").clone();
        for write in writes {
            ledger.apply(write).expect("it stands where it may");
        }
        after.push(ledger.clone());
        wal.append(writes).expect("a disk");
        mark(folder, after.len() - 1);
        ledger
    };
    let begin = |epoch: u32| [Write::AcceptEpoch(Epoch(epoch)), Write::SyncBegin(Epoch(epoch))];
    let mut epoch = 1;
    let [accept, sync] = begin(1);
    let mut now = write(&mut wal, &[accept, sync, Write::EpochInstalled(Epoch(1))]);
    for _ in 0..STEPS {
        let last = now.history().last();
        match dice.below(10) {
            0 => {
                keep_snapshot(folder, last, b"state").expect("a disk");
                purge(folder, last, wal.segment()).expect("a disk");
            }
            1 => {
                epoch += 1;
                write(&mut wal, &begin(epoch));
                let counter = last.counter.saturating_sub(u32::try_from(dice.below(3)).expect("small")).max(1);
                let to = Zxid::new(last.epoch, counter);
                let is_there = now.history().has(to) && last != Zxid::ZERO;
                if is_there {
                    write(&mut wal, &[Write::Truncate(to)]);
                }
                now = write(&mut wal, &[Write::EpochInstalled(Epoch(epoch))]);
            }
            2 => {
                // Another's snapshot, of what this one does not have.
                epoch += 1;
                let zxid = Zxid::new(Epoch(epoch - 1), 1_000 + last.counter);
                let incoming = keep_snapshot(folder, Zxid::new(Epoch(9_999), 1), b"state").expect("a disk").path;
                let sum = snapshot_of(zxid);
                let file = super::files::create(&incoming).expect("a disk");
                super::files::write_at(&file, &incoming, &sum, 0).expect("a disk");
                super::files::sync_all(&file, &incoming).expect("a disk");
                adopt_snapshot(folder, zxid, &incoming).expect("a disk");
                let [accept, sync] = begin(epoch);
                let install = Write::Install { zxid, blob: Blob(0) };
                now = write(&mut wal, &[accept, sync, install, Write::EpochInstalled(Epoch(epoch))]);
            }
            _ => {
                let (first, count) = if last.epoch == Epoch(epoch) { (last.counter + 1, 2) } else { (1, 1) };
                let size = 1 + dice.below(1_000);
                let txn = |counter| {
                    let payload = Bytes::from(vec![u8::try_from(counter % 251).expect("a byte"); size]);
                    Txn { zxid: Zxid::new(Epoch(epoch), counter), payload }
                };
                let txns = (first..first + count).map(txn).collect();
                now = write(&mut wal, &[Write::Append { after: last, txns }]);
            }
        }
    }
    drop(wal);
    Life { after, notes: end_noting(folder) }
}

/// The bytes of a snapshot's file.
fn snapshot_of(zxid: Zxid) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let kept = keep_snapshot(folder.path(), zxid, b"state").expect("a disk");
    std::fs::read(kept.path).expect("a file")
}

/// Whether a log that came back says what the writes before it come to. What a snapshot has may be gone from it.
fn says(back: &Ledger, written: &Ledger) -> bool {
    let of = |ledger: &Ledger| {
        (ledger.accepted(), ledger.current(), ledger.history().last(), ledger.end(), ledger.is_syncing())
    };
    let floor = back.history().floor().max(written.history().floor());
    let behind =
        |ledger: &Ledger| ledger.history().between(floor, ledger.history().last()).cloned().collect::<Vec<_>>();
    of(back) == of(written) && behind(back) == behind(written)
}

/// Opens what is left; gives what was done to open it.
fn judge(folder: &Path, (acknowledged, begun): (usize, usize), life: &Life, why: &str) -> Vec<(PathBuf, Done)> {
    note_all_of(folder);
    let opened = Wal::open(folder, IDENTITY, SMALL).map(|(_, recovered)| recovered);
    let notes = end_noting(folder);
    let recovered = opened.unwrap_or_else(|problem| panic!("{why}: {problem}"));
    let is_one = life.after[acknowledged..=begun].iter().any(|ledger| says(&recovered.ledger, ledger));
    let (back, least) = (&recovered.ledger, &life.after[acknowledged]);
    assert!(is_one, "{why}: it comes back with {back:?}, and {least:?} was acknowledged");
    let snapshot = recovered.snapshot.map(|(snapshot, state)| (snapshot.zxid, state));
    let has_floor = snapshot.as_ref().is_none_or(|(zxid, state)| *zxid >= back.history().floor() && state == b"state");
    assert!(has_floor, "{why}: {snapshot:?} is its snapshot");
    notes
}

#[test]
fn whenever_the_power_goes_the_log_comes_back_with_all_that_was_acknowledged() {
    let lives: u64 = std::env::var("CROSSDOCK_LIVES").map_or(2, |text| text.parse().expect("a number"));
    let (mut losses, mut while_opened) = (0, 0);
    for seed in 1..=lives {
        let mut dice = Dice(seed);
        let home = tempfile::tempdir().expect("a folder");
        let life = live(home.path(), &mut dice);
        let mut disk = Disk::default();
        let (mut acknowledged, mut is_made) = (0, false);
        for (at, (path, done)) in life.notes.iter().enumerate() {
            disk.does(path, done);
            if let Done::Mark(number) = done {
                (acknowledged, is_made) = (*number, true);
            }
            if !is_made {
                continue;
            }
            // What comes after it may have been begun.
            let begun = (acknowledged + 1).min(life.after.len() - 1);
            let left = tempfile::tempdir().expect("a folder");
            disk.leave(left.path(), &mut dice);
            let first = Disk::of(left.path());
            let notes = judge(left.path(), (acknowledged, begun), &life, &format!("life {seed}, step {at}"));
            losses += 1;
            if notes.is_empty() || at % 4 != 0 {
                continue;
            }
            // Once more while it is opened.
            let mut again = first;
            let until = dice.below(notes.len());
            notes[..=until].iter().for_each(|(path, done)| again.does(path, done));
            let left = tempfile::tempdir().expect("a folder");
            again.leave(left.path(), &mut dice);
            judge(left.path(), (acknowledged, begun), &life, &format!("life {seed}, step {at}, opened to {until}"));
            while_opened += 1;
        }
    }
    println!("{lives} lives: the power went {losses} times, and {while_opened} times while a log was opened");
    assert!(losses > 300 && while_opened > 50, "{losses} and {while_opened}");
}
