//! `crossdock test`: runs the tests in route files through real listeners, with stubs instead of services.

mod stub;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use crossdock_cluster::{Member, Settings};
use crossdock_message::{Code, Limits, Value, json, xml};
use crossdock_ports::{Adapter, EntrySpec, TestReply};
use crossdock_routing::{Plan, RoutePlan, RouteTest, ServicePlan};
use crossdock_settings::{Diagnostics, NoPlaceholders, Reader, parse};
use crossdock_zab::ServerId;

use super::config_folder;
use crate::outcome::{Failure, Outcome, on_local_runtime};
use crossdock_gateway::{ClusterConfig, Config, ListenerConfig, adapters};
use crossdock_gateway::{Gateway, LoadError, Running, read_folder};
use stub::{StubAdapter, StubSpec, Stubs};

pub(super) fn test(paths: &[PathBuf]) -> Outcome {
    let mut folders: Vec<PathBuf> = paths.iter().map(|path| config_folder(path)).collect::<Result<_, _>>()?;
    folders.dedup();
    let (mut passed, mut failed) = (0, 0);
    for folder in folders {
        let registry = adapters();
        // Read the settings once before, so that their errors are reported once.
        let config = read_folder(&folder, &registry).map_err(|problem| {
            eprintln!("{}", problem.to_string().trim_end());
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
    let clients = adapters();
    let mut registry = adapters();
    registry.push(Arc::new(StubAdapter { stubs: stubs.clone() }));
    let log = LogFolder::new();
    let data = log.0.clone();
    let source = move || stubbed(&folder, &data);
    let running = Gateway::new(registry).start_with(source).await.map_err(|error| error.to_string())?;
    let (mut passed, mut failed) = (0, 0);
    for test in &plan.tests {
        stubs.prepare(&test.stubs);
        // Idempotency keys of one test must not affect the next.
        running.forget_processed();
        match run_one(&running, &clients, &plan, test, &stubs).await {
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

/// A temporary folder for the log of a cluster. It is deleted with this.
struct LogFolder(PathBuf);

impl LogFolder {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("crossdock-test-{}", std::process::id())))
    }
}

impl Drop for LogFolder {
    fn drop(&mut self) {
        // There is none unless the settings have a cluster.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A cluster of one, in place of the one in the settings: tests must not take part in that.
fn alone(session: Duration, data: &Path) -> ClusterConfig {
    let id = ServerId(1);
    let member = Member { address: SocketAddr::from(([127, 0, 0, 1], 0)).into(), votes: true };
    let mut settings = Settings::new("test", id, BTreeMap::from([(id, member)]), data.to_owned());
    settings.create = true;
    settings.log.segment_len = 1 << 20;
    ClusterConfig { settings, session, api: None }
}

/// The settings of the folder, with stubs as services and listeners on free ports.
fn stubbed(folder: &Path, data: &Path) -> Result<Config, LoadError> {
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
    // Nor is the engine of locks used, which real instances use.
    let engine = config.coordination.take().map(|options| options.session);
    config.cluster = config.cluster.map(|cluster| cluster.session).or(engine).map(|session| alone(session, data));
    config.workers = 1;
    Ok(config)
}

/// The listener on a free local port; `None` if tests cannot send to its entries, such as those of queues.
fn on_free_port(listener: &ListenerConfig) -> Result<Option<ListenerConfig>, LoadError> {
    let Some(client) = listener.adapter.test_client() else { return Ok(None) };
    let mut diagnostics = Diagnostics::new();
    let source = diagnostics.add_source("test listener", client.listener());
    let spec = parse(source, &mut diagnostics)
        .and_then(|node| listener.adapter.read_listener(&node, &mut Reader::new(&mut diagnostics, &NoPlaceholders)));
    let spec = spec.ok_or_else(|| LoadError::Invalid(diagnostics.render(false)))?;
    Ok(Some(ListenerConfig { name: listener.name.clone(), adapter: Arc::clone(&listener.adapter), spec }))
}

async fn run_one(
    running: &Running,
    adapters: &[Arc<dyn Adapter>],
    plan: &Plan,
    test: &RouteTest,
    stubs: &Stubs,
) -> Result<(), String> {
    // A route for a whole service is one route per method; the request selects the method.
    let of_service =
        |route: &&Arc<RoutePlan>| route.name.strip_prefix(&*test.route).is_some_and(|rest| rest.starts_with('.'));
    let route =
        plan.route(&test.route).or_else(|| plan.routes.iter().find(of_service)).ok_or("the route does not exist")?;
    let mut entries = route.entries.iter().filter_map(|entry| Some((entry, listener(running, entry)?)));
    let (entry, address) = entries
        .find(|(entry, (adapter, _))| *adapter == test.adapter && has_address(test, &***entry))
        .map(|(entry, (_, address))| (entry, address))
        .ok_or_else(|| format!("the route has no entry of the adapter `{}`", test.adapter))?;
    let adapter = adapters.iter().find(|adapter| adapter.name() == test.adapter);
    let client = adapter.and_then(|adapter| adapter.test_client()).ok_or("the adapter has no client for tests")?;
    let reply = client.send(address, &**entry, &plan.contracts, &test.given).await?;
    verify(test, &reply, stubs)
}

/// Whether a test can be sent to an entry: a test with a path needs an entry with one.
fn has_address(test: &RouteTest, entry: &dyn EntrySpec) -> bool {
    test.given.path.is_empty() || !entry.address().path.as_str().is_empty()
}

/// The adapter and the address of the listener of an entry.
fn listener<'r>(running: &'r Running, entry: &Arc<dyn EntrySpec>) -> Option<(&'r str, &'r str)> {
    let listener = &entry.address().listener;
    running.listeners().find(|(name, ..)| listener == name).map(|(_, adapter, address)| (adapter, address))
}

fn verify(test: &RouteTest, reply: &TestReply, stubs: &Stubs) -> Result<(), String> {
    let expect = &test.expect;
    if let Some(problem) = stubs.problem() {
        return Err(problem);
    }
    if let Some(status) = expect.status.filter(|status| reply.status != Some(*status)) {
        let actual = reply.status.map_or_else(|| "none".to_owned(), |status| status.to_string());
        return Err(format!("expected status {status}, got {actual}: {}", reply.body));
    }
    if expect.code != reply.code && (expect.code.is_some() || expect.status.is_none()) {
        let name = |code: Option<Code>| code.map_or("no fault", Code::name);
        return Err(format!("expected {}, got {}: {}", name(expect.code), name(reply.code), reply.body));
    }
    for (name, value) in &expect.headers {
        if reply.header(name) != Some(&**value) {
            return Err(format!("expected header `{name}` to be {value:?}, got {:?}", reply.header(name)));
        }
    }
    if let Some((body, media_type)) = &expect.body {
        same_body("the body", &reply.body, body, media_type)?;
    }
    for (service, expected) in &expect.sent {
        let sent = stubs.sent(service).ok_or_else(|| format!("expected a call of `{service}`"))?;
        if let Some((body, media_type)) = expected {
            same_body(&format!("the body sent to `{service}`"), &sent, body, media_type)?;
        }
    }
    Ok(())
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
