//! Reads of the log on disk, for followers that need more than what is in memory. They run on other threads.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crossdock_zab::{Input, Link, Session, Txn, Zxid};
use tokio::sync::mpsc;

use crate::platform;
use crate::wal::{Error, Reader};

/// Reads that may be reported before the driver takes one: one for each follower.
const RESULTS_LEN_MAX: usize = 64;

/// A read that has ended.
#[derive(Debug)]
pub(super) struct LogRead {
    link: Link,
    session: Session,
    after: Zxid,
    /// To continue with; `None` if it failed.
    reader: Option<Reader>,
    txns: Vec<Txn>,
}

/// Readers of the log, one for each follower that is catching up.
#[derive(Debug)]
pub(super) struct LogReads {
    folder: PathBuf,
    /// The limits of one read: transactions and bytes.
    limits: (usize, usize),
    readers: BTreeMap<Link, (Session, Zxid, Reader)>,
    /// The last read that was started for each connection and has not ended. A reader comes back only to its own: each
    /// holds a segment, and connections end while it reads.
    running: BTreeMap<Link, (Session, Zxid)>,
    results: (mpsc::Sender<LogRead>, mpsc::Receiver<LogRead>),
}

impl LogReads {
    pub(super) fn new(folder: PathBuf, limits: (usize, usize)) -> Self {
        Self {
            folder,
            limits,
            readers: BTreeMap::new(),
            running: BTreeMap::new(),
            results: mpsc::channel(RESULTS_LEN_MAX),
        }
    }

    /// Starts to read what follows a transaction.
    pub(super) fn start(&mut self, link: Link, session: Session, after: Zxid) {
        self.running.insert(link, (session, after));
        let continued = self.readers.remove(&link).filter(|(of, last, _)| (*of, *last) == (session, after));
        let (folder, (count, bytes)) = (self.folder.clone(), self.limits);
        let ended = self.results.0.clone();
        let reading = platform::run_blocking(move || {
            let read = match continued {
                Some((.., reader)) => read(reader, count, bytes),
                None => match Reader::start(&folder, after) {
                    Ok(Some(reader)) => read(reader, count, bytes),
                    Ok(None) => Ok((None, Vec::new())),
                    Err(error) => Err(error),
                },
            };
            read.unwrap_or_else(|problem| {
                tracing::warn!(%problem, "failed to read the log for another instance, which gets a snapshot instead");
                (None, Vec::new())
            })
        });
        platform::spawn(async move {
            // It fails only if it panics, or with the instance.
            let (reader, txns) = reading.await.unwrap_or_default();
            let _ = ended.send(LogRead { link, session, after, reader, txns }).await;
        });
    }

    /// The next read that has ended. Cancel safe.
    pub(super) async fn ended(&mut self) -> Option<Input> {
        let read = self.results.1.recv().await?;
        Some(self.note(read))
    }

    /// The next read that has ended, if there is one already.
    pub(super) fn try_ended(&mut self) -> Option<Input> {
        let read = self.results.1.try_recv().ok()?;
        Some(self.note(read))
    }

    fn note(&mut self, read: LogRead) -> Input {
        let LogRead { link, session, after, reader, txns } = read;
        if self.running.get(&link) == Some(&(session, after)) {
            self.running.remove(&link);
            if let (Some(reader), Some(last)) = (reader, txns.last()) {
                self.readers.insert(link, (session, last.zxid, reader));
            }
        }
        Input::LogRead { link, session, txns }
    }

    /// Forgets a connection that has ended, or whose follower needs no more of the log.
    pub(super) fn forget(&mut self, link: Link) {
        self.readers.remove(&link);
        self.running.remove(&link);
    }

    /// Forgets all connections: this instance does not lead any more.
    pub(super) fn clear(&mut self) {
        self.readers.clear();
        self.running.clear();
    }
}

fn read(mut reader: Reader, count: usize, bytes: usize) -> Result<(Option<Reader>, Vec<Txn>), Error> {
    let txns = reader.next(count, bytes)?;
    Ok((Some(reader), txns))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use crossdock_zab::{Epoch, Payload, Point, Write};

    use super::*;
    use crate::wal::{Identity, Options, Wal};

    #[tokio::test]
    async fn a_reader_is_kept_only_for_its_own_session() {
        let folder = tempfile::tempdir().expect("a folder");
        let identity = Identity { cluster: 7, server: 1 };
        let mut wal = Wal::create(folder.path(), identity, Options { segment_len: 1 << 16 }, false).expect("a new log");
        let txn = Point::default().next(Zxid::new(Epoch(1), 1), 0, Payload::Command(Bytes::from_static(b"x")));
        let append = Write::Append { after: Zxid::ZERO, txns: vec![txn.clone()] };
        let epoch = [Write::AcceptEpoch(Epoch(1)), Write::SyncBegin(Epoch(1)), Write::EpochInstalled(Epoch(1))];
        wal.append(&[&epoch[..], &[append]].concat()).expect("a disk");
        let (link, session) = (Link(1), Session(1));
        let expected = Input::LogRead { link, session, txns: vec![txn] };

        let mut reads = LogReads::new(folder.path().to_owned(), (10, 1_000));
        reads.start(link, session, Zxid::ZERO);
        assert_eq!(reads.ended().await.as_ref(), Some(&expected));
        assert_eq!(reads.readers.len(), 1, "to continue with");
        // The connection ends, or another session begins, while it is being read.
        for disturb in [|reads: &mut LogReads| reads.forget(Link(1)), |reads: &mut LogReads| reads.clear()] {
            reads.start(link, session, Zxid::ZERO);
            disturb(&mut reads);
            assert_eq!(reads.ended().await.as_ref(), Some(&expected));
            assert!(reads.readers.is_empty() && reads.running.is_empty());
        }
        reads.start(link, session, Zxid::ZERO);
        reads.start(link, Session(2), Zxid::ZERO);
        for _ in 0..2 {
            assert!(reads.ended().await.is_some());
        }
        assert_eq!(reads.readers.values().map(|(of, ..)| *of).collect::<Vec<_>>(), [Session(2)]);
    }
}
