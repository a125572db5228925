//! One type of a contract, with its codecs.

use std::sync::Arc;

use bytes::Bytes;
use crossdock_message::json::{Cursor, JsonError, text_of};
use crossdock_message::{ByteString, Limits, Value};

use crate::codec::{
    CodecError, DEPTH_MAX, Failure, Input, JsonSink, JsonSource, Problem, Sink, ValueSink, ValueSource, WireSink,
    WireSource,
};
use crate::model::{Contract, RecordId, RecordType};

/// What becomes of names in JSON that the contract does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownFields {
    /// They are refused: for requests.
    Refuse,
    /// They are passed over: for replies of services, which may be newer than the contract.
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

type Coded<T> = Result<T, Box<CodecError>>;

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

    /// Its place in its contract.
    #[must_use]
    pub fn id(&self) -> RecordId {
        self.id
    }

    /// Reads protobuf. Text and bytes share the input.
    ///
    /// # Errors
    /// [`CodecError`] with the field where the bytes are not of this type or pass a limit.
    pub fn decode(&self, bytes: &Bytes, limits: &Limits) -> Coded<Value> {
        let mut sink = ValueSink::new(&self.contract, limits);
        self.drive_wire(bytes, limits, &mut sink)?;
        Ok(sink.finish())
    }

    /// Writes protobuf.
    ///
    /// # Errors
    /// [`CodecError`] with the field where the value is not of this type.
    pub fn encode(&self, value: &Value) -> Coded<Vec<u8>> {
        let mut out = Vec::with_capacity(256);
        let mut sink = WireSink { contract: &self.contract, out: &mut out };
        self.drive_value(value, &mut sink)?;
        Ok(out)
    }

    /// Reads ProtoJSON.
    ///
    /// # Errors
    /// [`CodecError`] with line, column and field.
    pub fn read_json(&self, bytes: &Bytes, unknown: UnknownFields, limits: &Limits) -> Coded<Value> {
        let mut sink = ValueSink::new(&self.contract, limits);
        self.drive_json(bytes, unknown, limits, &mut sink)?;
        Ok(sink.finish())
    }

    /// Writes ProtoJSON.
    ///
    /// # Errors
    /// [`CodecError`] with the field where the value is not of this type, or where JSON cannot say it.
    pub fn write_json(&self, value: &Value, limits: &Limits) -> Coded<Vec<u8>> {
        let mut out = Vec::with_capacity(256);
        let mut sink = JsonSink::new(&self.contract, &mut out, limits);
        self.drive_value(value, &mut sink)?;
        Ok(out)
    }

    /// ProtoJSON to protobuf, in one pass.
    ///
    /// # Errors
    /// As [`TypeRef::read_json`].
    pub fn json_to_wire(&self, bytes: &Bytes, unknown: UnknownFields, limits: &Limits) -> Coded<Vec<u8>> {
        let mut out = Vec::with_capacity(bytes.len());
        let mut sink = WireSink { contract: &self.contract, out: &mut out };
        self.drive_json(bytes, unknown, limits, &mut sink)?;
        Ok(out)
    }

    /// The value of one field in ProtoJSON to a message in protobuf that has only this field.
    ///
    /// # Errors
    /// As [`TypeRef::read_json`]; also where there is no such field.
    pub fn field_to_wire(&self, name: &str, bytes: &Bytes, limits: &Limits) -> Coded<Vec<u8>> {
        let mut out = Vec::with_capacity(bytes.len());
        let mut sink = WireSink { contract: &self.contract, out: &mut out };
        Self::read_text(bytes, limits, |cursor| {
            JsonSource::new(&self.contract, cursor, &mut sink, limits, false).lone_field(self.record(), name)
        })?;
        Ok(out)
    }

    /// Protobuf to ProtoJSON, in one pass.
    ///
    /// # Errors
    /// As [`TypeRef::decode`] and [`TypeRef::write_json`].
    pub fn wire_to_json(&self, bytes: &Bytes, limits: &Limits) -> Coded<Vec<u8>> {
        let mut out = Vec::with_capacity(bytes.len() * 2);
        let mut sink = JsonSink::new(&self.contract, &mut out, limits);
        self.drive_wire(bytes, limits, &mut sink)?;
        Ok(out)
    }

    /// Protobuf read and written again: in the order of the contract, numbers in their shortest form.
    ///
    /// # Errors
    /// As [`TypeRef::decode`].
    pub fn normalize(&self, bytes: &Bytes, limits: &Limits) -> Coded<Vec<u8>> {
        let mut out = Vec::with_capacity(bytes.len());
        let mut sink = WireSink { contract: &self.contract, out: &mut out };
        self.drive_wire(bytes, limits, &mut sink)?;
        Ok(out)
    }

    fn drive_wire<S: Sink>(&self, bytes: &Bytes, limits: &Limits, sink: &mut S) -> Coded<()> {
        let mut source = WireSource::new(&self.contract, sink, limits);
        let done = source.document(self.id, Input { owner: bytes, bytes }, DEPTH_MAX);
        done.map_err(|failure| Box::new(failure.told(None)))
    }

    fn drive_value<S: Sink>(&self, value: &Value, sink: &mut S) -> Coded<()> {
        let done = ValueSource::new(&self.contract, sink).document(self.id, value);
        done.map_err(|failure| Box::new(failure.told(None)))
    }

    fn drive_json<S: Sink>(&self, bytes: &Bytes, unknown: UnknownFields, limits: &Limits, sink: &mut S) -> Coded<()> {
        let ignore = unknown == UnknownFields::Ignore;
        Self::read_text(bytes, limits, |cursor| {
            JsonSource::new(&self.contract, cursor, sink, limits, ignore).document(self.id)
        })
    }

    /// Reads a text; errors get the place where the cursor stands.
    fn read_text(
        bytes: &Bytes,
        limits: &Limits,
        read: impl FnOnce(&mut Cursor<'_>) -> Result<(), Box<Failure>>,
    ) -> Coded<()> {
        let located = |problem: Problem, error: &JsonError| CodecError {
            problem,
            path: String::new(),
            place: Some((error.line, error.column)),
        };
        let text = text_of(bytes).map_err(|error| Box::new(located(Problem::Json(error.kind.clone()), &error)))?;
        let mut cursor = Cursor::new(&text, limits);
        read(&mut cursor).map_err(|failure: Box<Failure>| {
            let place = JsonError::at(bytes, cursor.offset(), crossdock_message::json::JsonErrorKind::Trailing);
            Box::new(failure.told(Some((place.line, place.column))))
        })
    }
}
