//! The values that the expressions of one exchange can access.

use std::borrow::Cow;
use std::sync::Arc;

use crossdock_message::{Body, ByteString, Code, Fault, Format, Limits, Message, Record, RequestContext, Value};
use crossdock_ports::{Binding, BodyBinding};

use super::exhausted;
use super::path::{Path, PathStep, follow};
use crossdock_expression::{Budget as Meter, Host};

/// The caller's message, and how it is mapped to the fields of `req`.
#[derive(Debug)]
pub struct Request {
    /// The message as received.
    pub message: Message,
    /// How its parts are mapped to fields.
    pub binding: Arc<Binding>,
}

/// The variables of expressions: `req`, `res`, `header`, `msg`, `event`, `auth`, `peer`, and the names that steps have bound.
pub struct Scope<'a> {
    /// The caller's message: `req` and `event`.
    pub request: &'a Request,
    /// The message that steps work on: `header` and `msg`.
    pub current: &'a Message,
    /// The last reply of a service: `res`.
    pub reply: Option<&'a Message>,
    /// Names bound by steps, the latest last.
    pub variables: &'a [(ByteString, Arc<Value>)],
    /// The current item of `each`.
    pub item: Option<&'a Item<'a>>,
    /// The remaining budget of the message.
    pub meter: &'a Meter,
    /// The clock and random numbers.
    pub host: &'a dyn Host,
    /// The limits on parsing bodies.
    pub limits: &'a Limits,
}

/// An item of a list with its name, and the item that contains the list.
#[derive(Debug, Clone, Copy)]
pub struct Item<'a> {
    /// Its name.
    pub name: &'a ByteString,
    /// The item.
    pub value: &'a Value,
    /// It belongs to the view of an XML document.
    pub is_xml: bool,
    /// The item that contains the list.
    pub outer: Option<&'a Item<'a>>,
}

impl Request {
    /// The body. Fails if one of its fields is also a parameter of the path or query.
    fn body_fields(&self, limits: &Limits, meter: &Meter) -> Result<Option<&Value>, Fault> {
        meter.check_read(self.message.body.unread_len()).map_err(|cause| exhausted::fault(cause, true, "req"))?;
        let body = self.message.body.value(limits)?;
        if let (BodyBinding::Fields, Some(Value::Record(record))) = (&self.binding.body, body)
            && let Some((name, _)) = self.message.params.iter().find(|(name, _)| record.get(name).is_some())
        {
            let message = format!("`{name}` must be set only once, by the path, the query or the body");
            return Err(Fault::caller(Code::InvalidArgument, "FIELD_TWICE", message).with_detail("field", name.clone()));
        }
        Ok(body)
    }

    fn field(&self, name: &str, limits: &Limits, meter: &Meter) -> Result<Option<&Value>, Fault> {
        if let Some(value) = self.message.params.get(name) {
            return Ok(Some(value));
        }
        match &self.binding.body {
            BodyBinding::Field(field) if *field == name => self.body_fields(limits, meter),
            BodyBinding::Field(_) => Ok(None),
            // The body cannot set a parameter of the path or query, even if it is absent there.
            BodyBinding::Fields if self.binding.params.iter().any(|param| *param == name) => Ok(None),
            BodyBinding::Fields => Ok(self.body_fields(limits, meter)?.and_then(|body| body.get(name))),
        }
    }

    /// All fields, as one record.
    fn all_fields(&self, limits: &Limits, meter: &Meter) -> Result<Value, Fault> {
        let body = self.body_fields(limits, meter)?;
        if let (BodyBinding::Fields, Some(Value::Record(record)), true) =
            (&self.binding.body, body, self.message.params.is_empty())
        {
            // Free: records are shared.
            return Ok(Value::Record(record.clone()));
        }
        let count = match body {
            Some(Value::Record(record)) => record.len(),
            _ => 1,
        };
        let charged = meter.charge_bytes(Record::made_len(self.message.params.len() + count));
        let copied = match body {
            Some(Value::Record(record)) => record.iter().try_for_each(|(_, value)| meter.charge_copy(value)),
            Some(other) => meter.charge_copy(other),
            None => Ok(()),
        };
        charged
            .and(copied)
            .and_then(|()| meter.charge_work(count as u64))
            .map_err(|cause| exhausted::fault(cause, true, "req"))?;
        let mut fields: Record = self.message.params.clone();
        match (&self.binding.body, body) {
            (_, None) => {}
            (BodyBinding::Field(name), Some(body)) => {
                fields.set(name.clone(), body.clone());
            }
            (BodyBinding::Fields, Some(Value::Record(record))) => {
                for (name, value) in record.iter() {
                    fields.set(name.clone(), value.clone());
                }
            }
            (BodyBinding::Fields, Some(other)) if fields.is_empty() => return Ok(other.clone()),
            (BodyBinding::Fields, Some(other)) => {
                let message = format!("the body must be a record, but is {}", other.kind());
                return Err(Fault::caller(Code::InvalidArgument, "BODY_FIELDS", message));
            }
        }
        Ok(Value::Record(fields))
    }
}

/// The value of a path; or, if it is missing, the number of steps that succeeded.
pub(super) type Lookup<'v> = Result<Cow<'v, Value>, usize>;

