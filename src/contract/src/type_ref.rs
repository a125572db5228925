//! A type of a contract, with its codecs.

use std::sync::Arc;

use bytes::Bytes;
use crossdock_message::json::{Cursor, JsonError, text_of};
use crossdock_message::{ByteString, Limits, Value};

use crate::codec::{
    CodecError, DEPTH_MAX, Failure, Input, JsonSink, JsonSource, Problem, Sink, ValueSink, ValueSource, WireSink,
    WireSource,
};
use crate::model::{Contract, RecordId, RecordType};

/// How unknown names in JSON are handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownFields {
    /// They are rejected: for requests.
    Refuse,
    /// They are ignored: for replies of services, which may be newer than the contract.
    Ignore,
}

/// A type of a contract.
#[derive(Debug, Clone)]
pub struct TypeRef {
    contract: Arc<Contract>,
    id: RecordId,
}

impl PartialEq for TypeRef {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.contract, &other.contract) && self.id == other.id
    }
}

type CodecResult<T> = Result<T, Box<CodecError>>;

impl TypeRef {
    /// The type of a record.
    #[must_use]
    pub fn new(contract: Arc<Contract>, id: RecordId) -> Self {
        Self { contract, id }
    }

    /// Its full name.
    #[must_use]
    pub fn name(&self) -> &ByteString {
        &self.record().name
    }

    /// The record.
    #[must_use]
    pub fn record(&self) -> &RecordType {
        self.contract.record(self.id)
    }

    /// Its contract.
    #[must_use]
    pub fn contract(&self) -> &Arc<Contract> {
        &self.contract
    }

    /// Its index in its contract.
    #[must_use]
    pub fn id(&self) -> RecordId {
        self.id
    }

    /// Reads protobuf. Strings and bytes share the input.
    ///
    /// # Errors
    /// [`CodecError`] with the field, if the bytes are not of this type or exceed a limit.
    pub fn decode(&self, bytes: &Bytes, limits: &Limits) -> CodecResult<Value> {
        let mut sink = ValueSink::new(&self.contract, limits);
        self.drive_wire(bytes, limits, &mut sink)?;
        Ok(sink.finish())
    }

    /// Writes protobuf.
    ///
    /// # Errors
    /// [`CodecError`] with the field, if the value is not of this type.
    pub fn encode(&self, value: &Value) -> CodecResult<Vec<u8>> {
        let mut out = Vec::with_capacity(256);
        let mut sink = WireSink { contract: &self.contract, out: &mut out };
        self.drive_value(value, &mut sink)?;
        Ok(out)
    }

    /// Reads ProtoJSON.
    ///
    /// # Errors
    /// [`CodecError`] with line, column and field.
    pub fn read_json(&self, bytes: &Bytes, unknown: UnknownFields, limits: &Limits) -> CodecResult<Value> {
        let mut sink = ValueSink::new(&self.contract, limits);
        self.drive_json(bytes, unknown, limits, &mut sink)?;
        Ok(sink.finish())
    }

    /// Writes ProtoJSON.
    ///
    /// # Errors
    /// [`CodecError`] with the field, if the value is not of this type, or JSON cannot represent it.
    pub fn write_json(&self, value: &Value, limits: &Limits) -> CodecResult<Vec<u8>> {
        let mut out = Vec::with_capacity(256);
        let mut sink = JsonSink::new(&self.contract, &mut out, limits);
        self.drive_value(value, &mut sink)?;
        Ok(out)
    }

    /// Converts ProtoJSON to protobuf in one pass.
    ///
    /// # Errors
    /// As [`TypeRef::read_json`].
    pub fn json_to_wire(&self, bytes: &Bytes, unknown: UnknownFields, limits: &Limits) -> CodecResult<Vec<u8>> {
        let mut out = Vec::with_capacity(bytes.len());
        let mut sink = WireSink { contract: &self.contract, out: &mut out };
        self.drive_json(bytes, unknown, limits, &mut sink)?;
        Ok(out)
    }

    /// Converts the ProtoJSON of one field to a protobuf message with only that field.
    ///
    /// # Errors
    /// As [`TypeRef::read_json`]; also if there is no such field.
    pub fn field_to_wire(&self, name: &str, bytes: &Bytes, limits: &Limits) -> CodecResult<Vec<u8>> {
        let mut out = Vec::with_capacity(bytes.len());
        let mut sink = WireSink { contract: &self.contract, out: &mut out };
        Self::read_text(bytes, limits, |cursor| {
            JsonSource::new(&self.contract, cursor, &mut sink, limits, false).field_document(self.record(), name)
        })?;
        Ok(out)
    }

    /// Converts protobuf to ProtoJSON in one pass.
    ///
    /// # Errors
    /// As [`TypeRef::decode`] and [`TypeRef::write_json`].
    pub fn wire_to_json(&self, bytes: &Bytes, limits: &Limits) -> CodecResult<Vec<u8>> {
        let mut out = Vec::with_capacity(bytes.len() * 2);
        let mut sink = JsonSink::new(&self.contract, &mut out, limits);
        self.drive_wire(bytes, limits, &mut sink)?;
        Ok(out)
    }

    /// Reads protobuf and writes it again: in the order of the contract, and varints in their shortest form.
    ///
    /// # Errors
    /// As [`TypeRef::decode`].
    pub fn normalize(&self, bytes: &Bytes, limits: &Limits) -> CodecResult<Vec<u8>> {
        let mut out = Vec::with_capacity(bytes.len());
        let mut sink = WireSink { contract: &self.contract, out: &mut out };
        self.drive_wire(bytes, limits, &mut sink)?;
        Ok(out)
    }

    fn drive_wire<S: Sink>(&self, bytes: &Bytes, limits: &Limits, sink: &mut S) -> CodecResult<()> {
        let mut source = WireSource::new(&self.contract, sink, limits);
        let result = source.document(self.id, Input { owner: bytes, bytes }, DEPTH_MAX);
        result.map_err(|failure| Box::new(failure.into_error(None)))
    }

    fn drive_value<S: Sink>(&self, value: &Value, sink: &mut S) -> CodecResult<()> {
        let result = ValueSource::new(&self.contract, sink).document(self.id, value);
        result.map_err(|failure| Box::new(failure.into_error(None)))
    }

    fn drive_json<S: Sink>(
        &self,
        bytes: &Bytes,
        unknown: UnknownFields,
        limits: &Limits,
        sink: &mut S,
    ) -> CodecResult<()> {
        let ignore = unknown == UnknownFields::Ignore;
        Self::read_text(bytes, limits, |cursor| {
            JsonSource::new(&self.contract, cursor, sink, limits, ignore).document(self.id)
        })
    }

    /// Reads a JSON text; errors get the position of the cursor.
    fn read_text(
        bytes: &Bytes,
        limits: &Limits,
        read: impl FnOnce(&mut Cursor<'_>) -> Result<(), Box<Failure>>,
    ) -> CodecResult<()> {
        let located = |problem: Problem, error: &JsonError| CodecError {
            problem,
            path: String::new(),
            position: Some((error.line, error.column)),
        };
        let text = text_of(bytes).map_err(|error| Box::new(located(Problem::Json(error.kind.clone()), &error)))?;
        let mut cursor = Cursor::new(&text, limits);
        read(&mut cursor).map_err(|failure: Box<Failure>| {
            let position = JsonError::at(bytes, cursor.offset(), crossdock_message::json::JsonErrorKind::Trailing);
            Box::new(failure.into_error(Some((position.line, position.column))))
        })
    }
}
