//! A type as the type of message bodies: reads within limits, and reports faults instead of errors.

use std::sync::Arc;

use bytes::Bytes;
use crossdock_message::{BodyType, ByteString, Code, Fault, Format, Limits, Record, Value};

use crate::codec::{CodecError, Problem};
use crate::model::{Cardinality, Field, HttpRule, Kind, Scalar, WellKnownType};
use crate::type_ref::{TypeRef, UnknownFields};

/// The maximum names of a path: few enough to be nested records.
const PATH_DEPTH_MAX: usize = 32;

/// A type of a contract as the type of message bodies.
#[derive(Debug, Clone)]
pub struct Typed {
    /// The name of the type; `type/field` if only a field is the body.
    name: ByteString,
    type_ref: TypeRef,
    limits: Arc<Limits>,
    /// How unknown names in JSON are handled.
    unknown: UnknownFields,
    /// The index of the field that is the body; `None` if the whole record is.
    body_field: Option<usize>,
}

/// The type of a call.
#[derive(Debug, Clone)]
pub struct CallType {
    /// The contract that declares it, by its name in route files.
    pub contract: ByteString,
    /// Its name in that contract: `pkg.Service/Method` in protobuf.
    pub name: ByteString,
    /// The request.
    pub request: Arc<Typed>,
    /// The reply.
    pub reply: Arc<Typed>,
    /// The request is a stream.
    pub client_streaming: bool,
    /// The reply is a stream.
    pub server_streaming: bool,
    /// Executing it twice has the effect of executing it once, as declared by the contract.
    pub idempotent: bool,
    /// How the contract binds it to HTTP.
    pub http: Vec<HttpRule>,
}

/// A field of a request that is given by the path or the query of its target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Param {
    /// The path of the field: names separated by dots.
    pub path: ByteString,
    /// Its value, or the values of a list.
    pub texts: Vec<ByteString>,
}

/// A field, and the path that leads to it.
#[derive(Debug)]
pub struct FieldPath<'t> {
    /// The field.
    pub field: &'t Field,
    /// It can be written as text, or is a list of such values.
    pub is_plain: bool,
    /// The fields on the path, this one last.
    steps: Vec<&'t Field>,
}

impl FieldPath<'_> {
    /// Whether setting one affects the other: they are the same field, one contains the other, or both are in one oneof.
    fn collides(&self, other: &Self) -> bool {
        let apart = self.steps.iter().zip(&other.steps).find(|(own, others)| own.index != others.index);
        apart.is_none_or(|(own, others)| own.variant_of.is_some() && own.variant_of == others.variant_of)
    }
}

impl Typed {
    /// A type, the handling of unknown names in JSON, and the limits on reading.
    #[must_use]
    pub fn new(type_ref: TypeRef, unknown: UnknownFields, limits: Arc<Limits>) -> Self {
        Self { name: type_ref.name().clone(), type_ref, limits, unknown, body_field: None }
    }

    /// A type that equals only others with the same origin, as types of other origins may have the same name.
    #[must_use]
    pub fn with_origin(mut self, origin: &str) -> Self {
        self.name = format!("{} ({origin})", self.name).into();
        self
    }

    /// The type.
    #[must_use]
    pub fn type_ref(&self) -> &TypeRef {
        &self.type_ref
    }

    /// The type of bodies that consist of one field of the record; `None` if there is no such field.
    #[must_use]
    pub fn field_as_body(&self, name: &str) -> Option<Self> {
        let field = self.type_ref.record().field(name)?;
        let name = format!("{}/{}", self.name, field.name).into();
        Some(Self { name, body_field: Some(usize::from(field.index)), ..self.clone() })
    }

