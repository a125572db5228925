//! Reads and checks `crossdock.yaml` and the route files.

use crate::error::LoadError;

mod cluster;
mod coordination;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration as StdDuration;

pub use self::cluster::ClusterConfig;
use bytes::Bytes;
use crossdock_message::Limits;
use crossdock_ports::{Adapter, EngineRow, ListenerSpec};
use crossdock_proto::Files;
use crossdock_routing::{Inputs, ListenerInfo, Plan};
use crossdock_settings::{
    Diagnostics, Duration, FromNode, Key, Kind, Node, Reader, Resolve, Secret, Size, Span, Spanned, choices, nearest,
    parse, settings,
};

choices! {
    /// The log format.
    pub enum LogFormat {
        /// Human-readable.
        Text = "text",
        /// One JSON document per line.
        Json = "json",
    }
}

settings! {
    /// the log
    pub struct LogSettings {
        /// The format.
        pub format: LogFormat = LogFormat::Text,
        /// The level: `error`, `warn`, `info`, `debug`, or a filter such as `info,crossdock_http=debug`.
        pub level: String = "info".to_owned(),
    }

    /// the admin listener
    pub struct AdminSettings {
        /// Address and port; port 0 selects a free one.
        pub bind: Spanned<String>,
        /// The token that callers send as `Authorization: Bearer …`; required for an address that other machines can reach.
        pub token: Option<Secret>,
    }

    /// the limits on bodies
    pub struct LimitSettings {
        /// The maximum nesting depth of JSON arrays and objects, and of XML elements.
        pub depth: usize = 64,
        /// The maximum number of keys of a JSON object.
        pub keys: usize = 10_000,
        /// The maximum number of values of a JSON document, or of elements and attributes of an XML document.
        pub nodes: usize = 200_000,
        /// The maximum number of attributes of an XML element.
        pub attributes: usize = 128,
        /// The maximum size of one text of an XML document.
        pub text: Size = Size(1 << 20),
        /// The maximum size of a body that a route produces.
        pub written: Size = Size(16 << 20),
    }

    /// the memory of the process
    pub struct MemorySettings {
        /// The maximum size of all bodies in flight; the default is a quarter of the memory available to the process.
        pub bodies: Option<Size>,
    }
}

/// The checked contents of `crossdock.yaml` and the route files.
pub struct Config {
    /// Listeners by name.
    pub listeners: Vec<ListenerConfig>,
    /// The admin listener.
    pub admin: Option<(SocketAddr, Option<Secret>)>,
    /// The cluster settings.
    pub cluster: Option<ClusterConfig>,
    /// An engine of locks and sequences outside of the gateway.
    pub coordination: Option<crossdock_engines::Options>,
    /// The number of data arbiters.
    pub workers: usize,
    /// How long a stop waits for calls in flight.
    pub drain: StdDuration,
    /// The log settings.
    pub log: LogSettings,
    /// The limits on reading a body.
    pub limits: Limits,
    /// The maximum size of all bodies in flight, in bytes; the default is a quarter of the memory available to the process.
    pub bodies_max: Option<u64>,
    /// The routes.
    pub plan: Plan,
    /// Files other than YAML that were read: contracts and placeholder files.
    pub files: BTreeSet<PathBuf>,
    /// The contracts among them, with those that were looked for and do not exist.
    pub contracts: BTreeSet<PathBuf>,
}

impl Config {
    /// What the engine of locks and sequences offers, if there is one.
    fn locks_row(&self) -> Option<EngineRow> {
        let own = self.cluster.is_some().then_some(EngineRow::EMBEDDED);
        self.coordination.as_ref().map(|options| options.kind.row()).or(own)
    }
}

/// A listener of `crossdock.yaml`.
#[derive(Clone)]
pub struct ListenerConfig {
    /// Its name.
    pub name: String,
    /// Its adapter.
    pub adapter: Arc<dyn Adapter>,
    /// The adapter's own settings.
    pub spec: Arc<dyn ListenerSpec>,
}

