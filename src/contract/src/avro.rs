//! Types of Apache Avro (specification 1.12), and the codec that they guide.
//!
//! Avro's types nest freely: lists of lists, unions within maps, documents that are no record. They are therefore read into values directly, without the
//! type model of contracts. Values are written by the schema of their receiver, and read by that of their writer; nothing is resolved between the two.
//!
//! | Avro | value |
//! | --- | --- |
//! | `null`, `boolean`, `string`, `bytes`, `array` | null, boolean, text, bytes, list |
//! | `int`, `long`; `float`, `double` | integer; float, double with the same bits |
//! | `fixed` | bytes |
//! | `enum` | its symbol as text |
//! | `record`, `map` | record |
//! | union of `null` and one type | null, or the value |
//! | other unions | null, or a record with one field, named after the branch as in Avro's JSON encoding |
//! | `decimal`, `big-decimal` | number with all its digits |
//! | `timestamp-millis`, `-micros`, `-nanos` | timestamp |
//! | `date`, `time-*`, `local-timestamp-*` | text as in ISO 8601: `2026-01-31`, `06:00:00.000`, `2026-01-31T06:00:00` |
//! | `uuid` | text |
//! | `duration` | record of `months`, `days` and `millis` |

mod calendar;
mod read;
mod schema;
#[cfg(test)]
mod tests;
mod write;

use std::sync::Arc;

use bytes::Bytes;
use crossdock_message::{BodyType, ByteString, Code, Fault, Format, Limits, Value, json};

use self::schema::Schema;
use crate::codec::{CodecError, Failure, Outcome, Problem};

/// A type of Avro as the type of bodies, in Avro's binary encoding and in JSON.
#[derive(Debug)]
pub struct AvroType {
    /// With its origin, as other origins may have the same name for another type.
    identity: ByteString,
    schema: Schema,
    limits: Arc<Limits>,
}

impl AvroType {
    /// Reads a schema. It may name types that `references` define, which are schemas as well. `origin` says where it comes from: types are the same if
    /// their names and origins are.
    ///
    /// # Errors
    /// Why the schema is invalid or exceeds a limit.
    pub fn parse(schema: &str, references: &[&str], origin: &str, limits: Arc<Limits>) -> Result<Self, String> {
        let schema = Schema::parse(schema, references)?;
        Ok(Self { identity: format!("{} ({origin})", schema.name()).into(), schema, limits })
    }

    fn decode(&self, bytes: &Bytes) -> Result<Value, Fault> {
        read::read(&self.schema, bytes, &self.limits)
            .map_err(|failure| failure.into_error(None).unreadable(self.schema.name()))
    }

    fn encode(&self, value: &Value) -> Result<Bytes, Fault> {
        write::write(&self.schema, value, &self.limits).map(Bytes::from).map_err(|failure| self.unwritable(*failure))
    }

    /// A value of JSON, as it is written.
    fn parse_json(&self, bytes: &Bytes) -> Result<Value, Fault> {
        json::read(bytes, &self.limits).map_err(|error| {
            let position = Some((error.line, error.column));
            let error = CodecError { problem: Problem::Json(error.kind), path: String::new(), position };
            error.unreadable(self.schema.name())
        })
    }

    fn write_json(&self, value: &Value) -> Result<Bytes, Fault> {
        // The names of the schema can be far longer than what stands for them in Avro.
        let len_max = self.limits.written_len;
        if value.written_len(len_max) > len_max {
            return Err(self.unwritable(*failure(format!("it has more than {len_max} bytes in JSON"))));
        }
        let written = json::write(value).map(Bytes::from);
        written.map_err(|error| self.unwritable(*failure(error.to_string())))
    }

    fn unwritable(&self, failure: Failure) -> Fault {
        failure.into_error(None).unwritable(self.schema.name())
    }
}

/// The failure of a value that is not of its type.
#[expect(clippy::unnecessary_box_returns, reason = "failures are rare, and boxing them keeps results small")]
fn failure(problem: impl Into<String>) -> Box<Failure> {
    Failure::of(Problem::Avro(problem.into()))
}

fn fail<T>(problem: impl Into<String>) -> Outcome<T> {
    Err(failure(problem))
}

impl BodyType for AvroType {
    fn name(&self) -> &str {
        &self.identity
    }

    fn read(&self, bytes: &Bytes, format: Format) -> Result<Value, Fault> {
        match format {
            Format::Avro => self.decode(bytes),
            // With the types of the schema.
            Format::Json => self.decode(&self.encode(&self.parse_json(bytes)?)?),
            other => Err(unsupported(other)),
        }
    }

    fn write(&self, value: &Value, format: Format) -> Result<Bytes, Fault> {
        match format {
            Format::Avro => self.encode(value),
            // By way of Avro, which rejects values of other types.
            Format::Json => self.write_json(&self.decode(&self.encode(value)?)?),
            other => Err(unsupported(other)),
        }
    }

    fn recode(&self, bytes: &Bytes, from: Format, to: Format) -> Result<Bytes, Fault> {
        match (from, to) {
            (from, to) if from == to => Ok(bytes.clone()),
            (Format::Avro, Format::Json) => self.write_json(&self.decode(bytes)?),
            (Format::Json, Format::Avro) => self.encode(&self.parse_json(bytes)?),
            (Format::Avro | Format::Json, other) | (other, _) => Err(unsupported(other)),
        }
    }
}

fn unsupported(format: Format) -> Fault {
    let message = format!("the body must be JSON (application/json), not {}", format.name());
    Fault::caller(Code::InvalidArgument, "BODY_FORMAT", message).with_http_status(415)
}
