//! `crossdock demo`: the shipped settings, sample services in this process, and requests through the gateway.

mod broker;
mod calls;
mod cluster;
mod services;
mod stock;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossdock_settings::Diagnostics;

use crate::outcome::{Failure, Outcome, on_local_runtime};
use crate::run::{serve, start_log};
use crossdock_gateway::Gateway;
use crossdock_gateway::{Config, LoadError, LogFormat, LogSettings, adapters, load_config_with};
use services::Samples;

pub(crate) fn demo(folder: PathBuf, once: bool) -> Outcome {
    on_local_runtime(async move {
        start_log(&LogSettings { format: LogFormat::Text, level: "warn".to_owned() });
        let samples = Samples::start()
            .map_err(|error| Failure::Error(format!("failed to start the sample services: {error}")))?;
        let stock = stock::Stock::start(&folder)
            .map_err(|problem| Failure::Error(format!("failed to start the sample services: {problem}")))?;
        let variables = Arc::new(vec![
            ("CROSSDOCK_PUBLIC".to_owned(), free_or("127.0.0.1:8080")),
            ("CROSSDOCK_ADMIN".to_owned(), free_or("127.0.0.1:9900")),
            ("CROSSDOCK_LEGACY_ORDERS".to_owned(), format!("http://{}", samples.legacy)),
            ("CROSSDOCK_PRICING".to_owned(), format!("http://{}", samples.pricing)),
            ("CROSSDOCK_STOCK".to_owned(), format!("http://{}", stock.address)),
            ("CROSSDOCK_INTERNAL".to_owned(), free_or("127.0.0.1:9090")),
        ]);
        println!("sample legacy XML order service   http://{}", samples.legacy);
        println!("sample JSON pricing service       http://{}", samples.pricing);
        println!("sample gRPC stock service         http://{}", stock.address);
        let source_folder = folder.clone();
        let started = Gateway::new(adapters()).start_with(move || read(&source_folder, &variables)).await;
        let running = started.map_err(|error| Failure::Error(error.to_string().trim_end().to_owned()))?;
        for (name, adapter, address) in running.listeners() {
            println!("gateway listener {name} ({adapter})    http://{address}");
        }
        let public = running
            .listener("public")
            .ok_or_else(|| Failure::Error("the settings must have a listener `public`".into()))?;
        let (passed, failed) = calls::make(&running, public, &samples, &stock.seen).await;
        let (queue_passed, queue_failed) = broker::make(&samples).await?;
        let (passed, failed) = (passed + queue_passed, failed + queue_failed);
        println!("\n{passed} calls passed, {failed} failed");
        if once {
            running.stop().await;
            return if failed == 0 { Ok(()) } else { Err(Failure::Failed) };
        }
        if let Some(admin) = running.admin() {
            println!(
                "\nThe gateway keeps running. Inspect it:\n  curl http://{admin}/api/v1/routes\n  curl http://{admin}/metrics"
            );
        }
        println!(
            "Send requests:\n  curl http://{public}/v1/orders/1001\n  curl -N http://{public}/v1/stock/085/changes\nStop it with Ctrl-C."
        );
        serve(running, &folder, None).await
    })?
}

/// Shows what a cluster does.
pub(crate) fn demo_cluster() -> Outcome {
    on_local_runtime(async {
        start_log(&LogSettings { format: LogFormat::Text, level: "error".to_owned() });
        match cluster::demonstrate().await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Failure::Failed),
            Err(problem) => Err(Failure::Error(problem)),
        }
    })?
}

/// The address, or a free port if it is in use.
fn free_or(address: &str) -> String {
    match TcpListener::bind(address) {
        Ok(_) => address.to_owned(),
        Err(_) => "127.0.0.1:0".to_owned(),
    }
}

fn read(folder: &Path, variables: &[(String, String)]) -> Result<Config, LoadError> {
    let mut diagnostics = Diagnostics::new();
    match load_config_with(folder, &adapters(), variables, None, &mut diagnostics)? {
        Some(config) => Ok(config),
        None => Err(LoadError::Invalid(diagnostics.render(false))),
    }
}
