//! Watches the files that the settings are read from.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

/// Endings of the files that always cause a reload.
const SETTINGS: [&str; 6] = ["yaml", "yml", "pem", "crt", "cer", "key"];

/// Which files cause a reload, besides those with an ending of settings: a log file next to them does not.
#[derive(Debug, Clone, Default)]
pub(crate) enum Relevant {
    /// Any file.
    #[default]
    All,
    /// Those that the settings in force were read from.
    Only(BTreeSet<PathBuf>),
}

impl Relevant {
    fn includes(&self, path: &Path) -> bool {
        let is_file = std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file());
        let of_settings = path.extension().is_some_and(|extension| SETTINGS.iter().any(|other| extension == *other));
        // A deleted file, a folder or a link may change what any path refers to.
        if !is_file || of_settings {
            return true;
        }
        match self {
            Self::All => true,
            Self::Only(files) => files.contains(&canonical(path)),
        }
    }
}

/// A folder that is watched until this is dropped.
pub(crate) struct Watch {
    folder: PathBuf,
    /// A folder below it that is not watched: the log of a cluster, for example, is written all the time.
    without: Option<PathBuf>,
    relevant: Arc<Mutex<Relevant>>,
    watcher: Option<RecommendedWatcher>,
}

impl Watch {
    /// Watches a folder, except a folder below it. Relevant changes are sent to `changed`, whose capacity is 1.
    pub(crate) fn start(folder: &Path, without: Option<&Path>, changed: mpsc::Sender<()>) -> Self {
        let relevant = Arc::<Mutex<Relevant>>::default();
        let deciding = Arc::clone(&relevant);
        let watcher = notify::recommended_watcher(move |event: Result<notify::Event, notify::Error>| {
            let matters = |event: notify::Event| {
                let relevant = deciding.lock().unwrap_or_else(PoisonError::into_inner);
                !event.kind.is_access()
                    && (event.paths.is_empty() || event.paths.iter().any(|path| relevant.includes(path)))
            };
            if event.is_ok_and(matters) {
                // If the channel is full, a notification is already pending.
                let _ = changed.try_send(());
            }
        });
        let (folder, without) = (canonical(folder), without.map(canonical));
        let mut watch = Self { folder, without, relevant, watcher: watcher.map_err(|problem| report(&problem)).ok() };
        watch.follow();
        watch
    }

    /// Sets which files are relevant.
    pub(crate) fn update(&self, relevant: Relevant) {
        let relevant = match relevant {
            Relevant::All => Relevant::All,
            Relevant::Only(files) => Relevant::Only(files.iter().map(|path| canonical(path)).collect()),
        };
        *self.relevant.lock().unwrap_or_else(PoisonError::into_inner) = relevant;
    }

    /// Watches folders that were added.
    pub(crate) fn follow(&mut self) {
        let Some(watcher) = &mut self.watcher else { return };
        if let Err(problem) = watch_below(watcher, &self.folder, self.without.as_deref()) {
            report(&problem);
        }
    }
}

fn report(problem: &notify::Error) {
    tracing::warn!(%problem, "file watch failed; send SIGHUP to reload");
}

fn canonical(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// Watches a folder and those below it, except one.
fn watch_below(watcher: &mut RecommendedWatcher, folder: &Path, without: Option<&Path>) -> notify::Result<()> {
    let Some(without) = without.filter(|without| without.starts_with(canonical(folder))) else {
        return watcher.watch(folder, RecursiveMode::Recursive);
    };
    if without == canonical(folder) {
        return Ok(());
    }
    watcher.watch(folder, RecursiveMode::NonRecursive)?;
    let entries = std::fs::read_dir(folder)?.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    for inner in entries.filter(|path| path.is_dir()) {
        match watch_below(watcher, &inner, Some(without)) {
            // It was removed meanwhile.
            Err(_) if !inner.exists() => {}
            watched => watched?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tempfile::TempDir;

    use super::*;

    struct Watched {
        folder: TempDir,
        watch: Watch,
        changes: mpsc::Receiver<()>,
    }

    impl Watched {
        /// A folder with routes and, in `data/cluster`, the data of a cluster.
        fn new() -> Self {
            let folder = TempDir::new().expect("a folder");
            for inner in ["routes", "data/cluster"] {
                std::fs::create_dir_all(folder.path().join(inner)).expect("a folder");
            }
            let (changed, changes) = mpsc::channel(1);
            let watch = Watch::start(folder.path(), Some(&folder.path().join("data/cluster")), changed);
            Self { folder, watch, changes }
        }

        fn write(&self, name: &str) {
            std::fs::write(self.folder.path().join(name), "x").expect("it is written");
        }

        async fn notified(&mut self) -> bool {
            tokio::time::timeout(Duration::from_millis(500), self.changes.recv()).await.is_ok()
        }
    }

    #[tokio::test]
    async fn the_data_of_a_cluster_causes_no_reload() {
        let mut watched = Watched::new();
        watched.write("data/cluster/segment");
        std::fs::remove_file(watched.folder.path().join("data/cluster/segment")).expect("it is removed");
        assert!(!watched.notified().await, "a reload because of the log of the cluster");
        watched.write("routes/orders.yaml");
        assert!(watched.notified().await, "no reload after a change of routes");
    }

    #[tokio::test]
    async fn folders_that_are_added_are_watched() {
        let mut watched = Watched::new();
        std::fs::create_dir_all(watched.folder.path().join("contracts/shop")).expect("a folder");
        assert!(watched.notified().await, "a reload after a folder was added");
        watched.watch.follow();
        while watched.changes.try_recv().is_ok() {}
        watched.write("contracts/shop/orders.proto");
        assert!(watched.notified().await, "a reload after a file was added to it");
    }

    #[tokio::test]
    async fn only_files_of_the_settings_cause_a_reload() {
        let mut watched = Watched::new();
        watched.write("orders.proto");
        watched.write("gateway.log");
        let contract = watched.folder.path().join("orders.proto");
        watched.watch.update(Relevant::Only([contract].into()));
        while watched.notified().await {}
        watched.write("gateway.log");
        assert!(!watched.notified().await, "a reload because of a log file");
        watched.write("orders.proto");
        assert!(watched.notified().await, "no reload after a change of a contract");
    }
}
