//! Schemas as the registry defines them, and the types that are compiled from them.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use crossdock_contract::{AvroType, Contract, TypeRef, Typed, UnknownFields};
use crossdock_message::{BodyType, Fault, Limits};
use crossdock_proto::{Files, compile};
use serde_json::Value as Json;

use super::json_schema::JsonSchema;
use super::{invalid, unusable};

/// The name of the file that a protobuf schema without a name is; no import has it.
const FILE: &str = "@schema.proto";

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
    Json(Arc<JsonSchema>),
}

/// A `.proto` file.
pub(super) struct ProtobufFile {
    /// The types of its messages, by their position.
    types: HashMap<Vec<usize>, Arc<dyn BodyType>>,
    /// The positions of its messages, by their full names.
    positions: HashMap<String, Vec<usize>>,
}

/// Why an answer of a registry is no definition.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// It is not one of a registry.
    Answer(&'static str),
    /// The schema cannot be used.
    Schema(String),
}

impl Problem {
    /// The fault of a record whose schema has this number.
    pub(super) fn of(&self, id: u32) -> Fault {
        match self {
            Self::Answer(problem) => unusable(problem),
            Self::Schema(problem) => invalid(format!("the schema {id}: {problem}")),
        }
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Avro(of_type) => write!(f, "Schema of {}", of_type.name()),
            Self::Protobuf(_) => f.write_str("Schema of protobuf"),
            Self::Json(schema) => schema.fmt(f),
        }
    }
}

