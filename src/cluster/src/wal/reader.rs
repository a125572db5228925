//! Reads transactions from the segments of a log that is being written, for followers that are far behind.

use std::io;
use std::path::{Path, PathBuf};

use crossdock_zab::{LogState, Txn, Write, Zxid};

use super::batch::{self, BatchRead};
use super::segment::{self, Header};
use super::{Error, SECTOR, io_error};
use crate::platform::files;

/// Reads consecutive transactions after a position. It holds one segment in memory.
#[derive(Debug)]
pub struct Reader {
    folder: PathBuf,
    /// The number of the segment that is read.
    number: u64,
    /// Its content, as it was when it was last read.
    bytes: Vec<u8>,
    offset: usize,
    batch: u64,
    chain: u32,
    salt: u32,
    log_state: LogState,
    /// The last transaction that was returned.
    last: Zxid,
    /// The log goes on after a transaction before `last`.
    is_truncated: bool,
}

impl Reader {
    /// Starts after a transaction. `None` if the log no longer has what follows it.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Damaged`].
    pub fn start(folder: &Path, after: Zxid) -> Result<Option<Self>, Error> {
        let mut first = None;
        let segments = segment::list(folder)?;
        for (_, path) in &segments {
            let bytes = match segment::read_header(path) {
                Ok(bytes) => bytes,
                // It was purged meanwhile.
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let header = Header::read(&bytes).ok_or_else(|| damaged(path, 0))?;
            if header.position.last.zxid > after {
                break;
            }
            if header.position.sync.is_none() {
                first = Some((header, path));
            }
        }
        let Some((header, path)) = first else { return Ok(None) };
        let position = header.position;
        Ok(Some(Self {
            folder: folder.to_owned(),
            number: header.number,
            bytes: files::read(path).map_err(io_error(path, "cannot be read"))?,
            offset: SECTOR,
            batch: header.batch,
            chain: header.chain,
            salt: header.salt,
            log_state: LogState::starting_after(position.accepted, position.current, position.last),
            last: after,
            is_truncated: false,
        }))
    }

    /// The next transactions, at least one, up to a number and a size in bytes that one transaction may exceed. Empty if
    /// they are not in the log any more, or not yet, or if transactions that were returned turn out to be truncated: they
    /// were never committed, and what follows is not their continuation.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Damaged`].
    pub fn next(&mut self, count: usize, bytes: usize) -> Result<Vec<Txn>, Error> {
        let mut size = 0;
        while !self.is_truncated && self.ready() < count && size < bytes {
            match self.read_batch()? {
                Some(len) if self.ready() > 0 => size += len,
                Some(_) => {}
                None if self.is_truncated || self.open_next()? || self.read_again()? => {}
                None => break,
            }
        }
        if self.is_truncated {
            return Ok(Vec::new());
        }
        let history = self.log_state.history();
        let txns = history.batch((self.last, history.last()), count, bytes);
        self.last = txns.last().map_or(self.last, |txn| txn.zxid);
        // What was returned is not needed any more.
        let last = self.last;
        self.log_state.snapshot_taken(last, 0, 0);
        Ok(txns)
    }

    /// The number of transactions that can be returned.
    fn ready(&self) -> usize {
        self.log_state.history().count_after(self.last).unwrap_or(0)
    }

    /// Applies the next batch of the segment, and returns its length in bytes; `None` at the end of the segment.
    fn read_batch(&mut self) -> Result<Option<usize>, Error> {
        let Some(rest) = self.bytes.get(self.offset..).filter(|rest| !rest.is_empty()) else { return Ok(None) };
        match batch::read(rest, self.batch, (self.chain, self.salt)) {
            BatchRead::Whole { len, chain, writes } => {
                for write in writes {
                    if matches!(&write, Write::Truncate(to) if to.zxid < self.last) {
                        self.is_truncated = true;
                        return Ok(None);
                    }
                    let write = match write {
                        Write::Append { txns, .. } => Write::Append { after: self.log_state.end().zxid, txns },
                        other => other,
                    };
                    self.log_state.apply(&write).map_err(|_| self.damaged())?;
                }
                (self.offset, self.batch, self.chain) = (self.offset + len, self.batch + 1, chain);
                Ok(Some(len))
            }
            // The batch may just be being written.
            BatchRead::Empty | BatchRead::Torn => Ok(None),
            BatchRead::Damaged(_) => Err(self.damaged()),
        }
    }

    fn path(&self) -> PathBuf {
        segment::path_of(&self.folder, self.number)
    }

    /// Opens the next segment. Returns false if there is none, or the current one was not read to its end.
    fn open_next(&mut self) -> Result<bool, Error> {
        let path = segment::path_of(&self.folder, self.number + 1);
        let bytes = match files::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(io_error(&path, "cannot be read")(error)),
        };
        let header = Header::read(&bytes).ok_or_else(|| damaged(&path, 0))?;
        if header.batch != self.batch || header.chain != self.chain {
            return Ok(false);
        }
        (self.number, self.bytes, self.offset, self.salt) = (header.number, bytes, SECTOR, header.salt);
        Ok(true)
    }

    /// Reads the segment again, which may have been written since. Returns whether there is another batch.
    fn read_again(&mut self) -> Result<bool, Error> {
        let path = self.path();
        self.bytes = files::read(&path).map_err(io_error(&path, "cannot be read"))?;
        let rest = self.bytes.get(self.offset..).filter(|rest| !rest.is_empty());
        let next = rest.map(|rest| batch::read(rest, self.batch, (self.chain, self.salt)));
        Ok(matches!(next, Some(BatchRead::Whole { .. })))
    }

    fn damaged(&self) -> Error {
        damaged(&self.path(), self.offset as u64)
    }
}

fn damaged(path: &Path, offset: u64) -> Error {
    Error::Damaged { path: path.to_owned(), offset, problem: "a part of the log cannot be read for a follower" }
}
