//! `crossdock cluster snapshot` and `force-new`: backups, and clusters that are made from them.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use crossdock_cluster::backup::{self, NewCluster};
use crossdock_cluster::with_causes;
use jiff::Timestamp;

use super::cluster::{Gateway, settings_in};
use super::routes::{admin_of, download};
use crate::outcome::{Failure, Outcome, on_local_runtime};

#[derive(Subcommand)]
pub(super) enum SnapshotCommand {
    /// Save the state of the cluster to a file, from a running instance. It has everything that was acknowledged before.
    Save {
        /// The file, which must not exist.
        file: PathBuf,
        #[command(flatten)]
        gateway: Gateway,
    },
    /// Verify a file, and show what is in it.
    Status {
        /// The file.
        file: PathBuf,
    },
    /// Create the log of this instance from a file, as that of a new cluster of one.
    ///
    /// Start the instance, then initialise the others with `crossdock cluster init`, list them as `observers`, start them, and make them voters
    /// with `crossdock cluster add`. Instances of the old cluster cannot join the new one.
    Restore {
        /// The file.
        file: PathBuf,
        /// The folder that contains crossdock.yaml.
        #[arg(long, default_value = "config", value_name = "FOLDER")]
        config: PathBuf,
    },
}

pub(super) fn snapshot(command: SnapshotCommand) -> Outcome {
    match command {
        SnapshotCommand::Save { file, gateway } => save(&file, gateway),
        SnapshotCommand::Status { file } => status(&file),
        SnapshotCommand::Restore { file, config } => {
            let settings = settings_in(&config)?;
            let made = backup::restore(&settings, &file).map_err(failed)?;
            println!("created {} from {}", settings.data.display(), file.display());
            say_next(&made);
            Ok(())
        }
    }
}

pub(super) fn force_new(config: &Path, is_confirmed: bool) -> Outcome {
    let settings = settings_in(config)?;
    if !is_confirmed {
        eprintln!(
            "This instance becomes a cluster of one with what is in its own log. Everything that was acknowledged, but is only in\n\
             the logs of others, is missing from then on, and nobody can tell what it is. Use it only if a majority of the voters\n\
             has lost its logs for good, choose the instance with the highest `history_epoch`, and of those the one with the\n\
             highest `last`, in `crossdock cluster status --json`. Stop it, and run the command again with `--confirm-loss`."
        );
        return Err(Failure::Failed);
    }
    let made = backup::force_new_cluster(&settings).map_err(failed)?;
    println!("{} has everything through {}; later transactions may be missing", settings.data.display(), made.last);
    say_next(&made);
    Ok(())
}

fn failed(problem: impl std::error::Error) -> Failure {
    eprintln!("{}", with_causes(&problem));
    Failure::Failed
}

fn io_failed(path: &Path) -> impl Fn(std::io::Error) -> Failure {
    move |error| Failure::Error(format!("{}: {error}", path.display()))
}

fn say_next(made: &NewCluster) {
    println!(
        "the cluster has the id {} and one voter, this instance; start it, then add the others: move their data folders away if they\n\
         have any, run `crossdock cluster init` for each, list them in `observers`, start them, and run `crossdock cluster add ID`",
        made.cluster
    );
}

/// A file that is deleted unless it is kept.
struct Part(PathBuf);

impl Drop for Part {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn save(path: &Path, gateway: Gateway) -> Outcome {
    let (address, token) = admin_of(gateway.admin, &gateway.config)?;
    if path.exists() {
        return Err(Failure::Error(format!("{} exists already", path.display())));
    }
    // It gets its name once it is complete. It has the whole state, so only its owner may read it.
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = PathBuf::from(name);
    let created = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&part);
    let mut file = created.map_err(io_failed(&part))?;
    let part = Part(part);
    on_local_runtime(async { download(&address, token.as_deref(), "/api/v1/cluster/snapshot", &mut file).await })??;
    let found = backup::inspect(&part.0).map_err(failed)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // A link does not replace another file.
    let named = file.sync_all().and_then(|()| std::fs::hard_link(&part.0, path));
    named.and_then(|()| File::open(folder)?.sync_all()).map_err(io_failed(path))?;
    println!("saved everything through {} to {}", found.summary.point.zxid, path.display());
    Ok(())
}

fn status(file: &Path) -> Outcome {
    let found = backup::inspect(file).map_err(failed)?;
    let point = found.summary.point;
    let time = i64::try_from(point.time).ok().and_then(|time| Timestamp::from_millisecond(time).ok());
    println!("{} is intact", file.display());
    println!("last      {}", point.zxid);
    println!("time      {}", time.map_or_else(|| "-".to_owned(), |time| time.to_string()));
    println!("hash      {:016x}", point.hash);
    println!("bytes     {}", found.state_len);
    if let Some(membership) = found.summary.membership {
        let voters: Vec<String> = membership.voters.keys().map(ToString::to_string).collect();
        println!("cluster   {}", membership.cluster);
        println!("voters    {}", voters.join(" "));
    }
    Ok(())
}