    /// Finds a field by its path: names separated by dots.
    ///
    /// # Errors
    /// The name in the path that is not a field.
    pub fn find<'p>(&self, path: &'p str) -> Result<FieldPath<'_>, &'p str> {
        let contract = self.type_ref.contract();
        let mut record = self.type_ref.record();
        let mut parts = path.split('.').peekable();
        let mut steps = Vec::new();
        while let Some(part) = parts.next() {
            let field = record.field(part).filter(|_| steps.len() < PATH_DEPTH_MAX).ok_or(part)?;
            steps.push(field);
            let inner = match field.kind {
                Kind::Record(id) if !field.is_collection() => Some(contract.record(id)),
                _ => None,
            };
            if parts.peek().is_some() {
                record = inner.filter(|inner| inner.well_known.is_none()).ok_or(part)?;
                continue;
            }
            let has_text = match field.kind {
                Kind::Record(id) => matches!(
                    contract.record(id).well_known,
                    Some(
                        WellKnownType::Time
                            | WellKnownType::Duration
                            | WellKnownType::FieldMask
                            | WellKnownType::Wrapper
                    )
                ),
                _ => true,
            };
            return Ok(FieldPath { field, is_plain: has_text && field.map_key().is_none(), steps });
        }
        Err(path)
    }

    /// Assembles a request in protobuf from a body and the parameters of its target. Parameters override the fields of a body that is the
    /// whole request. Any other field may be set only once, by whichever name.
    ///
    /// # Errors
    /// INVALID_ARGUMENT with the position or field that does not match the type.
    pub fn assemble(
        &self,
        body: Option<(&Bytes, Format)>,
        body_field: Option<&str>,
        params: &[Param],
    ) -> Result<Bytes, Fault> {
        let mut out = match (body, body_field) {
            (None, _) => Vec::new(),
            (Some((bytes, Format::Protobuf)), None) => {
                self.type_ref.normalize(bytes, &self.limits).map_err(|error| self.unreadable(&error))?
            }
            (Some((bytes, Format::Json)), None) => {
                let read = self.type_ref.json_to_wire(bytes, self.unknown, &self.limits);
                read.map_err(|error| self.unreadable(&error))?
            }
            (Some((bytes, Format::Json)), Some(name)) => {
                let read = self.type_ref.field_to_wire(name, bytes, &self.limits);
                read.map_err(|error| self.unreadable(&error))?
            }
            (Some(_), _) => return Err(unsupported_format()),
        };
        let mut set: Vec<FieldPath<'_>> = Vec::with_capacity(params.len() + 1);
        set.extend(body_field.filter(|_| body.is_some()).and_then(|name| self.find(name).ok()));
        for param in params {
            let found = self.find(&param.path).map_err(|part| no_field(part, &param.path))?;
            if set.iter().any(|other| found.collides(other)) {
                let message = format!("`{}` must be set only once, by the path, the query or the body", param.path);
                let fault = Fault::caller(Code::InvalidArgument, "FIELD_TWICE", message);
                return Err(fault.with_detail("field", param.path.clone()));
            }
            let value = self.param_value(param, &found)?;
            set.push(found);
            let written = self.type_ref.encode(&value).map_err(|error| {
                let message = format!("the parameter `{}`: {}", param.path, error.problem);
                Fault::caller(Code::InvalidArgument, "ADDRESS_FIELD", message).with_detail("field", param.path.clone())
            })?;
            // Protobuf merges records that occur several times.
            out.extend_from_slice(&written);
        }
        Ok(out.into())
    }

    /// Records nested along the path of a parameter, with its value.
    fn param_value(&self, param: &Param, found: &FieldPath<'_>) -> Result<Value, Fault> {
        let one = |text: &ByteString| match (self.scalar_of(found.field), &**text) {
            (Some(Scalar::Bool), "true") => Value::Bool(true),
            (Some(Scalar::Bool), "false") => Value::Bool(false),
            _ => Value::Text(text.clone()),
        };
        let many = found.field.cardinality == Cardinality::Repeated;
        let value = match param.texts.as_slice() {
            texts if many => Value::List(texts.iter().map(one).collect()),
            [text] if found.is_plain => one(text),
            [_] => return Err(no_field(&param.path, &param.path)),
            _ => {
                let message = format!("the parameter `{}` must occur only once", param.path);
                return Err(Fault::caller(Code::InvalidArgument, "FIELD_TWICE", message));
            }
        };
        let nested =
            |value: Value, name: &str| Value::Record(Record::from_unique(vec![(ByteString::from(name), value)]));
        Ok(param.path.rsplit('.').fold(value, nested))
    }

    /// The scalar type of a field or of its wrapper.
    fn scalar_of(&self, field: &Field) -> Option<Scalar> {
        match field.kind {
            Kind::Scalar(scalar) => Some(scalar),
            Kind::Record(id) => {
                let record = self.type_ref.contract().record(id);
                match record.fields.first().map(|inner| inner.kind) {
                    Some(Kind::Scalar(scalar)) if record.well_known == Some(WellKnownType::Wrapper) => Some(scalar),
                    _ => None,
                }
            }
            Kind::Enum(_) => None,
        }
    }

    fn unreadable(&self, error: &CodecError) -> Fault {
        error.unreadable(self.type_ref.name())
    }

    fn unwritable(&self, error: &CodecError) -> Fault {
        error.unwritable(self.type_ref.name())
    }

    /// Writes the JSON of the field that is the body.
    fn body_field_json(&self, index: usize, value: &Value) -> Result<Bytes, Fault> {
        let field = &self.type_ref.record().fields[index];
        let empty = || match field.cardinality {
            Cardinality::Repeated => Bytes::from_static(b"[]"),
            Cardinality::Map(_) => Bytes::from_static(b"{}"),
            _ => Bytes::from_static(b"null"),
        };
        let Some(inner) = value.get(&field.name) else { return Ok(empty()) };
        let record = Value::Record(Record::from_unique(vec![(field.name.clone(), inner.clone())]));
        let written = self.type_ref.write_json(&record, &self.limits).map_err(|error| self.unwritable(&error))?;
        // The codec omits the default of a field without presence, but a body needs it.
        if written == b"{}" {
            let plain = crossdock_message::json::write(inner).map(Bytes::from);
            return plain
                .map_err(|_| Fault::new(Code::Internal, "BODY_UNWRITABLE", "JSON cannot represent the response"));
        }
        let content = 1 + field.json.key.len()..written.len() - 1;
        Ok(Bytes::from(written).slice(content))
    }
}

