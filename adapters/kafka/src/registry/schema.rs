//! Schemas as the registry defines them, and the types that are compiled from them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use crossdock_contract::{AvroType, Contract, TypeRef, Typed, UnknownFields};
use crossdock_message::{BodyType, Limits};
use crossdock_proto::{Files, compile};
use serde_json::Value as Json;

/// The name of the file that a protobuf schema without a name is.
const FILE: &str = "schema.proto";

/// A schema as text.
#[derive(Debug)]
pub(super) struct Definition {
    /// By which others refer to it; empty for the schema itself.
    pub(super) name: String,
    kind: Kind,
    pub(super) text: String,
    pub(super) references: Vec<Reference>,
}

/// A reference to another schema.
#[derive(Debug)]
pub(super) struct Reference {
    pub(super) name: String,
    pub(super) subject: String,
    pub(super) version: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Avro,
    Protobuf,
    Json,
}

/// A schema that values are read and written by.
pub(super) enum Schema {
    Avro(Arc<AvroType>),
    Protobuf(ProtobufFile),
    /// A JSON Schema. The value is JSON whatever it says, and its sender has checked it.
    Json,
}

/// A `.proto` file.
pub(super) struct ProtobufFile {
    contract: Arc<Contract>,
    limits: Arc<Limits>,
    /// Types that were used, by the position of their message.
    types: Mutex<HashMap<Vec<usize>, Arc<dyn BodyType>>>,
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Avro(of_type) => write!(f, "Schema of {}", of_type.name()),
            Self::Protobuf(_) => f.write_str("Schema of protobuf"),
            Self::Json => f.write_str("Schema of JSON"),
        }
    }
}

impl Definition {
    /// Reads the answer of a registry.
    ///
    /// # Errors
    /// What it lacks.
    pub(super) fn read(name: &str, answer: &Json) -> Result<Self, String> {
        let kind = match answer.get("schemaType").and_then(Json::as_str) {
            None | Some("AVRO") => Kind::Avro,
            Some("PROTOBUF") => Kind::Protobuf,
            Some("JSON") => Kind::Json,
            Some(other) => {
                return Err(format!("schemas of type {other} are not supported: AVRO, PROTOBUF and JSON are"));
            }
        };
        let text = answer.get("schema").and_then(Json::as_str).ok_or("the registry's answer has no `schema`")?;
        let references = answer.get("references").and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
        let references = references.iter().map(|reference| {
            let text = |key| reference.get(key).and_then(Json::as_str).map(str::to_owned);
            let version = reference.get("version").and_then(Json::as_u64);
            Some(Reference { name: text("name")?, subject: text("subject")?, version: version? })
        });
        let references = references.collect::<Option<_>>().ok_or("a reference lacks its name, subject or version")?;
        Ok(Self { name: name.to_owned(), kind, text: text.to_owned(), references })
    }
}

impl Schema {
    /// Compiles a schema with those that it refers to. `origin` says where it comes from.
    ///
    /// # Errors
    /// Why it is invalid.
    pub(super) fn compile(
        root: &Definition,
        others: &[Definition],
        origin: &str,
        limits: Arc<Limits>,
    ) -> Result<Self, String> {
        if let Some(other) = others.iter().find(|other| other.kind != root.kind) {
            return Err(format!("it refers to `{}`, which is of another type", other.name));
        }
        match root.kind {
            Kind::Json => Ok(Self::Json),
            Kind::Avro => {
                let others: Vec<&str> = others.iter().map(|other| other.text.as_str()).collect();
                Ok(Self::Avro(Arc::new(AvroType::parse(&root.text, &others, origin, limits)?)))
            }
            Kind::Protobuf => {
                let contract = compile(&[FILE], &Sources { root, others }).map_err(|error| error.to_string())?;
                Ok(Self::Protobuf(ProtobufFile { contract: Arc::new(contract), limits, types: Mutex::default() }))
            }
        }
    }
}

/// The files of a schema.
struct Sources<'s> {
    root: &'s Definition,
    others: &'s [Definition],
}

impl Files for Sources<'_> {
    fn read(&self, name: &str) -> Result<Option<Bytes>, String> {
        let text = match name {
            FILE => Some(&self.root.text),
            name => self.others.iter().find(|other| other.name == name).map(|other| &other.text),
        };
        Ok(text.map(|text| Bytes::copy_from_slice(text.as_bytes())))
    }
}

