//! Settings as checked: nothing downstream checks them again.

use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration as StdDuration;

use crossdock_adapter_api::{
    Address, Binding, BodyBinding, EntrySpec, HeaderCondition, ListenerSpec, OperationSpec, PathTemplate, ServiceSpec,
    WriteFormat,
};
use crossdock_message::ByteString;
use crossdock_message::xml::ExpandedName;
use crossdock_settings::{FromNode, Named, Node, Reader, Secret, Span, Spanned};

use super::{BodyFormat, ClientTlsSettings, EntrySettings, ListenerSettings, OperationSettings, ServiceSettings};

/// A listener, as checked.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) bind: SocketAddr,
    pub(crate) settings: ListenerSettings,
}

impl Listener {
    pub(crate) fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let settings = ListenerSettings::from_node(node, reader)?;
        match settings.bind.value.parse() {
            Ok(bind) => Some(Self { bind, settings }),
            Err(_) => {
                let message = format!("`{}` is not an address to listen on", settings.bind.value);
                let help = "write an IP address and a port, such as `127.0.0.1:8080` or `0.0.0.0:8080`";
                reader.error("address", settings.bind.span, message, help);
                None
            }
        }
    }
}

impl ListenerSpec for Listener {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn fingerprint(&self) -> String {
        format!("{:?}", self.settings)
    }
}

/// An entry, as checked.
#[derive(Debug)]
pub(crate) struct Entry {
    address: Address,
    binding: Arc<Binding>,
    pub(crate) query: Vec<QueryParam>,
    pub(crate) body_len_max: u64,
    pub(crate) answer: WriteFormat,
}

/// A query parameter that becomes a field.
#[derive(Debug)]
pub(crate) struct QueryParam {
    pub(crate) name: ByteString,
    /// The field's name, and that every value is kept.
    pub(crate) field: ByteString,
    pub(crate) list: bool,
}

impl Entry {
    pub(crate) fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let settings = EntrySettings::from_node(node, reader)?;
        let paths = [&settings.get, &settings.post, &settings.put, &settings.patch, &settings.delete];
        let (method, path) = method_and_path(paths, node, reader)?;
        let answer = write_format(settings.answer, settings.root.as_ref(), node.span, reader)?;
        let query: Vec<QueryParam> = settings
            .query
            .iter()
            .map(|name| {
                let field = name.strip_suffix("[]");
                QueryParam { name: name.as_str().into(), field: field.unwrap_or(name).into(), list: field.is_some() }
            })
            .collect();
        let params: Vec<ByteString> =
            path.names().cloned().chain(query.iter().map(|param| param.field.clone())).collect();
        let body = settings.body.as_ref().filter(|name| *name != "*");
        let body = body.map_or(BodyBinding::Fields, |name| BodyBinding::Field(name.as_str().into()));
        let mut names: Vec<&str> = params.iter().map(|name| &**name).collect();
        names.extend(settings.body.as_deref());
        names.sort_unstable();
        if let Some([twice, _]) = names.array_windows().find(|[one, other]| one == other) {
            reader.error(
                "field-twice",
                node.span,
                format!("`{twice}` is bound twice"),
                "give each field a name of its own",
            );
            return None;
        }
        let headers = settings.headers.0.iter().map(|(name, value)| HeaderCondition {
            name: name.value.to_ascii_lowercase().into(),
            value: value.as_str().into(),
        });
        let address = Address {
            listener: settings.listen.as_str().into(),
            method: ByteString::from_static(method),
            path,
            headers: headers.collect(),
        };
        Some(Self { address, binding: Arc::new(Binding { body, params }), query, body_len_max: settings.max.0, answer })
    }
}

impl EntrySpec for Entry {
    fn address(&self) -> &Address {
        &self.address
    }

    fn binding(&self) -> &Arc<Binding> {
        &self.binding
    }

