//! The write-ahead log. A write is durable when the call returns, and is recovered unchanged or not at all.
//!
//! ```text
//! folder
//!   log-0000000000000001     segments of a fixed size: filled with zeroes, then written from the front
//!   log-0000000000000002
//!   spare                    the next segment, created in the background
//!   snapshot-0000000100000007
//!
//! segment   header sector │ batch │ batch │ … │ zeroes
//! batch     header (48 bytes) │ records │ zeroes to the end of the sector
//! ```
//!
//! A batch is what one `fdatasync` makes durable. It starts at a sector boundary, so no write touches a sector that was
//! durable before. Its header has one checksum for itself and one for the records, chained with that of the previous
//! batch. A batch is written only once the previous one is durable. A random salt per segment prevents payloads from
//! passing for headers.
//!
//! Recovery can therefore tell torn writes from damage. Sectors that did not reach the disk are still zeroes. An
//! incomplete batch that lacks sectors and has no complete batch after it was never durable, and is cut off. Any other
//! deviation affects data that was durable and is reported as [`Error::Damaged`]: continuing without that data could
//! lose acknowledged transactions.

mod batch;
#[cfg(all(test, not(feature = "simulation")))]
mod power_loss;
mod reader;
mod recovery;
mod segment;
mod snapshot;
mod space;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossdock_zab::{Epoch, LogId, LogState, Point, Summary, Txn, Write, Zxid};

pub use self::reader::Reader;
pub use self::recovery::Recovered;
use self::segment::Header;
pub use self::snapshot::{
    Opened, Snapshot, UNLIMITED, adopt as adopt_snapshot, open as open_snapshot, open_file as open_snapshot_file,
    path_of as snapshot_path, save as save_snapshot, verify as verify_snapshot, write as write_snapshot,
};
pub use self::space::Space;
use self::space::Spare;
use crate::injected_bug::{InjectedBug, is_injected};
use crate::platform::files::{self, File};

/// The unit that a disk writes atomically, in bytes.
pub(crate) const SECTOR: usize = 512;
/// Maximum bytes of records in one batch.
const BATCH_LEN_MAX: usize = 16 << 20;

/// Maximum number of segments that stay for followers that are catching up. One that needs more gets another snapshot.
const NEEDED_SEGMENTS_MAX: usize = 64;

/// Why a log operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An I/O error. After a failed write it is unknown what is durable, and the log must not be used any more.
    #[error("{path}: {what}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What failed.
        what: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// Data that was durable has changed.
    #[error("{path} is damaged at byte {offset}: {problem}; acknowledged data from there on cannot be read")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The position in the file.
        offset: u64,
        /// What is wrong there.
        problem: &'static str,
    },
    /// The log has the format of another release.
    #[error("{0} has the format of another release: start with the release that wrote it")]
    Version(PathBuf),
    /// There is no log.
    #[error("{0} has no log")]
    Missing(PathBuf),
    /// There already is a log.
    #[error("{0} already has a log")]
    Exists(PathBuf),
    /// Another process has the log open.
    #[error("{0} is in use by another process")]
    InUse(PathBuf),
    /// The log belongs to another server or cluster.
    #[error("{path} belongs to server {server} of cluster {cluster:016x}")]
    Foreign {
        /// The server that owns it.
        path: PathBuf,
        /// The server that it belongs to.
        server: u64,
        /// The cluster that owns it.
        cluster: u64,
    },
    /// A snapshot file is damaged.
    #[error("{0} is not a snapshot of a cluster, or is damaged")]
    DamagedSnapshot(PathBuf),
    /// A payload exceeds [`Options::payload_max`].
    #[error("a payload of {0} bytes does not fit into the log")]
    TooLarge(usize),
}

pub(crate) fn io_error(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { path, what, source }
}

/// The owner of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// A hash of the cluster's name.
    pub cluster: u64,
    /// The id of the server.
    pub server: u64,
}

