//! Settings as checked: nothing downstream checks them again.

use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration as StdDuration;

use crossdock_adapter_api::{
    Address, Binding, BodyBinding, Cancels, EntryContext, EntrySpec, HeaderCondition, ListenerSpec, OperationSpec,
    Part, PathTemplate, ServiceSpec, WriteFormat, known_call, xml_root,
};
use crossdock_contract::{CallType, Contracts, HttpRule, Typed};
use crossdock_message::ByteString;
use crossdock_settings::{FromNode, Node, Reader, Span, Spanned, nearest};
use crossdock_transport::{ClientTlsSettings, Endpoint, bind_address, http2, static_headers};

use super::{BodyFormat, EntrySettings, ListenerSettings, OperationSettings, ServiceSettings, StreamFormat};

/// A listener, as checked.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) bind: SocketAddr,
    pub(crate) settings: ListenerSettings,
}

impl Listener {
    pub(crate) fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let settings = ListenerSettings::from_node(node, reader)?;
        let bind = bind_address(&settings.bind, reader)?;
        let sizes = [
            ("head", settings.head),
            ("stream_window", settings.stream_window),
            ("connection_window", settings.connection_window),
        ];
        http2::check_sizes(sizes, node, reader)?;
        Some(Self { bind, settings })
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
    pub(crate) query_rest: QueryRest,
    pub(crate) query_ignored: Vec<ByteString>,
    pub(crate) body_len_max: u64,
    pub(crate) answer: WriteFormat,
    /// What the contract says, where the route names one.
    pub(crate) typed: Option<Arc<TypedEntry>>,
    pub(crate) stream: Option<StreamFormat>,
    cancels: Cancels,
}

/// What an entry has besides where a contract says what its messages are.
#[derive(Debug)]
pub(crate) struct TypedEntry {
    pub(crate) call: Arc<CallType>,
    /// The type of the answer's body: the reply, or one field of it.
    pub(crate) answer: Arc<Typed>,
    pub(crate) body: TypedBody,
    /// Query parameters that nobody named are fields of the request as well.
    pub(crate) open_query: bool,
}

/// Where a typed request's body goes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TypedBody {
    /// There is none.
    None,
    /// It is the request, but for what the address gives.
    All,
    /// It is this field.
    Field(ByteString),
}

