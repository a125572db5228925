//! Snapshots: files that are there whole or not at all.
//!
//! Magic (8), checksum of the rest (4), zxid (8), state.

use std::path::{Path, PathBuf};

use crossdock_zab::Zxid;

use super::batch::{u32_at, u64_at};
use super::segment::sync_folder;
use super::{Error, failed, files};

const MAGIC: [u8; 8] = *b"CDKSNP01";
const HEADER: usize = 20;
/// Snapshots that stay: the newest, and one in case it cannot be read.
const KEPT: usize = 2;

/// A snapshot that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The last transaction that is in it.
    pub zxid: Zxid,
    /// Where it is.
    pub path: PathBuf,
}

impl Snapshot {
    /// Reads the state; nothing where the file is not as it was written.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn read(&self) -> Result<Option<Vec<u8>>, Error> {
        let mut bytes = std::fs::read(&self.path).map_err(failed(&self.path, "cannot be read"))?;
        let good = bytes.len() >= HEADER
            && bytes[..8] == MAGIC
            && u32_at(&bytes, 8) == crc32c::crc32c(&bytes[12..])
            && u64_at(&bytes, 12) == self.zxid.to_u64();
        Ok(good.then(|| bytes.split_off(HEADER)))
    }
}

/// The snapshots of a folder, the oldest first.
pub(super) fn list(folder: &Path) -> Result<Vec<Snapshot>, Error> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed(folder, "cannot be read"))? {
        let path = entry.map_err(failed(folder, "cannot be read"))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(number) = name.strip_prefix("snapshot-").and_then(|number| u64::from_str_radix(number, 16).ok()) {
            found.push(Snapshot { zxid: Zxid::from_u64(number), path });
        }
    }
    found.sort_unstable_by_key(|snapshot| snapshot.zxid);
    Ok(found)
}

/// Where the snapshot of all through `zxid` is, where there is one.
#[must_use]
pub fn path_of(folder: &Path, zxid: Zxid) -> PathBuf {
    folder.join(format!("snapshot-{:016x}", zxid.to_u64()))
}

/// Reads the state of a snapshot; nothing where the file is not as it was written.
///
/// # Errors
/// [`Error::Io`].
pub fn read(folder: &Path, zxid: Zxid) -> Result<Option<Vec<u8>>, Error> {
    Snapshot { zxid, path: path_of(folder, zxid) }.read()
}

/// Whether a file is a snapshot of all through `zxid`, as it was written.
///
/// # Errors
/// [`Error::Io`].
pub fn is_whole(zxid: Zxid, file: &Path) -> Result<bool, Error> {
    Ok(Snapshot { zxid, path: file.to_owned() }.read()?.is_some())
}

/// Makes the file of a snapshot that came from another instance, is whole ([`is_whole`]) and durable, one of this folder's.
///
/// # Errors
/// [`Error::Io`].
pub fn adopt(folder: &Path, zxid: Zxid, file: &Path) -> Result<Snapshot, Error> {
    let path = path_of(folder, zxid);
    files::rename(file, &path).map_err(failed(&path, "cannot be made"))?;
    sync_folder(folder)?;
    Ok(Snapshot { zxid, path })
}

/// Keeps a snapshot of all through `zxid`. It is written beside its place, and moved there once it is durable; it is when this
/// returns.
///
/// # Errors
/// [`Error::Io`]; the log may be used on: it needs no snapshot.
pub fn keep(folder: &Path, zxid: Zxid, state: &[u8]) -> Result<Snapshot, Error> {
    let path = path_of(folder, zxid);
    let unfinished = folder.join(format!("unfinished-{:016x}", zxid.to_u64()));
    let name = zxid.to_u64().to_le_bytes();
    let sum = crc32c::crc32c_append(crc32c::crc32c(&name), state);
    let written = files::create(&unfinished).and_then(|file| {
        let header = [&MAGIC[..], &sum.to_le_bytes(), &name].concat();
        files::write_at(&file, &unfinished, &header, 0)?;
        files::write_at(&file, &unfinished, state, HEADER as u64)?;
        files::sync_all(&file, &unfinished)
    });
    if written.is_err() {
        // On a disk that is full it would keep it so.
        let _ = files::remove(&unfinished);
    }
    written.map_err(failed(&unfinished, "cannot be written"))?;
    files::rename(&unfinished, &path).map_err(failed(&path, "cannot be made"))?;
    sync_folder(folder)?;
    Ok(Snapshot { zxid, path })
}

/// Deletes what a crash has left of snapshots that were being written or received.
pub(super) fn delete_unfinished(folder: &Path) -> Result<(), Error> {
    for entry in std::fs::read_dir(folder).map_err(failed(folder, "cannot be read"))? {
        let path = entry.map_err(failed(folder, "cannot be read"))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("unfinished-") || name.starts_with("incoming-") {
            files::remove(&path).map_err(failed(&path, "cannot be deleted"))?;
        }
    }
    Ok(())
}

/// Deletes all but the last snapshots through `zxid`; gives the oldest that stays.
pub(super) fn purge(folder: &Path, zxid: Zxid) -> Result<Zxid, Error> {
    let snapshots = list(folder)?;
    let usable = snapshots.iter().filter(|snapshot| snapshot.zxid <= zxid).count();
    let gone = usable.saturating_sub(KEPT);
    for snapshot in &snapshots[..gone] {
        files::remove(&snapshot.path).map_err(failed(&snapshot.path, "cannot be deleted"))?;
    }
    let oldest = snapshots.get(gone).filter(|oldest| usable - gone == KEPT && oldest.zxid <= zxid);
    // With one snapshot alone, all of the log stays, in case it cannot be read.
    Ok(oldest.map_or(Zxid::ZERO, |snapshot| snapshot.zxid))
}
