//! Schemas, compiled for the codec. Their text is read by `apache-avro`.

use std::collections::HashMap;

use apache_avro::schema::{InnerDecimalSchema, Name, RecordSchema, Schema as Parsed, UuidSchema};
use crossdock_message::{ByteString, Limits, Value, json};
use serde_json::Value as Json;

use super::calendar::Unit;

/// The most types of a schema, counting each occurrence.
const NODES_MAX: usize = 20_000;
/// The nesting of all documents of a schema together: `apache-avro` recurses from one into another.
const NESTING_MAX: usize = 256;
/// The maximum length of a `fixed`, in bytes.
const FIXED_LEN_MAX: usize = 1 << 20;
/// The maximum digits of a decimal.
const DIGITS_MAX: usize = 1_000;
/// How the default of a field is hidden from `apache-avro`: it writes defaults out while it checks them, which takes a time that is exponential in
/// their nesting, and refuses some that are valid.
const DEFAULT: &str = "crossdock-default";

/// The position of a type in [`Schema::nodes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Id(usize);

/// A schema. Types refer to one another by position, so that they can be recursive.
#[derive(Debug)]
pub(super) struct Schema {
    nodes: Vec<Node>,
    root: Id,
    name: String,
}

/// A type.
#[derive(Debug)]
pub(super) enum Node {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    Text,
    Fixed(usize),
    Enum(Vec<ByteString>),
    Array(Id),
    Map(Id),
    /// A union of null and one other type.
    Nullable {
        null_index: usize,
        inner: Id,
    },
    /// The names of the branches and their types. The branch `null` has no name.
    Union(Vec<(Option<ByteString>, Id)>),
    Record(RecordNode),
    /// An unscaled integer in `len` bytes, or any number of them.
    Decimal {
        precision: usize,
        scale: usize,
        len: Option<usize>,
    },
    BigDecimal,
    /// A UUID in 16 bytes, with or without their length.
    UuidBytes {
        is_fixed: bool,
    },
    Date,
    TimeOfDay(Unit),
    Timestamp(Unit),
    LocalTimestamp(Unit),
    Duration,
    /// A name that is defined elsewhere.
    Alias(Id),
}

impl Node {
    /// Whether its defaults are represented otherwise than its values.
    pub(super) fn has_own_default_form(&self) -> bool {
        matches!(
            self,
            Self::Union(_)
                | Self::Bytes
                | Self::Fixed(_)
                | Self::Decimal { .. }
                | Self::BigDecimal
                | Self::UuidBytes { .. }
                | Self::Duration
                | Self::Date
                | Self::TimeOfDay(_)
                | Self::Timestamp(_)
                | Self::LocalTimestamp(_)
        )
    }
}

#[derive(Debug)]
pub(super) struct RecordNode {
    pub(super) fields: Vec<FieldNode>,
    /// The positions of the fields.
    pub(super) by_name: HashMap<ByteString, usize>,
}

#[derive(Debug)]
pub(super) struct FieldNode {
    pub(super) name: ByteString,
    pub(super) id: Id,
    pub(super) default: Option<Value>,
}

impl Schema {
    pub(super) fn parse(text: &str, references: &[&str]) -> Result<Self, String> {
        let mut nesting = 0;
        let mut prepare = |text: &str| {
            let mut document = serde_json::from_str(text).map_err(|error| error.to_string())?;
            nesting += prepare(&mut document);
            if nesting > NESTING_MAX {
                Err("the schema is nested too deeply".to_owned())
            } else {
                Ok(document.to_string())
            }
        };
        let text = prepare(text)?;
        let references = references.iter().map(|text| prepare(text)).collect::<Result<Vec<_>, _>>()?;
        let (root, others) = Parsed::parse_str_with_list(&text, references).map_err(|error| error.to_string())?;
        let mut builder = Builder::default();
        for other in &others {
            builder.add(other)?;
        }
        let name = branch_name(&root);
        let root = builder.add(&root)?;
        Ok(Self { nodes: builder.resolve()?, root, name })
    }

    /// The full name of the document's type, or its kind.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn root(&self) -> Id {
        self.root
    }

    pub(super) fn node(&self, id: Id) -> &Node {
        match &self.nodes[id.0] {
            Node::Alias(target) => &self.nodes[target.0],
            node => node,
        }
    }
}

