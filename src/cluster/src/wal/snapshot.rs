//! Snapshot files, which are complete or absent.
//!
//! Magic (8), checksum of the rest (4), zxid (8), time (8), hash (8), length of the membership (4), membership, state.

use std::path::{Path, PathBuf};

use crossdock_zab::{Point, Summary, Zxid};

use super::batch::{membership_at, membership_bytes, u32_at, u64_at};
use super::segment::sync_folder;
use super::{Error, files, io_error};

const MAGIC: [u8; 8] = *b"CDKSNP02";
const HEADER: usize = 40;
/// Snapshots that a purge keeps: the newest, and one more in case that is damaged.
const RETAINED: usize = 2;

/// A saved snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The last transaction in the snapshot.
    pub zxid: Zxid,
    /// Its file.
    pub path: PathBuf,
}

impl Snapshot {
    /// Reads the summary of its transactions, and the state; `None` if the file is damaged.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn read(&self) -> Result<Option<(Summary, Vec<u8>)>, Error> {
        let mut bytes = std::fs::read(&self.path).map_err(io_error(&self.path, "cannot be read"))?;
        let is_intact = bytes.len() >= HEADER
            && bytes[..8] == MAGIC
            && u32_at(&bytes, 8) == crc32c::crc32c(&bytes[12..])
            && u64_at(&bytes, 12) == self.zxid.to_u64();
        if !is_intact {
            return Ok(None);
        }
        let point = Point { zxid: self.zxid, time: u64_at(&bytes, 20), hash: u64_at(&bytes, 28) };
        let end = HEADER + u32_at(&bytes, 36) as usize;
        let Some(membership) = bytes.get(HEADER..end).and_then(membership_at) else { return Ok(None) };
        Ok(Some((Summary { point, membership: Some(membership) }, bytes.split_off(end))))
    }
}

/// The snapshots in a folder, oldest first.
pub(super) fn list(folder: &Path) -> Result<Vec<Snapshot>, Error> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io_error(folder, "cannot be read"))? {
        let path = entry.map_err(io_error(folder, "cannot be read"))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(number) = name.strip_prefix("snapshot-").and_then(|number| u64::from_str_radix(number, 16).ok()) {
            found.push(Snapshot { zxid: Zxid::from_u64(number), path });
        }
    }
    found.sort_unstable_by_key(|snapshot| snapshot.zxid);
    Ok(found)
}

/// The path of the snapshot of all transactions through `zxid`.
#[must_use]
pub fn path_of(folder: &Path, zxid: Zxid) -> PathBuf {
    folder.join(format!("snapshot-{:016x}", zxid.to_u64()))
}

/// Reads the state of a snapshot; `None` if the file is damaged.
///
/// # Errors
/// [`Error::Io`].
pub fn read(folder: &Path, zxid: Zxid) -> Result<Option<Vec<u8>>, Error> {
    Ok(Snapshot { zxid, path: path_of(folder, zxid) }.read()?.map(|(_, state)| state))
}

/// Reads the summary of a file that should be a snapshot of all transactions through `zxid`; `None` if it is damaged.
///
/// # Errors
/// [`Error::Io`].
pub fn verify(zxid: Zxid, file: &Path) -> Result<Option<Summary>, Error> {
    Ok(Snapshot { zxid, path: file.to_owned() }.read()?.map(|(summary, _)| summary))
}

/// Moves a received snapshot into the folder. The file must be durable and undamaged ([`verify`]).
///
/// # Errors
/// [`Error::Io`].
pub fn adopt(folder: &Path, zxid: Zxid, file: &Path) -> Result<Snapshot, Error> {
    let path = path_of(folder, zxid);
    files::rename(file, &path).map_err(io_error(&path, "cannot be created"))?;
    sync_folder(folder)?;
    Ok(Snapshot { zxid, path })
}

/// Saves a snapshot of all transactions in the summary: writes it to a temporary file and renames that. It is durable
/// when this returns.
///
/// # Errors
/// [`Error::Io`]; the log remains usable, as it does not need the snapshot.
pub fn save(folder: &Path, summary: &Summary, state: &[u8]) -> Result<Snapshot, Error> {
    let zxid = summary.point.zxid;
    let path = path_of(folder, zxid);
    let unfinished = folder.join(format!("unfinished-{:016x}", zxid.to_u64()));
    let membership = summary.membership.as_ref().map(|membership| membership_bytes(membership)).unwrap_or_default();
    let point = [zxid.to_u64(), summary.point.time, summary.point.hash].map(u64::to_le_bytes).concat();
    let len = u32::try_from(membership.len()).unwrap_or(u32::MAX).to_le_bytes();
    let head = [&point, &len[..], &membership].concat();
    let sum = crc32c::crc32c_append(crc32c::crc32c(&head), state);
    let written = files::create(&unfinished).and_then(|file| {
        let head = [&MAGIC[..], &sum.to_le_bytes(), &head].concat();
        files::write_at(&file, &unfinished, &head, 0)?;
        files::write_at(&file, &unfinished, state, head.len() as u64)?;
        files::sync_all(&file, &unfinished)
    });
    if written.is_err() {
        // Do not leave a partial file on a full disk.
        let _ = files::remove(&unfinished);
    }
    written.map_err(io_error(&unfinished, "cannot be written"))?;
    files::rename(&unfinished, &path).map_err(io_error(&path, "cannot be created"))?;
    sync_folder(folder)?;
    Ok(Snapshot { zxid, path })
}

/// Deletes partial snapshots that a crash has left.
pub(super) fn delete_unfinished(folder: &Path) -> Result<(), Error> {
    for entry in std::fs::read_dir(folder).map_err(io_error(folder, "cannot be read"))? {
        let path = entry.map_err(io_error(folder, "cannot be read"))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("unfinished-") || name.starts_with("incoming-") {
            files::remove(&path).map_err(io_error(&path, "cannot be deleted"))?;
        }
    }
    Ok(())
}

/// Deletes all but the last snapshots up to `zxid`, and returns the zxid of the oldest one that stays.
pub(super) fn purge(folder: &Path, zxid: Zxid) -> Result<Zxid, Error> {
    let snapshots = list(folder)?;
    let usable = snapshots.iter().filter(|snapshot| snapshot.zxid <= zxid).count();
    let gone = usable.saturating_sub(RETAINED);
    for snapshot in &snapshots[..gone] {
        files::remove(&snapshot.path).map_err(io_error(&snapshot.path, "cannot be deleted"))?;
    }
    let oldest = snapshots.get(gone).filter(|oldest| usable - gone == RETAINED && oldest.zxid <= zxid);
    // With only one snapshot the whole log stays, in case that snapshot is damaged.
    Ok(oldest.map_or(Zxid::ZERO, |snapshot| snapshot.zxid))
}
