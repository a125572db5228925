//! What the log does to files and folders, in one place. Tests note each of these, to see what a loss of power at any moment would leave.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

#[cfg(test)]
pub(super) use noted::{Done, end_noting, mark, note_all_of};

/// Makes a file, or one that is there empty.
pub(super) fn create(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
    #[cfg(test)]
    noted::note(path, Done::Create);
    Ok(file)
}

/// Opens a file that is there.
pub(super) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// Writes all bytes at a place; they are not durable yet.
pub(super) fn write_at(file: &File, path: &Path, bytes: &[u8], offset: u64) -> io::Result<()> {
    file.write_all_at(bytes, offset)?;
    #[cfg(test)]
    noted::note(path, Done::Write { offset, bytes: bytes.to_vec() });
    let _ = path;
    Ok(())
}

/// What was written is durable, if the file's length has not changed.
pub(super) fn sync_data(file: &File, path: &Path) -> io::Result<()> {
    file.sync_data()?;
    #[cfg(test)]
    noted::note(path, Done::Sync);
    let _ = path;
    Ok(())
}

/// What was written is durable, and the file's length.
pub(super) fn sync_all(file: &File, path: &Path) -> io::Result<()> {
    file.sync_all()?;
    #[cfg(test)]
    noted::note(path, Done::Sync);
    let _ = path;
    Ok(())
}

/// Gives a file another name of the same folder; which of them it has is not durable yet.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::rename(from, to)?;
    #[cfg(test)]
    noted::note(from, Done::Rename(to.to_owned()));
    Ok(())
}

/// Deletes a file; that it is gone is not durable yet.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    std::fs::remove_file(path)?;
    #[cfg(test)]
    noted::note(path, Done::Remove);
    Ok(())
}

/// Which files a folder has is durable.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()?;
    #[cfg(test)]
    noted::note(&folder.join("itself"), Done::SyncFolder);
    Ok(())
}

/// Makes a folder, durably, and those above it that are missing.
pub(super) fn create_folder(folder: &Path) -> io::Result<()> {
    let missing = folder.ancestors().take_while(|above| !above.as_os_str().is_empty() && !above.exists());
    let missing: Vec<&Path> = missing.collect();
    std::fs::create_dir_all(folder)?;
    for made in missing {
        let above = made.parent().filter(|above| !above.as_os_str().is_empty());
        File::open(above.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod noted {
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};
    use std::sync::Mutex;

    /// Something that was done to a file, or to its folder.
    #[derive(Debug, Clone)]
    pub(in crate::wal) enum Done {
        Create,
        Write {
            offset: u64,
            bytes: Vec<u8>,
        },
        Sync,
        Rename(PathBuf),
        Remove,
        SyncFolder,
        /// What a test wants to know the place of.
        Mark(usize),
    }

    /// What was done in each folder that is noted, with the file's path, in order.
    static NOTED: Mutex<BTreeMap<PathBuf, Vec<(PathBuf, Done)>>> = Mutex::new(BTreeMap::new());

    pub(in crate::wal) fn note_all_of(folder: &Path) {
        NOTED.lock().expect("notes").insert(folder.to_owned(), Vec::new());
    }

    pub(super) fn note(path: &Path, done: Done) {
        let mut noted = NOTED.lock().expect("notes");
        if let Some(notes) = path.parent().and_then(|folder| noted.get_mut(folder)) {
            notes.push((path.to_owned(), done));
        }
    }

    pub(in crate::wal) fn mark(folder: &Path, number: usize) {
        note(&folder.join("itself"), Done::Mark(number));
    }

    pub(in crate::wal) fn end_noting(folder: &Path) -> Vec<(PathBuf, Done)> {
        NOTED.lock().expect("notes").remove(folder).unwrap_or_default()
    }
}
