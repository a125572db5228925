//! Snapshots: those that this instance takes, and those that come from others.

use std::time::Instant;

use crossdock_zab::{Blob, Input, Zxid};
use tokio::sync::mpsc;

use super::Driver;
use crate::machine::Snapshotting;
use crate::node::Stopped;
use crate::wal;

/// A snapshot that was taken of the state at a point, and is not on its way to the disk.
pub(super) type Taken = (Zxid, Snapshotting);

/// Tells the driver how a snapshot has ended, however that is: nothing but zero where it is not kept.
struct Told {
    kept: mpsc::Sender<Zxid>,
    zxid: Zxid,
}

impl Drop for Told {
    fn drop(&mut self) {
        // One is under way at a time, and there is room for more.
        let _ = self.kept.try_send(self.zxid);
    }
}

impl Driver {
    /// Takes a snapshot where it is time, and has the last one written.
    pub(super) fn snapshot(&mut self) {
        let (count, bytes) = self.since_snapshot;
        let is_time = count >= self.settings.snapshot_every || bytes >= self.settings.snapshot_bytes;
        if is_time && !self.snapshotting && self.stopped.is_none() {
            let begun = Instant::now();
            self.taken = Some((self.applied, self.machine.snapshot()));
            tracing::debug!(zxid = %self.applied, micros = begun.elapsed().as_micros(), "a snapshot is taken");
            (self.since_snapshot, self.snapshotting) = ((0, 0), true);
        }
        // What is committed may be durable elsewhere and not here yet; a snapshot stands for what the log has.
        let end = self.log.state().end;
        if let Some(taken) = self.taken.take_if(|(zxid, _)| end.is_some_and(|end| end >= *zxid)) {
            self.keep(taken);
        }
    }

    /// Writes a snapshot out on a thread of its own, and deletes what it makes needless.
    fn keep(&mut self, (zxid, write_out): Taken) {
        let (folder, segment, kept) = (self.settings.data.clone(), self.log.state().segment, self.kept.0.clone());
        let told = Told { kept, zxid: Zxid::ZERO };
        let writing = std::thread::Builder::new().name("snapshot".to_owned()).spawn(move || {
            let mut told = told;
            let state = write_out();
            let written = wal::keep_snapshot(&folder, zxid, &state);
            drop(state);
            match written {
                Ok(_) => {
                    told.zxid = zxid;
                    if let Err(problem) = wal::purge(&folder, zxid, segment) {
                        tracing::warn!(%problem, "what a snapshot makes needless cannot be deleted");
                    }
                }
                Err(problem) => tracing::warn!(%problem, "a snapshot cannot be kept; the log keeps all"),
            }
        });
        if let Err(problem) = writing {
            // It is told by what was to be moved there.
            tracing::warn!(%problem, "a snapshot cannot be kept; the log keeps all");
        }
    }

    pub(super) fn snapshot_kept(&mut self, zxid: Zxid, inputs: &mut Vec<Input>) {
        self.snapshotting = false;
        // A follower may have taken another history meanwhile.
        if zxid == Zxid::ZERO || !self.zab.ledger().history().has(zxid) {
            return;
        }
        inputs.push(Input::SnapshotTaken(zxid));
    }

    /// A snapshot that came becomes one of this instance's.
    pub(super) fn adopt(&mut self, zxid: Zxid, blob: Blob) {
        let adopted = match self.blobs.remove(&blob) {
            Some(path) => wal::adopt_snapshot(&self.settings.data, zxid, &path),
            None => Err(wal::Error::Missing(self.settings.data.clone())),
        };
        if let Err(problem) = adopted {
            tracing::error!(%problem, "a snapshot that came cannot be kept; this instance stops");
            self.stopped = Some(Stopped::Log(problem.to_string()));
        }
    }

    pub(super) fn restore(&mut self, zxid: Zxid) {
        let restored = match wal::read_snapshot(&self.settings.data, zxid) {
            Ok(Some(state)) => self.machine.restore(Some(&state)),
            Ok(None) => Err(format!("the snapshot of {zxid} cannot be read")),
            Err(problem) => Err(problem.to_string()),
        };
        match restored {
            Ok(()) => self.applied = zxid,
            Err(problem) => {
                tracing::error!(%problem, "a snapshot's state cannot be taken; this instance stops");
                self.stopped = Some(Stopped::Log(problem));
            }
        }
    }
}
