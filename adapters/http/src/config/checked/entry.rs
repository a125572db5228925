//! Validated entries.

use std::any::Any;
use std::sync::Arc;

use crossdock_cloudevents::EntryEnvelope;
use crossdock_contract::{CallType, HttpRule, Typed};
use crossdock_message::{ByteString, Limits};
use crossdock_ports::{
    Address, Binding, BodyBinding, Cancels, EntryContext, EntrySpec, HeaderCondition, PathTemplate, WriteFormat,
};
use crossdock_settings::{FromNode, Node, Reader, nearest};

use super::super::{BodyFormat, EntrySettings, StreamFormat};
use super::{METHODS, method_and_path, write_format};

/// A validated entry.
#[derive(Debug)]
pub(crate) struct Entry {
    address: Address,
    binding: Arc<Binding>,
    pub(crate) query: Vec<QueryParam>,
    pub(crate) unlisted_query: UnlistedQuery,
    pub(crate) ignored_query: Vec<ByteString>,
    pub(crate) body_len_max: u64,
    pub(crate) response_format: WriteFormat,
    /// Present if the route has a contract.
    pub(crate) typed: Option<Arc<TypedEntry>>,
    pub(crate) stream: Option<StreamFormat>,
    cancels: Cancels,
    /// The limits on reading events, if requests are events.
    pub(crate) events: Option<Arc<Limits>>,
}

/// The part of an entry that depends on the contract of its route.
#[derive(Debug)]
pub(crate) struct TypedEntry {
    pub(crate) call: Arc<CallType>,
    /// The type of the response body: the reply type, or one field of it.
    pub(crate) response: Arc<Typed>,
    pub(crate) body: TypedBody,
    /// Unlisted query parameters are fields of the request type.
    pub(crate) has_open_query: bool,
}

/// What the body of a typed request holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TypedBody {
    /// The request has no body.
    None,
    /// All fields except those in the path and query.
    All,
    /// This field.
    Field(ByteString),
}

/// How query parameters that an entry does not list are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnlistedQuery {
    /// The request is rejected.
    Rejected,
    /// They are fields of the request type.
    Typed,
    /// They are fields, and operations with `query: "*"` receive them unchanged.
    Accepted,
}

/// A query parameter that becomes a field.
#[derive(Debug)]
pub(crate) struct QueryParam {
    pub(crate) name: ByteString,
    pub(crate) field: ByteString,
    /// The parameter may be repeated; the field is a list of all values.
    pub(crate) is_list: bool,
}

