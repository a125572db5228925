//! `crossdock run`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossdock_transport::{bodies, descriptors};
use notify::Watcher as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tracing_subscriber::EnvFilter;

use crate::outcome::{Failure, Outcome, on_local_runtime};
use crossdock_gateway::{Config, LogFormat, LogSettings, adapters};
use crossdock_gateway::{Gateway, RunError, Running, read_folder};

/// Files change in bursts; the routes are read when they have been quiet for this long.
const QUIET: Duration = Duration::from_millis(300);

pub(crate) fn run(folder: PathBuf) -> Outcome {
    on_local_runtime(async move {
        let registry = adapters();
        // Before anything is opened, so that all of it is logged as the settings ask.
        let config = read_folder(&folder, &registry).map_err(|problem| said(&problem))?;
        start_log(&config.log);
        make_room(&config);
        let running = match Gateway::new(registry).start(config, folder.clone()).await {
            Ok(running) => running,
            Err(RunError::Settings(problem) | RunError::Open(problem)) => return Err(said(&problem)),
        };
        serve(running, &folder).await
    })?
}

/// Open files below which a gateway that many callers use will turn some of them away.
const OPEN_FILES_LOW: u64 = 4096;

/// Takes what the system allows of open files, and sets what bodies may take of its memory.
fn make_room(config: &Config) {
    let files = descriptors::raise_open_files();
    let (connections, bodies) = (descriptors::callers_max(), bodies::set_max(config.bodies_max));
    tracing::info!(open_files = files.now, raised_from = files.before, connections, bodies, "limits of the process");
    if files.now < OPEN_FILES_LOW {
        tracing::warn!(
            open_files = files.now,
            connections,
            "the limit on open files is low: connections beyond it are refused; raise the hard limit (`ulimit -Hn`, LimitNOFILE=)"
        );
    }
}

fn said(problem: &str) -> Failure {
    eprintln!("{}", problem.trim_end());
    Failure::Failed
}

/// Logs go to standard error. `RUST_LOG` wins over the settings.
pub(crate) fn start_log(settings: &LogSettings) {
    let filter = EnvFilter::try_from_default_env()
        .or_else(|_| EnvFilter::try_new(format!("{},actix_http=off,actix_server=warn,lapin=off", settings.level)))
        .unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second start in one process keeps the first log.
    let _ = match settings.format {
        LogFormat::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}

fn listen_for(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::Misuse(format!("signals cannot be handled: {error}")))
}

/// Serves until a signal; a second one, or a drain that takes too long, ends with failure.
pub(crate) async fn serve(running: Running, folder: &Path) -> Outcome {
    let mut terminate = listen_for(SignalKind::terminate())?;
    let mut interrupt = listen_for(SignalKind::interrupt())?;
    let mut hang_up = listen_for(SignalKind::hangup())?;
    let (changed, mut changes) = mpsc::channel(1);
    let relevant = Arc::new(Relevant::default());
    relevant.learn(&running, true);
    let watcher = watch(folder, Arc::clone(&relevant), changed);
    if let Err(problem) = &watcher {
        tracing::warn!(%problem, "changed files are not seen; SIGHUP reloads");
    }
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hang_up.recv() => relevant.learn(&running, reload(&running).await),
            Some(()) = changes.recv() => {
                tokio::time::sleep(QUIET).await;
                while changes.try_recv().is_ok() {}
                relevant.learn(&running, reload(&running).await);
            }
        }
    }
    tracing::info!("stops: takes nothing new, finishes what is in flight");
    tokio::select! {
        stopped = running.stop() => {
            if stopped { Ok(()) } else { Err(said("requests were still in flight at the end of the drain time")) }
        }
        _ = terminate.recv() => Err(said("stopped at once by a second signal")),
        _ = interrupt.recv() => Err(said("stopped at once by a second signal")),
    }
}

/// Whether the new settings are in force. Their actor has logged what there is to say.
async fn reload(running: &Running) -> bool {
    running.reload().await.is_ok()
}

/// Which files matter: a log that somebody writes next to the settings does not.
#[derive(Default)]
struct Relevant {
    /// Those besides YAML that the settings in force were made of; nothing while those in the folder are refused, since
    /// any file may be what they lack.
    files: Mutex<Option<BTreeSet<PathBuf>>>,
}

impl Relevant {
    fn learn(&self, running: &Running, good: bool) {
        let whole = |path: &PathBuf| path.canonicalize().unwrap_or_else(|_| path.clone());
        let files = good.then(|| running.files().iter().map(whole).collect());
        *self.files.lock().unwrap_or_else(PoisonError::into_inner) = files;
    }

    fn has(&self, path: &Path) -> bool {
        let is_file = std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file());
        let settings = ["yaml", "yml", "pem", "crt", "cer", "key"];
        let of_settings = path.extension().is_some_and(|extension| settings.iter().any(|other| extension == *other));
        // What is gone, a folder or a link may change what any name means.
        if !is_file || of_settings {
            return true;
        }
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.as_ref().is_none_or(|files| files.contains(&path))
    }
}

/// Says when something below the folder changes that matters. The watch ends when what is given back is dropped.
fn watch(
    folder: &Path,
    relevant: Arc<Relevant>,
    changed: mpsc::Sender<()>,
) -> Result<notify::RecommendedWatcher, notify::Error> {
    let mut watcher = notify::recommended_watcher(move |event: Result<notify::Event, notify::Error>| {
        let matters = |event: notify::Event| {
            !event.kind.is_access() && (event.paths.is_empty() || event.paths.iter().any(|path| relevant.has(path)))
        };
        if event.is_ok_and(matters) {
            // A full channel says that a change is known already.
            let _ = changed.try_send(());
        }
    })?;
    watcher.watch(folder, notify::RecursiveMode::Recursive)?;
    Ok(watcher)
}