/// Reads the answer of a registry.
///
/// # Errors
/// What it lacks.
pub(super) fn definition(name: &str, answer: &Json) -> Result<Definition, Problem> {
    let text = answer.get("schema").and_then(Json::as_str).ok_or(Problem::Answer("its answer has no `schema`"))?;
    let kind = match answer.get("schemaType").and_then(Json::as_str) {
        None | Some("AVRO") => Kind::Avro,
        Some("PROTOBUF") => Kind::Protobuf,
        Some("JSON") => Kind::Json,
        Some(other) => {
            let problem = format!("schemas of type {other} are not supported: AVRO, PROTOBUF and JSON are");
            return Err(Problem::Schema(problem));
        }
    };
    let references = answer.get("references").and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
    let references = references.iter().map(|reference| {
        let text = |key| reference.get(key).and_then(Json::as_str).map(str::to_owned);
        let version = reference.get("version").and_then(Json::as_u64);
        Some(Reference { name: text("name")?, subject: text("subject")?, version: version? })
    });
    let references = references.collect::<Option<_>>();
    let references = references.ok_or(Problem::Answer("a reference in its answer is incomplete"))?;
    Ok(Definition { name: name.to_owned(), kind, text: text.to_owned(), references })
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
            Kind::Json => Ok(Self::Json(Arc::new(JsonSchema::compile(root, others, origin, limits)?))),
            Kind::Avro => {
                let others: Vec<&str> = others.iter().map(|other| other.text.as_str()).collect();
                Ok(Self::Avro(Arc::new(AvroType::parse(&root.text, &others, origin, limits)?)))
            }
            Kind::Protobuf => {
                let contract = compile(&[FILE], &Sources { root, others }).map_err(|error| error.to_string())?;
                Ok(Self::Protobuf(ProtobufFile::new(contract, origin, &limits)))
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
    fn new(contract: Contract, origin: &str, limits: &Arc<Limits>) -> Self {
        let contract = Arc::new(contract);
        let (mut types, mut positions) = (HashMap::new(), HashMap::new());
        for (path, id) in contract.messages_of(FILE) {
            let type_ref = TypeRef::new(Arc::clone(&contract), id);
            positions.insert(type_ref.name().to_string(), path.clone());
            let of_type = Typed::new(type_ref, UnknownFields::Refuse, Arc::clone(limits)).with_origin(origin);
            types.insert(path, Arc::new(of_type) as Arc<dyn BodyType>);
        }
        Self { types, positions }
    }

    /// The message at a position.
    pub(super) fn message_at(&self, path: &[usize]) -> Option<Arc<dyn BodyType>> {
        self.types.get(path).cloned()
    }

    /// A message by its full name, with its position; the first one without a name.
    pub(super) fn message(&self, name: Option<&str>) -> Option<(Vec<usize>, Arc<dyn BodyType>)> {
        let path = match name {
            Some(name) => self.positions.get(name)?.clone(),
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
            answers.iter().map(|(name, answer)| definition(name, answer).expect("a definition")).collect();
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
            assert_eq!((found, of_type.name()), (path.clone(), &*format!("{name} (test)")));
            assert_eq!(file.message_at(&path).expect("the same").name(), of_type.name());
        }
        assert_eq!(file.message(None).expect("the first").0, [0]);
        assert!(file.message(Some("geo.Place")).is_none(), "a message of another file");
        for path in [&[][..], &[2], &[0, 1], &[0, 0, 0]] {
            assert!(file.message_at(path).is_none(), "{path:?}");
        }
    }

    #[test]
    fn types_with_one_name_and_two_origins_differ() {
        let text = r#"syntax = "proto3"; package shop; message Order { int64 id = 1; }"#;
        let answer = json!({ "schemaType": "PROTOBUF", "schema": text });
        let of_origin = |origin| {
            let root = definition("", &answer).expect("a definition");
            let Ok(Schema::Protobuf(file)) = Schema::compile(&root, &[], origin, Arc::default()) else {
                panic!("protobuf")
            };
            file.message(None).expect("a message").1.name().to_owned()
        };
        assert_ne!(of_origin("schema 1 of a"), of_origin("schema 2 of a"));
        assert_eq!(of_origin("schema 1 of a"), of_origin("schema 1 of a"));
    }

    #[test]
    fn files_that_confluent_has_built_in_need_no_reference() {
        let text = r#"syntax = "proto3"; package shop; import "confluent/meta.proto"; import "confluent/type/decimal.proto";
            import "google/type/money.proto"; import "google/type/date.proto"; import "google/protobuf/timestamp.proto";
            message Order { int64 id = 1 [(confluent.field_meta).doc = "its number"]; confluent.type.Decimal weight = 2;
                google.type.Money price = 3; google.type.Date due = 4; google.protobuf.Timestamp at = 5; }"#;
        let Ok(Schema::Protobuf(file)) = compile(&[("", json!({ "schemaType": "PROTOBUF", "schema": text }))]) else {
            panic!("a protobuf schema")
        };
        assert!(file.message(Some("shop.Order")).is_some());
    }

    #[test]
    fn definitions_are_read_from_answers() {
        let avro = json!({ "schema": "{\"type\":\"record\",\"name\":\"a.R\",\"fields\":[{\"name\":\"e\",\"type\":\"b.E\"}]}",
            "references": [{ "name": "b.E", "subject": "e-value", "version": 2 }] });
        let definition = super::definition("", &avro).expect("a definition");
        assert_eq!((&*definition.references[0].subject, definition.references[0].version), ("e-value", 2));
        let enumeration = json!({ "schema": "{\"type\":\"enum\",\"name\":\"b.E\",\"symbols\":[\"X\"]}" });
        let Ok(Schema::Avro(of_type)) = compile(&[("", avro), ("b.E", enumeration)]) else { panic!("an Avro schema") };
        let written = of_type.recode(&Bytes::from_static(b"{\"e\":\"X\"}"), Format::Json, Format::Avro);
        assert_eq!(&written.expect("valid")[..], [0]);
        let problem = |answer: Json| super::definition("", &answer).expect_err("not a definition");
        assert!(matches!(problem(json!({ "error": "login" })), Problem::Answer(_)));
        assert!(matches!(problem(json!([])), Problem::Answer(_)));
        assert!(matches!(problem(json!({ "schema": "", "schemaType": "XML" })), Problem::Schema(_)));
        assert!(matches!(problem(json!({ "schema": "", "references": [{ "name": "x" }] })), Problem::Answer(_)));
    }
}