fn no_field(part: &str, path: &ByteString) -> Fault {
    let message = format!("`{path}` cannot be a parameter: there is no single-valued field `{part}`");
    Fault::caller(Code::InvalidArgument, "ADDRESS_FIELD", message).with_detail("field", path.clone())
}

fn unsupported_format() -> Fault {
    let message = "the body must be JSON (application/json)";
    Fault::caller(Code::InvalidArgument, "BODY_FORMAT", message).with_http_status(415)
}

impl BodyType for Typed {
    fn name(&self) -> &str {
        &self.name
    }

    fn read(&self, bytes: &Bytes, format: Format) -> Result<Value, Fault> {
        let read = match format {
            Format::Protobuf => self.type_ref.decode(bytes, &self.limits),
            Format::Json => self.type_ref.read_json(bytes, self.unknown, &self.limits),
            Format::Xml | Format::Avro | Format::Raw => return Err(unsupported_format()),
        };
        read.map_err(|error| self.unreadable(&error))
    }

    fn write(&self, value: &Value, format: Format) -> Result<Bytes, Fault> {
        let written = match (format, self.body_field) {
            (Format::Protobuf, _) => self.type_ref.encode(value),
            (Format::Json, Some(index)) => {
                // By way of protobuf, which rejects values of other types.
                let wire = self.type_ref.encode(value).map_err(|error| self.unwritable(&error))?;
                return self.body_field_json(index, &self.read(&wire.into(), Format::Protobuf)?);
            }
            (Format::Json, None) => self.type_ref.write_json(value, &self.limits),
            (Format::Xml | Format::Avro | Format::Raw, _) => return Err(unsupported_format()),
        };
        written.map(Bytes::from).map_err(|error| self.unwritable(&error))
    }

    fn recode(&self, bytes: &Bytes, from: Format, to: Format) -> Result<Bytes, Fault> {
        let recoded = match (from, to, self.body_field) {
            (Format::Protobuf, Format::Json, None) => {
                return self.type_ref.wire_to_json(bytes, &self.limits).map(Bytes::from).map_err(|error| {
                    // The sender is to blame for malformed bytes, but not for values that JSON cannot represent.
                    match error.problem {
                        Problem::Unwritable(_) | Problem::AnyType(_) => self.unwritable(&error),
                        _ => self.unreadable(&error),
                    }
                });
            }
            (Format::Protobuf, Format::Json, Some(index)) => {
                return self.body_field_json(index, &self.read(bytes, Format::Protobuf)?);
            }
            (Format::Json, Format::Protobuf, _) => self.type_ref.json_to_wire(bytes, self.unknown, &self.limits),
            (from, to, _) if from == to => return Ok(bytes.clone()),
            _ => return Err(unsupported_format()),
        };
        recoded.map(Bytes::from).map_err(|error| self.unreadable(&error))
    }
}