    fn describe(&self) -> String {
        format!("http {} {} on {}", self.address.method, self.address.path.as_str(), self.address.listener)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The methods that can be named, in the order in which their paths are handed over.
const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

/// The one method that is named, and its path.
fn method_and_path(
    paths: [&Option<Spanned<String>>; 5],
    node: &Node,
    reader: &mut Reader<'_>,
) -> Option<(&'static str, PathTemplate)> {
    let named: Vec<_> =
        METHODS.into_iter().zip(paths).filter_map(|(method, path)| Some((method, path.as_ref()?))).collect();
    let [(method, path)] = named.as_slice() else {
        let message = if named.is_empty() { "the method and path are missing" } else { "there are two methods" };
        reader.error("method", node.span, message, "write one of `get: /path`, `post:`, `put:`, `patch:`, `delete:`");
        return None;
    };
    let start = node.get(&method.to_ascii_lowercase());
    match PathTemplate::parse(&path.value) {
        Ok(template) => Some((method, template)),
        Err(error) => {
            let span = start.map_or(path.span, |node| node.span_of(error.range));
            reader.error("path", span, error.problem, error.help);
            None
        }
    }
}

fn write_format(
    format: BodyFormat,
    root: Option<&Spanned<String>>,
    span: Span,
    reader: &mut Reader<'_>,
) -> Option<WriteFormat> {
    match (format, root) {
        (BodyFormat::Json, None) => Some(WriteFormat::Json),
        (BodyFormat::Raw, None) => Some(WriteFormat::Raw),
        (BodyFormat::Xml, Some(root)) => match ExpandedName::parse(&root.value) {
            Some(root) => Some(WriteFormat::Xml { root }),
            None => {
                let message = format!("`{}` is not the name of an element", root.value);
                reader.error("xml-name", root.span, message, "write `Name` or `{namespace}Name`");
                None
            }
        },
        (BodyFormat::Xml, None) => {
            reader.error(
                "missing-key",
                span,
                "an XML body needs `root`",
                "add `root: Name` or `root: \"{namespace}Name\"`",
            );
            None
        }
        (_, Some(root)) => {
            reader.error(
                "root",
                root.span,
                "only an XML body has a root element",
                "leave `root` out, or write the format `xml`",
            );
            None
        }
    }
}

/// A service, as checked.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) endpoints: Vec<Endpoint>,
    names: Vec<String>,
    operations: Vec<(ByteString, Arc<dyn OperationSpec>)>,
    pub(crate) headers: Vec<(http::HeaderName, http::HeaderValue)>,
    pub(crate) reply_len_max: u64,
    pub(crate) connect_timeout: StdDuration,
    pub(crate) idle_connections: usize,
    pub(crate) idle_timeout: StdDuration,
    pub(crate) tls: Option<ClientTlsSettings>,
}

/// Where a service is reached.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    pub(crate) secure: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// `Host` of requests.
    pub(crate) authority: http::HeaderValue,
    /// Stands before every path; empty or starting with `/`, never ending with it.
    pub(crate) base: String,
}

impl Service {
    pub(crate) fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let settings = ServiceSettings::from_node(node, reader)?;
        let endpoints: Vec<Option<Endpoint>> = settings.url.0.iter().map(|url| Endpoint::read(url, reader)).collect();
        let endpoints: Option<Vec<Endpoint>> = endpoints.into_iter().collect();
        if settings.operations.0.is_empty() {
            reader.error(
                "missing-key",
                node.span,
                "a service has at least one operation",
                "add `operations: { name: { get: /path } }`",
            );
            return None;
        }
        let nodes = node.get("operations").map_or(&[][..], |operations| operations.entries());
        let operations: Vec<Option<(ByteString, Arc<dyn OperationSpec>)>> = settings
            .operations
            .0
            .iter()
            .zip(nodes)
            .map(|((name, operation), (_, node))| {
                let operation = Operation::read(operation, settings.format, node, reader)?;
                Some((ByteString::from(name.value.as_str()), Arc::new(operation) as Arc<dyn OperationSpec>))
            })
            .collect();
        let operations: Option<Vec<_>> = operations.into_iter().collect();
        let headers = static_headers(&settings.headers, reader);
        let (endpoints, operations, headers) = (endpoints?, operations?, headers?);
        if endpoints.is_empty() {
            reader.error(
                "missing-value",
                node.span,
                "a service has at least one address",
                "write `url: http://host:port`",
            );
            return None;
        }
        Some(Self {
            names: settings.url.0.iter().map(|url| url.value.clone()).collect(),
            endpoints,
            operations,
            headers,
            reply_len_max: settings.max.0,
            connect_timeout: settings.connect_timeout.0,
            idle_connections: settings.idle_connections,
            idle_timeout: settings.idle_timeout.0,
            tls: settings.tls,
        })
    }
}

/// Headers whose values open doors: a literal one in a file is likely a mistake.
const SECRET_HEADERS: &[&str] = &["authorization", "proxy-authorization", "cookie", "x-api-key"];

