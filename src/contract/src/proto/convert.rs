//! Converts descriptors to the type model.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use crossdock_message::ByteString;
use prost::Message as _;

use super::descriptor::{self, Features, File, FileSet, Location};
use super::error::ProtoError;
use super::features::{self, CLOSED, DELIMITED, IMPLICIT, LEGACY_REQUIRED, PACKED};
use crate::model::{
    Builder, Cardinality, Contract, Encoding, Field, HttpRule, JsonField, JsonNumbers, Kind, Method, NO_FIELD,
    ProtobufField, RecordId, RecordType, Scalar, Service, SourceFile, VariantTag, Variants, WellKnownType,
};

const LABEL_REQUIRED: i32 = 2;
const LABEL_REPEATED: i32 = 3;
const TYPE_GROUP: i32 = 10;
const TYPE_RECORD: i32 = 11;
const TYPE_ENUM: i32 = 14;
/// `NO_SIDE_EFFECTS` and `IDEMPOTENT` of `idempotency_level`.
const IDEMPOTENT_FROM: i32 = 1;

/// The largest field number of protobuf (29 bits).
const NUMBER_MAX: i32 = (1 << 29) - 1;
/// The maximum records of a contract.
const RECORDS_MAX: usize = 100_000;
/// The maximum fields of a record: their indices are 16 bits wide.
const FIELDS_MAX: usize = 65_000;
/// The maximum bytes of all full names of a contract. Each name repeats those around it, so a small file could expand to gigabytes.
const NAMES_LEN_MAX: usize = 64 << 20;
/// The maximum fields, enumeration values and methods of a contract.
const ITEMS_MAX: usize = 1_000_000;
/// The maximum levels of nested record declarations.
const NESTING_MAX: usize = 64;

/// Reads a `google.protobuf.FileDescriptorSet` that includes its imports, as written by `protoc --include_imports` and `buf build`.
///
/// # Errors
/// [`ProtoError`] if the bytes are not a descriptor set, an import or type is missing, or an edition is not supported.
pub fn from_descriptor_set(bytes: &Bytes) -> Result<Contract, ProtoError> {
    let set = FileSet::decode(bytes.clone()).map_err(|_| ProtoError::plain("the bytes are not a descriptor set"))?;
    let mut files: Vec<(File, Bytes)> = Vec::with_capacity(set.file.len());
    let mut seen = HashSet::new();
    for bytes in set.file {
        let file = File::decode(bytes.clone()).map_err(|_| ProtoError::plain("the bytes are not a descriptor set"))?;
        if seen.insert(file.name.clone()) {
            files.push((file, bytes));
        }
    }
    if files.is_empty() {
        return Err(ProtoError::plain("the descriptor set has no files"));
    }
    convert(&files)
}

/// The oneofs of a record: for each declared one, its index among the real ones. A synthetic oneof, which represents the presence of an
/// `optional` field of proto3, has none.
#[derive(Default)]
struct Oneofs {
    indices: Vec<Option<u16>>,
}

impl Oneofs {
    fn of(record: &descriptor::Record) -> Self {
        let mut is_real = vec![false; record.oneof_decl.len()];
        for field in record.field.iter().filter(|field| !field.proto3_optional) {
            let index = field.oneof_index.and_then(|index| usize::try_from(index).ok());
            if let Some(mark) = index.and_then(|index| is_real.get_mut(index)) {
                *mark = true;
            }
        }
        let mut free = 0_u16..;
        Self { indices: is_real.into_iter().map(|real| if real { free.next() } else { None }).collect() }
    }

    /// The index of a field's oneof among the real ones.
    fn real_index(&self, index: i32, field_name: impl FnOnce() -> String) -> Result<Option<u16>, ProtoError> {
        let found = usize::try_from(index).ok().and_then(|index| self.indices.get(index));
        found.copied().ok_or_else(|| {
            ProtoError::plain(format!("the field `{}` belongs to a oneof that is not declared", field_name()))
        })
    }