impl Entry {
    pub(crate) fn read(
        node: &Node,
        context: EntryContext<'_>,
        reader: &mut Reader<'_>,
    ) -> Option<Vec<Arc<dyn EntrySpec>>> {
        let settings = EntrySettings::from_node(node, reader)?;
        let events = match settings.envelope {
            EntryEnvelope::Plain => None,
            EntryEnvelope::CloudEvents if context.call.is_some_and(|call| call.client_streaming) => {
                let help = "remove `envelope`, or name a unary method in `as:`";
                reader.error("envelope", node.span, "the messages of a stream cannot be events", help);
                return None;
            }
            EntryEnvelope::CloudEvents => Some(Arc::clone(context.contracts.limits())),
        };
        let paths = [&settings.get, &settings.post, &settings.put, &settings.patch, &settings.delete];
        if !settings.annotations {
            let (method, path) = method_and_path(paths, node, reader)?;
            let entry = Self::from_settings(&settings, method, path, context.call, node, reader)?;
            return Some(vec![Arc::new(Self { events, ..entry })]);
        }
        let Some(call) = context.call else {
            let help = "add `as: pkg.Service/Method` to the route, of a contract below `contracts:`";
            reader.error("annotations", node.span, "`annotations` requires a route with `as`", help);
            return None;
        };
        if paths.iter().any(|path| path.is_some()) || settings.body.is_some() || settings.query.is_some() {
            let help = "remove `annotations`, or the method, `query` and `body`";
            reader.error(
                "annotations",
                node.span,
                "`annotations` cannot be combined with a method, `query` or `body`",
                help,
            );
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
            call.http.iter().map(|rule| Self::from_http_rule(&settings, rule, call, node, reader)).collect();
        let entries: Option<Vec<Self>> = entries.into_iter().collect();
        let entries = entries?.into_iter().map(|entry| Self { events: events.clone(), ..entry });
        Some(entries.map(|entry| Arc::new(entry) as Arc<dyn EntrySpec>).collect())
    }

    /// Builds the entry for one binding of `google.api.http`.
    fn from_http_rule(
        settings: &EntrySettings,
        rule: &HttpRule,
        call: &Arc<CallType>,
        node: &Node,
        reader: &mut Reader<'_>,
    ) -> Option<Self> {
        let mut report = |problem: String, help: &str| {
            reader.error("annotations", node.span, format!("invalid annotation of `{}`: {problem}", call.name), help);
        };
        let Some(method) = METHODS.into_iter().find(|method| *method == rule.method) else {
            report(format!("the method `{}` is not supported", rule.method), "use GET, POST, PUT, PATCH or DELETE");
            return None;
        };
        let path = match PathTemplate::parse(&rule.path) {
            Ok(path) => path,
            Err(error) => {
                report(format!("the path `{}`: {}", rule.path, error.problem), &error.help);
                return None;
            }
        };
        let response = if rule.response_body.is_empty() {
            Some(Arc::clone(&call.reply))
        } else {
            call.reply.field_as_body(&rule.response_body).map(Arc::new)
        };
        let Some(response) = response else {
            report(format!("the reply type has no field `{}`", rule.response_body), "name a field of the reply type");
            return None;
        };
        let body = match rule.body.as_str() {
            "" => TypedBody::None,
            "*" => TypedBody::All,
            field => TypedBody::Field(field.into()),
        };
        let has_open_query = body != TypedBody::All;
        let typed = Arc::new(TypedEntry { call: Arc::clone(call), response, body, has_open_query });
        Self::build(settings, method, path, Some(typed), node, reader)
    }

    /// Builds the entry for an explicit method and path.
    fn from_settings(
        settings: &EntrySettings,
        method: &'static str,
        path: PathTemplate,
        call: Option<&Arc<CallType>>,
        node: &Node,
        reader: &mut Reader<'_>,
    ) -> Option<Self> {
        let typed = call.map(|call| TypedEntry {
            call: Arc::clone(call),
            response: Arc::clone(&call.reply),
            body: match &settings.body {
                Some(name) if name != "*" => TypedBody::Field(name.as_str().into()),
                None if matches!(method, "GET" | "DELETE") => TypedBody::None,
                _ => TypedBody::All,
            },
            has_open_query: false,
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
        let response_format = write_format(settings.answer, settings.root.as_ref(), node.span, reader)?;
        let query = query_params(settings);
        let unlisted_query = match &typed {
            _ if settings.query.as_ref().is_some_and(|names| names.0.iter().any(|name| name == "*")) => {
                UnlistedQuery::Accepted
            }
            Some(typed) if typed.has_open_query => UnlistedQuery::Typed,
            _ => UnlistedQuery::Rejected,
        };
        if typed.is_some() && unlisted_query == UnlistedQuery::Accepted {
            let help =
                "list the parameters, or write `annotations: true`, which accepts all fields of the request type";
            reader.error("query", node.span, "`query: \"*\"` cannot be combined with a contract", help);
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
                "give each field a different name",
            );
            return None;
        }
        match &typed {
            Some(typed) => check_typed(typed, &params, settings, node, reader)?,
            None => {
                if settings.stream.is_some() {
                    let help = "add `as: pkg.Service/Method` of a streaming method to the route";
                    reader.error("stream", node.span, "`stream` requires a route with `as`", help);
                    return None;
                }
                if let Some(name) = params.iter().find(|name| name.contains('.')) {
                    let help = "use a name without dots, or add `as: pkg.Service/Method` to the route";
                    reader.error(
                        "field-name",
                        node.span,
                        format!("the nested field `{name}` requires a contract"),
                        help,
                    );
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
        // Path and query parameters of a typed request are part of its body before the first step runs.
        let binding = if typed.is_some() { Binding::default() } else { Binding { body, params } };
        Some(Self {
            address,
            binding: Arc::new(binding),
            query,
            unlisted_query,
            ignored_query: settings.ignore_query.iter().map(|name| name.as_str().into()).collect(),
            body_len_max: settings.max.0,
            response_format,
            typed,
            stream: settings.stream,
            cancels: match settings.cancels {
                None => Cancels::Idempotent,
                Some(true) => Cancels::Always,
                Some(false) => Cancels::Never,
            },
            events: None,
        })
    }
}

/// The query parameters that an entry lists.
fn query_params(settings: &EntrySettings) -> Vec<QueryParam> {
    let names = settings.query.iter().flat_map(|names| &names.0).filter(|name| *name != "*");
    let param = |name: &String| {
        let (name, field, is_list) = match (name.strip_suffix("..."), name.strip_suffix("[]")) {
            (Some(field), _) => (field, field, true),
            (None, Some(field)) => (name.as_str(), field, true),
            (None, None) => (name.as_str(), name.as_str(), false),
        };
        QueryParam { name: name.into(), field: field.into(), is_list }
    };
    names.map(param).collect()
}

/// Checks that the request type has the fields that path, query and body name.
fn check_typed(
    typed: &TypedEntry,
    params: &[ByteString],
    settings: &EntrySettings,
    node: &Node,
    reader: &mut Reader<'_>,
) -> Option<()> {
    let request = &typed.call.request;
    let record = request.type_ref().record();
    let report_unknown = |name: &str, reader: &mut Reader<'_>| {
        let help = match nearest(name, record.field_names()) {
            Some(meant) => format!("write `{meant}`"),
            None => format!("use one of {}", record.field_names().collect::<Vec<_>>().join(", ")),
        };
        reader.error("unknown-field", node.span, format!("`{}` has no field `{name}`", record.name), help);
    };
    let mut valid = true;
    for name in params {
        match request.find(name) {
            Ok(found) if found.is_plain => {}
            Ok(_) => {
                valid = false;
                let message = format!("`{name}` of `{}` cannot be a parameter: it is not a single value", record.name);
                reader.error("field-kind", node.span, message, "send it in the body");
            }
            Err(part) => {
                valid = false;
                report_unknown(part, reader);
            }
        }
    }
    if let TypedBody::Field(name) = &typed.body
        && record.field(name).is_none()
    {
        valid = false;
        report_unknown(name, reader);
    }
    let streams = typed.call.client_streaming || typed.call.server_streaming;
    if streams && settings.stream.is_none() {
        valid = false;
        let help = "add `stream: sse` or `stream: ndjson`";
        reader.error(
            "stream",
            node.span,
            format!("`{}` streams, but the entry has no `stream`", typed.call.name),
            help,
        );
    }
    // With annotations of a whole service, `stream` is for those methods that stream.
    if !streams && settings.stream.is_some() && !settings.annotations {
        valid = false;
        reader.error("stream", node.span, format!("`{}` does not stream", typed.call.name), "remove `stream`");
    }
    if settings.answer != BodyFormat::Json {
        valid = false;
        let message = "the response of a route with a contract is always JSON";
        reader.error("answer", node.span, message, "remove `answer`");
    }
    valid.then_some(())
}

impl EntrySpec for Entry {
    fn address(&self) -> &Address {
        &self.address
    }

    fn binding(&self) -> &Arc<Binding> {
        &self.binding
    }

    fn accepts_body(&self) -> bool {
        // The content of these requests has no defined semantics (RFC 9110 §9.3).
        !matches!(&*self.address.method, "GET" | "HEAD" | "DELETE")
    }

    fn answer(&self) -> Option<&WriteFormat> {
        Some(&self.response_format)
    }

    fn call_type(&self) -> Option<&Arc<CallType>> {
        self.typed.as_ref().map(|typed| &typed.call)
    }

    fn receives_events(&self) -> bool {
        self.events.is_some()
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
