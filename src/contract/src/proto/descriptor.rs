//! The parts of `google/protobuf/descriptor.proto` that a contract is read from, and the extension `google.api.http`.
//!
//! Declared here, because the generated types of other crates drop extensions of options and do not support editions.

use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub(super) struct FileSet {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub(super) file: Vec<bytes::Bytes>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct File {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) package: String,
    #[prost(string, repeated, tag = "3")]
    pub(super) dependency: Vec<String>,
    #[prost(message, repeated, tag = "4")]
    pub(super) message_type: Vec<Record>,
    #[prost(message, repeated, tag = "5")]
    pub(super) enum_type: Vec<Enum>,
    #[prost(message, repeated, tag = "6")]
    pub(super) service: Vec<Service>,
    #[prost(message, repeated, tag = "7")]
    pub(super) extension: Vec<Field>,
    #[prost(message, optional, tag = "8")]
    pub(super) options: Option<FileOptions>,
    #[prost(message, optional, tag = "9")]
    pub(super) source_code_info: Option<SourceInfo>,
    #[prost(string, tag = "12")]
    pub(super) syntax: String,
    #[prost(int32, tag = "14")]
    pub(super) edition: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SourceInfo {
    #[prost(message, repeated, tag = "1")]
    pub(super) location: Vec<Location>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Location {
    #[prost(int32, repeated, tag = "1")]
    pub(super) path: Vec<i32>,
    #[prost(string, tag = "3")]
    pub(super) leading_comments: String,
    #[prost(string, tag = "4")]
    pub(super) trailing_comments: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Record {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(message, repeated, tag = "2")]
    pub(super) field: Vec<Field>,
    #[prost(message, repeated, tag = "3")]
    pub(super) nested_type: Vec<Record>,
    #[prost(message, repeated, tag = "4")]
    pub(super) enum_type: Vec<Enum>,
    #[prost(message, repeated, tag = "6")]
    pub(super) extension: Vec<Field>,
    #[prost(message, optional, tag = "7")]
    pub(super) options: Option<RecordOptions>,
    #[prost(message, repeated, tag = "8")]
    pub(super) oneof_decl: Vec<Oneof>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Oneof {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(message, optional, tag = "2")]
    pub(super) options: Option<OneofOptions>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Field {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) extendee: String,
    #[prost(int32, tag = "3")]
    pub(super) number: i32,
    #[prost(int32, tag = "4")]
    pub(super) label: i32,
    #[prost(int32, tag = "5")]
    pub(super) r#type: i32,
    #[prost(string, tag = "6")]
    pub(super) type_name: String,
    #[prost(message, optional, tag = "8")]
    pub(super) options: Option<FieldOptions>,
    #[prost(int32, optional, tag = "9")]
    pub(super) oneof_index: Option<i32>,
    #[prost(string, tag = "10")]
    pub(super) json_name: String,
    #[prost(bool, tag = "17")]
    pub(super) proto3_optional: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Enum {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(message, repeated, tag = "2")]
    pub(super) value: Vec<EnumValue>,
    #[prost(message, optional, tag = "3")]
    pub(super) options: Option<EnumOptions>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct EnumValue {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(int32, tag = "2")]
    pub(super) number: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Service {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(message, repeated, tag = "2")]
    pub(super) method: Vec<Method>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Method {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) input_type: String,
    #[prost(string, tag = "3")]
    pub(super) output_type: String,
    #[prost(message, optional, tag = "4")]
    pub(super) options: Option<MethodOptions>,
    #[prost(bool, tag = "5")]
    pub(super) client_streaming: bool,
    #[prost(bool, tag = "6")]
    pub(super) server_streaming: bool,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct FileOptions {
    #[prost(message, optional, tag = "50")]
    pub(super) features: Option<Features>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct RecordOptions {
    #[prost(bool, tag = "1")]
    pub(super) message_set_wire_format: bool,
    #[prost(bool, tag = "7")]
    pub(super) map_entry: bool,
    #[prost(message, optional, tag = "12")]
    pub(super) features: Option<Features>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct OneofOptions {
    #[prost(message, optional, tag = "1")]
    pub(super) features: Option<Features>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct FieldOptions {
    #[prost(bool, optional, tag = "2")]
    pub(super) packed: Option<bool>,
    #[prost(message, optional, tag = "21")]
    pub(super) features: Option<Features>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct EnumOptions {
    #[prost(message, optional, tag = "7")]
    pub(super) features: Option<Features>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct MethodOptions {
    #[prost(int32, tag = "34")]
    pub(super) idempotency_level: i32,
    #[prost(message, optional, tag = "72295728")]
    pub(super) http: Option<HttpRule>,
}

/// `google.protobuf.FeatureSet`; 0 means "not set".
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Features {
    #[prost(int32, tag = "1")]
    pub(super) field_presence: i32,
    #[prost(int32, tag = "2")]
    pub(super) enum_type: i32,
    #[prost(int32, tag = "3")]
    pub(super) repeated_field_encoding: i32,
    #[prost(int32, tag = "5")]
    pub(super) message_encoding: i32,
}

/// `google.api.HttpRule`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct HttpRule {
    #[prost(string, tag = "2")]
    pub(super) get: String,
    #[prost(string, tag = "3")]
    pub(super) put: String,
    #[prost(string, tag = "4")]
    pub(super) post: String,
    #[prost(string, tag = "5")]
    pub(super) delete: String,
    #[prost(string, tag = "6")]
    pub(super) patch: String,
    #[prost(string, tag = "7")]
    pub(super) body: String,
    #[prost(message, optional, tag = "8")]
    pub(super) custom: Option<CustomPattern>,
    #[prost(message, repeated, tag = "11")]
    pub(super) additional_bindings: Vec<HttpRule>,
    #[prost(string, tag = "12")]
    pub(super) response_body: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct CustomPattern {
    #[prost(string, tag = "1")]
    pub(super) kind: String,
    #[prost(string, tag = "2")]
    pub(super) path: String,
}