fn static_headers(
    headers: &Named<Spanned<Secret>>,
    reader: &mut Reader<'_>,
) -> Option<Vec<(http::HeaderName, http::HeaderValue)>> {
    let mut checked = Vec::new();
    for (name, value) in &headers.0 {
        let lower = name.value.to_ascii_lowercase();
        if SECRET_HEADERS.contains(&lower.as_str()) && value.value.literal {
            let help = format!("write `{}: ${{env:NAME}}` or `${{file:PATH}}`", name.value);
            let message = format!("the secret `{}` stands in the file itself", name.value);
            reader.diagnostics.warning("literal-secret", value.span, message, Some(help));
        }
        let parsed =
            (http::HeaderName::from_bytes(lower.as_bytes()), http::HeaderValue::from_str(value.value.reveal()));
        let (Ok(header), Ok(mut secret)) = parsed else {
            reader.error(
                "header-name",
                name.span,
                format!("`{}` or its value cannot stand in a header", name.value),
                "",
            );
            return None;
        };
        if crate::mapping::is_hop_by_hop(header.as_str())
            || matches!(header.as_str(), "host" | "content-length" | "content-type")
        {
            reader.error(
                "header-reserved",
                name.span,
                format!("`{lower}` is set by the protocol itself"),
                "leave it out",
            );
            return None;
        }
        secret.set_sensitive(true);
        checked.push((header, secret));
    }
    Some(checked)
}

impl Endpoint {
    fn read(url: &Spanned<String>, reader: &mut Reader<'_>) -> Option<Self> {
        let read = Self::parse(&url.value);
        if read.is_none() {
            let message = format!("`{}` is not the address of a service", url.value);
            let help = "write `http://host:port` or `https://host:port/base`, without query or user";
            reader.error("url", url.span, message, help);
        }
        read
    }

    fn parse(url: &str) -> Option<Self> {
        let uri: http::Uri = url.parse().ok()?;
        let secure = match uri.scheme_str()? {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let authority = uri.authority()?;
        if uri.query().is_some() || authority.as_str().contains('@') || authority.host().is_empty() || url.contains('#')
        {
            return None;
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        Some(Self {
            secure,
            port: authority.port_u16().unwrap_or(if secure { 443 } else { 80 }),
            host,
            authority: http::HeaderValue::from_str(authority.as_str()).ok()?,
            base: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

impl ServiceSpec for Service {
    fn endpoints(&self) -> &[String] {
        &self.names
    }

    fn operations(&self) -> Vec<(ByteString, Arc<dyn OperationSpec>)> {
        self.operations.clone()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// An operation, as checked.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) method: http::Method,
    pub(crate) path: PathTemplate,
    /// Fields that become query parameters where they are there; `params` are those of the path, which have to be.
    pub(crate) query: Vec<ByteString>,
    params: Vec<ByteString>,
    body: Option<WriteFormat>,
}

impl Operation {
    fn read(settings: &OperationSettings, format: BodyFormat, node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let paths = [&settings.get, &settings.post, &settings.put, &settings.patch, &settings.delete];
        let (method, path) = method_and_path(paths, node, reader)?;
        let has_body = matches!(method, "POST" | "PUT" | "PATCH");
        let body = if has_body {
            Some(write_format(settings.format.unwrap_or(format), settings.root.as_ref(), node.span, reader)?)
        } else {
            if let Some(root) = &settings.root {
                reader.error("root", root.span, format!("{method} has no body"), "leave `root` out");
            }
            None
        };
        let params: Vec<ByteString> = path.names().cloned().collect();
        let query: Vec<ByteString> = settings.query.iter().map(|name| name.value.as_str().into()).collect();
        for name in &settings.query {
            if params.iter().any(|param| *param == name.value) {
                let message = format!("`{}` stands in the path already", name.value);
                reader.error("field-twice", name.span, message, "take it out of `query`");
                return None;
            }
        }
        Some(Self { method: method.parse().ok()?, path, query, params, body })
    }
}

impl OperationSpec for Operation {
    fn params(&self) -> &[ByteString] {
        &self.params
    }

    fn body(&self) -> Option<&WriteFormat> {
        self.body.as_ref()
    }

    fn is_idempotent(&self) -> bool {
        // RFC 9110 §9.2.2.
        self.method.is_idempotent()
    }

    fn describe(&self) -> String {
        format!("{} {}", self.method, self.path.as_str())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
