//! A disk that loses what was not synced, as a whole or in part.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::seeded::Random;

/// The unit that is written atomically, in bytes.
const SECTOR: usize = 512;

/// A change of names that may not be durable yet.
#[derive(Debug, Clone)]
enum Change {
    Create(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

/// A file, under whatever name.
#[derive(Debug, Default, Clone)]
struct Inode {
    content: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors that were written since the last sync.
    dirty: BTreeSet<usize>,
    /// It was made empty since then.
    is_truncated: bool,
    is_locked: bool,
}

impl Inode {
    /// The sectors to write: those before a truncation are of no use.
    fn begin_sync(&mut self) -> BTreeSet<usize> {
        if std::mem::take(&mut self.is_truncated) {
            self.durable.clear();
        }
        self.durable.resize(self.content.len(), 0);
        std::mem::take(&mut self.dirty)
    }
}

type Names = BTreeMap<PathBuf, usize>;

/// The disk of an instance.
#[derive(Debug, Default, Clone)]
pub(crate) struct Disk {
    inodes: Vec<Inode>,
    folders: BTreeSet<PathBuf>,
    names: Names,
    durable_names: Names,
    unsynced: Vec<Change>,
    /// Open files of earlier generations are closed.
    pub(crate) generation: u64,
    /// The power fails at an operation, one of this name if it is given, after so many others.
    pub(crate) power_fails_at: Option<(Option<&'static str>, u64)>,
    /// A sync has failed since the last start, and one of the log.
    pub(crate) has_sync_failed: bool,
    pub(crate) has_log_failed: bool,
    /// There is no space for another byte.
    pub(crate) is_full: bool,
    /// The next sync fails.
    pub(crate) fails_sync: bool,
    /// The next part of a received snapshot is stored with a wrong bit.
    pub(crate) damages_received: bool,
    /// Maximum duration of a sync in milliseconds.
    pub(crate) sync_millis: u64,
}

fn change(names: &mut Names, one: &Change) {
    match one {
        Change::Create(path, inode) => {
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
    pub(crate) fn add_folder(&mut self, folder: &Path) {
        self.folders.insert(folder.to_owned());
    }

    pub(crate) fn has_folder(&self, folder: &Path) -> bool {
        self.folders.contains(folder)
    }

    pub(crate) fn list(&self, folder: &Path) -> Vec<PathBuf> {
        self.names.keys().filter(|path| path.parent() == Some(folder)).cloned().collect()
    }

    /// All files and their contents.
    #[cfg(test)]
    pub(crate) fn files(&self) -> impl Iterator<Item = (&Path, &[u8])> {
        self.names.iter().map(|(path, inode)| (path.as_path(), self.content(*inode)))
    }

    pub(crate) fn find(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn change(&mut self, one: Change) {
        change(&mut self.names, &one);
        self.unsynced.push(one);
    }

    /// Creates a file, or makes an existing one empty.
    pub(crate) fn create(&mut self, path: &Path) -> usize {
        if let Ok(inode) = self.find(path) {
            let file = &mut self.inodes[inode];
            file.content.clear();
            file.dirty.clear();
            file.is_truncated = true;
            return inode;
        }
        self.inodes.push(Inode::default());
        let inode = self.inodes.len() - 1;
        self.change(Change::Create(path.to_owned(), inode));
        inode
    }

    pub(crate) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.find(from)?;
        self.change(Change::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    pub(crate) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.find(path)?;
        self.change(Change::Remove(path.to_owned()));
        Ok(())
    }

    pub(crate) fn lock(&mut self, inode: usize) -> io::Result<()> {
        if std::mem::replace(&mut self.inodes[inode].is_locked, true) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(())
    }

    pub(crate) fn unlock(&mut self, inode: usize) {
        self.inodes[inode].is_locked = false;
    }

    pub(crate) fn content(&self, inode: usize) -> &[u8] {
        &self.inodes[inode].content
    }

    pub(crate) fn write(&mut self, inode: usize, bytes: &[u8], offset: usize) -> io::Result<()> {
        let file = &mut self.inodes[inode];
        let end = offset + bytes.len();
        if file.content.len() < end {
            if self.is_full {
                return Err(io::Error::from_raw_os_error(rustix::io::Errno::NOSPC.raw_os_error()));
            }
            file.content.resize(end, 0);
        }
        file.content[offset..end].copy_from_slice(bytes);
        file.dirty.extend(offset / SECTOR..end.div_ceil(SECTOR));
        Ok(())
    }

    pub(crate) fn sync(&mut self, inode: usize) {
        let file = &mut self.inodes[inode];
        for sector in file.begin_sync() {
            copy_sector(&file.content, &mut file.durable, sector);
        }
    }

    /// Syncs a file, and fails: some sectors are durable, and the others will not be written by a later sync, either.
    pub(crate) fn fail_sync(&mut self, inode: usize, random: &mut Random) -> io::Error {
        // The next segment has its first header before it has its name.
        let has_header = self.inodes[inode].content.first().is_some_and(|first| *first != 0);
        let is_log = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with("log-") || (name == "spare" && has_header)
        };
        self.has_sync_failed = true;
        self.has_log_failed |= self.names.iter().any(|(path, at)| *at == inode && is_log(path));
        let file = &mut self.inodes[inode];
        for sector in file.begin_sync() {
            if random.one_in(2) {
                copy_sector(&file.content, &mut file.durable, sector);
            }
        }
        io::Error::other("input/output error")
    }

    pub(crate) fn sync_names(&mut self) {
        self.durable_names = self.names.clone();
        self.unsynced.clear();
    }

    /// No failure is to come.
    pub(crate) fn calm_down(&mut self) {
        (self.power_fails_at, self.fails_sync, self.damages_received, self.is_full) = (None, false, false, false);
    }

    /// Closes all files; what was written stays.
    pub(crate) fn close_all(&mut self) {
        self.generation += 1;
        (self.power_fails_at, self.fails_sync) = (None, false);
        (self.has_sync_failed, self.has_log_failed) = (false, false);
        for inode in &mut self.inodes {
            inode.is_locked = false;
        }
    }

    /// Loses what was not synced, but for some of it.
    pub(crate) fn lose_power(&mut self, random: &mut Random) {
        self.close_all();
        let mut names = self.durable_names.clone();
        let in_order = random.one_in(2);
        let kept = random.index(self.unsynced.len() + 1);
        for (at, one) in self.unsynced.iter().enumerate() {
            if if in_order { at < kept } else { random.one_in(2) } {
                change(&mut names, one);
            }
        }
        // A file may have the length of either or one between, and each sector the content of either.
        let mut inodes = Vec::new();
        for inode in names.values_mut() {
            let Inode { content, durable, dirty, is_truncated, .. } = &self.inodes[*inode];
            let (least, most) = (content.len().min(durable.len()), content.len().max(durable.len()));
            let len = match random.below(3) {
                0 => content.len(),
                1 => durable.len(),
                _ => least + random.index(most - least + 1),
            };
            let mut left = if *is_truncated && random.one_in(2) { Vec::new() } else { durable.clone() };
            left.resize(len, 0);
            for sector in dirty {
                if random.one_in(2) {
                    copy_sector(content, &mut left, *sector);
                }
            }
            *inode = inodes.len();
            inodes.push(Inode { durable: left.clone(), content: left, ..Inode::default() });
        }
        self.inodes = inodes;
        self.durable_names = names.clone();
        self.names = names;
        self.unsynced.clear();
    }

    /// Loses everything.
    pub(crate) fn wipe(&mut self) {
        let generation = self.generation + 1;
        *self = Self { generation, sync_millis: self.sync_millis, ..Self::default() };
    }
}

/// Copies what both have of a sector.
fn copy_sector(from: &[u8], to: &mut [u8], sector: usize) {
    let end = ((sector + 1) * SECTOR).min(from.len()).min(to.len());
    let begin = sector * SECTOR;
    if begin < end {
        to[begin..end].copy_from_slice(&from[begin..end]);
    }
}