    fn variants(&self, record: &descriptor::Record) -> Vec<Variants> {
        let real = record.oneof_decl.iter().zip(&self.indices).filter(|(_, index)| index.is_some());
        real.map(|(oneof, _)| Variants { name: oneof.name.as_str().into(), tag: VariantTag::Presence }).collect()
    }
}

type Comments<'a> = HashMap<&'a [i32], &'a Location>;

fn convert(files: &[(File, Bytes)]) -> Result<Contract, ProtoError> {
    let known: HashSet<&str> = files.iter().map(|(file, _)| file.name.as_str()).collect();
    let mut converter = Converter { builder: Builder::default(), entries: HashMap::new(), names_len: 0, items: 0 };
    let mut scopes = Vec::with_capacity(files.len());
    for (file, bytes) in files {
        for import in &file.dependency {
            if !known.contains(import.as_str()) {
                let problem = format!("`{}` imports `{import}`, which is not in the descriptor set", file.name);
                return Err(ProtoError::plain(problem));
            }
        }
        let features = features::of_file(file)
            .ok_or_else(|| ProtoError::plain(format!("the edition of `{}` is not supported", file.name)))?;
        let locations = file.source_code_info.as_ref().map_or(&[][..], |info| info.location.as_slice());
        let comments: Comments<'_> = locations.iter().map(|location| (location.path.as_slice(), location)).collect();
        let mut source = SourceFile {
            name: file.name.clone(),
            imports: file.dependency.clone(),
            symbols: Vec::new(),
            extensions: Vec::new(),
            descriptor: bytes.clone(),
        };
        let file_index = converter.builder.files.len();
        let scope =
            Scope { comments: &comments, path: Vec::new(), prefix: file.package.clone(), features, file: file_index };
        for (index, record) in (0..).zip(&file.message_type) {
            converter.declare(record, &scope.inside(4, index), &mut source, NESTING_MAX)?;
        }
        for (index, enumeration) in (0..).zip(&file.enum_type) {
            converter.enumeration(enumeration, &scope.inside(5, index), &mut source)?;
        }
        for service in &file.service {
            let name = scope.name(&service.name);
            let methods = service.method.iter().map(|method| name.len() + method.name.len()).sum();
            converter.count(methods, service.method.len())?;
            source.symbols.extend(service.method.iter().map(|method| format!("{name}.{}", method.name)));
            source.symbols.push(name);
        }
        source.symbols.extend(file.extension.iter().map(|extension| scope.name(&extension.name)));
        converter.builder.files.push(source);
        scopes.push((features, comments));
    }
    for (index, ((file, _), (features, comments))) in files.iter().zip(&scopes).enumerate() {
        let scope =
            Scope { comments, path: Vec::new(), prefix: file.package.clone(), features: *features, file: index };
        for (index, record) in (0..).zip(&file.message_type) {
            converter.fields(record, &scope.inside(4, index))?;
        }
        for (index, extension) in (0..).zip(&file.extension) {
            converter.extension(extension, &scope.inside(7, index))?;
        }
        for (index, service) in (0..).zip(&file.service) {
            converter.service(service, &scope.inside(6, index))?;
        }
    }
    for record in &converter.builder.records {
        check_record(record)?;
    }
    Ok(converter.builder.finish())
}

