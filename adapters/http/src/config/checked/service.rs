//! Validated services and operations.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration as StdDuration;

use crossdock_cloudevents::Envelope;
use crossdock_contract::{CallType, Contracts};
use crossdock_message::ByteString;
use crossdock_ports::{OperationSpec, Part, PathTemplate, ServiceSpec, WriteFormat, known_call};
use crossdock_settings::{FromNode, Node, Reader};
use crossdock_transport::{ClientTlsSettings, Endpoint, static_headers};

use super::super::{BodyFormat, OperationSettings, ServiceSettings};
use super::{method_and_path, write_format};

/// A validated service.
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

impl Service {
    pub(crate) fn read(node: &Node, contracts: &Contracts, reader: &mut Reader<'_>) -> Option<Self> {
        let settings = ServiceSettings::from_node(node, reader)?;
        let endpoints: Vec<Option<Endpoint>> = settings.url.0.iter().map(|url| Endpoint::read(url, reader)).collect();
        let endpoints: Option<Vec<Endpoint>> = endpoints.into_iter().collect();
        if settings.operations.0.is_empty() {
            reader.error(
                "missing-key",
                node.span,
                "a service needs at least one operation",
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
                let operation = Operation::read(operation, settings.format, contracts, node, reader)?;
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
                "a service needs at least one URL",
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

impl ServiceSpec for Service {
    fn endpoints(&self) -> &[String] {
        &self.names
    }

    fn host_name(&self, endpoint: usize) -> Option<&str> {
        self.endpoints.get(endpoint)?.name()
    }

    fn health_key(&self) -> Option<&'static str> {
        Some("get")
    }

    fn operations(&self) -> Vec<(ByteString, Arc<dyn OperationSpec>)> {
        self.operations.clone()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A field that becomes a query parameter.
#[derive(Debug)]
pub(crate) struct QueryField {
    /// The parameter's name.
    pub(crate) name: ByteString,
    pub(crate) field: ByteString,
}

/// A validated operation.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) method: http::Method,
    pub(crate) path: PathTemplate,
    /// Optional fields that become query parameters. `params` are the fields in the path, which are required.
    pub(crate) query: Vec<QueryField>,
    /// All fields that are sent nowhere else become query parameters.
    pub(crate) sends_unlisted_query: bool,
    params: Vec<ByteString>,
    body: Option<WriteFormat>,
    pub(crate) call: Option<Arc<CallType>>,
    pub(crate) envelope: Envelope,
}

impl Operation {
    fn read(
        settings: &OperationSettings,
        format: BodyFormat,
        contracts: &Contracts,
        node: &Node,
        reader: &mut Reader<'_>,
    ) -> Option<Self> {
        let paths = [&settings.get, &settings.post, &settings.put, &settings.patch, &settings.delete];
        let (method, path) = method_and_path(paths, node, reader)?;
        // Content in GET and DELETE has no defined semantics (RFC 9110 §9.3.1, §9.3.5); few services accept it.
        let has_body =
            matches!(method, "POST" | "PUT" | "PATCH") || settings.format.is_some() || settings.root.is_some();
        let format = settings.format.unwrap_or(format);
        let body = if has_body { Some(write_format(format, settings.root.as_ref(), node.span, reader)?) } else { None };
        let params: Vec<ByteString> = path.names().cloned().collect();
        let listed = settings.query.iter().flat_map(|names| &names.0);
        let sends_unlisted_query = listed.clone().any(|name| name.value == "*");
        let mut query: Vec<QueryField> = Vec::new();
        for name in listed.filter(|name| name.value != "*") {
            let field = name.value.strip_suffix("[]").unwrap_or(&name.value);
            if params.iter().any(|param| *param == field) || query.iter().any(|other| other.field == field) {
                let message = format!("`{field}` is already in the path or query");
                reader.error("field-twice", name.span, message, "remove it from `query`");
                return None;
            }
            query.push(QueryField { name: name.value.as_str().into(), field: field.into() });
        }
        if path.parts().any(|part| part == Part::Unnamed) {
            let help = "name each variable segment: `{id}`";
            reader.error("path", node.span, "a variable segment of an operation's path needs a name", help);
            return None;
        }
        let call = match &settings.r#as {
            None => None,
            Some(name) => Some(Arc::new(known_call(name, contracts, reader)?)),
        };
        let envelope = settings.envelope;
        if envelope == Envelope::Structured && body.is_none() {
            let message = "an event in structured mode needs a body, which this operation does not have";
            let help = "write `post:`, or `envelope: cloudevents`";
            reader.error("envelope", node.get("envelope").map_or(node.span, |node| node.span), message, help);
            return None;
        }
        Some(Self { method: method.parse().ok()?, path, query, sends_unlisted_query, params, body, call, envelope })
    }
}

impl OperationSpec for Operation {
    fn params(&self) -> &[ByteString] {
        &self.params
    }

    fn body(&self) -> Option<&WriteFormat> {
        self.body.as_ref()
    }

    fn encodes_late(&self) -> bool {
        !self.params.is_empty() || !self.query.is_empty()
    }

    fn has_place_for(&self, field: &str) -> bool {
        self.body.is_some()
            || self.sends_unlisted_query
            || self.params.iter().any(|param| *param == field)
            || self.query.iter().any(|param| param.field == field)
    }

    fn sends_events(&self) -> bool {
        self.envelope != Envelope::Plain
    }

    fn call_type(&self) -> Option<&Arc<CallType>> {
        self.call.as_ref()
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