/// Hides the defaults of fields, and writes `error` as `record`, which is the same for values. Returns the nesting of the document.
fn prepare(document: &mut Json) -> usize {
    match document {
        Json::Array(items) => 1 + items.iter_mut().map(prepare).max().unwrap_or(0),
        Json::Object(entries) => {
            let is_record = matches!(entries.get("type").and_then(Json::as_str), Some("record" | "error"));
            if is_record {
                entries.insert("type".to_owned(), "record".into());
                let fields = entries.get_mut("fields").and_then(Json::as_array_mut);
                for field in fields.into_iter().flatten().filter_map(Json::as_object_mut) {
                    if let Some(default) = field.remove("default") {
                        field.insert(DEFAULT.to_owned(), default);
                    }
                }
            }
            1 + entries.values_mut().map(prepare).max().unwrap_or(0)
        }
        _ => 0,
    }
}

#[derive(Default)]
struct Builder {
    nodes: Vec<Node>,
    named: HashMap<String, Id>,
    /// References to names, by the position of their alias.
    references: Vec<(usize, String)>,
}

impl Builder {
    fn add(&mut self, schema: &Parsed) -> Result<Id, String> {
        if self.nodes.len() >= NODES_MAX {
            return Err(format!("the schema has more than {NODES_MAX} types"));
        }
        let id = Id(self.nodes.len());
        // Replaced below: nested types may refer to this one.
        self.nodes.push(Node::Null);
        if let Some(name) = definition(schema).map(full_name)
            && let Some(_) = self.named.insert(name.clone(), id)
        {
            return Err(format!("the type `{name}` is defined twice"));
        }
        check(schema)?;
        let node = match schema {
            Parsed::Null => Node::Null,
            Parsed::Boolean => Node::Boolean,
            Parsed::Int => Node::Int,
            Parsed::Long => Node::Long,
            Parsed::Float => Node::Float,
            Parsed::Double => Node::Double,
            Parsed::Bytes => Node::Bytes,
            Parsed::String | Parsed::Uuid(UuidSchema::String) => Node::Text,
            Parsed::Array(array) => Node::Array(self.add(&array.items)?),
            Parsed::Map(map) => Node::Map(self.add(&map.types)?),
            Parsed::Union(union) => self.union(union.variants())?,
            Parsed::Record(record) => Node::Record(self.record(record)?),
            Parsed::Enum(symbols) => Node::Enum(symbols.symbols.iter().map(|symbol| symbol.as_str().into()).collect()),
            Parsed::Fixed(fixed) => Node::Fixed(fixed.size),
            Parsed::Decimal(decimal) => Node::Decimal {
                precision: decimal.precision,
                scale: decimal.scale,
                len: match &decimal.inner {
                    InnerDecimalSchema::Bytes => None,
                    InnerDecimalSchema::Fixed(fixed) => Some(fixed.size),
                },
            },
            Parsed::BigDecimal => Node::BigDecimal,
            Parsed::Uuid(UuidSchema::Bytes) => Node::UuidBytes { is_fixed: false },
            Parsed::Uuid(UuidSchema::Fixed(_)) => Node::UuidBytes { is_fixed: true },
            Parsed::Date => Node::Date,
            Parsed::TimeMillis => Node::TimeOfDay(Unit::Millis),
            Parsed::TimeMicros => Node::TimeOfDay(Unit::Micros),
            Parsed::TimestampMillis => Node::Timestamp(Unit::Millis),
            Parsed::TimestampMicros => Node::Timestamp(Unit::Micros),
            Parsed::TimestampNanos => Node::Timestamp(Unit::Nanos),
            Parsed::LocalTimestampMillis => Node::LocalTimestamp(Unit::Millis),
            Parsed::LocalTimestampMicros => Node::LocalTimestamp(Unit::Micros),
            Parsed::LocalTimestampNanos => Node::LocalTimestamp(Unit::Nanos),
            Parsed::Duration(_) => Node::Duration,
            Parsed::Ref { name } => {
                self.references.push((id.0, full_name(name)));
                Node::Null
            }
        };
        self.nodes[id.0] = node;
        Ok(id)
    }

