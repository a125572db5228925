//! Reads and checks route files. The checker is the loader: there is no second one with worse messages.

mod contracts;
mod delivery;
mod entries;
mod routes;
mod tests_section;

use std::sync::Arc;

use bytes::Bytes;
use crossdock_contract::Contracts;
use crossdock_message::{ByteString, Limits};
use crossdock_ports::{Adapter, EngineRow};
use crossdock_proto::Files;
use crossdock_settings::{Diagnostics, Key, Kind, Node, Reader, Resolve, Span, parse};

pub(crate) use self::entries::ClusterRole;
use crate::catalog::ServiceCatalog;
use crate::plan::Plan;
use crate::services::ServicePlan;

pub(crate) use contracts::ContractSettings;
pub(crate) use routes::RouteSettings;
pub(crate) use tests_section::TestSettings;

/// What routes need to know about a listener.
#[derive(Debug, Clone)]
pub struct ListenerInfo {
    /// Its name.
    pub name: String,
    /// The name of its adapter.
    pub adapter: &'static str,
    /// The system whose transactions it uses ([`ListenerSpec::transactions`](crossdock_ports::ListenerSpec::transactions)).
    pub transactions: Option<String>,
}

/// What loading needs besides the files.
pub struct Inputs<'a> {
    /// The adapters.
    pub adapters: &'a [Arc<dyn Adapter>],
    /// The listeners of `crossdock.yaml`.
    pub listeners: &'a [ListenerInfo],
    /// Resolves placeholders.
    pub resolve: &'a dyn Resolve,
    /// Reads the files of contracts, by paths relative to the folder of `crossdock.yaml`.
    pub files: &'a dyn Files,
    /// Asks a service for its contract by reflection: returns a `google.protobuf.FileDescriptorSet`.
    pub reflect: &'a dyn Fn(&str) -> Result<Bytes, String>,
    /// Limits on reading typed bodies.
    pub limits: &'a Limits,
    /// Whether the instance is a member of a cluster.
    pub has_cluster: bool,
    /// What the engine of locks and sequences offers, if there is one.
    pub locks: Option<EngineRow>,
}

/// What helps where an engine of locks and sequences is missing.
pub(crate) const NO_ENGINE_HELP: &str = "add `cluster: {}` to crossdock.yaml, for a cluster of this instance alone, or \
    `coordination: { engine: …, endpoints: [ … ] }` for an engine that you run already";

/// The keys of a route file.
pub(crate) const TOP_KEYS: &[&str] = &["version", "contracts", "services", "routes", "tests"];

/// Routes, services and tests of one process.
const ITEMS_MAX: usize = 10_000;

/// Loads route files, given as names and texts. Returns the plan only if there is no error; there may be warnings.
///
/// All files are read before anything is checked, so that a route may use a service of another file.
pub fn load(files: &[(String, String)], inputs: &Inputs<'_>, diagnostics: &mut Diagnostics) -> Option<Plan> {
    let mut loader = Loader {
        inputs,
        plan: Plan::default(),
        contracts: Contracts::new(inputs.limits),
        contracts_failed: false,
        services: ServiceCatalog::default(),
        route_names: Vec::new(),
    };
    let mut roots = Vec::new();
    for (name, text) in files {
        let source = diagnostics.add_source(name.clone(), text.clone());
        if let Some(root) = parse(source, diagnostics) {
            roots.push(root);
        }
    }
    let mut reader = Reader::new(diagnostics, inputs.resolve);
    let sections: Vec<Sections<'_>> = roots.iter().filter_map(|root| Sections::read(root, &mut reader)).collect();
    for section in &sections {
        for (key, node) in section.contracts {
            loader.contract(key, node, &mut reader);
        }
    }
    if loader.contracts_failed {
        // Without a contract, every reference to it would be reported as well.
        return None;
    }
    for section in &sections {
        for (key, node) in section.services {
            loader.service(key, node, &mut reader);
        }
    }
    for section in &sections {
        for (key, node) in section.routes {
            loader.route(key, node, &mut reader);
        }
    }
    loader.check_entries(&mut reader);
    for section in &sections {
        for node in section.tests {
            loader.test(node, &mut reader);
        }
    }
    loader.plan.contracts = loader.contracts;
    loader.plan.services = loader.services.plans;
    (!diagnostics.has_errors()).then_some(loader.plan)
}

