//! Snapshots: taken here, and received from a leader.

use std::time::Duration;

use crossdock_zab::{Blob, Input, Summary, Zxid};
use tokio::sync::mpsc;

use super::Driver;
use crate::backup::BackupFile;
use crate::error::with_causes;
use crate::injected_bug::{InjectedBug, is_injected};
use crate::machines::Frozen;
use crate::platform::{self, Instant, files};
use crate::request::{Reply, Saved};
use crate::state::{Purpose, TXN_OVERHEAD};
use crate::status::Stopped;
use crate::wal::{self, Wal};

/// A step that has ended on another thread.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    /// A snapshot is saved: the last transaction in it, its bytes, and how long it took. `None` if it could not be saved.
    Saved(Option<(Zxid, u64, Duration)>),
    /// What it replaces is deleted; the number of segments that are left, if that is known.
    Purged(Option<u64>),
}

/// Reports the end of a step to the driver, even if the thread panics.
struct StepReport {
    to: mpsc::Sender<Step>,
    step: Step,
}

impl Drop for StepReport {
    fn drop(&mut self) {
        // Only one step runs at a time, so there is room.
        let _ = self.to.try_send(self.step);
    }
}

/// Where the taking of snapshots stands.
pub(super) struct Snapshots {
    /// Transactions since the last snapshot, and their bytes of memory.
    pub(super) since: (u64, usize),
    /// The bytes of the last one.
    pub(super) last_len: u64,
    /// One is being taken.
    is_running: bool,
    /// One that is taken and not saved yet.
    unsaved: Option<(Summary, Frozen)>,
    steps: (mpsc::Sender<Step>, mpsc::Receiver<Step>),
}

impl Snapshots {
    pub(super) fn new(last_len: u64) -> Self {
        Self { since: (0, 0), last_len, is_running: false, unsaved: None, steps: mpsc::channel(4) }
    }

    /// The next step that has ended. Cancel safe.
    pub(super) async fn step(&mut self) -> Option<Step> {
        self.steps.1.recv().await
    }

    /// The next step that has ended, if there is one already.
    pub(super) fn try_step(&mut self) -> Option<Step> {
        self.steps.1.try_recv().ok()
    }

    /// Counts a delivered transaction.
    pub(super) fn count(&mut self, payload: usize) {
        self.since.0 += 1;
        self.since.1 = self.since.1.saturating_add(payload + TXN_OVERHEAD);
    }
}

impl Driver {
    /// Takes a snapshot if one is due, and starts to save the last one.
    ///
    /// One is due once the log since the last one is as long as that: then saving costs no more than the log itself, and
    /// the memory for transactions after it stays in proportion to the state.
    pub(super) fn snapshot(&mut self) {
        let (count, bytes) = self.snapshots.since;
        let last_len = usize::try_from(self.snapshots.last_len).unwrap_or(usize::MAX);
        let is_time = count >= self.settings.snapshot_every || bytes >= self.settings.snapshot_bytes.max(last_len);
        if is_time
            && !self.snapshots.is_running
            && self.stopped.is_none()
            && let Some(summary) = self.zab.log_state().history().summary_at(self.snapshot_label())
        {
            self.apply_delivered();
            self.state.freeze(summary, Purpose::Snapshot);
            (self.snapshots.since, self.snapshots.is_running) = ((0, 0), true);
        }
        // A snapshot may only cover what is durable in this log; a commit may so far be durable elsewhere only.
        let end = self.log.status().end;
        let is_durable = |summary: &Summary| {
            end.is_some_and(|end| end >= summary.point.zxid) || is_injected(InjectedBug::SaveUndurableSnapshot)
        };
        if let Some((summary, frozen)) = self.snapshots.unsaved.take_if(|(summary, _)| is_durable(summary)) {
            self.save(summary, frozen);
        }
    }

    /// The transaction of a snapshot that is taken now.
    fn snapshot_label(&self) -> Zxid {
        let history = self.zab.log_state().history();
        let later = || history.between(self.delivered, history.last()).next().map(|txn| txn.zxid);
        let label = if is_injected(InjectedBug::LabelSnapshotLater) { later() } else { None };
        label.unwrap_or(self.delivered)
    }

    pub(super) fn frozen(&mut self, summary: Summary, frozen: Frozen) {
        self.snapshots.unsaved = Some((summary, frozen));
    }