    fn record(&mut self, record: &RecordSchema) -> Result<RecordNode, String> {
        let (mut fields, mut by_name) = (Vec::with_capacity(record.fields.len()), HashMap::new());
        for field in &record.fields {
            let name = ByteString::from(field.name.as_str());
            let default = match field.custom_attributes.get(DEFAULT) {
                None => None,
                Some(default) => {
                    let text = default.to_string().into_bytes().into();
                    let read = json::read(&text, &Limits::default());
                    Some(read.map_err(|error| format!("the default of `{name}`: {error}"))?)
                }
            };
            by_name.insert(name.clone(), fields.len());
            fields.push(FieldNode { name, id: self.add(&field.schema)?, default });
        }
        Ok(RecordNode { fields, by_name })
    }

    fn union(&mut self, variants: &[Parsed]) -> Result<Node, String> {
        let mut branches = Vec::with_capacity(variants.len());
        for variant in variants {
            let name = match variant {
                Parsed::Null => None,
                variant => Some(branch_name(variant).into()),
            };
            branches.push((name, self.add(variant)?));
        }
        Ok(match branches.as_slice() {
            [(None, _), (Some(_), inner)] => Node::Nullable { null_index: 0, inner: *inner },
            [(Some(_), inner), (None, _)] => Node::Nullable { null_index: 1, inner: *inner },
            _ => Node::Union(branches),
        })
    }

    /// Resolves references to names, once all of them are known.
    fn resolve(mut self) -> Result<Vec<Node>, String> {
        for (position, name) in self.references {
            let target = self.named.get(&name).ok_or_else(|| format!("the type `{name}` is not defined"))?;
            self.nodes[position] = Node::Alias(*target);
        }
        Ok(self.nodes)
    }
}

/// The name that a schema defines.
fn definition(schema: &Parsed) -> Option<&Name> {
    match schema {
        Parsed::Ref { .. } => None,
        schema => schema.name(),
    }
}

/// The name of a branch in Avro's JSON encoding: the full name of a named type, otherwise the kind of the underlying type.
fn branch_name(schema: &Parsed) -> String {
    schema.name().map_or_else(|| kind_name(schema).to_owned(), full_name)
}

/// A name with its namespace, with which `apache-avro` has completed it.
fn full_name(name: &Name) -> String {
    name.fullname(None)
}

/// Refuses types whose values would be too long.
fn check(schema: &Parsed) -> Result<(), String> {
    let len = match schema {
        Parsed::Fixed(fixed) | Parsed::Duration(fixed) | Parsed::Uuid(UuidSchema::Fixed(fixed)) => fixed.size,
        Parsed::Decimal(decimal) if decimal.precision.max(decimal.scale) > DIGITS_MAX => {
            return Err(format!("a decimal has more than {DIGITS_MAX} digits"));
        }
        Parsed::Decimal(decimal) => match &decimal.inner {
            InnerDecimalSchema::Fixed(fixed) => fixed.size,
            InnerDecimalSchema::Bytes => 0,
        },
        _ => 0,
    };
    if len > FIXED_LEN_MAX { Err(format!("a fixed type has more than {FIXED_LEN_MAX} bytes")) } else { Ok(()) }
}

fn kind_name(schema: &Parsed) -> &'static str {
    match schema {
        Parsed::Null => "null",
        Parsed::Boolean => "boolean",
        Parsed::Int | Parsed::Date | Parsed::TimeMillis => "int",
        Parsed::Long
        | Parsed::TimeMicros
        | Parsed::TimestampMillis
        | Parsed::TimestampMicros
        | Parsed::TimestampNanos
        | Parsed::LocalTimestampMillis
        | Parsed::LocalTimestampMicros
        | Parsed::LocalTimestampNanos => "long",
        Parsed::Float => "float",
        Parsed::Double => "double",
        Parsed::Bytes | Parsed::BigDecimal | Parsed::Decimal(_) | Parsed::Uuid(UuidSchema::Bytes) => "bytes",
        Parsed::String | Parsed::Uuid(_) => "string",
        Parsed::Array(_) => "array",
        Parsed::Map(_) => "map",
        Parsed::Union(_) => "union",
        Parsed::Record(_) => "record",
        Parsed::Enum(_) => "enum",
        Parsed::Fixed(_) | Parsed::Duration(_) => "fixed",
        Parsed::Ref { .. } => "reference",
    }
}
