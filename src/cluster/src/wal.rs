//! The write-ahead log: what is written to it is durable when a call returns, and comes back as it was, or not at all.
//!
//! ```text
//! folder
//!   log-0000000000000001     segments, of one size from the beginning: filled with zeroes, then written from the front
//!   log-0000000000000002
//!   spare                    the next segment, made while there is time
//!   snapshot-0000000100000007
//!
//! segment   header sector │ batch │ batch │ … │ zeroes
//! batch     header (48 bytes) │ records │ zeroes up to the end of the sector
//! ```
//!
//! A batch is what one `fdatasync` makes durable. It begins at a sector of its own, so that no write touches a sector that was
//! durable before. Its header has a checksum of its own, and one of the records that is chained with that of the batch before. A batch is
//! written only once the one before is durable. Headers are told from what payloads may hold by a number that each segment draws.
//!
//! So a recovery can tell what was torn from what was damaged. Sectors that never got to the disk are still zeroes: a batch that is not
//! whole, lacks sectors, and has no whole batch behind it was never durable, and is cut off. Anything else that is not as it was
//! written was durable once, and [`Error::Damaged`] says so: going on without it could lose what was acknowledged.

mod batch;
mod files;
#[cfg(test)]
mod power_loss;
mod recovery;
mod segment;
mod snapshot;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use crossdock_zab::{Epoch, Ledger, Write, Zxid};

pub use self::recovery::Recovered;
use self::segment::Header;
pub use self::snapshot::{
    Snapshot, adopt as adopt_snapshot, is_whole as is_snapshot, keep as keep_snapshot, path_of as snapshot_path,
    read as read_snapshot,
};

/// What a disk writes whole or not at all.
pub(crate) const SECTOR: usize = 512;
/// The bytes of records in one batch.
const BATCH_LEN_MAX: usize = 16 << 20;

/// Why a log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused. What became of a write is not known then: the log must not be used any more.
    #[error("{path}: {what}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Something that was durable is not as it was written.
    #[error("{path} is damaged at byte {offset}: {problem}; what follows was acknowledged and cannot be read")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What is wrong there.
        problem: &'static str,
    },
    /// There is no log.
    #[error("{0} has no log")]
    Missing(PathBuf),
    /// There is a log already.
    #[error("{0} has a log already")]
    Exists(PathBuf),
    /// Another process has the log open.
    #[error("{0} is in use by another process")]
    InUse(PathBuf),
    /// The log is another server's, or another cluster's.
    #[error("{path} belongs to server {server} of cluster {cluster:016x}")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The server that it belongs to.
        server: u64,
        /// The cluster that it belongs to.
        cluster: u64,
    },
    /// A write is larger than a segment can hold.
    #[error("a write of {0} bytes does not fit into the log")]
    TooLarge(usize),
}

pub(crate) fn failed(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { path, what, source }
}

/// Whose log it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// A number of the cluster's name.
    pub cluster: u64,
    /// The server.
    pub server: u64,
}

/// How a log is kept.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The bytes of a segment.
    pub segment_len: u64,
}

impl Options {
    /// The bytes of records in one batch.
    fn records_max(self) -> usize {
        let room = usize::try_from(self.segment_len).unwrap_or(usize::MAX).saturating_sub(2 * SECTOR + batch::HEADER);
        room.min(BATCH_LEN_MAX)
    }

    /// The bytes of the longest payload that a log takes.
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

/// What all writes before a point come to, as far as the next segment has to say it. The log follows it write by write, as it keeps no
/// ledger; a recovery, which does, sees that both came to the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Position {
    pub(crate) accepted: Epoch,
    pub(crate) current: Epoch,
    /// The end of the history.
    pub(crate) last: Zxid,
    /// The end of what an open synchronisation has made of it.
    pub(crate) sync: Option<Zxid>,
    /// The number of a log that has the place of a lost one; none is zero.
    pub(crate) returning: Option<u64>,
}

impl Position {
    pub(crate) fn of(ledger: &Ledger) -> Self {
        Self {
            accepted: ledger.accepted(),
            current: ledger.current(),
            last: ledger.history().last(),
            sync: ledger.is_syncing().then(|| ledger.end()),
            returning: ledger.returning(),
        }
    }

    pub(crate) fn advance(&mut self, write: &Write) {
        let mut reach = |zxid| match &mut self.sync {
            Some(end) => *end = zxid,
            None => self.last = zxid,
        };
        match write {
            Write::AcceptEpoch(epoch) => {
                self.accepted = *epoch;
                self.sync = None;
            }
            Write::SyncBegin(_) => self.sync = Some(self.last),
            Write::Truncate(zxid) | Write::Install { zxid, .. } => reach(*zxid),
            Write::Append { after, txns } => reach(txns.last().map_or(*after, |txn| txn.zxid)),
            Write::EpochInstalled(epoch) => {
                self.current = *epoch;
                self.last = self.sync.take().unwrap_or(self.last);
            }
            Write::Returned => self.returning = None,
        }
    }
}

/// A log that is written to.
#[derive(Debug)]
pub struct Wal {
    folder: PathBuf,
    options: Options,
    file: File,
    path: PathBuf,
    header: Header,
    /// Where the next batch goes.
    offset: u64,
    /// The number of the next batch.
    number: u64,
    /// The checksum that the next batch is chained with.
    chain: u32,
    position: Position,
    spare: Option<JoinHandle<io::Result<()>>>,
    buffer: Vec<u8>,
    syncs: u64,
    /// Held as long as the log is open.
    _lock: File,
}

