//! Snapshot files, which are complete or absent. They are written and read piece by piece: a state may be larger than what
//! fits into memory a second time.
//!
//! Magic (8), checksum of the rest (4), zxid (8), time (8), hash (8), length of the membership (4), membership, state.

use std::io::{self, BufReader, Read, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crossdock_zab::{Point, Summary, Zxid};

use super::batch::{membership_at, membership_bytes, u32_at, u64_at};
use super::segment::sync_folder;
use super::{Error, io_error};
use crate::injected_bug::{InjectedBug, is_injected};
use crate::platform::files::{self, File};
use crate::platform::{self, Instant};

const MAGIC: [u8; 8] = *b"CDKSNP02";
const HEADER: usize = 40;
/// The offset of the checksum, and that of what it covers.
const SUM_AT: usize = 8;
const SUMMED_AT: usize = 12;
/// Snapshots that a purge keeps: the newest, and one more in case that is damaged.
const RETAINED: usize = 2;
/// Bytes that are read or written at once.
const PIECE_LEN: usize = 256 << 10;
/// Bytes after which the disk starts to write a snapshot: many unwritten pages would hold up the syncs of the log.
const WRITE_INTERVAL: u64 = 1 << 20;
/// No limit to the rate at which a snapshot is written.
pub const UNLIMITED: u64 = u64::MAX;
/// Maximum length of a membership in bytes.
const MEMBERSHIP_LEN_MAX: usize = 1 << 20;

/// A saved snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The last transaction in the snapshot.
    pub zxid: Zxid,
    /// Its file.
    pub path: PathBuf,
}

/// A snapshot file that was found to be intact.
#[derive(Debug)]
pub struct Opened {
    /// The transactions in it.
    pub summary: Summary,
    /// The state.
    pub state: BufReader<File>,
    /// The length of the state in bytes.
    pub state_len: u64,
}

impl Snapshot {
    /// Opens the file, and verifies its checksum; `None` if it is damaged.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(&self) -> Result<Option<Opened>, Error> {
        let opened = Opened::of(&self.path).map_err(io_error(&self.path, "cannot be read"))?;
        Ok(opened.filter(|opened| opened.summary.point.zxid == self.zxid))
    }
}