/// Options of a log.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The size of a segment in bytes.
    pub segment_len: u64,
}

impl Options {
    /// Maximum bytes of records in one batch.
    fn records_max(self) -> usize {
        let room = usize::try_from(self.segment_len).unwrap_or(usize::MAX).saturating_sub(2 * SECTOR + batch::HEADER);
        room.min(BATCH_LEN_MAX)
    }

    /// Maximum length of a payload in bytes.
    #[must_use]
    pub fn payload_max(self) -> usize {
        self.records_max().saturating_sub(batch::RECORD)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_len: 64 << 20 }
    }
}

/// The part of a [`LogState`] that a segment header records. The running log updates it with each write; recovery
/// compares it with the full state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Position {
    pub(crate) accepted: Epoch,
    pub(crate) current: Epoch,
    /// The end of the history.
    pub(crate) last: Point,
    /// The end of the open synchronisation.
    pub(crate) sync: Option<Point>,
}

impl Position {
    pub(crate) fn of(log_state: &LogState) -> Self {
        Self {
            accepted: log_state.accepted_epoch(),
            current: log_state.current_epoch(),
            last: log_state.history().end(),
            sync: log_state.is_syncing().then(|| log_state.end()),
        }
    }

    pub(crate) fn advance(&mut self, write: &Write) {
        let mut reach = |point| match &mut self.sync {
            Some(end) => *end = point,
            None => self.last = point,
        };
        match write {
            Write::AcceptEpoch(epoch) => {
                self.accepted = *epoch;
                self.sync = None;
            }
            Write::SyncBegin(_) => self.sync = Some(self.last),
            Write::Truncate(point) => reach(*point),
            Write::Install { summary, .. } => reach(summary.point),
            Write::Append { txns, .. } => {
                if let Some(point) = txns.last().map(Txn::point) {
                    reach(point);
                }
            }
            Write::EpochInstalled(epoch) => {
                self.current = *epoch;
                self.last = self.sync.take().unwrap_or(self.last);
            }
            Write::Form(_) => self.sync = None,
        }
    }
}

/// A log that is open for writing.
#[derive(Debug)]
pub struct Wal {
    folder: PathBuf,
    /// Kept open, so that the next segment needs no file descriptor.
    opened: File,
    options: Options,
    file: File,
    path: PathBuf,
    header: Header,
    /// The offset of the next batch.
    offset: u64,
    /// The number of the next batch.
    number: u64,
    /// The checksum that the next batch is chained with.
    chain: u32,
    position: Position,
    /// `None` only while it is taken.
    spare: Option<Spare>,
    space: Arc<Space>,
    buffer: Vec<u8>,
    syncs: u64,
    /// Held while the log is open.
    _lock: File,
}

/// Locks the folder against other processes.
fn lock(folder: &Path) -> Result<File, Error> {
    let path = folder.join("lock");
    let file = files::create(&path).map_err(io_error(&path, "cannot be created"))?;
    match files::lock(&file) {
        Ok(()) => Ok(file),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(Error::InUse(folder.to_owned())),
        Err(error) => Err(io_error(&path, "cannot be locked")(error)),
    }
}

impl Wal {
    /// Creates a log. One that `founds` may form a new cluster; any other joins an existing one.
    ///
    /// # Errors
    /// [`Error::Exists`] if there is one or a snapshot; [`Error::Io`].
    pub fn create(folder: &Path, identity: Identity, options: Options, founds: bool) -> Result<Self, Error> {
        files::create_folder(folder).map_err(io_error(folder, "cannot be created"))?;
        check_absent(folder)?;
        let header = Header::first(identity, options.segment_len, founds);
        Self::create_with(folder, options, header)
    }