/// Makes sure that nobody else has the folder's log open.
fn lock(folder: &Path) -> Result<File, Error> {
    let path = folder.join("lock");
    let file = File::create(&path).map_err(failed(&path, "cannot be made"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(Error::InUse(folder.to_owned())),
        Err(std::fs::TryLockError::Error(source)) => Err(failed(&path, "cannot be locked")(source)),
    }
}

impl Wal {
    /// Makes a log where there is none.
    ///
    /// # Errors
    /// [`Error::Exists`] where there is one; [`Error::Io`].
    pub fn create(folder: &Path, identity: Identity, options: Options) -> Result<Self, Error> {
        Self::create_at(folder, identity, options, Position::default())
    }

    /// Makes a log in the place of one that was lost: what was promised and acknowledged before is not known, and this instance does not
    /// vote before it has all again.
    ///
    /// # Errors
    /// As [`Wal::create`].
    pub fn create_again(folder: &Path, identity: Identity, options: Options) -> Result<Self, Error> {
        let number = segment::random().max(1);
        Self::create_at(folder, identity, options, Position::of(&Ledger::in_place_of_lost(number)))
    }

    fn create_at(folder: &Path, identity: Identity, options: Options, position: Position) -> Result<Self, Error> {
        files::create_folder(folder).map_err(failed(folder, "cannot be made"))?;
        // A snapshot of an earlier log is not a state of this one.
        if !segment::list(folder)?.is_empty() || !snapshot::list(folder)?.is_empty() {
            return Err(Error::Exists(folder.to_owned()));
        }
        let lock = lock(folder)?;
        let header = Header::first(identity, options.segment_len, position);
        segment::fill(&segment::spare_path(folder), options.segment_len)
            .map_err(failed(folder, "cannot make a segment in"))?;
        let (file, path) = segment::activate(folder, &header)?;
        Ok(Self::at(folder, options, (file, path), header, lock))
    }

    /// Opens a log, and reads what it says.
    ///
    /// # Errors
    /// [`Error::Missing`] where there is none: an empty folder is not an empty log. [`Error::Damaged`], [`Error::Foreign`],
    /// [`Error::Io`].
    pub fn open(folder: &Path, identity: Identity, options: Options) -> Result<(Self, Recovered), Error> {
        recovery::recover(folder, identity, options)
    }

    fn at(folder: &Path, options: Options, (file, path): (File, PathBuf), header: Header, lock: File) -> Self {
        let mut this = Self {
            folder: folder.to_owned(),
            options,
            file,
            path,
            offset: SECTOR as u64,
            number: header.batch,
            chain: header.chain,
            position: header.position,
            header,
            spare: None,
            buffer: Vec::new(),
            syncs: 0,
            _lock: lock,
        };
        this.make_spare();
        this
    }

    /// Makes writes durable: when it returns, all of them are. Where it does not, a beginning of them may be. They go as one, unless
    /// that is more than a batch can hold.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for a payload longer than [`Options::payload_max`], before anything is written. [`Error::Io`]: what is
    /// durable then is not known, and the log must not be used any more.
    pub fn append(&mut self, writes: &[Write]) -> Result<(), Error> {
        let payloads = writes.iter().flat_map(|write| match write {
            Write::Append { txns, .. } => txns.as_slice(),
            _ => &[],
        });
        if let Some(large) = payloads.map(|txn| txn.payload.len()).find(|len| *len > self.options.payload_max()) {
            return Err(Error::TooLarge(large));
        }
        let max = self.options.records_max();
        if batch::weight(writes) <= max {
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
            .map_err(failed(&self.path, "cannot be written"))?;
        files::sync_data(&self.file, &self.path).map_err(failed(&self.path, "cannot be synced"))?;
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

    /// The end of the history that is durable; nothing while a synchronisation is open.
    #[must_use]
    pub fn end(&self) -> Option<Zxid> {
        self.position.sync.is_none().then_some(self.position.last)
    }

    /// How often a disk was asked to make something durable.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.syncs
    }

    fn rotate(&mut self) -> Result<(), Error> {
        self.wait_for_spare()?;
        let header = Header {
            number: self.header.number + 1,
            len: self.options.segment_len,
            batch: self.number,
            chain: self.chain,
            position: self.position,
            identity: self.header.identity,
            salt: segment::salt(),
        };
        let (file, path) = segment::activate(&self.folder, &header)?;
        (self.file, self.path, self.header) = (file, path, header);
        self.offset = SECTOR as u64;
        self.make_spare();
        Ok(())
    }

    fn make_spare(&mut self) {
        let (path, len) = (segment::spare_path(&self.folder), self.options.segment_len);
        let filling = std::thread::Builder::new().name("spare".to_owned()).spawn(move || segment::fill(&path, len));
        // Without a thread it is made when it is needed.
        self.spare = filling.ok();
    }

    fn wait_for_spare(&mut self) -> Result<(), Error> {
        let made = self.spare.take().map(JoinHandle::join);
        if matches!(made, Some(Ok(Ok(())))) {
            return Ok(());
        }
        // There may be room again.
        let path = segment::spare_path(&self.folder);
        segment::fill(&path, self.options.segment_len).map_err(failed(&path, "cannot be made"))
    }

    /// The number of the segment that is written to.
    #[must_use]
    pub fn segment(&self) -> u64 {
        self.header.number
    }
}

/// Deletes segments and snapshots that nobody needs who has the snapshot of `zxid`, which is durable; gives the number of segments. Two
/// snapshots stay. The log may be written to meanwhile, in the segment of that number or later ones.
///
/// # Errors
/// [`Error::Io`]; the log may be used on.
pub fn purge(folder: &Path, zxid: Zxid, segment: u64) -> Result<usize, Error> {
    let kept = snapshot::purge(folder, zxid)?;
    segment::purge(folder, kept, segment)
}

impl Drop for Wal {
    fn drop(&mut self) {
        if let Some(spare) = self.spare.take() {
            let _ = spare.join();
        }
    }
}
