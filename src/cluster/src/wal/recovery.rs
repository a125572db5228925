//! Recovery of a log.

use std::path::Path;

use crossdock_zab::{LogId, LogState, Write, Zxid};

use super::batch::{self, BatchRead};
use super::segment::{self, Header};
use super::snapshot;
use super::{Error, Identity, Opened, Options, Position, SECTOR, Wal, io_error, lock};
use crate::platform::files;

/// A recovered log.
#[derive(Debug)]
pub struct Recovered {
    /// The log.
    pub log: LogId,
    /// Whether the log was created to found a cluster.
    pub founds: bool,
    /// The state after all writes.
    pub log_state: LogState,
    /// The latest intact snapshot. `None` if there is none and the log is complete from its start.
    pub snapshot: Option<Opened>,
    /// Bytes that were cut off because they were never durable.
    pub cut: u64,
}

/// The state of recovery.
struct Recovery {
    log: LogId,
    log_state: LogState,
    batch: u64,
    chain: u32,
    cut: u64,
}

pub(super) fn recover(folder: &Path, identity: Identity, options: Options) -> Result<(Wal, Recovered), Error> {
    let segments = match segment::list(folder) {
        Ok(segments) if !segments.is_empty() => segments,
        Ok(_) => return Err(Error::Missing(folder.to_owned())),
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::Missing(folder.to_owned()));
        }
        Err(error) => return Err(error),
    };
    let mut lock = Some(lock(folder)?);
    let mut recovery: Option<Recovery> = None;
    let mut wal = None;
    for (at, (number, path)) in segments.iter().enumerate() {
        let is_last = at + 1 == segments.len();
        let damaged = |offset: usize, problem| Error::Damaged { path: path.clone(), offset: offset as u64, problem };
        let bytes = files::read(path).map_err(io_error(path, "cannot be read"))?;
        if segment::has_other_version(&bytes) {
            return Err(Error::Version(path.clone()));
        }
        let header = Header::read(&bytes).ok_or_else(|| damaged(0, "wrong checksum of a segment header"))?;
        if header.identity != identity {
            let Identity { cluster, server } = header.identity;
            return Err(Error::Foreign { path: path.clone(), server, cluster });
        }
        if header.number != *number || header.len != bytes.len() as u64 {
            return Err(damaged(bytes.len(), "wrong length or name of a segment"));
        }
        let recovery = match &mut recovery {
            Some(recovery) => {
                let same =
                    header.batch == recovery.batch && header.chain == recovery.chain && header.log == recovery.log;
                if !same || header.position != Position::of(&recovery.log_state) {
                    return Err(damaged(0, "the segment does not follow the previous one"));
                }
                recovery
            }
            // A purge that did not finish has left it: a later segment and a snapshot hold everything.
            None if header.position.sync.is_some() && !is_last => continue,
            none => {
                if header.position.sync.is_some() || (header.number == 1) != (header.batch == 1) {
                    return Err(damaged(0, "the start of the log is missing"));
                }
                let position = header.position;
                let log_state = LogState::starting_after(position.accepted, position.current, position.last);
                none.insert(Recovery { log: header.log, log_state, batch: header.batch, chain: header.chain, cut: 0 })
            }
        };
        let end = read_segment(&bytes, recovery, header.salt).map_err(|(offset, problem)| damaged(offset, problem))?;
        if !is_last && recovery.cut > 0 {
            return Err(damaged(end, "an incomplete batch is followed by a segment"));
        }
        if is_last {
            let file = if recovery.cut > 0 {
                segment::replace(folder, path, &bytes[..end], header.len)?
            } else {
                let file = files::open(path).map_err(io_error(path, "cannot be opened"))?;
                // What was read may be only in the page cache, if the process that wrote it ended before the sync.
                files::write_at(&file, path, &bytes[..end], 0).map_err(io_error(path, "cannot be written"))?;
                files::sync_all(&file, path).map_err(io_error(path, "cannot be synced"))?;
                file
            };
            let folder_file = files::open_folder(folder).map_err(io_error(folder, "cannot be opened"))?;
            files::sync_folder(&folder_file, folder).map_err(io_error(folder, "cannot be synced"))?;
            // There is only one last segment.
            let Some(lock) = lock.take() else { break };
            let mut opened = Wal::at((folder, folder_file), options, (file, path.clone()), header, lock);
            opened.offset = end as u64;
            opened.number = recovery.batch;
            opened.chain = recovery.chain;
            opened.position = Position::of(&recovery.log_state);
            wal = Some(opened);
        }
    }
    let (Some(wal), Some(mut recovery)) = (wal, recovery) else { return Err(Error::Missing(folder.to_owned())) };
    let snapshot = latest_snapshot(folder, &mut recovery.log_state)?;
    snapshot::delete_unfinished(folder)?;
    let (log, founds) = (wal.header.log, wal.header.founds);
    Ok((wal, Recovered { log, founds, log_state: recovery.log_state, snapshot, cut: recovery.cut }))
}

/// Reads the batches of a segment and returns the offset after the last one.
fn read_segment(bytes: &[u8], recovery: &mut Recovery, salt: u32) -> Result<usize, (usize, &'static str)> {
    let mut offset = SECTOR;
    while offset < bytes.len() {
        match batch::read(&bytes[offset..], recovery.batch, (recovery.chain, salt)) {
            BatchRead::Whole { len, chain, writes } => {
                for write in writes {
                    apply(&mut recovery.log_state, write).map_err(|problem| (offset, problem))?;
                }
                recovery.chain = chain;
                recovery.batch += 1;
                offset += len;
            }
            BatchRead::Damaged(problem) => return Err((offset, problem)),
            BatchRead::Empty | BatchRead::Torn => {
                let rest = &bytes[offset..];
                if batch::is_zero(rest) {
                    return Ok(offset);
                }
                // A batch is written only once the previous one is durable, so a later batch proves that this one was.
                let follows =
                    |sector: &[u8]| batch::number_at(sector, salt).is_some_and(|number| number > recovery.batch);
                if rest.chunks(SECTOR).skip(1).any(follows) {
                    return Err((offset, "a batch is missing"));
                }
                recovery.cut = rest.len() as u64;
                return Ok(offset);
            }
        }
    }
    Ok(offset)
}

fn apply(log_state: &mut LogState, write: Write) -> Result<(), &'static str> {
    let write = match write {
        Write::Append { txns, .. } => Write::Append { after: log_state.end().zxid, txns },
        other => other,
    };
    log_state.apply(&write).map_err(|_| "a record is not valid at its position")
}

/// The latest readable snapshot. If the start of the log was purged, there must be a snapshot that covers the purged
/// part.
fn latest_snapshot(folder: &Path, log_state: &mut LogState) -> Result<Option<Opened>, Error> {
    let mut problem = None;
    for snapshot in snapshot::list(folder)?.into_iter().rev() {
        if !log_state.history().contains(snapshot.zxid) {
            continue;
        }
        match snapshot.open()? {
            Some(opened) if log_state.snapshot_recovered(&opened.summary) => return Ok(Some(opened)),
            _ => problem = Some(snapshot.path),
        }
    }
    if log_state.history().floor() == Zxid::ZERO {
        return Ok(None);
    }
    let path = problem.unwrap_or_else(|| folder.to_owned());
    Err(Error::Damaged { path, offset: 0, problem: "no readable snapshot covers the purged part of the log" })
}