    /// Creates a log whose history ends with a snapshot file. It votes in no cluster: a membership must be appended.
    ///
    /// # Errors
    /// As [`Wal::create`]; [`Error::DamagedSnapshot`].
    pub fn create_from(
        folder: &Path,
        identity: Identity,
        options: Options,
        file: &Path,
    ) -> Result<(Self, Summary), Error> {
        files::create_folder(folder).map_err(io_error(folder, "cannot be created"))?;
        check_absent(folder)?;
        // Without the snapshot, the log would lack its beginning.
        let summary = snapshot::copy(folder, file)?.ok_or_else(|| Error::DamagedSnapshot(file.to_owned()))?;
        let mut header = Header::first(identity, options.segment_len, false);
        let epoch = summary.point.zxid.epoch;
        header.position = Position { accepted: epoch, current: epoch, last: summary.point, sync: None };
        Ok((Self::create_with(folder, options, header)?, summary))
    }

    fn create_with(folder: &Path, options: Options, header: Header) -> Result<Self, Error> {
        let lock = lock(folder)?;
        let spare = segment::fill(&segment::spare_path(folder), options.segment_len)
            .map_err(io_error(folder, "cannot create a segment"))?;
        let opened = files::open_folder(folder).map_err(io_error(folder, "cannot be opened"))?;
        let (file, path) = segment::activate((folder, &opened), spare, &header)?;
        Ok(Self::at((folder, opened), options, (file, path), header, lock))
    }

    /// Opens and recovers a log.
    ///
    /// # Errors
    /// [`Error::Missing`] if there is none: an empty folder is not an empty log. [`Error::Damaged`],
    /// [`Error::Foreign`], [`Error::InUse`], [`Error::Io`].
    pub fn open(folder: &Path, identity: Identity, options: Options) -> Result<(Self, Recovered), Error> {
        recovery::recover(folder, identity, options)
    }

    fn at(
        (folder, opened): (&Path, File),
        options: Options,
        (file, path): (File, PathBuf),
        header: Header,
        lock: File,
    ) -> Self {
        let space = Arc::<Space>::default();
        space.set_sizes(options.segment_len, 0);
        space.watch(folder);
        Self {
            folder: folder.to_owned(),
            opened,
            options,
            file,
            path,
            offset: SECTOR as u64,
            number: header.batch,
            chain: header.chain,
            position: header.position,
            header,
            spare: Some(Spare::start(folder, options.segment_len, Arc::clone(&space))),
            space,
            buffer: Vec::new(),
            syncs: 0,
            _lock: lock,
        }
    }

    /// Whether the log lacks space.
    #[must_use]
    pub fn space(&self) -> Arc<Space> {
        Arc::clone(&self.space)
    }

    /// Makes writes durable, in one batch if they fit. After an error, a prefix of them may be durable.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for a payload longer than [`Options::payload_max`], before anything is written.
    /// [`Error::Io`]: it is unknown what is durable, and the log must not be used any more.
    pub fn append(&mut self, writes: &[Write]) -> Result<(), Error> {
        let payloads = writes.iter().flat_map(|write| match write {
            Write::Append { txns, .. } => txns.as_slice(),
            _ => &[],
        });
        if let Some(large) = payloads.map(|txn| txn.payload.len()).find(|len| *len > self.options.payload_max()) {
            return Err(Error::TooLarge(large));
        }
        let max = self.options.records_max();
        if batch::records_len(writes) <= max {
            return self.append_batch(writes);
        }
        batch::split(writes, max).iter().try_for_each(|part| self.append_batch(part))
    }