/// Checks what codecs rely on and protoc enforces.
fn check_record(record: &RecordType) -> Result<(), ProtoError> {
    let (mut numbers, mut names) = (HashSet::new(), HashSet::new());
    if record.fields.len() > FIELDS_MAX {
        return Err(ProtoError::plain(format!("`{}` has more than {FIELDS_MAX} fields", record.name)));
    }
    let declared: HashSet<&ByteString> = record.fields.iter().map(|field| &field.name).collect();
    for field in &record.fields {
        if field.name.is_empty() || !numbers.insert(field.protobuf.number) || !names.insert(&field.name) {
            let problem = format!(
                "`{}` has a field with a missing or duplicate name or number: `{}` = {}",
                record.name, field.name, field.protobuf.number
            );
            return Err(ProtoError::plain(problem));
        }
        // Values have the names of the contract, JSON has both: an ambiguous name would move data between fields.
        if field.json.name != field.name && (declared.contains(&field.json.name) || !names.insert(&field.json.name)) {
            let problem = format!("`{}` has two fields with the name or JSON name `{}`", record.name, field.json.name);
            return Err(ProtoError::plain(problem));
        }
        if matches!(field.map_key(), Some(Scalar::Double | Scalar::Float | Scalar::Bytes)) {
            return Err(ProtoError::plain(format!(
                "the keys of the map `{}` of `{}` have an invalid type",
                field.name, record.name
            )));
        }
    }
    if record.well_known == Some(WellKnownType::Wrapper)
        && !matches!(record.fields.as_slice(), [only] if only.protobuf.number == 1 && matches!(only.kind, Kind::Scalar(_)))
    {
        return Err(ProtoError::plain(format!("`{}` differs from the well-known type of this name", record.name)));
    }
    Ok(())
}

/// The scope of a declaration: its names, comments and features.
struct Scope<'a> {
    comments: &'a Comments<'a>,
    path: Vec<i32>,
    prefix: String,
    features: Features,
    /// The index of the file in the contract.
    file: usize,
}

impl Scope<'_> {
    fn name(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}.{name}", self.prefix) }
    }

    /// The scope of the declaration at `index` of the descriptor's field `number`.
    fn inside(&self, number: i32, index: i32) -> Self {
        let mut path = self.path.clone();
        path.extend([number, index]);
        Scope { comments: self.comments, path, prefix: self.prefix.clone(), features: self.features, file: self.file }
    }

    fn below(&self, name: &str, features: Option<Features>) -> Self {
        Scope {
            comments: self.comments,
            path: self.path.clone(),
            prefix: self.name(name),
            features: features::merge(self.features, features),
            file: self.file,
        }
    }

    fn doc(&self) -> String {
        let Some(location) = self.comments.get(self.path.as_slice()) else { return String::new() };
        let comment =
            if location.leading_comments.is_empty() { &location.trailing_comments } else { &location.leading_comments };
        let lines: Vec<&str> = comment.lines().map(str::trim).collect();
        lines.join("\n").trim().to_owned()
    }
}

struct Converter<'a> {
    builder: Builder,
    /// The fields of map entries.
    entries: HashMap<RecordId, &'a [descriptor::Field]>,
    names_len: usize,
    items: usize,
}

impl<'d> Converter<'d> {
    /// Counts names and items against their limits.
    fn count(&mut self, names_len: usize, items: usize) -> Result<(), ProtoError> {
        self.names_len += names_len;
        self.items += items;
        if self.names_len > NAMES_LEN_MAX || self.items > ITEMS_MAX {
            return Err(ProtoError::plain("the contract has too many names"));
        }
        Ok(())
    }

    fn declare(
        &mut self,
        record: &'d descriptor::Record,
        scope: &Scope<'_>,
        source: &mut SourceFile,
        depth_left: usize,
    ) -> Result<(), ProtoError> {
        let name = scope.name(&record.name);
        self.count(name.len(), record.field.len())?;
        if self.builder.records.len() == RECORDS_MAX || depth_left == 0 {
            return Err(ProtoError::plain(format!("`{name}` exceeds {RECORDS_MAX} records or {NESTING_MAX} levels")));
        }
        if self.builder.names.contains_key(name.as_str()) {
            return Err(ProtoError::plain(format!("`{name}` is declared twice")));
        }
        let id = self.builder.declare_record(name.as_str().into(), scope.doc());
        let options = record.options.unwrap_or_default();
        let declared = self.builder.record_mut(id);
        declared.protobuf.is_message_set = options.message_set_wire_format;
        declared.protobuf.is_map_entry = options.map_entry;
        if options.map_entry {
            self.entries.insert(id, &record.field);
        } else {
            source.symbols.push(name);
        }
        let inner = scope.below(&record.name, options.features);
        for (index, nested) in (0..).zip(&record.nested_type) {
            self.declare(nested, &inner.inside(3, index), source, depth_left - 1)?;
        }
        for (index, enumeration) in (0..).zip(&record.enum_type) {
            self.enumeration(enumeration, &inner.inside(4, index), source)?;
        }
        source.symbols.extend(record.extension.iter().map(|extension| inner.name(&extension.name)));
        Ok(())
    }

