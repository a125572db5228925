//! Messages.

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use crossdock_message::{
    Body, BodyType, ByteString, Chunks, ConfirmedSends, Event, Format, Headers, Limits, Message, Record,
    RequestContext, Time, TlsIdentity, TraceContext, Value, json,
};
use prost::Message as _;

use crate::{Error, wire};

/// A message that was stored.
#[derive(Debug)]
pub struct StoredMessage {
    /// The entry that accepted it: its address.
    pub entry: String,
    inner: wire::Stored,
}

/// A message as bytes. `entry` is the address of the entry that accepted it.
///
/// # Errors
/// The body is a stream, or a parameter cannot be written as JSON.
pub fn store(entry: &str, message: &Message) -> Result<Bytes, Error> {
    let stored = wire::Stored { entry: entry.to_owned(), ..to_wire(message)? };
    Ok(stored.encode_to_vec().into())
}

/// A digest of what a message says: address, parameters, listed headers, media type and body, but neither its id, its time and its
/// other attributes nor its context. It is the same on all instances.
///
/// # Errors
/// See [`store`].
pub fn digest(entry: &str, message: &Message) -> Result<u64, Error> {
    let content = wire::Stored {
        entry: entry.to_owned(),
        id: String::new(),
        source: String::new(),
        context: None,
        key: None,
        time: None,
        event: None,
        ..to_wire(message)?
    };
    let digest = ring::digest::digest(&ring::digest::SHA256, &content.encode_to_vec());
    let first = digest.as_ref().first_chunk().copied().unwrap_or_default();
    Ok(u64::from_be_bytes(first))
}

/// Reads the bytes of a message.
///
/// # Errors
/// They are damaged.
pub fn restore(bytes: Bytes) -> Result<StoredMessage, Error> {
    let mut inner = wire::Stored::decode(bytes).map_err(|_| Error::Unreadable)?;
    Ok(StoredMessage { entry: std::mem::take(&mut inner.entry), inner })
}

impl StoredMessage {
    /// Its id, for operators.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.inner.id
    }

    /// The media type of its body.
    #[must_use]
    pub fn content_type(&self) -> Option<&str> {
        self.inner.content_type.as_deref()
    }

    /// Its headers.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.inner.headers.iter().map(|pair| (&*pair.name, &*pair.value))
    }

    /// Its body, as it was received.
    #[must_use]
    pub fn body(&self) -> Bytes {
        self.inner.body.as_ref().map(|body| body.bytes.clone()).unwrap_or_default()
    }

    /// The message, whose body is of this type if it has one. `sends` are those of its earlier attempts on this instance.
    ///
    /// # Errors
    /// Something in it is damaged, or its body is of another type.
    pub fn into_message(
        self,
        of_type: Option<Arc<dyn BodyType>>,
        sends: Option<Arc<ConfirmedSends>>,
    ) -> Result<Message, Error> {
        let context = self.inner.context.clone().map(|context| read_context(context, sends)).transpose()?;
        let mut message = from_wire(self.inner, of_type)?;
        message.context = context.map(Arc::new);
        Ok(message)
    }
}

pub(crate) fn to_wire(message: &Message) -> Result<wire::Stored, Error> {
    Ok(wire::Stored {
        entry: String::new(),
        id: message.id.to_string(),
        source: message.source.to_string(),
        context: message.context.as_deref().map(context_of).transpose()?,
        content_type: message.content_type.as_deref().map(str::to_owned),
        status: message.status.map(u32::from),
        headers: pairs_of(&message.headers),
        trailers: pairs_of(&message.trailers),
        params: record_of(&message.params)?,
        query: message.query.as_deref().map(str::to_owned),
        key: message.key.clone(),
        time: message.time.map(|Time { seconds, nanos }| wire::Time { seconds, nanos }),
        event: message.event.as_ref().map(|event| record_of(event.attributes())).transpose()?,
        body: Some(body_of(&message.body)?),
    })
}

pub(crate) fn from_wire(stored: wire::Stored, of_type: Option<Arc<dyn BodyType>>) -> Result<Message, Error> {
    let mut message = Message::new(stored.id.into(), stored.source.into());
    message.content_type = stored.content_type.map(Into::into);
    message.status = stored.status.map(u16::try_from).transpose().map_err(|_| Error::Unreadable)?;
    message.headers = read_pairs(stored.headers)?;
    message.trailers = read_pairs(stored.trailers)?;
    message.params = read_record(&stored.params)?;
    message.query = stored.query.map(Into::into);
    message.key = stored.key;
    message.time = stored.time.map(|wire::Time { seconds, nanos }| Time { seconds, nanos });
    message.event = stored.event.map(|event| read_event(&event)).transpose()?;
    message.body = read_body(stored.body.unwrap_or_default(), of_type)?;
    Ok(message)
}

