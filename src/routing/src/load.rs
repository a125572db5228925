//! Reading and checking route files. The checker is the loader: there is no second one with worse messages.

mod bodies;
mod branches;
mod contracts;
mod delivery;
mod headers;
mod health;
mod keyed;
mod maps;
mod routes;
mod services;
mod steps;
mod tests_section;
mod types;
mod words;

use std::sync::Arc;

use bytes::Bytes;
use crossdock_adapter_api::Adapter;
use crossdock_contract::{Contracts, Files};
use crossdock_message::{ByteString, Limits};
use crossdock_settings::{Diagnostics, Key, Kind, Node, Reader, Resolve, Span, parse};

use crate::plan::Plan;

/// What the JSON Schema is made of.
pub(crate) mod schema_parts {
    pub(crate) use super::contracts::ContractSettings;
    pub(crate) use super::keyed::{IdempotencySettings, OrderSettings};
    pub(crate) use super::routes::{ErrorRuleSettings, HeaderSettings};
    pub(crate) use super::steps::STEPS;
    pub(crate) use super::tests_section::TestSettings;
}

pub(crate) use words::{BackoffRange, BreakerSettings, CodeName, DeadlineSettings, HealthSettings, RetrySettings};

/// What loading needs to know besides the files.
pub struct Inputs<'a> {
    /// The adapters.
    pub adapters: &'a [Arc<dyn Adapter>],
    /// The listeners of `crossdock.yaml`: name and adapter.
    pub listeners: &'a [(String, &'static str)],
    /// Where placeholders come from.
    pub resolve: &'a dyn Resolve,
    /// Where the files of contracts come from, named from the folder of `crossdock.yaml` on.
    pub files: &'a dyn Files,
    /// Asks a service for its contract by reflection: gives a `google.protobuf.FileDescriptorSet`.
    pub reflect: &'a dyn Fn(&str) -> Result<Bytes, String>,
    /// What reading a typed body may cost.
    pub limits: &'a Limits,
}

/// The keys of a route file.
pub(crate) const TOP_KEYS: &[&str] = &["version", "contracts", "services", "routes", "tests"];

/// Routes, services and tests of one process.
const ITEMS_MAX: usize = 10_000;

/// Loads route files, given as names and texts. The plan is there only where no error was found; warnings may be.
///
/// All files are read before anything is checked, so that a route may use a service of another file.
pub fn load(files: &[(String, String)], inputs: &Inputs<'_>, diagnostics: &mut Diagnostics) -> Option<Plan> {
    let mut loader = Loader {
        inputs,
        plan: Plan::default(),
        contracts: Contracts::new(inputs.limits),
        contracts_failed: false,
        service_spans: Vec::new(),
        route_spans: Vec::new(),
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
        // Without a contract, everything that names it would be wrong for a reason that is not its own.
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
    (!diagnostics.has_errors()).then_some(loader.plan)
}

struct Loader<'a> {
    inputs: &'a Inputs<'a>,
    plan: Plan,
    contracts: Contracts,
    contracts_failed: bool,
    /// Names with their places, also of those that could not be read.
    service_spans: Vec<(ByteString, Span)>,
    route_spans: Vec<(ByteString, Span)>,
}

impl Loader<'_> {
    /// Has each adapter look at all of its entries together.
    fn check_entries(&self, reader: &mut Reader<'_>) {
        for adapter in self.inputs.adapters {
            let is_its_own = |listener: &str| {
                self.inputs.listeners.iter().any(|(name, owner)| name == listener && *owner == adapter.name())
            };
            let all = self.plan.routes.iter().flat_map(|route| route.entries.iter().map(move |entry| (route, entry)));
            let (routes, entries): (Vec<_>, Vec<_>) =
                all.filter(|(_, entry)| is_its_own(&entry.address().listener)).unzip();
            for finding in adapter.check_entries(&entries) {
                let route = &routes[finding.entry].name;
                // Routes of a whole service have a method's name behind their own.
                let named =
                    |name: &str| route == name || route.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
                if let Some((_, span)) = self.route_spans.iter().find(|(name, _)| named(name)) {
                    reader.error("entries", *span, finding.message, finding.help);
                }
            }
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
            reader.error("version", node.span, format!("version {version} is not known"), "write `version: 1`");
        }
        let contracts = fields.take("contracts").map_or(&[][..], |node| entries(node, "contracts", reader));
        let services = fields.take("services").map_or(&[][..], |node| entries(node, "services", reader));
        let routes = fields.take("routes").map_or(&[][..], |node| entries(node, "routes", reader));
        let tests = match fields.take("tests").map(|node| (node, &node.kind)) {
            None => &[][..],
            Some((_, Kind::List(items))) => items.as_slice(),
            Some((node, _)) => {
                reader.wrong_kind(node, "a list of tests", "write one test a line behind a dash");
                &[][..]
            }
        };
        fields.finish(reader);
        Some(Self { contracts, services, routes, tests })
    }
}

fn entries<'n>(node: &'n Node, what: &str, reader: &mut Reader<'_>) -> &'n [(Key, Node)] {
    if !matches!(node.kind, Kind::Map(_)) {
        reader.wrong_kind(node, &format!("a map ({what} by name)"), "write `name:` and below it what it is");
    }
    if node.entries().len() > ITEMS_MAX {
        reader.error("too-many", node.span, format!("more than {ITEMS_MAX} {what}"), "");
    }
    node.entries()
}

/// Names are seen in metrics, logs and references such as `service.operation`.
fn check_name(key: &Key, what: &str, reader: &mut Reader<'_>) {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if key.name.is_empty() || key.name.len() > 64 || !key.name.bytes().all(good) {
        let message = format!("`{}` cannot be the name of a {what}", key.name);
        reader.error("name", key.span, message, "use up to 64 letters, digits, `-` and `_`");
    }
}