    fn enumeration(
        &mut self,
        enumeration: &descriptor::Enum,
        scope: &Scope<'_>,
        source: &mut SourceFile,
    ) -> Result<(), ProtoError> {
        let name = scope.name(&enumeration.name);
        self.count(name.len(), enumeration.value.len() + 1)?;
        if self.builder.enum_names.contains_key(name.as_str()) || self.builder.names.contains_key(name.as_str()) {
            return Err(ProtoError::plain(format!("`{name}` is declared twice")));
        }
        let own = enumeration.options.and_then(|options| options.features);
        let closed = features::merge(scope.features, own).enum_type == CLOSED;
        let values = enumeration.value.iter().map(|value| (value.name.as_str().into(), value.number)).collect();
        self.builder.add_enum(name.as_str().into(), values, closed, scope.doc());
        source.symbols.push(name);
        Ok(())
    }

    fn fields(&mut self, record: &descriptor::Record, scope: &Scope<'_>) -> Result<(), ProtoError> {
        let name = scope.name(&record.name);
        let inner = scope.below(&record.name, record.options.and_then(|options| options.features));
        let id = self.builder.names[name.as_str()];
        if record.field.len() > FIELDS_MAX {
            return Err(ProtoError::plain(format!("`{name}` has more than {FIELDS_MAX} fields")));
        }
        let oneofs = Oneofs::of(record);
        let mut fields = Vec::with_capacity(record.field.len());
        for (index, field) in (0..).zip(&record.field) {
            fields.push(self.field(field, &inner.inside(2, index), record, &oneofs)?);
        }
        let declared = self.builder.record_mut(id);
        declared.variants = oneofs.variants(record);
        // Extensions of other files may have been added before.
        fields.append(&mut declared.fields);
        declared.fields = fields;
        for (index, nested) in (0..).zip(&record.nested_type) {
            self.fields(nested, &inner.inside(3, index))?;
        }
        for (index, extension) in (0..).zip(&record.extension) {
            self.extension(extension, &inner.inside(6, index))?;
        }
        Ok(())
    }

    fn extension(&mut self, extension: &descriptor::Field, scope: &Scope<'_>) -> Result<(), ProtoError> {
        let extendee = self.record_named(&extension.extendee, &extension.name)?;
        let mut field = self.field(extension, scope, &descriptor::Record::default(), &Oneofs::default())?;
        let full_name = scope.name(&extension.name);
        field.name = format!("[{full_name}]").into();
        field.json.name = field.name.clone();
        if let Some(file) = self.builder.files.get_mut(scope.file) {
            file.extensions.push((extension.extendee.trim_start_matches('.').to_owned(), field.protobuf.number));
        }
        self.builder.record_mut(extendee).fields.push(field);
        Ok(())
    }