/// What becomes of query parameters that an entry does not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QueryRest {
    /// They are the caller's error.
    Refused,
    /// They are fields of the request's type.
    Typed,
    /// They are fields, and go on unchanged to operations that take them.
    Taken,
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
    pub(crate) fn read(
        node: &Node,
        context: EntryContext<'_>,
        reader: &mut Reader<'_>,
    ) -> Option<Vec<Arc<dyn EntrySpec>>> {
        let settings = EntrySettings::from_node(node, reader)?;
        let paths = [&settings.get, &settings.post, &settings.put, &settings.patch, &settings.delete];
        if !settings.annotations {
            let (method, path) = method_and_path(paths, node, reader)?;
            let entry = Self::one(&settings, method, path, context.call, node, reader)?;
            return Some(vec![Arc::new(entry)]);
        }
        let Some(call) = context.call else {
            let help = "add `as: pkg.Service/Method` to the route, of a contract below `contracts:`";
            reader.error("annotations", node.span, "annotations are those of a method, and the route names none", help);
            return None;
        };
        if paths.iter().any(|path| path.is_some()) || settings.body.is_some() || settings.query.is_some() {
            let help = "leave `annotations` out, or the method, `query` and `body`";
            reader.error("annotations", node.span, "the annotations say method, path and body already", help);
            return None;
        }
        if call.http.is_empty() && context.whole_service {
            return Some(Vec::new());
        }
        if call.http.is_empty() {
            let help = "add `option (google.api.http) = { … }` to the method, or write `get: /…` here";
            let message = format!("`{}` has no annotation `google.api.http`", call.name);
            reader.error("annotations", node.span, message, help);
            return None;
        }
        let entries: Vec<Option<Self>> =
            call.http.iter().map(|rule| Self::of_rule(&settings, rule, call, node, reader)).collect();
        let entries: Option<Vec<Self>> = entries.into_iter().collect();
        Some(entries?.into_iter().map(|entry| Arc::new(entry) as Arc<dyn EntrySpec>).collect())
    }

    /// The entry of one binding of `google.api.http`.
    fn of_rule(
        settings: &EntrySettings,
        rule: &HttpRule,
        call: &Arc<CallType>,
        node: &Node,
        reader: &mut Reader<'_>,
    ) -> Option<Self> {
        let mut refuse = |problem: String, help: &str| {
            reader.error("annotations", node.span, format!("the annotation of `{}`: {problem}", call.name), help);
        };
        let Some(method) = METHODS.into_iter().find(|method| *method == rule.method) else {
            refuse(format!("the method `{}` is not served", rule.method), "use GET, POST, PUT, PATCH or DELETE");
            return None;
        };
        let path = match PathTemplate::parse(&rule.path) {
            Ok(path) => path,
            Err(error) => {
                refuse(format!("the path `{}`: {}", rule.path, error.problem), &error.help);
                return None;
            }
        };
        let answer = if rule.response_body.is_empty() {
            Some(Arc::clone(&call.reply))
        } else {
            call.reply.only_field(&rule.response_body).map(Arc::new)
        };
        let Some(answer) = answer else {
            refuse(format!("the answer has no field `{}`", rule.response_body), "name a field of the answer");
            return None;
        };
        let body = match rule.body.as_str() {
            "" => TypedBody::None,
            "*" => TypedBody::All,
            field => TypedBody::Field(field.into()),
        };
        let open_query = body != TypedBody::All;
        let typed = Arc::new(TypedEntry { call: Arc::clone(call), answer, body, open_query });
        Self::build(settings, method, path, Some(typed), node, reader)
    }

    /// The entry that settings spell out.
    fn one(
        settings: &EntrySettings,
        method: &'static str,
        path: PathTemplate,
        call: Option<&Arc<CallType>>,
        node: &Node,
        reader: &mut Reader<'_>,
    ) -> Option<Self> {
        let typed = call.map(|call| TypedEntry {
            call: Arc::clone(call),
            answer: Arc::clone(&call.reply),
            body: match &settings.body {
                Some(name) if name != "*" => TypedBody::Field(name.as_str().into()),
                None if matches!(method, "GET" | "DELETE") => TypedBody::None,
                _ => TypedBody::All,
            },
            open_query: false,
        });
        Self::build(settings, method, path, typed.map(Arc::new), node, reader)
    }

    fn build(
        settings: &EntrySettings,
        method: &'static str,
        path: PathTemplate,
        typed: Option<Arc<TypedEntry>>,
        node: &Node,
        reader: &mut Reader<'_>,
    ) -> Option<Self> {
        let answer = write_format(settings.answer, settings.root.as_ref(), node.span, reader)?;
        let query = query_params(settings);
        let query_rest = match &typed {
            _ if settings.query.as_ref().is_some_and(|names| names.0.iter().any(|name| name == "*")) => {
                QueryRest::Taken
            }
            Some(typed) if typed.open_query => QueryRest::Typed,
            _ => QueryRest::Refused,
        };
        if typed.is_some() && query_rest == QueryRest::Taken {
            let help = "name the parameters, or write `annotations: true`, which takes all fields of the type";
            reader.error("query", node.span, "with a contract, parameters are fields of its type", help);
            return None;
        }
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
        match &typed {
            Some(typed) => check_typed(typed, &params, settings, node, reader)?,
            None => {
                if settings.stream.is_some() {
                    let help = "add `as: pkg.Service/Method` to the route, of a method that streams";
                    reader.error("stream", node.span, "only a contract says that a call streams", help);
                    return None;
                }
                if let Some(name) = params.iter().find(|name| name.contains('.')) {
                    let help = "use a name without dots, or add `as: pkg.Service/Method` to the route";
                    reader.error("field-name", node.span, format!("`{name}` is a field inside another"), help);
                    return None;
                }
            }
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
        // Of a typed request, all is the body: it was put together before any step sees it.
        let binding = if typed.is_some() { Binding::default() } else { Binding { body, params } };
        Some(Self {
            address,
            binding: Arc::new(binding),
            query,
            query_rest,
            query_ignored: settings.ignore_query.iter().map(|name| name.as_str().into()).collect(),
            body_len_max: settings.max.0,
            answer,
            typed,
            stream: settings.stream,
            cancels: match settings.cancels {
                None => Cancels::Idempotent,
                Some(true) => Cancels::Always,
                Some(false) => Cancels::Never,
            },
        })
    }
}

/// The parameters that an entry names.
fn query_params(settings: &EntrySettings) -> Vec<QueryParam> {
    let names = settings.query.iter().flat_map(|names| &names.0).filter(|name| *name != "*");
    let param = |name: &String| {
        let (given, field, list) = match (name.strip_suffix("..."), name.strip_suffix("[]")) {
            (Some(field), _) => (field, field, true),
            (None, Some(field)) => (name.as_str(), field, true),
            (None, None) => (name.as_str(), name.as_str(), false),
        };
        QueryParam { name: given.into(), field: field.into(), list }
    };
    names.map(param).collect()
}