impl ProtobufFile {
    /// The message at a position.
    pub(super) fn message_at(&self, path: &[usize]) -> Option<Arc<dyn BodyType>> {
        let mut types = self.types.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = types.get(path) {
            return Some(Arc::clone(known));
        }
        // There are at most as many as the file has messages.
        let id = self.contract.message_at(FILE, path)?;
        let type_ref = TypeRef::new(Arc::clone(&self.contract), id);
        let of_type: Arc<dyn BodyType> =
            Arc::new(Typed::new(type_ref, UnknownFields::Refuse, Arc::clone(&self.limits)));
        types.insert(path.to_vec(), Arc::clone(&of_type));
        Some(of_type)
    }

    /// A message by its full name, with its position; the first one without a name.
    pub(super) fn message(&self, name: Option<&str>) -> Option<(Vec<usize>, Arc<dyn BodyType>)> {
        let path = match name {
            Some(name) => self.contract.position_of(FILE, name)?,
            None => vec![0],
        };
        let of_type = self.message_at(&path)?;
        Some((path, of_type))
    }
}

#[cfg(test)]
mod tests {
    use crossdock_message::Format;
    use serde_json::json;

    use super::*;

    fn compile(answers: &[(&str, Json)]) -> Result<Schema, String> {
        let mut definitions: Vec<_> =
            answers.iter().map(|(name, answer)| Definition::read(name, answer).expect("a definition")).collect();
        let root = definitions.remove(0);
        Schema::compile(&root, &definitions, "test", Arc::default())
    }

    #[test]
    fn messages_are_found_by_their_positions() {
        let proto = r#"syntax = "proto3"; package shop; import "geo.proto";
            message Order { map<string, string> tags = 1; message Line { string sku = 1; } repeated Line lines = 2; geo.Place to = 3; }
            message Note { string text = 1; }"#;
        let geo = r#"syntax = "proto3"; package geo; message Place { string city = 1; }"#;
        let answer = |text: &str| json!({ "schemaType": "PROTOBUF", "schema": text });
        let Ok(Schema::Protobuf(file)) = compile(&[("", answer(proto)), ("geo.proto", answer(geo))]) else {
            panic!("a protobuf schema")
        };
        for (name, path) in [("shop.Order", vec![0]), ("shop.Order.Line", vec![0, 0]), ("shop.Note", vec![1])] {
            let (found, of_type) = file.message(Some(name)).expect(name);
            assert_eq!((found, of_type.name()), (path.clone(), name));
            assert_eq!(file.message_at(&path).expect("the same").name(), name);
        }
        assert_eq!(file.message(None).expect("the first").0, [0]);
        assert!(file.message(Some("geo.Place")).is_none(), "a message of another file");
        for path in [&[][..], &[2], &[0, 1], &[0, 0, 0]] {
            assert!(file.message_at(path).is_none(), "{path:?}");
        }
    }

    #[test]
    fn definitions_are_read_from_answers() {
        let avro = json!({ "schema": "{\"type\":\"record\",\"name\":\"a.R\",\"fields\":[{\"name\":\"e\",\"type\":\"b.E\"}]}",
            "references": [{ "name": "b.E", "subject": "e-value", "version": 2 }] });
        let definition = Definition::read("", &avro).expect("a definition");
        assert_eq!((&*definition.references[0].subject, definition.references[0].version), ("e-value", 2));
        let enumeration = json!({ "schema": "{\"type\":\"enum\",\"name\":\"b.E\",\"symbols\":[\"X\"]}" });
        let Ok(Schema::Avro(of_type)) = compile(&[("", avro), ("b.E", enumeration)]) else { panic!("an Avro schema") };
        let written = of_type.recode(&Bytes::from_static(b"{\"e\":\"X\"}"), Format::Json, Format::Avro);
        assert_eq!(&written.expect("valid")[..], [0]);
        for (answer, problem) in [
            (json!({}), "no `schema`"),
            (json!({ "schema": "", "schemaType": "XML" }), "XML"),
            (json!({ "schema": "", "references": [{ "name": "x" }] }), "lacks"),
        ] {
            let found = Definition::read("", &answer).expect_err("not a definition");
            assert!(found.contains(problem), "{found}");
        }
    }
}
