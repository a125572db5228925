//! All file operations of the log, in one place so that tests can record them and simulate a power loss at any step.

use std::fs::{File, OpenOptions};
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

#[cfg(test)]
pub(super) use recorded::{FileOp, mark, start_recording, stop_recording};

/// Creates a file, or truncates an existing one.
pub(super) fn create(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
    #[cfg(test)]
    recorded::record(path, FileOp::Create);
    Ok(file)
}

/// Opens an existing file.
pub(super) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// Writes bytes at an offset. They are not durable yet.
pub(super) fn write_at(file: &File, path: &Path, bytes: &[u8], offset: u64) -> io::Result<()> {
    file.write_all_at(bytes, offset)?;
    #[cfg(test)]
    recorded::record(path, FileOp::Write { offset, bytes: bytes.to_vec() });
    let _ = path;
    Ok(())
}

/// Lets the disk start to write a part of a file, without waiting for it, and without the flush of its cache that a sync is:
/// that would delay the syncs of other files. The part need not stay in memory afterwards.
pub(super) fn start_writing(file: &File, offset: u64, len: u64) {
    // Linux starts to write pages that are to leave the cache. Elsewhere, or if it fails, the sync writes everything.
    let _ = rustix::fs::fadvise(file, offset, NonZeroU64::new(len), rustix::fs::Advice::DontNeed);
}

/// Makes written data durable, if the length of the file has not changed.
pub(super) fn sync_data(file: &File, path: &Path) -> io::Result<()> {
    file.sync_data()?;
    #[cfg(test)]
    recorded::record(path, FileOp::Sync);
    let _ = path;
    Ok(())
}

/// Makes written data and the length of the file durable.
pub(super) fn sync_all(file: &File, path: &Path) -> io::Result<()> {
    file.sync_all()?;
    #[cfg(test)]
    recorded::record(path, FileOp::Sync);
    let _ = path;
    Ok(())
}

/// Renames a file within its folder. The new name is not durable yet.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::rename(from, to)?;
    #[cfg(test)]
    recorded::record(from, FileOp::Rename(to.to_owned()));
    Ok(())
}

/// Deletes a file. That is not durable yet.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    std::fs::remove_file(path)?;
    #[cfg(test)]
    recorded::record(path, FileOp::Remove);
    Ok(())
}

/// Opens a folder, to [sync](sync_folder) it.
pub(super) fn open_folder(folder: &Path) -> io::Result<File> {
    File::open(folder)
}

/// Makes the entries of an open folder durable.
pub(super) fn sync_folder(opened: &File, folder: &Path) -> io::Result<()> {
    opened.sync_all()?;
    #[cfg(test)]
    recorded::record(&folder.join("itself"), FileOp::SyncFolder);
    let _ = folder;
    Ok(())
}

/// Deletes a folder with everything in it, if it exists. That is not durable yet.
pub(super) fn remove_folder(folder: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Renames a folder, durably. The new name must be that of an empty folder, or of none.
pub(super) fn rename_folder(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::rename(from, to)?;
    File::open(parent_of(to))?.sync_all()
}

fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Creates a folder and its missing parents, durably.
pub(super) fn create_folder(folder: &Path) -> io::Result<()> {
    let missing = folder.ancestors().take_while(|above| !above.as_os_str().is_empty() && !above.exists());
    let missing: Vec<&Path> = missing.collect();
    std::fs::create_dir_all(folder)?;
    for made in missing {
        File::open(parent_of(made))?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod recorded {
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};
    use std::sync::Mutex;

    /// A file operation.
    #[derive(Debug, Clone)]
    pub(in crate::wal) enum FileOp {
        Create,
        Write {
            offset: u64,
            bytes: Vec<u8>,
        },
        Sync,
        Rename(PathBuf),
        Remove,
        SyncFolder,
        /// A marker set by a test.
        Mark(usize),
    }

    /// The operations in each recorded folder, in order, with the path of the file.
    static RECORDED: Mutex<BTreeMap<PathBuf, Vec<(PathBuf, FileOp)>>> = Mutex::new(BTreeMap::new());

    pub(in crate::wal) fn start_recording(folder: &Path) {
        RECORDED.lock().expect("recorded operations").insert(folder.to_owned(), Vec::new());
    }

    pub(super) fn record(path: &Path, op: FileOp) {
        let mut recorded = RECORDED.lock().expect("recorded operations");
        if let Some(notes) = path.parent().and_then(|folder| recorded.get_mut(folder)) {
            notes.push((path.to_owned(), op));
        }
    }

    pub(in crate::wal) fn mark(folder: &Path, number: usize) {
        record(&folder.join("itself"), FileOp::Mark(number));
    }

    pub(in crate::wal) fn stop_recording(folder: &Path) -> Vec<(PathBuf, FileOp)> {
        RECORDED.lock().expect("recorded operations").remove(folder).unwrap_or_default()
    }
}
