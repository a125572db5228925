//! All file operations, in one place so that tests can record them and simulate a power loss at any step.

pub(crate) use std::fs::File;
use std::fs::{OpenOptions, TryLockError};
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

#[cfg(test)]
pub(crate) use recorded::{FileOp, mark, start_recording, stop_recording};

/// Creates a file, or truncates an existing one.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
    #[cfg(test)]
    recorded::record(path, FileOp::Create);
    Ok(file)
}

/// Opens an existing file.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// Opens an existing file to read it.
pub(crate) fn open_to_read(path: &Path) -> io::Result<File> {
    File::open(path)
}

/// The content of a file.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    std::fs::read(path)
}

/// Fills the buffer from an offset of a file.
pub(crate) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    file.read_exact_at(buffer, offset)
}

/// The files of a folder, in any order.
pub(crate) fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    std::fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect()
}

/// Whether there is a folder.
pub(crate) fn has_folder(folder: &Path) -> bool {
    folder.exists()
}

/// Locks a file against other processes until it is closed.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] if it is locked.
pub(crate) fn lock(file: &File) -> io::Result<()> {
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => io::ErrorKind::WouldBlock.into(),
        TryLockError::Error(error) => error,
    })
}

/// The free bytes on the disk of a folder, if they can be measured.
pub(crate) fn free_space(folder: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(folder).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Writes bytes at an offset. They are not durable yet.
pub(crate) fn write_at(file: &File, path: &Path, bytes: &[u8], offset: u64) -> io::Result<()> {
    file.write_all_at(bytes, offset)?;
    #[cfg(test)]
    recorded::record(path, FileOp::Write { offset, bytes: bytes.to_vec() });
    let _ = path;
    Ok(())
}

/// Lets the disk start to write a part of a file, without waiting for it, and without the flush of its cache that a sync is:
/// that would delay the syncs of other files. The part need not stay in memory afterwards.
pub(crate) fn start_writing(file: &File, offset: u64, len: u64) {
    // Linux starts to write pages that are to leave the cache. Elsewhere, or if it fails, the sync writes everything.
    let _ = rustix::fs::fadvise(file, offset, NonZeroU64::new(len), rustix::fs::Advice::DontNeed);
}

/// Makes written data durable, if the length of the file has not changed.
pub(crate) fn sync_data(file: &File, path: &Path) -> io::Result<()> {
    file.sync_data()?;
    #[cfg(test)]
    recorded::record(path, FileOp::Sync);
    let _ = path;
    Ok(())
}

/// Makes written data and the length of the file durable.
pub(crate) fn sync_all(file: &File, path: &Path) -> io::Result<()> {
    file.sync_all()?;
    #[cfg(test)]
    recorded::record(path, FileOp::Sync);
    let _ = path;
    Ok(())
}

/// Renames a file within its folder. The new name is not durable yet.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::rename(from, to)?;
    #[cfg(test)]
    recorded::record(from, FileOp::Rename(to.to_owned()));
    Ok(())
}

/// Deletes a file. That is not durable yet.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    std::fs::remove_file(path)?;
    #[cfg(test)]
    recorded::record(path, FileOp::Remove);
    Ok(())
}

/// Opens a folder, to [sync](sync_folder) it.
pub(crate) fn open_folder(folder: &Path) -> io::Result<File> {
    File::open(folder)
}

/// Makes the entries of an open folder durable.
pub(crate) fn sync_folder(opened: &File, folder: &Path) -> io::Result<()> {
    opened.sync_all()?;
    #[cfg(test)]
    recorded::record(&folder.join("itself"), FileOp::SyncFolder);
    let _ = folder;
    Ok(())
}

/// Deletes a folder with everything in it, if it exists. That is not durable yet.
pub(crate) fn remove_folder(folder: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Renames a folder, durably. The new name must be that of an empty folder, or of none.
pub(crate) fn rename_folder(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::rename(from, to)?;
    File::open(parent_of(to))?.sync_all()
}

fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Creates a folder and its missing parents, durably.
pub(crate) fn create_folder(folder: &Path) -> io::Result<()> {
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
    pub(crate) enum FileOp {
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

    pub(crate) fn start_recording(folder: &Path) {
        RECORDED.lock().expect("recorded operations").insert(folder.to_owned(), Vec::new());
    }

    pub(super) fn record(path: &Path, op: FileOp) {
        let mut recorded = RECORDED.lock().expect("recorded operations");
        if let Some(notes) = path.parent().and_then(|folder| recorded.get_mut(folder)) {
            notes.push((path.to_owned(), op));
        }
    }

    pub(crate) fn mark(folder: &Path, number: usize) {
        record(&folder.join("itself"), FileOp::Mark(number));
    }

    pub(crate) fn stop_recording(folder: &Path) -> Vec<(PathBuf, FileOp)> {
        RECORDED.lock().expect("recorded operations").remove(folder).unwrap_or_default()
    }
}