impl<'a> Scope<'a> {
    /// Looks up the value of a path.
    ///
    /// # Errors
    /// The fault of a body that cannot be parsed.
    pub(super) fn find(&self, path: &Path) -> Result<Lookup<'a>, Fault> {
        let mut item = self.item;
        while let Some(inner) = item {
            if *inner.name == path.root {
                return Ok(follow(inner.value, &path.steps).map(Cow::Borrowed));
            }
            item = inner.outer;
        }
        if let Some((_, value)) = self.variables.iter().rev().find(|(name, _)| *name == path.root) {
            return Ok(follow(value, &path.steps).map(Cow::Borrowed));
        }
        match &*path.root {
            "req" => self.find_in_request(&path.steps),
            "res" => match self.reply {
                Some(reply) => {
                    self.meter
                        .check_read(reply.body.unread_len())
                        .map_err(|cause| exhausted::fault(cause, false, "res"))?;
                    match reply.body.value(self.limits).map_err(|fault| unreadable_reply(&fault))? {
                        Some(value) => Ok(follow(value, &path.steps).map(Cow::Borrowed)),
                        None => Ok(Err(0)),
                    }
                }
                None => Ok(Err(0)),
            },
            "header" => {
                let headers = if path.steps.is_empty() { self.current.headers.len() } else { 1 };
                // After a call, the headers are those of its reply.
                let of_caller = self.reply.is_none();
                self.meter.charge_work(headers as u64).map_err(|cause| exhausted::fault(cause, of_caller, "header"))?;
                Ok(self.find_header(&path.steps))
            }
            "event" => Ok(self.find_in_event(&path.steps)),
            "msg" => Ok(self.find_in_envelope(&path.steps)),
            "auth" => Ok(self.find_in_context(RequestContext::auth, &path.steps)),
            "peer" => Ok(self.find_in_context(RequestContext::peer, &path.steps)),
            _ => Ok(Err(0)),
        }
    }

    /// Whether a variable is the view of an XML document, in which a missing element is an empty list.
    pub(crate) fn is_xml(&self, root: &str) -> bool {
        let is_xml = |message: &Message| matches!(&message.body, Body::Raw { format: Format::Xml, .. });
        let mut item = self.item;
        while let Some(inner) = item {
            if *inner.name == *root {
                return inner.is_xml;
            }
            item = inner.outer;
        }
        if self.variables.iter().any(|(name, _)| name == root) {
            return false;
        }
        match root {
            "req" => is_xml(&self.request.message),
            "res" => self.reply.is_some_and(is_xml),
            _ => false,
        }
    }

    /// Whether a path, after `taken` steps, ends at an element that is missing from an XML document.
    pub(super) fn is_missing_element(&self, path: &Path, taken: usize) -> bool {
        // Attributes and character data are not lists.
        let is_element = |name: &ByteString| !name.starts_with(['@', '$']);
        let is_last = taken + 1 == path.steps.len();
        let is_param = path.root == "req"
            && matches!(&path.steps[..], [PathStep::Field(name), ..] if self.request.binding.params.contains(name));
        is_last
            && matches!(path.steps.last(), Some(PathStep::Field(name)) if is_element(name))
            && !is_param
            && self.is_xml(&path.root)
    }

    fn find_in_request(&self, steps: &[PathStep]) -> Result<Lookup<'a>, Fault> {
        let request: &'a Request = self.request;
        match steps.split_first() {
            Some((PathStep::Field(name), rest)) => Ok(match request.field(name, self.limits, self.meter)? {
                Some(value) => follow(value, rest).map(Cow::Borrowed).map_err(|taken| taken + 1),
                None => Err(0),
            }),
            _ => {
                let fields = request.all_fields(self.limits, self.meter)?;
                Ok(follow(&fields, steps).map(|value| Cow::Owned(value.clone())))
            }
        }
    }

    fn find_header(&self, steps: &[PathStep]) -> Lookup<'a> {
        match steps {
            [] => {
                let headers = &self.current.headers;
                let joined = |(name, _)| {
                    let name: &ByteString = name;
                    Some((name.clone(), Value::Text(headers.joined(name)?)))
                };
                Ok(Cow::Owned(Value::Record(headers.iter().filter_map(joined).collect())))
            }
            [PathStep::Field(name)] => {
                self.current.headers.joined(name).map(|value| Cow::Owned(Value::Text(value))).ok_or(0)
            }
            _ => Err(1),
        }
    }

    fn find_in_context(&self, part: impl Fn(&RequestContext) -> Value, steps: &[PathStep]) -> Lookup<'a> {
        let part = self.request.message.context.as_ref().map_or(Value::Null, |context| part(context));
        follow(&part, steps).map(|value| Cow::Owned(value.clone()))
    }

    /// The attributes of the event that was received.
    fn find_in_event(&self, steps: &[PathStep]) -> Lookup<'a> {
        let event = self.request.message.event.as_ref();
        let attributes = Value::Record(event.map(|event| event.attributes().clone()).unwrap_or_default());
        follow(&attributes, steps).map(|value| Cow::Owned(value.clone()))
    }

    fn find_in_envelope(&self, steps: &[PathStep]) -> Lookup<'a> {
        let mut fields = Record::new();
        fields.set("id", Value::Text(self.request.message.id.clone()));
        fields.set("source", Value::Text(self.request.message.source.clone()));
        if let Some(content_type) = &self.current.content_type {
            fields.set("content_type", Value::Text(content_type.clone()));
        }
        if let Some(status) = self.current.status {
            fields.set("status", Value::Int(i64::from(status)));
        }
        let envelope = Value::Record(fields);
        follow(&envelope, steps).map(|value| Cow::Owned(value.clone()))
    }
}

/// A malformed reply is not the caller's fault, and its content is not disclosed to the caller.
fn unreadable_reply(fault: &Fault) -> Fault {
    let position = match (fault.detail("line"), fault.detail("column")) {
        (Some(line), Some(column)) => format!(" (line {line}, column {column})"),
        _ => String::new(),
    };
    Fault::new(Code::Internal, "REPLY_UNREADABLE", format!("the reply of the service cannot be parsed{position}"))
}
