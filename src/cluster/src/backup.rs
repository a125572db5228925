//! Backups, and clusters that are made from them or from a single log.
//!
//! Either way the result is a new cluster of one voter, to which others are then added. Its id is new, so instances of the
//! old cluster cannot join it, and none of the two takes the other for itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crossdock_zab::{ClusterId, Epoch, Membership, Payload, Point, ServerId, Summary, Write, Zxid};

use tokio::sync::OwnedSemaphorePermit;

use crate::platform;
use crate::settings::Settings;
use crate::temporary_file::TemporaryFile;
use crate::wal::{self, Wal};

/// Epochs that a new cluster skips. Zxids serve as fencing tokens, and those that the old cluster has handed out after the
/// backup must be lower than any new one. It would have to elect so many leaders to exceed them.
const SKIPPED_EPOCHS: u32 = 1 << 16;

/// A backup file: a snapshot of the state of all machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// The transactions in it.
    pub summary: Summary,
    /// The bytes of the state.
    pub state_len: u64,
}

/// The file of a backup, deleted on drop. As long as it exists, no other one is taken.
#[derive(Debug)]
pub struct BackupFile {
    file: TemporaryFile,
    _permit: OwnedSemaphorePermit,
}

impl BackupFile {
    pub(crate) fn new(path: PathBuf, permit: OwnedSemaphorePermit) -> Self {
        Self { file: TemporaryFile::new(path), _permit: permit }
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The file stays.
    pub(crate) fn keep(self) {
        self.file.keep();
    }
}

/// A cluster of one, made from a backup or a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewCluster {
    /// Its id.
    pub cluster: ClusterId,
    /// The last transaction that it has from the old one.
    pub last: Zxid,
}

/// Why there is no new cluster.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The log cannot be created, opened or written.
    #[error(transparent)]
    Log(#[from] wal::Error),
    /// The log belongs to no cluster.
    #[error("the log of {0} belongs to no cluster")]
    NoCluster(PathBuf),
    /// The instance is the only voter.
    #[error("instance {0} is the only voter of its cluster already")]
    Alone(ServerId),
    /// No epoch is left.
    #[error("no epoch is left")]
    EpochsExhausted,
}

/// Reads and verifies a backup file.
///
/// # Errors
/// [`wal::Error::DamagedSnapshot`], [`wal::Error::Io`].
pub fn inspect(file: &Path) -> Result<Backup, wal::Error> {
    let opened = wal::open_snapshot_file(file)?;
    let opened = opened.ok_or_else(|| wal::Error::DamagedSnapshot(file.to_owned()))?;
    Ok(Backup { summary: opened.summary, state_len: opened.state_len })
}

/// Creates the log of this instance from a backup file, as that of a new cluster of one.
///
/// It is made in a folder beside that of the settings, which gets its name once it is complete: without its own membership,
/// it would be a log of the old cluster.
///
/// # Errors
/// [`BackupError::Log`], among others if there is a log already.
pub fn restore(settings: &Settings, file: &Path) -> Result<NewCluster, BackupError> {
    wal::check_absent(&settings.data)?;
    let mut name = settings.data.as_os_str().to_owned();
    name.push(".restoring");
    let unfinished = PathBuf::from(name);
    wal::remove_folder(&unfinished)?;
    let (mut wal, summary) = Wal::create_from(&unfinished, settings.identity(), settings.log, file)?;
    let made = begin_cluster(&mut wal, settings.id, summary.point, summary.point.zxid.epoch)?;
    drop(wal);
    wal::rename_folder(&unfinished, &settings.data)?;
    Ok(made)
}

/// Makes the log of this instance that of a new cluster of one, for when a majority of the voters has lost its logs.
///
/// Transactions that only lost logs had are missing, although they may have been acknowledged. The instance must not run.
///
/// # Errors
/// See [`BackupError`].
pub fn force_new_cluster(settings: &Settings) -> Result<NewCluster, BackupError> {
    let (mut wal, recovered) = Wal::open(&settings.data, settings.identity(), settings.log)?;
    let mut log_state = recovered.log_state;
    log_state.abandon_sync();
    let membership = log_state.membership().ok_or_else(|| BackupError::NoCluster(settings.data.clone()))?;
    if membership.voters.len() == 1 && membership.is_voter(settings.id, wal.id()) {
        return Err(BackupError::Alone(settings.id));
    }
    let end = log_state.history().end();
    begin_cluster(&mut wal, settings.id, end, log_state.accepted_epoch().max(end.zxid.epoch))
}

/// Appends an epoch and its first transaction: a membership of this instance alone.
fn begin_cluster(wal: &mut Wal, id: ServerId, end: Point, last_epoch: Epoch) -> Result<NewCluster, BackupError> {
    let epoch = last_epoch.0.checked_add(SKIPPED_EPOCHS).map(Epoch).ok_or(BackupError::EpochsExhausted)?;
    let cluster = ClusterId(platform::random().max(1));
    let membership = Membership { cluster, voters: BTreeMap::from([(id, wal.id())]), replacing: BTreeSet::new() };
    let first = end.next(Zxid::new(epoch, 1), end.time, Payload::Membership(membership.into()));
    wal.append(&[
        Write::AcceptEpoch(epoch),
        Write::SyncBegin(epoch),
        Write::EpochInstalled(epoch),
        Write::Append { after: end.zxid, txns: vec![first] },
    ])?;
    Ok(NewCluster { cluster, last: end.zxid })
}
