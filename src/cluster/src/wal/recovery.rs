//! Reading a log: what it says, or why it cannot be read.

use std::path::Path;

use crossdock_zab::{Ledger, Write, Zxid};

use super::batch::{self, Found};
use super::segment::{self, Header};
use super::{Error, Identity, Options, Position, SECTOR, Snapshot, Wal, failed, lock};
use super::{files, snapshot};

/// What a log says.
#[derive(Debug)]
pub struct Recovered {
    /// What its writes come to.
    pub ledger: Ledger,
    /// The latest snapshot that can be read, and its state; nothing where the log begins at the beginning.
    pub snapshot: Option<(Snapshot, Vec<u8>)>,
    /// Bytes that were cut off, because they had never been durable.
    pub cut: u64,
}

/// Where reading has got to.
struct Reading {
    ledger: Ledger,
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
    let lock = lock(folder)?;
    let mut reading: Option<Reading> = None;
    let mut wal = None;
    for (at, (number, path)) in segments.iter().enumerate() {
        let is_last = at + 1 == segments.len();
        let damaged = |offset: usize, problem| Error::Damaged { path: path.clone(), offset: offset as u64, problem };
        let bytes = std::fs::read(path).map_err(failed(path, "cannot be read"))?;
        let header =
            Header::read(&bytes).ok_or_else(|| damaged(0, "the header of the segment has a wrong checksum"))?;
        if header.identity != identity {
            let Identity { cluster, server } = header.identity;
            return Err(Error::Foreign { path: path.clone(), server, cluster });
        }
        if header.number != *number || header.len != bytes.len() as u64 {
            return Err(damaged(bytes.len(), "the segment has not its length or its name"));
        }
        let reading = match &mut reading {
            Some(reading) => {
                let same = header.batch == reading.batch && header.chain == reading.chain;
                if !same || header.position != Position::of(&reading.ledger) {
                    return Err(damaged(0, "the segment does not stand behind the one before"));
                }
                reading
            }
            none => {
                if header.position.sync.is_some() || (header.number == 1) != (header.batch == 1) {
                    return Err(damaged(0, "the log has lost its beginning"));
                }
                let position = header.position;
                let ledger = Ledger::of_rest(position.accepted, position.current, position.last, position.returning);
                none.insert(Reading { ledger, batch: header.batch, chain: header.chain, cut: 0 })
            }
        };
        let end = read_segment(&bytes, reading, header.salt).map_err(|(offset, problem)| damaged(offset, problem))?;
        if !is_last && reading.cut > 0 {
            return Err(damaged(end, "a batch is not whole, and a segment follows"));
        }
        if is_last {
            let file = files::open(path).map_err(failed(path, "cannot be opened"))?;
            // What was read may be in the system's memory alone, where the process that wrote it ended before it was synced.
            files::write_at(&file, path, &bytes[..end], 0).map_err(failed(path, "cannot be written"))?;
            if reading.cut > 0 {
                let zeroes = vec![0; bytes.len() - end];
                files::write_at(&file, path, &zeroes, end as u64).map_err(failed(path, "cannot be written"))?;
            }
            files::sync_all(&file, path).map_err(failed(path, "cannot be synced"))?;
            segment::sync_folder(folder)?;
            let held = lock.try_clone().map_err(failed(folder, "cannot be locked"))?;
            let mut opened = Wal::at(folder, options, (file, path.clone()), header, held);
            opened.offset = end as u64;
            opened.number = reading.batch;
            opened.chain = reading.chain;
            opened.position = Position::of(&reading.ledger);
            wal = Some(opened);
        }
    }
    let (Some(wal), Some(mut reading)) = (wal, reading) else { return Err(Error::Missing(folder.to_owned())) };
    let snapshot = latest_snapshot(folder, &mut reading.ledger)?;
    snapshot::delete_unfinished(folder)?;
    Ok((wal, Recovered { ledger: reading.ledger, snapshot, cut: reading.cut }))
}

/// Reads the batches of a segment; gives where they end.
fn read_segment(bytes: &[u8], reading: &mut Reading, salt: u32) -> Result<usize, (usize, &'static str)> {
    let mut offset = SECTOR;
    while offset < bytes.len() {
        match batch::read(&bytes[offset..], reading.batch, (reading.chain, salt)) {
            Found::Whole { len, chain, writes } => {
                for write in writes {
                    apply(&mut reading.ledger, write).map_err(|problem| (offset, problem))?;
                }
                reading.chain = chain;
                reading.batch += 1;
                offset += len;
            }
            Found::Damaged(problem) => return Err((offset, problem)),
            Found::Nothing | Found::Torn => {
                let rest = &bytes[offset..];
                if batch::is_zero(rest) {
                    return Ok(offset);
                }
                // A batch is written once the one before is durable: one that stands behind says that this one was.
                let follows =
                    |sector: &[u8]| batch::number_at(sector, salt).is_some_and(|number| number > reading.batch);
                if rest.chunks(SECTOR).skip(1).any(follows) {
                    return Err((offset, "a batch is missing"));
                }
                reading.cut = rest.len() as u64;
                return Ok(offset);
            }
        }
    }
    Ok(offset)
}

fn apply(ledger: &mut Ledger, write: Write) -> Result<(), &'static str> {
    let write = match write {
        Write::Append { txns, .. } => Write::Append { after: ledger.end(), txns },
        other => other,
    };
    ledger.apply(&write).map_err(|_| "a record cannot stand where it stands")
}

/// The latest snapshot that can be read. Where the log does not reach back to the beginning, there has to be one that it reaches back to.
fn latest_snapshot(folder: &Path, ledger: &mut Ledger) -> Result<Option<(Snapshot, Vec<u8>)>, Error> {
    let mut problem = None;
    for snapshot in snapshot::list(folder)?.into_iter().rev() {
        if !ledger.history().has(snapshot.zxid) {
            continue;
        }
        match snapshot.read()? {
            Some(state) => {
                ledger.snapshot_taken(snapshot.zxid, usize::MAX, usize::MAX);
                return Ok(Some((snapshot, state)));
            }
            None => problem = Some(snapshot.path),
        }
    }
    if ledger.history().floor() == Zxid::ZERO {
        return Ok(None);
    }
    let path = problem.unwrap_or_else(|| folder.to_owned());
    Err(Error::Damaged { path, offset: 0, problem: "there is no snapshot that the log stands behind" })
}
