//! Segments: zero-filled files of a fixed size, with a header sector.

use std::io;
use std::path::{Path, PathBuf};

use crossdock_zab::{Epoch, LogId, Point, Zxid};

use super::batch::{u32_at, u64_at};
use super::{Error, Identity, NEEDED_SEGMENTS_MAX, Position, SECTOR, io_error};
use crate::platform::files::{self, File};
use crate::platform::random;

const MAGIC: [u8; 8] = *b"CDKWAL02";
/// The part of it that all versions of the format have in common.
const MAGIC_LEN: usize = 6;
/// Bytes that are filled between syncs.
const PIECE: u64 = 1 << 20;
/// Flag: a synchronisation is open at the start of the segment.
const OPEN: u32 = 1;
/// Flag: the log may found a cluster.
const FOUNDS: u32 = 2;

/// The header of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) number: u64,
    /// The length of the segment in bytes.
    pub(super) len: u64,
    /// The number of its first batch.
    pub(super) batch: u64,
    /// The checksum that its first batch is chained with.
    pub(super) chain: u32,
    /// The state before its first batch.
    pub(super) position: Position,
    pub(super) identity: Identity,
    pub(super) log: LogId,
    /// Whether the log was created to found a cluster.
    pub(super) founds: bool,
    /// See [`salt`].
    pub(super) salt: u32,
}

/// A random number per segment, so that no payload can pass for a batch header.
pub(super) fn salt() -> u32 {
    u32::try_from(random() >> 32).unwrap_or(0)
}

/// Whether a segment was written by a release with another format of the log.
pub(super) fn has_other_version(bytes: &[u8]) -> bool {
    bytes.get(..8).is_some_and(|magic| magic[..MAGIC_LEN] == MAGIC[..MAGIC_LEN] && magic != MAGIC)
}

fn point_at(bytes: &[u8], at: usize) -> Point {
    Point { zxid: Zxid::from_u64(u64_at(bytes, at)), time: u64_at(bytes, at + 8), hash: u64_at(bytes, at + 16) }
}

fn put_point(bytes: &mut [u8], point: Point) {
    bytes[..8].copy_from_slice(&point.zxid.to_u64().to_le_bytes());
    bytes[8..16].copy_from_slice(&point.time.to_le_bytes());
    bytes[16..24].copy_from_slice(&point.hash.to_le_bytes());
}

impl Header {
    /// The header of the first segment of a new log.
    pub(super) fn first(identity: Identity, len: u64, founds: bool) -> Self {
        let log = LogId(random().max(1));
        Self { number: 1, len, batch: 1, chain: 0, position: Position::default(), identity, log, founds, salt: salt() }
    }

    fn bytes(&self) -> [u8; SECTOR] {
        let mut bytes = [0; SECTOR];
        let position = &self.position;
        let flags = if position.sync.is_some() { OPEN } else { 0 } | if self.founds { FOUNDS } else { 0 };
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[12..20].copy_from_slice(&self.number.to_le_bytes());
        bytes[20..28].copy_from_slice(&self.len.to_le_bytes());
        bytes[28..36].copy_from_slice(&self.batch.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.chain.to_le_bytes());
        bytes[40..44].copy_from_slice(&position.accepted.0.to_le_bytes());
        bytes[44..48].copy_from_slice(&position.current.0.to_le_bytes());
        put_point(&mut bytes[48..72], position.last);
        put_point(&mut bytes[72..96], position.sync.unwrap_or_default());
        bytes[96..100].copy_from_slice(&flags.to_le_bytes());
        bytes[100..108].copy_from_slice(&self.identity.cluster.to_le_bytes());
        bytes[108..116].copy_from_slice(&self.identity.server.to_le_bytes());
        bytes[116..124].copy_from_slice(&self.log.0.to_le_bytes());
        bytes[124..128].copy_from_slice(&self.salt.to_le_bytes());
        let sum = crc32c::crc32c(&bytes[12..]);
        bytes[8..12].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Decodes the header of a segment; `None` if it is invalid.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..SECTOR)?;
        if bytes[..8] != MAGIC || u32_at(bytes, 8) != crc32c::crc32c(&bytes[12..]) {
            return None;
        }
        let flags = u32_at(bytes, 96);
        Some(Self {
            number: u64_at(bytes, 12),
            len: u64_at(bytes, 20),
            batch: u64_at(bytes, 28),
            chain: u32_at(bytes, 36),
            position: Position {
                accepted: Epoch(u32_at(bytes, 40)),
                current: Epoch(u32_at(bytes, 44)),
                last: point_at(bytes, 48),
                sync: (flags & OPEN != 0).then(|| point_at(bytes, 72)),
            },
            identity: Identity { cluster: u64_at(bytes, 100), server: u64_at(bytes, 108) },
            log: LogId(u64_at(bytes, 116)),
            founds: flags & FOUNDS != 0,
            salt: u32_at(bytes, 124),
        })
    }
}

pub(super) fn spare_path(folder: &Path) -> PathBuf {
    folder.join("spare")
}

pub(super) fn path_of(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("log-{number:016x}"))
}

