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

/// Timeout for connecting to one endpoint.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) fn check(paths: &[PathBuf], connect: bool, format: CheckFormat) -> Outcome {
    let registry = adapters();
    let mut folders: Vec<PathBuf> = paths.iter().map(|path| config_folder(path)).collect::<Result<_, _>>()?;
    folders.dedup();
    let mut is_ok = true;
    for folder in folders {
        let mut diagnostics = Diagnostics::new();
        let config =
            load_config(&folder, &registry, &mut diagnostics).map_err(|error| Failure::Error(error.to_string()))?;
        match format {
            CheckFormat::Human => print!("{}", diagnostics.render(std::io::stdout().is_terminal())),
            CheckFormat::Short => print!("{}", diagnostics.render_short()),
            CheckFormat::Json => println!("{:#}", diagnostics.to_json()),
        }
        match config {
            None => {
                is_ok = false;
                if format == CheckFormat::Human {
                    let errors = count(diagnostics.errors(), "error");
                    println!("\n{}: {errors}", folder.display());
                }
            }
            Some(config) => {
                if format == CheckFormat::Human {
                    let (routes, services) = (config.plan.routes.len(), config.plan.services.len());
                    println!("{}: ok ({routes} routes, {services} services)", folder.display());
                }
                if connect {
                    is_ok &= on_local_runtime(connect_all(&config, &registry))?;
                }
            }
        }
    }
    if is_ok { Ok(()) } else { Err(Failure::Failed) }
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Connects to every endpoint of every service once.
async fn connect_all(config: &Config, registry: &[Arc<dyn Adapter>]) -> bool {
    let mut is_ok = true;
    for service in &config.plan.services {
        let Some(adapter) = registry.iter().find(|adapter| adapter.name() == service.adapter) else { continue };
        for (index, name) in service.spec.endpoints().iter().enumerate() {
            let connected = match adapter.open_outbound(&*service.spec, index) {
                Err(error) => Err(error.to_string()),
                Ok(port) => match tokio::time::timeout(CONNECT_TIMEOUT, port.probe()).await {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(fault)) => Err(fault.message.to_string()),
                    Err(_) => Err(format!("no response within {} seconds", CONNECT_TIMEOUT.as_secs())),
                },
            };
            match connected {
                Ok(()) => println!("{} at {name}: reachable", service.name),
                Err(problem) => {
                    is_ok = false;
                    println!("{} at {name}: {problem}", service.name);
                }
            }
        }
    }
    is_ok
}