    fn field(
        &self,
        field: &descriptor::Field,
        scope: &Scope<'_>,
        record: &descriptor::Record,
        oneofs: &Oneofs,
    ) -> Result<Field, ProtoError> {
        let options = field.options.unwrap_or_default();
        let oneof_index = field.oneof_index.and_then(|index| usize::try_from(index).ok());
        let oneof_features = oneof_index
            .and_then(|index| record.oneof_decl.get(index))
            .and_then(|oneof| oneof.options)
            .and_then(|options| options.features);
        let features = features::merge(features::merge(scope.features, oneof_features), options.features);
        let (encoding, kind) = self.kind(field)?;
        let entry = match kind {
            Kind::Record(id) if field.label == LABEL_REPEATED => Some(id).filter(|id| self.is_map_entry(*id)),
            _ => None,
        };
        if !(1..=NUMBER_MAX).contains(&field.number) {
            return Err(ProtoError::plain(format!(
                "the field `{}` has the invalid number {}",
                scope.name(&field.name),
                field.number
            )));
        }
        let cardinality = match (field.label, kind) {
            (LABEL_REPEATED, _) if entry.is_some() => Cardinality::Map(Scalar::Text),
            (LABEL_REPEATED, _) => Cardinality::Repeated,
            (LABEL_REQUIRED, _) => Cardinality::Required,
            (_, Kind::Record(_)) if features.field_presence == LEGACY_REQUIRED => Cardinality::Required,
            (_, Kind::Record(_)) => Cardinality::Optional,
            _ if field.oneof_index.is_some() || !field.extendee.is_empty() => Cardinality::Optional,
            _ if features.field_presence == LEGACY_REQUIRED => Cardinality::Required,
            _ if features.field_presence == IMPLICIT => Cardinality::Implicit,
            _ => Cardinality::Optional,
        };
        let packed = options.packed.unwrap_or(features.repeated_field_encoding == PACKED);
        let in_map = record.options.is_some_and(|options| options.map_entry);
        let delimited = features.message_encoding == DELIMITED && entry.is_none() && !in_map;
        let delimited = matches!(kind, Kind::Record(_)) && entry.is_none() && (field.r#type == TYPE_GROUP || delimited);
        let oneof = match field.oneof_index {
            Some(index) => oneofs.real_index(index, || scope.name(&field.name))?,
            None => None,
        };
        let json_name = if field.json_name.is_empty() { camel_case(&field.name) } else { field.json_name.clone() };
        let mut converted = Field {
            name: field.name.as_str().into(),
            cardinality,
            kind,
            nullable: false,
            variant_of: oneof,
            facets: None,
            doc: scope.doc(),
            json: JsonField { name: json_name.into(), numbers: json_numbers(kind), key: Box::default() },
            protobuf: ProtobufField {
                number: field.number.unsigned_abs(),
                encoding,
                key_encoding: Encoding::String,
                packed: packed && encoding.is_packable() && field.label == LABEL_REPEATED,
                delimited,
                tag: 0,
            },
            xml: None,
            index: NO_FIELD,
        };
        if let Some(id) = entry {
            let (key, (encoding, kind)) = self.entry(id)?;
            let key_scalar = key.scalar().unwrap_or(Scalar::Text);
            (converted.cardinality, converted.kind) = (Cardinality::Map(key_scalar), kind);
            (converted.protobuf.key_encoding, converted.protobuf.encoding) = (key, encoding);
            converted.json.numbers = json_numbers(kind);
        }
        Ok(converted)
    }

    fn is_map_entry(&self, id: RecordId) -> bool {
        self.builder.records[id.0 as usize].protobuf.is_map_entry
    }

    /// The key and the value of a map entry.
    fn entry(&self, id: RecordId) -> Result<(Encoding, (Encoding, Kind)), ProtoError> {
        let name = &self.builder.records[id.0 as usize].name;
        let broken = || ProtoError::plain(format!("`{name}` is not a valid map entry"));
        let fields = self.entries.get(&id).ok_or_else(broken)?;
        let numbered = |number| fields.iter().find(|field| field.number == number);
        let (key, value) = numbered(1).zip(numbered(2)).ok_or_else(broken)?;
        let (key, Kind::Scalar(_)) = self.kind(key)? else { return Err(broken()) };
        Ok((key, self.kind(value)?))
    }

    fn kind(&self, field: &descriptor::Field) -> Result<(Encoding, Kind), ProtoError> {
        let encoding = match field.r#type {
            1 => Encoding::Double,
            2 => Encoding::Float,
            3 => Encoding::Int64,
            4 => Encoding::Uint64,
            5 => Encoding::Int32,
            6 => Encoding::Fixed64,
            7 => Encoding::Fixed32,
            8 => Encoding::Bool,
            9 => Encoding::String,
            12 => Encoding::Bytes,
            13 => Encoding::Uint32,
            15 => Encoding::Sfixed32,
            16 => Encoding::Sfixed64,
            17 => Encoding::Sint32,
            18 => Encoding::Sint64,
            TYPE_GROUP | TYPE_RECORD => {
                let record = self.record_named(&field.type_name, &field.name)?;
                return Ok((Encoding::Message, Kind::Record(record)));
            }
            TYPE_ENUM => {
                let name = field.type_name.trim_start_matches('.');
                let found = self.builder.enum_names.get(name).copied();
                let id = found.ok_or_else(|| missing(name, &field.name))?;
                return Ok((Encoding::Enum, Kind::Enum(id)));
            }
            other => return Err(ProtoError::plain(format!("the field `{}` has the unknown type {other}", field.name))),
        };
        let scalar = encoding.scalar().unwrap_or(Scalar::Bytes);
        Ok((encoding, Kind::Scalar(scalar)))
    }

