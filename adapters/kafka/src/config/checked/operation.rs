//! Operations of services.

use std::any::Any;
use std::sync::Arc;

use bytes::Bytes;
use crossdock_cloudevents::Envelope;
use crossdock_contract::{CallType, Contracts};
use crossdock_message::{ByteString, Fault, Message};
use crossdock_ports::{BodyFormat, KeyTemplate, OperationSpec, WriteFormat, known_call};
use crossdock_settings::{Node, Reader, Spanned};

use super::topic;
use crate::config::{Declare, OperationSettings};

/// An operation, as checked.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) topic: String,
    pub(crate) declare: Declare,
    key: Option<KeyTemplate>,
    pub(crate) partition: Option<i32>,
    /// It waits for a reply.
    pub(crate) reply: bool,
    /// The cluster's, unless it waits for a reply.
    pub(super) transactions: Option<String>,
    pub(crate) body: WriteFormat,
    pub(crate) call: Option<Arc<CallType>>,
    pub(crate) subject: Option<Subject>,
    pub(crate) envelope: Envelope,
}

/// The schema of an operation's values.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) name: String,
    /// The newest one if `None`.
    pub(crate) version: Option<u32>,
    /// The full name of a protobuf message; the first one of the schema if `None`.
    pub(crate) message: Option<String>,
}

impl Operation {
    pub(super) fn read(
        settings: &OperationSettings,
        format: BodyFormat,
        contracts: &Contracts,
        node: &Node,
        reader: &mut Reader<'_>,
    ) -> Option<Self> {
        let call = match &settings.r#as {
            None => None,
            Some(name) => Some(Arc::new(known_call(name, contracts, reader)?)),
        };
        let subject = match &settings.subject {
            Some(subject) => Some(Subject::read(subject, settings, node, reader)?),
            None => {
                if let Some((name, node)) = first_of(node, &["version", "message"]) {
                    reader.error("subject", node.span, format!("`{name}` needs a subject"), "add `subject: NAME`");
                    return None;
                }
                None
            }
        };
        let format = settings.format.unwrap_or(format);
        let body = format.to_write_format(settings.root.as_ref(), call.is_some(), node.span, reader)?;
        let key = match &settings.key {
            None => None,
            Some(key) => Some(KeyTemplate::read(key, reader)?),
        };
        if settings.partition.is_some_and(|partition| partition < 0) {
            let span = node.get("partition").map_or(node.span, |node| node.span);
            reader.error("number", span, "`partition` must be at least 0", "");
            return None;
        }
        let (topic, partition) = (topic(&settings.topic, reader)?, settings.partition);
        Some(Self {
            topic,
            declare: settings.declare,
            key,
            partition,
            reply: settings.reply,
            transactions: None,
            body,
            call,
            subject,
            envelope: settings.envelope,
        })
    }

    /// The key of the record for a message; that of its source by default.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for a field that is missing or not a scalar.
    pub(crate) fn key(&self, message: &Message) -> Result<Option<Bytes>, Fault> {
        match &self.key {
            Some(key) => key.evaluate(message).map(|key| Some(key.into_bytes())),
            None => Ok(message.key.clone()),
        }
    }
}

impl OperationSpec for Operation {
    fn params(&self) -> &[ByteString] {
        self.key.as_ref().map_or(&[], KeyTemplate::fields)
    }

    fn encodes_late(&self) -> bool {
        // The key's fields stay in the value, but only the registry knows the type of a value.
        self.subject.is_some()
    }

    fn body(&self) -> Option<&WriteFormat> {
        Some(&self.body)
    }

    fn sends_events(&self) -> bool {
        self.envelope != Envelope::Plain
    }

    fn call_type(&self) -> Option<&Arc<CallType>> {
        self.call.as_ref()
    }

    fn is_idempotent(&self) -> bool {
        false
    }

    fn transactions(&self) -> Option<&str> {
        self.transactions.as_deref()
    }

    fn describe(&self) -> String {
        let kind = if self.reply { "request" } else { "record" };
        match &self.key {
            Some(key) => format!("{kind} to topic {} with key `{}`", self.topic, key.as_str()),
            None => format!("{kind} to topic {}", self.topic),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Subject {
    /// The subject of an operation; `None` if an error was reported.
    fn read(
        subject: &Spanned<String>,
        settings: &OperationSettings,
        node: &Node,
        reader: &mut Reader<'_>,
    ) -> Option<Self> {
        if let Some((name, other)) = first_of(node, &["as", "format", "root"]) {
            let message =
                format!("`{name}` cannot be combined with `subject`, whose schema says how values are written");
            reader.error("subject", other.span, message, format!("remove `{name}` or `subject`"));
            return None;
        }
        if settings.reply {
            let message = "a request cannot be written by the schema of a subject";
            reader.error("subject", subject.span, message, "remove `subject` or `reply`");
            return None;
        }
        if settings.envelope == Envelope::Structured {
            let message = "an event in structured mode is JSON, and cannot be written by the schema of a subject";
            reader.error("subject", subject.span, message, "remove `subject`, or write `envelope: cloudevents`");
            return None;
        }
        if subject.value.is_empty() || settings.version == Some(0) {
            reader.error("subject", subject.span, "a subject needs a name, and a version from 1", "");
            return None;
        }
        let (name, message) = (subject.value.clone(), settings.message.clone());
        Some(Self { name, version: settings.version, message })
    }
}

/// The first of these keys that is there.
fn first_of<'n>(node: &'n Node, names: &[&'static str]) -> Option<(&'static str, &'n Node)> {
    names.iter().find_map(|name| Some((*name, node.get(name)?)))
}