fn context_of(context: &RequestContext) -> Result<wire::Context, Error> {
    let text = |text: &Option<ByteString>| text.as_deref().map(str::to_owned);
    Ok(wire::Context {
        id: context.id.to_string(),
        peer: context.peer.map(|peer| peer.to_string()),
        tls: context.tls.as_ref().map(|tls| wire::Tls {
            server_name: text(&tls.server_name),
            certificate_sha256: text(&tls.certificate_sha256),
        }),
        principal: text(&context.principal),
        claims: record_of(&context.claims)?,
        traceparent: context.trace.as_ref().map(|trace| trace.parent.to_string()),
        tracestate: context.trace.as_ref().and_then(|trace| text(&trace.state)),
    })
}

fn read_context(context: wire::Context, sends: Option<Arc<ConfirmedSends>>) -> Result<RequestContext, Error> {
    let mut read = RequestContext::new(context.id.into(), Instant::now());
    read.peer = context.peer.map(|peer| peer.parse()).transpose().map_err(|_| Error::Unreadable)?;
    read.tls = context.tls.map(|tls| {
        let (server_name, certificate) = (tls.server_name.map(Into::into), tls.certificate_sha256.map(Into::into));
        Arc::new(TlsIdentity { server_name, certificate_sha256: certificate })
    });
    read.principal = context.principal.map(Into::into);
    read.claims = read_record(&context.claims)?;
    let state = context.tracestate.map(Into::into);
    read.trace = context.traceparent.map(|parent| TraceContext { parent: parent.into(), state });
    read.sends = sends;
    Ok(read)
}

pub(crate) fn pairs_of(headers: &Headers) -> Vec<wire::Pair> {
    headers.iter().map(|(name, value)| wire::Pair { name: name.to_string(), value: value.to_string() }).collect()
}

pub(crate) fn read_pairs(pairs: Vec<wire::Pair>) -> Result<Headers, Error> {
    let mut headers = Headers::new();
    for wire::Pair { name, value } in pairs {
        headers.append(name, value).map_err(|_| Error::Unreadable)?;
    }
    Ok(headers)
}

/// Nothing for an empty record.
fn record_of(record: &Record) -> Result<Bytes, Error> {
    if record.is_empty() {
        return Ok(Bytes::new());
    }
    let written = json::write(&Value::Record(record.clone()));
    written.map(Bytes::from).map_err(|problem| Error::Value(problem.to_string()))
}

fn read_record(bytes: &Bytes) -> Result<Record, Error> {
    if bytes.is_empty() {
        return Ok(Record::new());
    }
    match json::read(bytes, &Limits::default()) {
        Ok(Value::Record(record)) => Ok(record),
        _ => Err(Error::Unreadable),
    }
}

fn read_event(bytes: &Bytes) -> Result<Event, Error> {
    let mut event = Event::default();
    for (name, value) in read_record(bytes)?.iter() {
        event.set(name.clone(), value.clone()).map_err(|_| Error::Unreadable)?;
    }
    Ok(event)
}

const EMPTY: u32 = 0;
const NULL: u32 = 1;

fn number_of(format: Format) -> u32 {
    match format {
        Format::Json => 2,
        Format::Xml => 3,
        Format::Protobuf => 4,
        Format::Avro => 5,
        Format::Raw => 6,
    }
}

fn format_of(number: u32) -> Option<Format> {
    [Format::Json, Format::Xml, Format::Protobuf, Format::Avro, Format::Raw]
        .into_iter()
        .find(|format| number_of(*format) == number)
}

fn body_of(body: &Body) -> Result<wire::Body, Error> {
    Ok(match body {
        Body::Empty => wire::Body { format: EMPTY, ..wire::Body::default() },
        Body::Null => wire::Body { format: NULL, ..wire::Body::default() },
        Body::Raw { chunks, format, of_type, .. } => wire::Body {
            format: number_of(*format),
            bytes: chunks.to_bytes(),
            of_type: of_type.as_ref().map(|of_type| of_type.name().to_owned()),
        },
        Body::Value(_) => return Err(Error::Value("it has not been encoded".to_owned())),
        Body::Stream(_) => return Err(Error::Stream),
    })
}

fn read_body(body: wire::Body, of_type: Option<Arc<dyn BodyType>>) -> Result<Body, Error> {
    let wire::Body { format, bytes, of_type: name } = body;
    let of_type = match name {
        None => None,
        Some(name) => match of_type.filter(|of_type| *of_type.name() == *name) {
            None => return Err(Error::OtherType(name)),
            known => known,
        },
    };
    Ok(match (format, format_of(format)) {
        (EMPTY, _) => Body::Empty,
        (NULL, _) => Body::Null,
        (_, Some(format)) => Body::Raw { chunks: Chunks::from(bytes), format, of_type, decoded: OnceCell::new() },
        (_, None) => return Err(Error::Unreadable),
    })
}