/// The segments in a folder, oldest first.
pub(super) fn list(folder: &Path) -> Result<Vec<(u64, PathBuf)>, Error> {
    let mut found = Vec::new();
    for path in files::list(folder).map_err(io_error(folder, "cannot be read"))? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(number) = name.strip_prefix("log-").and_then(|number| u64::from_str_radix(number, 16).ok()) {
            found.push((number, path));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Creates a durable file of zeroes, so that later writes change neither its length nor its allocation. If that fails,
/// the file is deleted: on a full disk, a snapshot may need the space.
pub(super) fn fill(path: &Path, len: u64) -> io::Result<File> {
    let file = files::create(path)?;
    match write_zeroes(&file, path, len) {
        Ok(()) => Ok(file),
        Err(error) => {
            let _ = files::remove(path);
            Err(error)
        }
    }
}

fn write_zeroes(file: &File, path: &Path, len: u64) -> io::Result<()> {
    static ZEROES: [u8; 64 * 1024] = [0; 64 * 1024];
    let (mut at, mut together) = (0, 0);
    while at < len {
        let count = (len - at).min(ZEROES.len() as u64);
        files::write_at(file, path, &ZEROES[..usize::try_from(count).unwrap_or(ZEROES.len())], at)?;
        at += count;
        together += count;
        if together >= PIECE {
            // Sync in small steps, so that other writes to the disk are not delayed for long.
            files::sync_data(file, path)?;
            together = 0;
        }
    }
    files::sync_all(file, path)
}

/// Turns the spare file into the segment with that header. It is durable when this returns. No file is opened for it.
pub(super) fn activate(
    (folder, opened): (&Path, &File),
    file: File,
    header: &Header,
) -> Result<(File, PathBuf), Error> {
    let (spare, path) = (spare_path(folder), path_of(folder, header.number));
    files::write_at(&file, &spare, &header.bytes(), 0).map_err(io_error(&spare, "cannot be written"))?;
    files::sync_all(&file, &spare).map_err(io_error(&spare, "cannot be synced"))?;
    files::rename(&spare, &path).map_err(io_error(&path, "cannot be created"))?;
    files::sync_folder(opened, folder).map_err(io_error(folder, "cannot be synced"))?;
    Ok((file, path))
}

/// Replaces a segment by one with these bytes and zeroes behind them. The folder must be synced afterwards.
///
/// Zeroes that are written over what was never durable would not do: if their sync fails, the next start finds them in the
/// page cache and the old bytes come back at a power loss, behind batches that were acknowledged meanwhile. It needs the space
/// of a segment, which the spare file usually has.
pub(super) fn replace(folder: &Path, path: &Path, bytes: &[u8], len: u64) -> Result<File, Error> {
    let spare = spare_path(folder);
    let file = fill(&spare, len).map_err(io_error(&spare, "cannot be created"))?;
    files::write_at(&file, &spare, bytes, 0).map_err(io_error(&spare, "cannot be written"))?;
    files::sync_all(&file, &spare).map_err(io_error(&spare, "cannot be synced"))?;
    files::rename(&spare, path).map_err(io_error(path, "cannot be replaced"))?;
    Ok(file)
}

pub(super) fn sync_folder(folder: &Path) -> Result<(), Error> {
    let synced = files::open_folder(folder).and_then(|opened| files::sync_folder(&opened, folder));
    synced.map_err(io_error(folder, "cannot be synced"))
}

/// Whether creating a file may succeed later: the disk is full, or too many files are open.
pub(super) fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let shortages = [Errno::NOSPC, Errno::DQUOT, Errno::MFILE, Errno::NFILE];
    Errno::from_io_error(error).is_some_and(|errno| shortages.contains(&errno))
}

/// Deletes segments that only hold transactions up to `zxid`, oldest first. Recovery begins at the oldest remaining
/// segment, so that one must start outside of a synchronisation; those before it that start within one go as well.
pub(super) fn purge(folder: &Path, zxid: Zxid, current: u64, needed_after: Option<Zxid>) -> Result<usize, Error> {
    let segments = list(folder)?;
    let obsolete = count_before(&segments, zxid, current)?;
    let first = match needed_after.filter(|needed| *needed < zxid) {
        Some(needed) => {
            let unneeded = count_before(&segments, needed, current)?;
            unneeded.max(obsolete.saturating_sub(NEEDED_SEGMENTS_MAX)).min(obsolete)
        }
        None => obsolete,
    };
    // Recovery begins at the oldest segment.
    let first = (0..=first).rev().find(|at| begins_outside_sync(&segments, *at)).unwrap_or(0);
    for (_, path) in &segments[..first] {
        files::remove(path).map_err(io_error(path, "cannot be deleted"))?;
        // One at a time, so that the log never has a hole.
        sync_folder(folder)?;
    }
    Ok(first)
}

fn begins_outside_sync(segments: &[(u64, PathBuf)], at: usize) -> bool {
    let header = segments.get(at).and_then(|(_, path)| Header::read(&read_header(path).ok()?));
    header.is_some_and(|header| header.position.sync.is_none())
}

/// The number of segments before the one with the transaction after `zxid`, which begins outside of a synchronisation.
fn count_before(segments: &[(u64, PathBuf)], zxid: Zxid, current: u64) -> Result<usize, Error> {
    let mut first = 0;
    for (at, (number, path)) in segments.iter().enumerate() {
        let Some(header) = Header::read(&read_header(path)?) else { break };
        if *number > current || header.position.last.zxid > zxid {
            break;
        }
        if header.position.sync.is_none() {
            first = at;
        }
    }
    Ok(first)
}

pub(super) fn read_header(path: &Path) -> Result<[u8; SECTOR], Error> {
    let mut bytes = [0; SECTOR];
    let file = files::open_to_read(path).map_err(io_error(path, "cannot be opened"))?;
    files::read_at(&file, &mut bytes, 0).map_err(io_error(path, "cannot be read"))?;
    Ok(bytes)
}