impl ListenerConfig {
    fn info(&self) -> ListenerInfo {
        ListenerInfo {
            name: self.name.clone(),
            adapter: self.adapter.name(),
            transactions: self.spec.transactions().map(str::to_owned),
        }
    }
}

/// All adapters. A new one is one line here.
#[must_use]
pub fn adapters() -> Vec<Arc<dyn Adapter>> {
    vec![
        Arc::new(crossdock_http::HttpAdapter),
        Arc::new(crossdock_grpc::GrpcAdapter),
        Arc::new(crossdock_amqp::AmqpAdapter::default()),
        Arc::new(crossdock_queue::QueueAdapter::default()),
        #[cfg(feature = "kafka")]
        Arc::new(crossdock_kafka::KafkaAdapter::default()),
    ]
}

/// Resolves placeholders from the environment, and from files next to `crossdock.yaml`.
struct PlaceholderSource<'a> {
    folder: PathBuf,
    /// Take precedence over the environment.
    variables: &'a [(String, String)],
    read: &'a RefCell<BTreeSet<PathBuf>>,
}

/// The maximum size of a placeholder file, in bytes.
const PLACEHOLDER_FILE_LEN_MAX: u64 = 64 * 1024;

impl Resolve for PlaceholderSource<'_> {
    /// `NAME`, or `NAME:-DEFAULT`.
    fn env(&self, name: &str) -> Result<String, String> {
        let (name, default) = name.split_once(":-").map_or((name, None), |(name, default)| (name, Some(default)));
        if let Some((_, value)) = self.variables.iter().find(|(variable, _)| variable == name) {
            return Ok(value.clone());
        }
        let missing = || format!("the environment variable `{name}` is not set");
        std::env::var(name).ok().or_else(|| default.map(str::to_owned)).ok_or_else(missing)
    }

    fn file(&self, path: &str) -> Result<String, String> {
        let path = self.folder.join(path);
        self.read.borrow_mut().insert(path.clone());
        let failed = |error: std::io::Error| format!("cannot read `{}`: {error}", path.display());
        if std::fs::metadata(&path).map_err(failed)?.len() > PLACEHOLDER_FILE_LEN_MAX {
            return Err(format!("`{}` is larger than {PLACEHOLDER_FILE_LEN_MAX} bytes", path.display()));
        }
        let text = std::fs::read_to_string(&path).map_err(failed)?;
        Ok(text.strip_suffix('\n').unwrap_or(&text).trim_end_matches('\r').to_owned())
    }
}

/// The maximum size of a contract file, in bytes.
const CONTRACT_FILE_LEN_MAX: u64 = 64 << 20;

/// Contract files, relative to the folder of `crossdock.yaml`.
struct ContractFiles<'a> {
    folder: PathBuf,
    read: &'a RefCell<BTreeSet<PathBuf>>,
    /// Instead of those of the folder.
    pushed: Option<&'a PushedFiles>,
}

impl Files for ContractFiles<'_> {
    fn read(&self, name: &str) -> Result<Option<Bytes>, String> {
        if let Some(pushed) = self.pushed {
            let path = path_below(&self.folder, &self.folder.join(name));
            return Ok(path.and_then(|path| pushed.get(&path)).cloned());
        }
        let path = self.folder.join(name);
        self.read.borrow_mut().insert(path.clone());
        let failed = |error: std::io::Error| format!("cannot read `{}`: {error}", path.display());
        let len = match std::fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => metadata.len(),
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        if len > CONTRACT_FILE_LEN_MAX {
            return Err(format!("`{}` is larger than {CONTRACT_FILE_LEN_MAX} bytes", path.display()));
        }
        std::fs::read(&path).map(|content| Some(content.into())).map_err(failed)
    }
}

/// A path relative to a folder, with `/` between names and without `.`; `None` if it is not below it, or not UTF-8.
fn path_below(folder: &Path, path: &Path) -> Option<String> {
    let parts = path.strip_prefix(folder).ok()?.components().filter(|part| *part != Component::CurDir);
    let name = |part| if let Component::Normal(name) = part { name.to_str() } else { None };
    Some(parts.map(name).collect::<Option<Vec<_>>>()?.join("/"))
}