    fn record_named(&self, name: &str, field: &str) -> Result<RecordId, ProtoError> {
        let name = name.trim_start_matches('.');
        self.builder.names.get(name).copied().ok_or_else(|| missing(name, field))
    }

    fn service(&mut self, service: &descriptor::Service, scope: &Scope<'_>) -> Result<(), ProtoError> {
        let mut methods = Vec::with_capacity(service.method.len());
        for (index, method) in (0..).zip(&service.method) {
            let options = method.options.clone().unwrap_or_default();
            methods.push(Method {
                name: method.name.as_str().into(),
                input: self.record_named(&method.input_type, &method.name)?,
                output: self.record_named(&method.output_type, &method.name)?,
                client_streaming: method.client_streaming,
                server_streaming: method.server_streaming,
                idempotent: options.idempotency_level >= IDEMPOTENT_FROM,
                doc: scope.inside(2, index).doc(),
                http: options.http.as_ref().map(http_rules).unwrap_or_default(),
            });
        }
        let name = ByteString::from(scope.name(&service.name));
        self.builder.services.push(Service { name, methods, doc: scope.doc() });
        Ok(())
    }
}

/// ProtoJSON writes 64-bit integers as strings.
fn json_numbers(kind: Kind) -> JsonNumbers {
    match kind {
        Kind::Scalar(Scalar::Int64 | Scalar::UInt64) => JsonNumbers::Text,
        _ => JsonNumbers::Number,
    }
}

fn missing(name: &str, field: &str) -> ProtoError {
    ProtoError::plain(format!("`{field}` has the type `{name}`, which is missing"))
}

/// The rule and its additional bindings, which do not nest further (`google/api/http.proto`).
fn http_rules(rule: &descriptor::HttpRule) -> Vec<HttpRule> {
    std::iter::once(rule).chain(&rule.additional_bindings).filter_map(http_rule).collect()
}

fn http_rule(rule: &descriptor::HttpRule) -> Option<HttpRule> {
    let plain = [
        ("GET", &rule.get),
        ("PUT", &rule.put),
        ("POST", &rule.post),
        ("DELETE", &rule.delete),
        ("PATCH", &rule.patch),
    ];
    let (method, path) = match &rule.custom {
        Some(custom) => (custom.kind.as_str(), &custom.path),
        None => plain.into_iter().find(|(_, path)| !path.is_empty())?,
    };
    Some(HttpRule {
        method: method.to_owned(),
        path: path.clone(),
        body: rule.body.clone(),
        response_body: rule.response_body.clone(),
    })
}

/// The default JSON name of a field: without `_`, and with every letter after one in upper case.
pub(crate) fn camel_case(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut capital = false;
    for character in name.chars() {
        if character == '_' {
            capital = true;
        } else {
            out.push(if capital { character.to_ascii_uppercase() } else { character });
            capital = false;
        }
    }
    out
}
