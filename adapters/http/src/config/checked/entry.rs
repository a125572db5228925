//! Entries, as checked.

use std::any::Any;
use std::sync::Arc;

use crossdock_adapter_api::{
    Address, Binding, BodyBinding, Cancels, EntryContext, EntrySpec, HeaderCondition, PathTemplate, WriteFormat,
};
use crossdock_contract::{CallType, HttpRule, Typed};
use crossdock_message::ByteString;
use crossdock_settings::{FromNode, Node, Reader, nearest};

use super::super::{BodyFormat, EntrySettings, StreamFormat};
use super::{METHODS, method_and_path, write_format};

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
