//! `crossdock test`: runs the tests in route files through real listeners, with stubs instead of services.

mod grpc;
mod stub;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use crossdock_message::{Code, Limits, Value, json, xml};
use crossdock_ports::EntrySpec;
use crossdock_routing::{Plan, RoutePlan, RouteTest, ServicePlan};
use crossdock_settings::{Diagnostics, Reader, Resolve, parse};

use super::config_folder;
use crate::client::{Request, Response, send};
use crate::outcome::{Failure, Outcome, on_local_runtime};
use crossdock_gateway::{Config, ListenerConfig, adapters};
use crossdock_gateway::{Gateway, Running, read_folder};
use stub::{StubAdapter, StubSpec, Stubs};

pub(super) fn test(paths: &[PathBuf]) -> Outcome {
    let mut folders: Vec<PathBuf> = paths.iter().map(|path| config_folder(path)).collect::<Result<_, _>>()?;
    folders.dedup();
    let (mut passed, mut failed) = (0, 0);
    for folder in folders {
        let registry = adapters();
        // Read the settings once before, so that their errors are reported once.
        let config = read_folder(&folder, &registry).map_err(|problem| {
            eprintln!("{}", problem.trim_end());
            Failure::Failed
        })?;
        let outcome = on_local_runtime(run_all(folder, config.plan))?;
        let (folder_passed, folder_failed) = outcome.map_err(Failure::Error)?;
        passed += folder_passed;
        failed += folder_failed;
    }
    println!("\n{passed} passed, {failed} failed");
    if failed == 0 { Ok(()) } else { Err(Failure::Failed) }
}

async fn run_all(folder: PathBuf, plan: Plan) -> Result<(usize, usize), String> {
    if plan.tests.is_empty() {
        return Ok((0, 0));
    }
    let stubs = Stubs::default();
    let mut registry = adapters();
    registry.push(Arc::new(StubAdapter { stubs: stubs.clone() }));
    let source = move || stubbed(&folder);
    let running = Gateway::new(registry).start_with(source).await.map_err(|error| error.to_string())?;
    let (mut passed, mut failed) = (0, 0);
    for test in &plan.tests {
        stubs.prepare(&test.stubs);
        // Idempotency keys of one test must not affect the next.
        running.forget_processed();
        match run_one(&running, &plan, test, &stubs).await {
            Ok(()) => {
                passed += 1;
                println!("ok    {} ({})", test.name, test.route);
            }
            Err(problem) => {
                failed += 1;
                println!("FAIL  {} ({})\n      {}: {problem}", test.name, test.route, test.place);
            }
        }
    }
    running.stop().await;
    Ok((passed, failed))
}

/// The settings of the folder, with stubs as services and listeners on free ports.
fn stubbed(folder: &std::path::Path) -> Result<Config, String> {
    let mut config = read_folder(folder, &adapters())?;
    for service in &mut config.plan.services {
        let old = Arc::clone(service);
        let spec = StubSpec::new(&old.name, Arc::clone(&old.spec));
        *service = Arc::new(ServicePlan {
            name: old.name.clone(),
            adapter: stub::NAME,
            spec: Arc::new(spec),
            timeout: old.timeout,
            retry: old.retry.clone(),
            concurrency: old.concurrency,
            balance: old.balance,
            idempotent: old.idempotent.clone(),
            health: None,
            breaker: None,
        });
    }
    let listeners = config.listeners.iter().filter_map(|listener| on_free_port(listener).transpose());
    config.listeners = listeners.collect::<Result<_, _>>()?;
    config.admin = None;
    config.workers = 1;
    Ok(config)
}

struct NoPlaceholders;

impl Resolve for NoPlaceholders {
    fn env(&self, name: &str) -> Result<String, String> {
        Err(format!("the environment variable `{name}` is not available here"))
    }

    fn file(&self, path: &str) -> Result<String, String> {
        Err(format!("the file `{path}` is not available here"))
    }
}

/// The listener on a free local port; `None` if tests cannot send to its entries, such as those of queues.
fn on_free_port(listener: &ListenerConfig) -> Result<Option<ListenerConfig>, String> {
    let Some(settings) = listener.adapter.test_listener() else { return Ok(None) };
    let mut diagnostics = Diagnostics::new();
    let source = diagnostics.add_source("test listener", settings);
    let spec = parse(source, &mut diagnostics)
        .and_then(|node| listener.adapter.read_listener(&node, &mut Reader::new(&mut diagnostics, &NoPlaceholders)));
    let spec = spec.ok_or_else(|| diagnostics.render(false))?;
    Ok(Some(ListenerConfig { name: listener.name.clone(), adapter: Arc::clone(&listener.adapter), spec }))
}