/// The maximum number of route files.
const FILES_MAX: usize = 1000;

/// The files of a generation that was pushed to all instances of a cluster, by path relative to the folder of the settings.
pub type PushedFiles = BTreeMap<String, Bytes>;

/// Loads `crossdock.yaml` and, in the order of their names, all `.yaml` files below `routes/`.
///
/// The config is `None` if `diagnostics` has errors.
///
/// # Errors
/// [`LoadError`] if a file cannot be read. Errors in files are reported to `diagnostics`, and the result is `None`.
pub fn load_config(
    folder: &Path,
    adapters: &[Arc<dyn Adapter>],
    diagnostics: &mut Diagnostics,
) -> Result<Option<Config>, LoadError> {
    load_config_with(folder, adapters, &[], None, diagnostics)
}

/// Like [`load_config`], with variables that take precedence over the environment, and with routes and contracts of a generation that was pushed
/// instead of those of the folder.
///
/// # Errors
/// Like [`load_config`].
pub fn load_config_with(
    folder: &Path,
    adapters: &[Arc<dyn Adapter>],
    variables: &[(String, String)],
    pushed: Option<&PushedFiles>,
    diagnostics: &mut Diagnostics,
) -> Result<Option<Config>, LoadError> {
    let main = folder.join("crossdock.yaml");
    let text = std::fs::read_to_string(&main).map_err(|source| LoadError::Main { path: main.clone(), source })?;
    let files = route_files(folder, pushed)?;
    let (read, contracts) = (RefCell::new(BTreeSet::new()), RefCell::new(BTreeSet::new()));
    let resolve = PlaceholderSource { folder: folder.to_path_buf(), variables, read: &read };
    let source = diagnostics.add_source(main.display().to_string(), text);
    let parts = parse(source, diagnostics)
        .and_then(|root| read_main(&root, folder, adapters, &mut Reader::new(diagnostics, &resolve)));
    let listeners: Vec<ListenerInfo> = match &parts {
        Some(parts) => parts.listeners.iter().map(ListenerConfig::info).collect(),
        None => Vec::new(),
    };
    let mut texts = Vec::new();
    for (name, bytes) in files {
        match String::from_utf8(bytes) {
            Ok(text) => texts.push((name, text)),
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
                let source = diagnostics.add_source(name, text);
                let help = "save the file as UTF-8".to_owned();
                diagnostics.error("encoding", Span { source, start: at, end: at }, "the file is not UTF-8", Some(help));
            }
        }
    }
    // Without listeners, every route would report a consequential error.
    let Some(mut config) = parts else { return Ok(None) };
    let files = ContractFiles { folder: folder.to_path_buf(), read: &contracts, pushed };
    let inputs = Inputs {
        adapters,
        listeners: &listeners,
        resolve: &resolve,
        files: &files,
        reflect: &crossdock_grpc::reflect,
        limits: &config.limits,
        has_cluster: config.cluster.is_some(),
        locks: config.locks_row(),
    };
    let plan = crossdock_routing::load(&texts, &inputs, diagnostics);
    Ok(plan.filter(|_| !diagnostics.has_errors()).map(|plan| {
        config.plan = plan;
        config.contracts = contracts.take();
        config.files = read.take().into_iter().chain(config.contracts.iter().cloned()).collect();
        config
    }))
}

/// The names and contents of all route files, in the order of their names.
fn route_files(folder: &Path, pushed: Option<&PushedFiles>) -> Result<Vec<(String, Vec<u8>)>, LoadError> {
    if let Some(pushed) = pushed {
        let of_routes = pushed.iter().filter(|(path, _)| path.starts_with("routes/") && is_yaml(Path::new(path)));
        return Ok(of_routes.map(|(path, content)| (path.clone(), content.to_vec())).collect());
    }
    let mut files = Vec::new();
    collect_files(&folder.join("routes"), &mut files)?;
    files.sort();
    let read = |file: PathBuf| match std::fs::read(&file) {
        Ok(content) => Ok((file.display().to_string(), content)),
        Err(source) => Err(LoadError::Read { path: file, source }),
    };
    files.into_iter().map(read).collect()
}

