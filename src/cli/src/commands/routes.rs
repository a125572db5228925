//! `crossdock routes`, and requests to the admin listener.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::outcome::{Failure, Outcome, on_local_runtime};
use crossdock_gateway::adapters;
use crossdock_gateway::read_settings;
use crossdock_http::client::{Lines, Request, Response, send};

/// How long a large response may take to begin.
const DOWNLOAD_WAIT: Duration = Duration::from_secs(600);

/// The address and token of the admin listener.
pub(super) fn admin_of(named: Option<String>, folder: &Path) -> Result<(String, Option<String>), Failure> {
    if let Some(address) = named {
        return Ok((address, std::env::var("CROSSDOCK_ADMIN_TOKEN").ok()));
    }
    // The routes may be invalid.
    let config = read_settings(folder, &adapters()).map_err(|error| Failure::Error(error.to_string()))?;
    let no_admin = || Failure::Error("the settings have no `admin:`; pass the address with `--admin HOST:PORT`".into());
    let (address, token) = config.admin.ok_or_else(no_admin)?;
    Ok((address.to_string(), token.map(|token| token.reveal().to_owned())))
}

/// Requests a document from the admin listener.
pub(super) async fn fetch(address: &str, token: Option<&str>, target: &str) -> Result<String, Failure> {
    checked(exchange(address, token, "GET", target, "").await).map(|response| response.body)
}

/// Sends JSON to the admin listener and returns the response.
///
/// # Errors
/// As [`fetch`].
pub(super) async fn post(address: &str, token: Option<&str>, target: &str, body: &str) -> Result<String, Failure> {
    checked(exchange(address, token, "POST", target, body).await).map(|response| response.body)
}

/// Requests something large from the admin listener, and writes it to a file.
///
/// # Errors
/// As [`fetch`].
pub(super) async fn download(
    address: &str,
    token: Option<&str>,
    target: &str,
    to: &mut std::fs::File,
) -> Result<(), Failure> {
    let authorization = token.map(|token| ("authorization".to_owned(), format!("Bearer {token}")));
    let content_type = ("content-type".to_owned(), "application/json".to_owned());
    let headers = authorization.into_iter().chain([content_type]).collect();
    let request = Request { method: "POST", target, headers, body: "{}" };
    let response = crossdock_http::client::download(address, &request, DOWNLOAD_WAIT, to).await;
    checked(response).map(drop)
}

/// Sends JSON to the admin listener, and returns the lines of the response as they arrive.
///
/// # Errors
/// As [`fetch`].
pub(super) async fn post_for_lines(
    address: &str,
    token: Option<&str>,
    target: &str,
    (body, wait): (&str, Duration),
) -> Result<Lines, Failure> {
    let authorization = token.map(|token| ("authorization".to_owned(), format!("Bearer {token}")));
    let content_type = ("content-type".to_owned(), "application/json".to_owned());
    let headers = authorization.into_iter().chain([content_type]).collect();
    let request = Request { method: "POST", target, headers, body };
    match crossdock_http::client::lines(address, &request, wait).await {
        Ok(Ok(lines)) => Ok(lines),
        Ok(Err(response)) => Err(checked(Ok(response)).err().unwrap_or(Failure::Failed)),
        Err(problem) => Err(checked(Err(problem)).err().unwrap_or(Failure::Failed)),
    }
}

/// Sends a request to the admin listener, and returns the response whatever its status is.
pub(super) async fn exchange(
    address: &str,
    token: Option<&str>,
    method: &'static str,
    target: &str,
    body: &str,
) -> Result<Response, String> {
    let authorization = token.map(|token| ("authorization".to_owned(), format!("Bearer {token}")));
    let content_type = (!body.is_empty()).then(|| ("content-type".to_owned(), "application/json".to_owned()));
    let headers = authorization.into_iter().chain(content_type).collect();
    send(address, &Request { method, target, headers, body }).await
}

/// The response, if its status is 200.
fn checked(response: Result<Response, String>) -> Result<Response, Failure> {
    let response = response.map_err(|problem| {
        eprintln!("failed to reach the gateway: {problem}");
        Failure::Failed
    })?;
    if response.status != 200 {
        let body: Result<serde_json::Value, _> = serde_json::from_str(&response.body);
        match body.as_ref().ok().and_then(|body| body["error"].as_str()) {
            Some(problem) => eprintln!("the gateway refused: {problem}"),
            None => eprintln!("the gateway responded with status {}: {}", response.status, response.body),
        }
        return Err(Failure::Failed);
    }
    Ok(response)
}

pub(super) fn routes(admin: Option<String>, folder: &Path, json: bool) -> Outcome {
    let (address, token) = admin_of(admin, folder)?;
    let response = on_local_runtime(async move { fetch(&address, token.as_deref(), "/api/v1/routes").await })??;
    if json {
        println!("{response}");
        return Ok(());
    }
    let body: Value =
        serde_json::from_str(&response).map_err(|error| Failure::Error(format!("invalid response: {error}")))?;
    print_table(&body);
    Ok(())
}

pub(super) fn print_table(body: &Value) {
    let mut rows =
        vec![["ROUTE", "REQUESTS", "PER S", "MEAN MS", "P99 MS", "CAPACITY/S", "AVAILABLE", "FROM"].map(str::to_owned)];
    for route in body["routes"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let text = |value: &Value| match value {
            Value::Null => "-".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let from = route["from"].as_array().map(|from| from.iter().map(text).collect::<Vec<_>>().join("; "));
        rows.push([
            text(&route["name"]),
            text(&route["requests"]),
            text(&route["throughput_per_s"]),
            text(&route["latency_ms"]["mean"]),
            text(&route["latency_ms"]["p99"]),
            text(&route["capacity_per_s"]),
            text(&route["availability"]),
            from.unwrap_or_default(),
        ]);
    }
    print_columns(&rows);
    // Show only endpoints that are not up.
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all =
        body["routes"].as_array().into_iter().flatten().filter_map(|route| route["endpoints"].as_array()).flatten();
    let row = |endpoint: &Value| {
        let address = match endpoint["ip"].as_str() {
            Some(ip) => format!("{} ({ip})", text(&endpoint["address"])),
            None => text(&endpoint["address"]),
        };
        let state = match endpoint["name_problem"].as_str() {
            Some(problem) => format!("{}, name cannot be resolved: {problem}", text(&endpoint["state"])),
            None => text(&endpoint["state"]),
        };
        (state != "up").then(|| [text(&endpoint["service"]), address, state])
    };
    let down: BTreeSet<[String; 3]> = all.filter_map(row).collect();
    if !down.is_empty() {
        println!();
        let head = ["SERVICE", "ENDPOINT", "STATE"].map(str::to_owned);
        print_columns(&std::iter::once(head).chain(down).collect::<Vec<_>>());
    }
}

pub(super) fn print_columns<const N: usize>(rows: &[[String; N]]) {
    let widths: Vec<usize> = (0..N).map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0)).collect();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        println!("{}", cells.join("  ").trim_end());
    }
}