/// What the address and body of a typed request name has to be in its type.
fn check_typed(
    typed: &TypedEntry,
    params: &[ByteString],
    settings: &EntrySettings,
    node: &Node,
    reader: &mut Reader<'_>,
) -> Option<()> {
    let request = &typed.call.request;
    let record = request.type_ref().record();
    let no_field = |name: &str, reader: &mut Reader<'_>| {
        let help = match nearest(name, record.field_names()) {
            Some(meant) => format!("write `{meant}`"),
            None => format!("it has {}", record.field_names().collect::<Vec<_>>().join(", ")),
        };
        reader.error("unknown-field", node.span, format!("`{}` has no field `{name}`", record.name), help);
    };
    let mut good = true;
    for name in params {
        match request.find(name) {
            Ok(found) if found.is_plain => {}
            Ok(_) => {
                good = false;
                let message = format!("`{name}` of `{}` holds more than one text", record.name);
                reader.error("field-kind", node.span, message, "take it from the body");
            }
            Err(part) => {
                good = false;
                no_field(part, reader);
            }
        }
    }
    if let TypedBody::Field(name) = &typed.body
        && record.field(name).is_none()
    {
        good = false;
        no_field(name, reader);
    }
    let streams = typed.call.client_streaming || typed.call.server_streaming;
    if streams && settings.stream.is_none() {
        good = false;
        let help = "add `stream: sse` or `stream: ndjson`";
        reader.error(
            "stream",
            node.span,
            format!("`{}` streams, and the entry does not say how", typed.call.name),
            help,
        );
    }
    // Annotations may be those of a whole service, of which some methods stream.
    if !streams && settings.stream.is_some() && !settings.annotations {
        good = false;
        reader.error("stream", node.span, format!("`{}` does not stream", typed.call.name), "leave `stream` out");
    }
    if settings.answer != BodyFormat::Json {
        good = false;
        let message = "an answer with a contract is JSON";
        reader.error("answer", node.span, message, "leave `answer` out");
    }
    good.then_some(())
}

impl EntrySpec for Entry {
    fn address(&self) -> &Address {
        &self.address
    }

    fn binding(&self) -> &Arc<Binding> {
        &self.binding
    }

    fn answer(&self) -> Option<&WriteFormat> {
        Some(&self.answer)
    }

    fn call_type(&self) -> Option<&Arc<CallType>> {
        self.typed.as_ref().map(|typed| &typed.call)
    }

    fn streams(&self) -> bool {
        self.stream.is_some()
    }

    fn cancels(&self) -> Cancels {
        self.cancels
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
    let root = xml_root(format == BodyFormat::Xml, root, span, reader)?;
    Some(match (format, root) {
        (_, Some(root)) => WriteFormat::Xml { root },
        (BodyFormat::Raw, None) => WriteFormat::Raw,
        (BodyFormat::Json | BodyFormat::Xml, None) => WriteFormat::Json,
    })
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

impl Service {
    pub(crate) fn read(node: &Node, contracts: &Contracts, reader: &mut Reader<'_>) -> Option<Self> {
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

/// A field that becomes a query parameter, and the parameter's name.
#[derive(Debug)]
pub(crate) struct QueryField {
    pub(crate) name: ByteString,
    pub(crate) field: ByteString,
}

/// An operation, as checked.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) method: http::Method,
    pub(crate) path: PathTemplate,
    /// Fields that become query parameters where they are there; `params` are those of the path, which have to be.
    pub(crate) query: Vec<QueryField>,
    /// All fields without another place are query parameters.
    pub(crate) query_rest: bool,
    params: Vec<ByteString>,
    body: Option<WriteFormat>,
    pub(crate) call: Option<Arc<CallType>>,
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
        // Content of GET and DELETE has no meaning of its own (RFC 9110 §9.3.1, §9.3.5): only some services take it.
        let has_body =
            matches!(method, "POST" | "PUT" | "PATCH") || settings.format.is_some() || settings.root.is_some();
        let format = settings.format.unwrap_or(format);
        let body = if has_body { Some(write_format(format, settings.root.as_ref(), node.span, reader)?) } else { None };
        let params: Vec<ByteString> = path.names().cloned().collect();
        let named = settings.query.iter().flat_map(|names| &names.0);
        let query_rest = named.clone().any(|name| name.value == "*");
        let mut query: Vec<QueryField> = Vec::new();
        for name in named.filter(|name| name.value != "*") {
            let field = name.value.strip_suffix("[]").unwrap_or(&name.value);
            if params.iter().any(|param| *param == field) || query.iter().any(|other| other.field == field) {
                let message = format!("`{field}` stands in the address already");
                reader.error("field-twice", name.span, message, "take it out of `query`");
                return None;
            }
            query.push(QueryField { name: name.value.as_str().into(), field: field.into() });
        }
        if path.parts().any(|part| part == Part::Unnamed) {
            let help = "give each part that is not fixed a name: `{id}`";
            reader.error("path", node.span, "a part of the path has no name, so nothing can be written there", help);
            return None;
        }
        let call = match &settings.r#as {
            None => None,
            Some(name) => Some(Arc::new(known_call(name, contracts, reader)?)),
        };
        Some(Self { method: method.parse().ok()?, path, query, query_rest, params, body, call })
    }
}

impl OperationSpec for Operation {
    fn params(&self) -> &[ByteString] {
        &self.params
    }

    fn body(&self) -> Option<&WriteFormat> {
        self.body.as_ref()
    }

    fn has_address_fields(&self) -> bool {
        !self.params.is_empty() || !self.query.is_empty()
    }

    fn has_place_for(&self, field: &str) -> bool {
        self.body.is_some()
            || self.query_rest
            || self.params.iter().any(|param| *param == field)
            || self.query.iter().any(|param| param.field == field)
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