struct Loader<'a> {
    inputs: &'a Inputs<'a>,
    plan: Plan,
    contracts: Contracts,
    contracts_failed: bool,
    services: ServiceCatalog,
    /// Each route's name with its position in the files, also of routes that could not be read.
    route_names: Vec<(ByteString, Span)>,
}

impl Loader<'_> {
    fn service(&mut self, key: &Key, node: &Node, reader: &mut Reader<'_>) {
        if declare(key, "service", &mut self.services.names, reader).is_some() {
            let plan = ServicePlan::read(key, node, self.inputs.adapters, &self.contracts, reader);
            if let Some(plan) = plan.as_ref().filter(|plan| plan.spec.needs_cluster()) {
                self.check_cluster(&plan.name, key.span, reader);
            }
            self.services.plans.extend(plan.map(Arc::new));
        }
    }
}

struct Sections<'n> {
    contracts: &'n [(Key, Node)],
    services: &'n [(Key, Node)],
    routes: &'n [(Key, Node)],
    tests: &'n [Node],
}

impl<'n> Sections<'n> {
    fn read(root: &'n Node, reader: &mut Reader<'_>) -> Option<Self> {
        let mut fields = reader.fields(root, "a route file")?;
        let version: Option<u32> = fields.read("version", reader);
        if let (Some(version), Some(node)) = (version, root.get("version"))
            && version != 1
        {
            reader.error("version", node.span, format!("version {version} is not supported"), "write `version: 1`");
        }
        let contracts = fields.take("contracts").map_or(&[][..], |node| entries(node, "contracts", reader));
        let services = fields.take("services").map_or(&[][..], |node| entries(node, "services", reader));
        let routes = fields.take("routes").map_or(&[][..], |node| entries(node, "routes", reader));
        let tests = match fields.take("tests").map(|node| (node, &node.kind)) {
            None => &[][..],
            Some((_, Kind::List(items))) => items.as_slice(),
            Some((node, _)) => {
                reader.wrong_kind(node, "a list of tests", "write one test per line after a dash");
                &[][..]
            }
        };
        fields.finish(reader);
        Some(Self { contracts, services, routes, tests })
    }
}

fn entries<'n>(node: &'n Node, what: &str, reader: &mut Reader<'_>) -> &'n [(Key, Node)] {
    if !matches!(node.kind, Kind::Map(_)) {
        reader.wrong_kind(node, &format!("a map ({what} by name)"), "write `name:` and its content below it");
    }
    if node.entries().len() > ITEMS_MAX {
        reader.error("too-many", node.span, format!("there can be at most {ITEMS_MAX} {what}"), "");
    }
    node.entries()
}

/// Adds a name to those that are declared; `None` if it was declared before, which is reported.
fn declare(key: &Key, what: &str, names: &mut Vec<(ByteString, Span)>, reader: &mut Reader<'_>) -> Option<ByteString> {
    check_name(key, what, reader);
    let name = ByteString::from(key.name.as_str());
    if let Some((_, first)) = names.iter().find(|(other, _)| *other == name) {
        let message = format!("the {what} `{name}` is declared twice");
        let help = format!("the first declaration is at {}", place_of(*first, reader));
        reader.error("duplicate-name", key.span, message, help);
        return None;
    }
    names.push((name.clone(), key.span));
    Some(name)
}

/// Names appear in metrics, logs and references such as `service.operation`.
fn check_name(key: &Key, what: &str, reader: &mut Reader<'_>) {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if key.name.is_empty() || key.name.len() > 64 || !key.name.bytes().all(is_allowed) {
        let message = format!("`{}` is not a valid name of a {what}", key.name);
        reader.error("name", key.span, message, "use up to 64 letters, digits, `-` and `_`");
    }
}

/// A position as `file:line`.
fn place_of(span: Span, reader: &Reader<'_>) -> String {
    let (line, _) = reader.diagnostics.line_column(span);
    format!("{}:{line}", reader.diagnostics.name(span.source))
}