impl Opened {
    /// Opens a snapshot file, and verifies its checksum; `None` if it is damaged.
    fn of(path: &Path) -> io::Result<Option<Self>> {
        let mut file = files::open_to_read(path)?;
        let mut header = [0; HEADER];
        if !is_filled(&mut file, &mut header)? || header[..SUM_AT] != MAGIC {
            return Ok(None);
        }
        let membership_len = u32_at(&header, 36) as usize;
        let mut membership = vec![0; membership_len.min(MEMBERSHIP_LEN_MAX)];
        if membership_len > MEMBERSHIP_LEN_MAX || !is_filled(&mut file, &mut membership)? {
            return Ok(None);
        }
        let mut sum = crc32c::crc32c_append(crc32c::crc32c(&header[SUMMED_AT..]), &membership);
        let (mut piece, mut state_len) = (vec![0; PIECE_LEN], 0);
        loop {
            match file.read(&mut piece) {
                Ok(0) => break,
                Ok(len) => {
                    sum = crc32c::crc32c_append(sum, &piece[..len]);
                    state_len += len as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let is_intact = sum == u32_at(&header, SUM_AT) || is_injected(InjectedBug::IgnoreSnapshotChecksum);
        let Some(membership) = membership_at(&membership).filter(|_| is_intact) else {
            return Ok(None);
        };
        file.seek(SeekFrom::Start((HEADER + membership_len) as u64))?;
        let point =
            Point { zxid: Zxid::from_u64(u64_at(&header, 12)), time: u64_at(&header, 20), hash: u64_at(&header, 28) };
        let summary = Summary { point, membership: Some(membership) };
        Ok(Some(Self { summary, state: BufReader::with_capacity(PIECE_LEN, file), state_len }))
    }
}

/// Reads until the buffer is full; false if the file ends before that.
fn is_filled(file: &mut File, buffer: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// The snapshots in a folder, oldest first.
pub(super) fn list(folder: &Path) -> Result<Vec<Snapshot>, Error> {
    let mut found = Vec::new();
    for path in files::list(folder).map_err(io_error(folder, "cannot be read"))? {
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

/// Opens a snapshot file of any name; `None` if it is damaged.
///
/// # Errors
/// [`Error::Io`].
pub fn open_file(path: &Path) -> Result<Option<Opened>, Error> {
    Opened::of(path).map_err(io_error(path, "cannot be read"))
}

/// Opens the snapshot of all transactions through `zxid`; `None` if it is damaged.
///
/// # Errors
/// [`Error::Io`].
pub fn open(folder: &Path, zxid: Zxid) -> Result<Option<Opened>, Error> {
    Snapshot { zxid, path: path_of(folder, zxid) }.open()
}

/// Reads the summary of a file that should be a snapshot of all transactions through `zxid`; `None` if it is damaged.
///
/// # Errors
/// [`Error::Io`].
pub fn verify(zxid: Zxid, file: &Path) -> Result<Option<Summary>, Error> {
    Ok(Snapshot { zxid, path: file.to_owned() }.open()?.map(|opened| opened.summary))
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

/// A snapshot file that is being written.
struct Writer<'p> {
    file: File,
    path: &'p Path,
    /// Where the buffer goes.
    offset: u64,
    buffer: Vec<u8>,
    sum: u32,
    /// The disk has started to write what is before this offset.
    started: u64,
    /// When it began, and how many bytes it may write per second.
    begun: Instant,
    rate: u64,
}

impl<'p> Writer<'p> {
    fn create(path: &'p Path, summary: &Summary, rate: u64) -> io::Result<Self> {
        let membership = summary.membership.as_deref().map(membership_bytes).unwrap_or_default();
        let point =
            [summary.point.zxid.to_u64(), summary.point.time, summary.point.hash].map(u64::to_le_bytes).concat();
        let len = u32::try_from(membership.len()).unwrap_or(u32::MAX).to_le_bytes();
        let summed = [&point, &len[..], &membership].concat();
        let mut buffer = Vec::with_capacity(PIECE_LEN);
        // The checksum follows once it is known.
        buffer.extend([&MAGIC[..], &[0; SUMMED_AT - SUM_AT], &summed].concat());
        Ok(Self {
            file: files::create(path)?,
            path,
            offset: 0,
            buffer,
            sum: crc32c::crc32c(&summed),
            started: 0,
            begun: Instant::now(),
            rate,
        })
    }

    fn write_buffer(&mut self) -> io::Result<()> {
        files::write_at(&self.file, self.path, &self.buffer, self.offset)?;
        self.offset += self.buffer.len() as u64;
        self.buffer.clear();
        if self.offset - self.started >= WRITE_INTERVAL {
            files::start_writing(&self.file, self.started, self.offset - self.started);
            self.started = self.offset;
            self.keep_rate();
        }
        Ok(())
    }

    /// Waits if it is ahead of its rate, so that the log gets most of the disk.
    fn keep_rate(&self) {
        let due = Duration::from_secs_f64(self.offset as f64 / self.rate as f64);
        let early = due.saturating_sub(self.begun.elapsed());
        if !early.is_zero() {
            platform::pause(early);
        }
    }

    /// Makes the file durable, and returns its length.
    fn finish(mut self) -> io::Result<u64> {
        self.write_buffer()?;
        files::write_at(&self.file, self.path, &self.sum.to_le_bytes(), SUM_AT as u64)?;
        files::sync_all(&self.file, self.path)?;
        Ok(self.offset)
    }
}

impl Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() >= PIECE_LEN {
            self.write_buffer()?;
        }
        let taken = &bytes[..bytes.len().min(PIECE_LEN)];
        self.sum = crc32c::crc32c_append(self.sum, taken);
        self.buffer.extend_from_slice(taken);
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Saves a snapshot of all transactions in the summary, and returns the length of its file in bytes: writes it to a
/// temporary file, with at most `rate` bytes per second, and renames that. It is durable when this returns.
///
/// # Errors
/// [`Error::Io`], also of `write_state`; the log remains usable, as it does not need the snapshot.
pub fn save(
    folder: &Path,
    summary: &Summary,
    rate: u64,
    write_state: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<u64, Error> {
    let zxid = summary.point.zxid;
    let unfinished = folder.join(format!("unfinished-{:016x}", zxid.to_u64()));
    let len = write(&unfinished, summary, rate, write_state)?;
    adopt(folder, zxid, &unfinished)?;
    Ok(len)
}

/// Writes a snapshot to a file, with at most `rate` bytes per second, and returns its length in bytes. The content is durable when this returns, its name is not.
/// The file is deleted if that fails.
///
/// # Errors
/// [`Error::Io`], also of `write_state`.
pub fn write(
    path: &Path,
    summary: &Summary,
    rate: u64,
    write_state: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<u64, Error> {
    let written = Writer::create(path, summary, rate).and_then(|mut writer| {
        write_state(&mut writer)?;
        writer.finish()
    });
    if written.is_err() {
        // Do not leave a partial file on a full disk.
        let _ = files::remove(path);
    }
    written.map_err(io_error(path, "cannot be written"))
}

/// Copies a snapshot file into the folder of a log, and returns its summary; `None` if it is damaged.
///
/// # Errors
/// [`Error::Io`].
pub(super) fn copy(folder: &Path, file: &Path) -> Result<Option<Summary>, Error> {
    let Some(mut opened) = open_file(file)? else { return Ok(None) };
    save(folder, &opened.summary, UNLIMITED, |to| io::copy(&mut opened.state, to).map(drop))?;
    Ok(Some(opened.summary))
}

/// Deletes partial snapshots that a crash has left.
pub(super) fn delete_unfinished(folder: &Path) -> Result<(), Error> {
    for path in files::list(folder).map_err(io_error(folder, "cannot be read"))? {
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
