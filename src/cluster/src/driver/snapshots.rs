//! Snapshots: taken here, and received from a leader.

use std::time::{Duration, Instant};

use crossdock_zab::{Blob, Input, Summary, Zxid};
use tokio::sync::mpsc;

use super::Driver;
use crate::state_machine::SnapshotEncoder;
use crate::status::Stopped;
use crate::wal::{self, Wal};

/// The transactions of a snapshot, and the closure that encodes its state.
pub(super) type Encoding = (Summary, SnapshotEncoder);

/// The end of a save.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Saved {
    /// The last transaction in the snapshot; `None` if it was not saved.
    zxid: Option<Zxid>,
    bytes: u64,
    took: Duration,
    /// Segments on disk afterwards; `None` if unknown.
    segments: Option<u64>,
}

/// Reports the end of a save to the driver, even if the thread panics.
struct SaveReport {
    to: mpsc::Sender<Saved>,
    saved: Saved,
}

impl Drop for SaveReport {
    fn drop(&mut self) {
        // Only one save runs at a time, so there is room.
        let _ = self.to.try_send(self.saved);
    }
}

impl Driver {
    /// Takes a snapshot if one is due, and starts to save the last one.
    pub(super) fn snapshot(&mut self) {
        let (count, bytes) = self.since_snapshot;
        let is_time = count >= self.settings.snapshot_every || bytes >= self.settings.snapshot_bytes;
        if is_time
            && !self.snapshotting
            && self.stopped.is_none()
            && let Some(summary) = self.zab.log_state().history().summary_at(self.applied)
        {
            let begun = Instant::now();
            self.unsaved = Some((summary, self.state_machine.snapshot()));
            tracing::debug!(zxid = %self.applied, micros = begun.elapsed().as_micros(), "snapshot taken");
            (self.since_snapshot, self.snapshotting) = ((0, 0), true);
        }
        // A snapshot may only cover what is durable in this log; a commit may so far be durable elsewhere only.
        let end = self.log.status().end;
        if let Some(unsaved) = self.unsaved.take_if(|(summary, _)| end.is_some_and(|end| end >= summary.point.zxid)) {
            self.save(unsaved);
        }
    }

    /// Saves a snapshot on its own thread, then purges what it replaces.
    fn save(&mut self, (summary, encode): Encoding) {
        let zxid = summary.point.zxid;
        let (folder, segment, to) = (self.settings.data.clone(), self.log.status().segment, self.saved.0.clone());
        let needed_after = self.zab.needed_after();
        let begun = Instant::now();
        let report = SaveReport { to, saved: Saved::default() };
        let writing = std::thread::Builder::new().name("snapshot".to_owned()).spawn(move || {
            let mut report = report;
            let state = encode();
            let written = wal::save_snapshot(&folder, &summary, &state);
            report.saved.bytes = state.len() as u64;
            report.saved.took = begun.elapsed();
            drop(state);
            match written {
                Ok(_) => {
                    report.saved.zxid = Some(zxid);
                    if let Err(problem) = wal::purge(&folder, zxid, segment, needed_after) {
                        tracing::warn!(%problem, "failed to purge segments covered by the new snapshot");
                    }
                }
                Err(problem) => tracing::warn!(%problem, "failed to save a snapshot; the log keeps everything"),
            }
            report.saved.segments = Wal::count_segments(&folder).ok();
        });
        if let Err(problem) = writing {
            // Dropping the closure sends the report.
            tracing::warn!(%problem, "failed to save a snapshot; the log keeps everything");
        }
    }

    pub(super) fn snapshot_saved(&mut self, saved: Saved, inputs: &mut Vec<Input>) {
        self.snapshotting = false;
        let activity = &mut self.activity;
        if let Some(count) = saved.segments {
            self.segments = (count, self.log.status().segment);
        }
        let Some(zxid) = saved.zxid else {
            activity.snapshots.failed += 1;
            return;
        };
        activity.snapshots.saved += 1;
        (activity.snapshots.last_bytes, activity.snapshots.last_took) = (saved.bytes, saved.took);
        self.log.space().set_sizes(self.settings.log.segment_len, saved.bytes);
        // A follower may have adopted another history meanwhile.
        if self.zab.log_state().history().contains(zxid) {
            inputs.push(Input::SnapshotTaken(zxid));
        }
    }

    /// Moves a received snapshot into the data folder.
    pub(super) fn adopt(&mut self, zxid: Zxid, blob: Blob) {
        // The one before is of no use if its synchronisation was abandoned: the history does not reach it.
        let abandoned = self.adopted.replace(zxid).filter(|before| *before != zxid);
        if let Some(before) = abandoned.filter(|before| *before > self.zab.log_state().history().last()) {
            let _ = std::fs::remove_file(wal::snapshot_path(&self.settings.data, before));
        }
        let adopted = match self.blobs.remove(&blob) {
            Some(path) => wal::adopt_snapshot(&self.settings.data, zxid, &path),
            None => Err(wal::Error::Missing(self.settings.data.clone())),
        };
        if let Err(problem) = adopted {
            tracing::error!(%problem, "failed to install a received snapshot; instance stopped for good");
            self.stopped = Some(Stopped::Log(problem.to_string()));
        }
    }

    pub(super) fn restore(&mut self, zxid: Zxid) {
        let restored = match wal::read_snapshot(&self.settings.data, zxid) {
            Ok(Some(state)) => self.state_machine.restore(Some(&state)).map_err(|problem| problem.to_string()),
            Ok(None) => Err(format!("the snapshot of {zxid} is damaged")),
            Err(problem) => Err(problem.to_string()),
        };
        match restored {
            Ok(()) => self.applied = zxid,
            Err(problem) => {
                tracing::error!(%problem, "failed to restore a snapshot; instance stopped for good");
                self.stopped = Some(Stopped::Log(problem));
            }
        }
    }
}
