//! `crossdock run`: signals, reloads and logging.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crossdock_transport::{bodies, descriptors};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tracing_subscriber::EnvFilter;

use crate::outcome::{Failure, Outcome, on_local_runtime};
use crate::watch::{Relevant, Watch};
use crossdock_gateway::{Config, LogFormat, LogSettings, adapters};
use crossdock_gateway::{Gateway, Running, read_folder, read_settings};

/// Files change in bursts; a reload starts this long after the first change.
const RELOAD_DELAY: Duration = Duration::from_millis(300);

pub(crate) fn run(folder: PathBuf) -> Outcome {
    on_local_runtime(async move {
        let registry = adapters();
        // Start logging before anything is opened, so that all of it is logged as configured.
        let (config, lacks_routes) = match read_folder(&folder, &registry) {
            Ok(config) => (config, None),
            // A member of a cluster may not need the routes of its folder.
            Err(problem) => match read_settings(&folder, &registry) {
                Ok(settings) if settings.cluster.is_some() => (settings, Some(problem)),
                _ => return Err(failed(&problem.to_string())),
            },
        };
        start_log(&config.log);
        set_process_limits(&config);
        let data = config.cluster.as_ref().map(|cluster| cluster.settings.data.clone());
        let gateway = Gateway::new(registry);
        let started = match lacks_routes {
            None => gateway.start(config, folder.clone()).await,
            Some(problem) => gateway.start_without_routes(config, problem, folder.clone()).await,
        };
        serve(started.map_err(|error| failed(&error.to_string()))?, &folder, data.as_deref()).await
    })?
}

/// With a lower limit on open files, a busy gateway refuses connections.
const OPEN_FILES_RECOMMENDED_MIN: u64 = 4096;

/// Raises the limit on open files to the hard limit, and sets the memory limit for bodies.
fn set_process_limits(config: &Config) {
    let files = descriptors::raise_open_files();
    let (connections, bodies) = (descriptors::callers_max(), bodies::set_max(config.bodies_max));
    tracing::info!(open_files = files.now, raised_from = files.before, connections, bodies, "process limits set");
    if files.now < OPEN_FILES_RECOMMENDED_MIN {
        tracing::warn!(
            open_files = files.now,
            connections,
            "open file limit is low; further connections are refused: raise the hard limit (`ulimit -Hn`, LimitNOFILE=)"
        );
    }
}

fn failed(problem: &str) -> Failure {
    eprintln!("{}", problem.trim_end());
    Failure::Failed
}

/// Starts logging to standard error. `RUST_LOG` overrides the settings.
pub(crate) fn start_log(settings: &LogSettings) {
    let filter = EnvFilter::try_from_default_env()
        .or_else(|_| EnvFilter::try_new(format!("{},actix_http=off,actix_server=warn,lapin=off", settings.level)))
        .unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Only the first start in a process is_relevant an effect.
    let _ = match settings.format {
        LogFormat::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}

pub(crate) fn signal_handler(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::Error(format!("failed to install a signal handler: {error}")))
}

/// Runs until SIGTERM or SIGINT, then drains. Changes in the folder cause a reload, except those in the folder of the cluster's data. Fails if the
/// drain times out or a second signal arrives.
pub(crate) async fn serve(running: Running, folder: &Path, data: Option<&Path>) -> Outcome {
    let mut terminate = signal_handler(SignalKind::terminate())?;
    let mut interrupt = signal_handler(SignalKind::interrupt())?;
    let mut hangup = signal_handler(SignalKind::hangup())?;
    let (changed, mut changes) = mpsc::channel(1);
    let mut watch = Watch::start(folder, data, changed);
    watch.update(Relevant::Only(running.files()));
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => watch.update(reload(&running).await),
            Some(()) = changes.recv() => {
                tokio::time::sleep(RELOAD_DELAY).await;
                while changes.try_recv().is_ok() {}
                // Before the files are read, so that no change is missed.
                watch.follow();
                watch.update(reload(&running).await);
            }
        }
    }
    tracing::info!("shutdown started; draining requests in flight");
    tokio::select! {
        stopped = running.stop() => {
            if stopped { Ok(()) } else { Err(failed("requests were still in flight when `drain` expired")) }
        }
        _ = terminate.recv() => Err(failed("stopped by a second signal before the drain completed")),
        _ = interrupt.recv() => Err(failed("stopped by a second signal before the drain completed")),
    }
}

/// Reloads; returns which files matter then. The routes actor logs errors.
async fn reload(running: &Running) -> Relevant {
    // After an error, any file may be the missing one.
    running.reload().await.map_or(Relevant::All, |_| Relevant::Only(running.files()))
}