    /// Saves a snapshot on its own thread.
    fn save(&mut self, summary: Summary, frozen: Frozen) {
        let (folder, rate) = (self.settings.data.clone(), self.settings.snapshot_rate);
        let begun = Instant::now();
        if is_injected(InjectedBug::PurgeBeforeSave) {
            let _ = wal::purge(&folder, summary.point.zxid, self.log.status().segment, None);
        }
        let report = StepReport { to: self.snapshots.steps.0.clone(), step: Step::Saved(None) };
        let writing = platform::run_in_background("snapshot", move || {
            let mut report = report;
            match wal::save_snapshot(&folder, &summary, rate, |to| frozen.write_to(to)) {
                Ok(len) => report.step = Step::Saved(Some((summary.point.zxid, len, begun.elapsed()))),
                Err(problem) => tracing::warn!(%problem, "failed to save a snapshot; the log keeps everything"),
            }
            // It may be large.
            drop(frozen);
        });
        if let Err(problem) = writing {
            // Dropping the closure sends the report.
            tracing::warn!(%problem, "failed to save a snapshot; the log keeps everything");
        }
    }

    /// Captures the state for a backup.
    pub(super) fn take_backup(&mut self, file: BackupFile, reply: Reply<Saved>) {
        let Some(summary) = self.zab.log_state().history().summary_at(self.delivered) else {
            return reply.send(Ok(Err("the instance is restoring a snapshot".to_owned())));
        };
        // The log and its snapshots come first.
        let (free, low_mark, _) = self.log.space().free();
        let is_here = file.path().starts_with(&self.settings.data);
        if is_here && free.is_some_and(|free| free < low_mark.saturating_add(self.snapshots.last_len)) {
            return reply.send(Ok(Err("too little disk space is left for a copy of the state".to_owned())));
        }
        self.apply_delivered();
        self.state.freeze(summary, Purpose::Backup);
        self.backup = Some((file, reply));
    }

    /// Writes a backup on its own thread.
    pub(super) fn write_backup(&mut self, summary: Summary, frozen: Frozen) {
        let rate = self.settings.snapshot_rate;
        let Some((file, reply)) = self.backup.take().filter(|(_, reply)| !reply.is_closed()) else { return };
        let writing = platform::run_in_background("backup", move || {
            let written = wal::write_snapshot(file.path(), &summary, rate, |to| frozen.write_to(to));
            let written = written.map(|len| (file, summary.point.zxid, len));
            reply.send(Ok(written.map_err(|problem| with_causes(&problem))));
        });
        if let Err(problem) = writing {
            // Dropping the closure tells the client.
            tracing::warn!(%problem, "failed to write a backup");
        }
    }

    pub(super) fn snapshot_step(&mut self, step: Step, inputs: &mut Vec<Input>) {
        match step {
            Step::Saved(None) => {
                self.snapshots.is_running = false;
                self.activity.snapshots.failed += 1;
            }
            Step::Saved(Some((zxid, len, took))) => {
                self.snapshots.last_len = len;
                let activity = &mut self.activity.snapshots;
                activity.saved += 1;
                (activity.last_bytes, activity.last_took) = (len, took);
                self.log.space().set_sizes(self.settings.log.segment_len, len);
                // This instance may have adopted another history meanwhile.
                if self.zab.log_state().history().contains(zxid) {
                    inputs.push(Input::SnapshotTaken(zxid));
                }
                self.purge(zxid);
            }
            Step::Purged(segments) => {
                self.snapshots.is_running = false;
                if let Some(count) = segments {
                    self.segments = (count, self.log.status().segment);
                }
            }
        }
    }

    /// Deletes what a saved snapshot replaces, and no follower needs.
    fn purge(&mut self, zxid: Zxid) {
        let (folder, segment, needed_after) =
            (self.settings.data.clone(), self.log.status().segment, self.zab.needed_after());
        let report = StepReport { to: self.snapshots.steps.0.clone(), step: Step::Purged(None) };
        platform::run_blocking(move || {
            let mut report = report;
            if let Err(problem) = wal::purge(&folder, zxid, segment, needed_after) {
                tracing::warn!(%problem, "failed to purge segments covered by the new snapshot");
            }
            report.step = Step::Purged(Wal::count_segments(&folder).ok());
        });
    }

    /// Moves a received snapshot into the data folder.
    pub(super) fn adopt(&mut self, zxid: Zxid, blob: Blob) {
        // The one before is of no use if its synchronisation was abandoned: the history does not reach it.
        let abandoned = self.adopted.replace(zxid).filter(|before| *before != zxid);
        if let Some(before) = abandoned.filter(|before| *before > self.zab.log_state().history().last()) {
            let _ = files::remove(&wal::snapshot_path(&self.settings.data, before));
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
}
