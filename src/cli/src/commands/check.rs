//! `crossdock check`.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crossdock_ports::Adapter;
use crossdock_settings::Diagnostics;

use super::{CheckFormat, config_folder};
use crate::outcome::{Failure, Outcome, on_local_runtime};
use crossdock_gateway::{Config, adapters, load_config};

/// For reaching one endpoint.
const REACH_TIME: Duration = Duration::from_secs(5);

pub(super) fn check(paths: &[PathBuf], connect: bool, format: CheckFormat) -> Outcome {
    let registry = adapters();
    let mut folders: Vec<PathBuf> = paths.iter().map(|path| config_folder(path)).collect::<Result<_, _>>()?;
    folders.dedup();
    let mut good = true;
    for folder in folders {
        let mut diagnostics = Diagnostics::new();
        let config = load_config(&folder, &registry, &mut diagnostics).map_err(Failure::Misuse)?;
        match format {
            CheckFormat::Human => print!("{}", diagnostics.render(std::io::stdout().is_terminal())),
            CheckFormat::Short => print!("{}", diagnostics.render_short()),
            CheckFormat::Json => println!("{:#}", diagnostics.to_json()),
        }
        match config {
            None => {
                good = false;
                if format == CheckFormat::Human {
                    let errors = diagnostics.errors();
                    println!("\n{}: {errors} to mend", folder.display());
                }
            }
            Some(config) => {
                if format == CheckFormat::Human {
                    let (routes, services) = (config.plan.routes.len(), config.plan.services.len());
                    println!("{}: good ({routes} routes, {services} services)", folder.display());
                }
                if connect {
                    good &= on_local_runtime(reach_all(&config, &registry))?;
                }
            }
        }
    }
    if good { Ok(()) } else { Err(Failure::Failed) }
}

/// Reaches every endpoint of every service once.
async fn reach_all(config: &Config, registry: &[Arc<dyn Adapter>]) -> bool {
    let mut good = true;
    for service in &config.plan.services {
        let Some(adapter) = registry.iter().find(|adapter| adapter.name() == service.adapter) else { continue };
        for (index, name) in service.spec.endpoints().iter().enumerate() {
            let reached = match adapter.open_outbound(&*service.spec, index) {
                Err(error) => Err(error.to_string()),
                Ok(port) => match tokio::time::timeout(REACH_TIME, port.probe()).await {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(fault)) => Err(fault.message.to_string()),
                    Err(_) => Err(format!("no answer in {} seconds", REACH_TIME.as_secs())),
                },
            };
            match reached {
                Ok(()) => println!("{} at {name}: reached", service.name),
                Err(problem) => {
                    good = false;
                    println!("{} at {name}: {problem}", service.name);
                }
            }
        }
    }
    good
}