    fn append_batch(&mut self, writes: &[Write]) -> Result<(), Error> {
        let mut buffer = std::mem::take(&mut self.buffer);
        batch::write(&mut buffer, self.number, (self.chain, self.header.salt), writes);
        let len = buffer.len() as u64;
        if len > self.header.len - self.offset {
            self.rotate()?;
            batch::write(&mut buffer, self.number, (self.chain, self.header.salt), writes);
        }
        files::write_at(&self.file, &self.path, &buffer, self.offset)
            .map_err(io_error(&self.path, "cannot be written"))?;
        let synced = files::sync_data(&self.file, &self.path);
        if !is_injected(InjectedBug::IgnoreSyncErrors) {
            synced.map_err(io_error(&self.path, "cannot be synced"))?;
        }
        self.syncs += 1;
        self.offset += len;
        self.number += 1;
        self.chain = batch::chain_of(&buffer);
        for write in writes {
            self.position.advance(write);
        }
        buffer.clear();
        self.buffer = buffer;
        Ok(())
    }

    /// The end of the durable history; `None` while a synchronisation is open.
    #[must_use]
    pub fn end(&self) -> Option<Zxid> {
        self.position.sync.is_none().then_some(self.position.last.zxid)
    }

    /// The number of segments on disk.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn count_segments(folder: &Path) -> Result<u64, Error> {
        Ok(segment::list(folder)?.len() as u64)
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> LogId {
        self.header.log
    }

    /// The number of syncs.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.syncs
    }

    fn rotate(&mut self) -> Result<(), Error> {
        let spare = self.take_spare()?;
        let header = Header {
            number: self.header.number + 1,
            len: self.options.segment_len,
            batch: self.number,
            chain: self.chain,
            position: self.position,
            identity: self.header.identity,
            log: self.header.log,
            founds: self.header.founds,
            salt: segment::salt(),
        };
        let (file, path) = segment::activate((&self.folder, &self.opened), spare, &header)?;
        (self.file, self.path, self.header) = (file, path, header);
        self.offset = SECTOR as u64;
        self.spare = Some(self.new_spare());
        Ok(())
    }

    /// The next segment. Nothing of the write that needs it has reached the disk yet, so it can wait for space.
    fn take_spare(&mut self) -> Result<File, Error> {
        let spare = self.spare.take().unwrap_or_else(|| self.new_spare());
        spare.take().map_err(io_error(&self.folder, "cannot get another segment"))
    }

    fn new_spare(&self) -> Spare {
        Spare::start(&self.folder, self.options.segment_len, Arc::clone(&self.space))
    }

    /// The number of the current segment.
    #[must_use]
    pub fn segment(&self) -> u64 {
        self.header.number
    }
}

/// Checks that a folder, which may be missing, has no log and no snapshot of an earlier one.
///
/// # Errors
/// [`Error::Exists`], [`Error::Io`].
pub(crate) fn check_absent(folder: &Path) -> Result<(), Error> {
    if files::has_folder(folder) && !(segment::list(folder)?.is_empty() && snapshot::list(folder)?.is_empty()) {
        return Err(Error::Exists(folder.to_owned()));
    }
    Ok(())
}

/// Deletes a folder, if it exists.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn remove_folder(folder: &Path) -> Result<(), Error> {
    files::remove_folder(folder).map_err(io_error(folder, "cannot be deleted"))
}

/// Gives a folder its name, durably. What has that name must be an empty folder, if it exists.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn rename_folder(from: &Path, to: &Path) -> Result<(), Error> {
    files::rename_folder(from, to).map_err(io_error(to, "must be missing, or an empty folder"))
}

/// Deletes segments and snapshots that the durable snapshot of `zxid` makes obsolete, and returns the number of deleted
/// segments. The last two snapshots stay, and segments with transactions after `needed_after`, which followers need, up to
/// 64 of them. The log may be written meanwhile, in `segment` or later ones.
///
/// # Errors
/// [`Error::Io`]; the log remains usable.
pub fn purge(folder: &Path, zxid: Zxid, segment: u64, needed_after: Option<Zxid>) -> Result<usize, Error> {
    let kept = match snapshot::purge(folder, zxid)? {
        _ if is_injected(InjectedBug::PurgeBeforeSave) => zxid,
        kept => kept,
    };
    segment::purge(folder, kept, segment, needed_after)
}