/// The files that a push of a folder consists of: all route files and contracts, by path relative to the folder.
///
/// # Errors
/// [`LoadError`] if a file cannot be read, or is outside the folder.
pub fn files_to_push(folder: &Path, config: &Config) -> Result<PushedFiles, LoadError> {
    let mut paths = Vec::new();
    collect_files(&folder.join("routes"), &mut paths)?;
    paths.extend(config.contracts.iter().cloned());
    let read = |path: PathBuf| {
        let Some(relative) = path_below(folder, &path) else {
            let problem = format!(
                "`{}` cannot be pushed: it is outside the folder of the settings, or its name is not UTF-8",
                path.display()
            );
            return Err(LoadError::Invalid(problem));
        };
        match std::fs::read(&path) {
            Ok(content) => Ok(Some((relative, content.into()))),
            // An import that another path has.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(LoadError::Read { path, source }),
        }
    };
    paths.into_iter().filter_map(|path| read(path).transpose()).collect()
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

fn collect_files(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), LoadError> {
    if !folder.exists() {
        return Ok(());
    }
    let failed = |source| LoadError::Read { path: folder.to_owned(), source };
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if path.is_dir() && !hidden {
            collect_files(&path, files)?;
        } else if !hidden && is_yaml(&path) {
            files.push(path);
        }
        if files.len() > FILES_MAX {
            return Err(LoadError::TooManyFiles { folder: folder.to_owned(), max: FILES_MAX });
        }
    }
    Ok(())
}

const DRAIN_DEFAULT: StdDuration = StdDuration::from_secs(25);

fn read_main(root: &Node, folder: &Path, adapters: &[Arc<dyn Adapter>], reader: &mut Reader<'_>) -> Option<Config> {
    let mut fields = reader.fields(root, "crossdock.yaml")?;
    let version: Option<u32> = fields.read("version", reader);
    if let (Some(version), Some(node)) = (version, root.get("version"))
        && version != 1
    {
        reader.error("version", node.span, format!("version {version} is not supported"), "write `version: 1`");
    }
    let listeners = fields.take("listeners");
    let admin: Option<Option<AdminSettings>> = fields.read("admin", reader);
    let cluster = fields.take("cluster").map(|node| cluster::read(node, folder, reader));
    let has_cluster = root.get("cluster").is_some();
    let coordination = fields.take("coordination").map(|node| coordination::read(node, has_cluster, reader));
    let workers: Option<Option<Spanned<usize>>> = fields.read("workers", reader);
    let drain = fields.read_or("drain", Duration(DRAIN_DEFAULT), reader);
    let default_log = LogSettings { format: LogFormat::Text, level: "info".to_owned() };
    let log = fields.read_or("log", default_log, reader);
    let limits: Option<Option<LimitSettings>> = fields.read("limits", reader);
    let memory: Option<Option<MemorySettings>> = fields.read("memory", reader);
    fields.finish(reader);
    let listeners = match listeners {
        Some(node) => read_listeners(node, adapters, reader),
        None => {
            reader.error(
                "missing-key",
                root.span,
                "crossdock.yaml needs `listeners`",
                "add `listeners: { public: { http: { bind: \"127.0.0.1:8080\" } } }`",
            );
            None
        }
    };
    let admin = admin.map(|admin| admin.map(|admin| read_admin(&admin, reader)));
    let workers = workers.map(|workers| workers.map_or_else(default_workers, |workers| workers.value.clamp(1, 256)));
    let limits = limits.map(|limits| limits.map_or_else(Limits::default, |limits| read_limits(&limits)));
    let admin = match admin? {
        None => None,
        Some(admin) => Some(admin?),
    };
    let cluster = match cluster {
        None => None,
        Some(cluster) => Some(cluster?),
    };
    let coordination = match coordination {
        None => None,
        Some(coordination) => coordination?.into_external(),
    };
    Some(Config {
        listeners: listeners?,
        admin,
        cluster,
        coordination,
        workers: workers?,
        drain: drain?.0,
        log: log?,
        limits: limits?,
        bodies_max: memory?.and_then(|memory| memory.bodies).map(|size| size.0),
        plan: Plan::default(),
        files: BTreeSet::new(),
        contracts: BTreeSet::new(),
    })
}

fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn read_limits(settings: &LimitSettings) -> Limits {
    Limits {
        depth: settings.depth,
        keys: settings.keys,
        nodes: settings.nodes,
        attributes: settings.attributes,
        text_len: usize::try_from(settings.text.0).unwrap_or(usize::MAX),
        written_len: usize::try_from(settings.written.0).unwrap_or(usize::MAX),
        ..Limits::default()
    }
}

fn read_admin(settings: &AdminSettings, reader: &mut Reader<'_>) -> Option<(SocketAddr, Option<Secret>)> {
    let Ok(address) = settings.bind.value.parse::<SocketAddr>() else {
        let message = format!("`bind` must be an IP address and a port, not `{}`", settings.bind.value);
        reader.error(
            "address",
            settings.bind.span,
            message,
            "write an IP address and a port, such as `127.0.0.1:9900`",
        );
        return None;
    };
    if !address.ip().is_loopback() && settings.token.is_none() {
        let message = "an address that other machines can reach needs `token`";
        reader.error(
            "admin-open",
            settings.bind.span,
            message,
            "write an address of 127.0.0.1, or add `token: ${env:NAME}`",
        );
        return None;
    }
    Some((address, settings.token.clone()))
}

fn read_listeners(node: &Node, adapters: &[Arc<dyn Adapter>], reader: &mut Reader<'_>) -> Option<Vec<ListenerConfig>> {
    let Kind::Map(entries) = &node.kind else {
        reader.wrong_kind(node, "a map (listeners by name)", "write `public: { http: { bind: \"127.0.0.1:8080\" } }`");
        return None;
    };
    let read: Vec<Option<ListenerConfig>> =
        entries.iter().map(|(key, node)| read_listener(key, node, adapters, reader)).collect();
    read.into_iter().collect()
}

fn read_listener(
    key: &Key,
    node: &Node,
    adapters: &[Arc<dyn Adapter>],
    reader: &mut Reader<'_>,
) -> Option<ListenerConfig> {
    let names: Vec<&str> = adapters.iter().map(|adapter| adapter.name()).collect();
    let [(kind, part)] = node.entries() else {
        let help = format!("write one of {}", names.join(", "));
        reader.error("listener", key.span, "a listener must name exactly one protocol", help);
        return None;
    };
    let Some(adapter) = adapters.iter().find(|adapter| adapter.name() == kind.name) else {
        let help = match nearest(&kind.name, names.iter().copied()) {
            Some(meant) => format!("write `{meant}`"),
            None => format!("write one of {}", names.join(", ")),
        };
        reader.error("unknown-adapter", kind.span, format!("unknown protocol `{}`", kind.name), help);
        return None;
    };
    let spec = adapter.read_listener(part, reader)?;
    Some(ListenerConfig { name: key.name.clone(), adapter: Arc::clone(adapter), spec })
}

/// The JSON Schema of `crossdock.yaml`.
pub fn settings_schema(adapters: &[Arc<dyn Adapter>]) -> serde_json::Value {
    let listeners: serde_json::Map<String, serde_json::Value> =
        adapters.iter().map(|adapter| (adapter.name().to_owned(), adapter.schemas().listener)).collect();
    serde_json::json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "crossdock.yaml",
        "type": "object",
        "required": ["version", "listeners"],
        "additionalProperties": false,
        "properties": {
            "version": { "const": 1 },
            "listeners": { "type": "object", "additionalProperties": {
                "type": "object", "properties": listeners, "minProperties": 1, "maxProperties": 1, "additionalProperties": false,
            } },
            "admin": AdminSettings::schema(),
            "cluster": cluster::ClusterSettings::schema(),
            "coordination": coordination::CoordinationSettings::schema(),
            "workers": usize::schema(),
            "drain": Duration::schema(),
            "log": LogSettings::schema(),
            "limits": LimitSettings::schema(),
            "memory": MemorySettings::schema(),
        },
    })
}