async fn run_one(running: &Running, plan: &Plan, test: &RouteTest, stubs: &Stubs) -> Result<(), String> {
    // A route for a whole service is one route per method; the request selects the method.
    let of_service =
        |route: &&Arc<RoutePlan>| route.name.strip_prefix(&*test.route).is_some_and(|rest| rest.starts_with('.'));
    let route =
        plan.route(&test.route).or_else(|| plan.routes.iter().find(of_service)).ok_or("the route does not exist")?;
    if test.given.grpc {
        return grpc::run_one(running, plan, route, test, stubs).await;
    }
    let is_http = |entry: &&Arc<dyn EntrySpec>| {
        !entry.address().path.as_str().is_empty() && adapter_name(running, entry) == Some("http")
    };
    let entry = route.entries.iter().find(is_http).ok_or("the route has no HTTP entry")?;
    let address = running.listener(&entry.address().listener).ok_or("the listener of the route is not running")?;
    let mut headers: Vec<(String, String)> =
        test.given.headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    if let Some((_, media_type)) = &test.given.body {
        headers.push(("content-type".into(), (*media_type).into()));
    }
    if let Some(timeout) = test.given.timeout {
        headers.push(("crossdock-timeout".into(), format!("{}ms", timeout.as_millis())));
    }
    let body = test.given.body.as_ref().map_or("", |(body, _)| body);
    let request = Request { method: &test.given.method, target: &test.given.path, headers, body };
    let response = send(address, &request).await?;
    verify(test, &response, stubs)
}

/// The name of the adapter of an entry.
fn adapter_name<'r>(running: &'r Running, entry: &Arc<dyn EntrySpec>) -> Option<&'r str> {
    let listener = &entry.address().listener;
    running.listeners().find(|(name, ..)| listener == name).map(|(_, adapter, _)| adapter)
}

fn verify(test: &RouteTest, response: &Response, stubs: &Stubs) -> Result<(), String> {
    verify_with_code(test, response, code_of(response), stubs)
}

fn verify_with_code(test: &RouteTest, response: &Response, code: Option<Code>, stubs: &Stubs) -> Result<(), String> {
    let expect = &test.expect;
    if let Some(problem) = stubs.problem() {
        return Err(problem);
    }
    if let Some(status) = expect.status.filter(|status| *status != response.status) {
        return Err(format!("expected status {status}, got {}: {}", response.status, response.body));
    }
    if expect.code != code && (expect.code.is_some() || expect.status.is_none()) {
        let name = |code: Option<Code>| code.map_or("no fault", Code::name);
        return Err(format!("expected {}, got {}: {}", name(expect.code), name(code), response.body));
    }
    for (name, value) in &expect.headers {
        if response.header(name) != Some(&**value) {
            return Err(format!("expected header `{name}` to be {value:?}, got {:?}", response.header(name)));
        }
    }
    if let Some((body, media_type)) = &expect.body {
        same_body("the body", &response.body, body, media_type)?;
    }
    for (service, expected) in &expect.sent {
        let sent = stubs.sent(service).ok_or_else(|| format!("expected a call of `{service}`"))?;
        if let Some((body, media_type)) = expected {
            same_body(&format!("the body sent to `{service}`"), &sent, body, media_type)?;
        }
    }
    Ok(())
}

fn code_of(response: &Response) -> Option<Code> {
    if (200..300).contains(&response.status) {
        return None;
    }
    let read = |text: &str| -> Option<Value> {
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        if response.header("content-type")?.contains("xml") {
            xml::read(&bytes, &Limits::default()).ok()
        } else {
            json::read(&bytes, &Limits::default()).ok()
        }
    };
    let problem = read(&response.body)?;
    let code = match problem.get("code")? {
        Value::Text(code) => code.clone(),
        Value::List(items) => items.first()?.get("$text")?.scalar_text()?,
        _ => return None,
    };
    Code::from_name(&code)
}

/// Compares bodies by value: white space and escapes do not matter, digits do.
fn same_body(what: &str, got: &str, expected: &str, media_type: &str) -> Result<(), String> {
    let read = |text: &str| -> Result<Value, String> {
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        if media_type.contains("xml") {
            xml::read(&bytes, &Limits::default()).map_err(|error| error.to_string())
        } else {
            json::read(&bytes, &Limits::default()).map_err(|error| error.to_string())
        }
    };
    let expected_value = read(expected).map_err(|error| format!("the expected body is invalid: {error}"))?;
    let actual_value = read(got).map_err(|error| format!("{what} is invalid: {error}: {got}"))?;
    if same_value(&expected_value, &actual_value) {
        Ok(())
    } else {
        Err(format!("{what} differs; expected\n        {expected}\n      got\n        {got}"))
    }
}

/// Compares values; the order of fields does not matter.
fn same_value(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Record(left), Value::Record(right)) => {
            left.len() == right.len()
                && left.iter().all(|(name, value)| right.get(name).is_some_and(|other| same_value(value, other)))
        }
        (Value::List(left), Value::List(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same_value(left, right))
        }
        _ => left == right,
    }
}
