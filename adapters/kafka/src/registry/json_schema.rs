//! Values with a JSON Schema: their bytes pass unchanged once they match it.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use crossdock_message::{Fault, Limits, json};
use jsonschema::error::ValidationErrorKind;
use jsonschema::paths::LocationSegment;
use jsonschema::{Draft, PatternOptions, Retrieve, Uri, ValidationError, Validator};
use serde_json::Value as Json;

use super::invalid;
use super::schema::Definition;

/// The base of references in a schema without `$id`, as the library has it.
const BASE: &str = "json-schema:///";
/// The depth of a document up to which it is said what does not match. Finding that takes exponential time in schemas that refer to themselves.
const EXPLAINED_DEPTH_MAX: usize = 5;
/// The longest description of what does not match, in bytes.
const PROBLEM_LEN_MAX: usize = 512;

/// A compiled schema.
pub(super) struct JsonSchema {
    validator: Validator,
    /// It may refer to itself.
    has_references: bool,
    /// For messages.
    origin: String,
    limits: Arc<Limits>,
}

impl fmt::Debug for JsonSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JsonSchema of {}", self.origin)
    }
}

/// The other schemas of a registry; nothing else is fetched.
struct Others(HashMap<String, Json>);

impl Retrieve for Others {
    fn retrieve(&self, uri: &Uri<String>) -> Result<Json, Box<dyn Error + Send + Sync>> {
        let uri = uri.as_str();
        let is_meant = |name: &str| {
            uri == name
                || uri.strip_prefix(BASE) == Some(name)
                // Relative to the `$id` of the schema.
                || uri.strip_suffix(name).is_some_and(|base| base.ends_with('/'))
        };
        let found = self.0.iter().find(|(name, _)| is_meant(name)).map(|(_, schema)| schema.clone());
        found.ok_or_else(|| "its registry has no reference of this name".into())
    }
}

impl JsonSchema {
    /// Compiles a schema with those that it refers to. Without `$schema`, it is one of draft 7, as in Confluent's clients. Regular expressions are those
    /// of the crate `regex`, which take linear time.
    ///
    /// # Errors
    /// Why it is invalid.
    pub(super) fn compile(
        root: &Definition,
        others: &[Definition],
        origin: &str,
        limits: Arc<Limits>,
    ) -> Result<Self, String> {
        let parse =
            |definition: &Definition| serde_json::from_str::<Json>(&definition.text).map_err(|error| error.to_string());
        let schema = parse(root)?;
        let named = others.iter().map(|other| Ok((other.name.clone(), parse(other)?)));
        let others = named.collect::<Result<HashMap<_, _>, String>>()?;
        let has_references = !others.is_empty() || refers(&schema);
        let mut options =
            jsonschema::options().with_retriever(Others(others)).with_pattern_options(PatternOptions::regex());
        if schema.get("$schema").is_none() {
            options = options.with_draft(Draft::Draft7);
        }
        let validator = options.build(&schema).map_err(|error| error.to_string())?;
        Ok(Self { validator, has_references, origin: origin.to_owned(), limits })
    }

    /// Checks a value. Numbers are compared as doubles.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for bytes that are not JSON, with their position; for a value that does not match, with the path of the first field that does
    /// not.
    pub(super) fn check(&self, value: &Bytes) -> Result<(), Fault> {
        let at = |problem: String, line: usize, column: usize| {
            invalid(format!("the value is not valid JSON: {problem} (line {line}, column {column})"))
        };
        // First, as the other reader accepts keys that occur twice.
        json::read(value, &self.limits).map_err(|error| at(error.kind.to_string(), error.line, error.column))?;
        let document: Json = serde_json::from_slice(value)
            .map_err(|error| at("it cannot be read".to_owned(), error.line(), error.column()))?;
        if self.validator.is_valid(&document) {
            return Ok(());
        }
        let is_explained = !self.has_references || depth(&document) <= EXPLAINED_DEPTH_MAX;
        let error = is_explained.then(|| self.validator.validate(&document).err()).flatten();
        let Some(error) = error else {
            return Err(invalid(format!("the value does not match the JSON Schema {}", self.origin)));
        };
        // Nothing of the value itself, but names of fields.
        let (field, problem) = (shortened(field(&error)), shortened(error.masked().to_string()));
        let place = if field.is_empty() { String::new() } else { format!("`{field}`: ") };
        let problem = format!("{place}{problem}, by the JSON Schema {}", self.origin);
        Err(invalid(problem).with_detail("field", field))
    }
}

fn shortened(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(PROBLEM_LEN_MAX));
    text
}

/// The path of the field that does not match, such as `lines[0].sku`; empty for the whole value.
fn field(error: &ValidationError<'_>) -> String {
    let mut path = String::new();
    for segment in error.instance_path() {
        match segment {
            LocationSegment::Property(name) => push_name(&mut path, &name),
            LocationSegment::Index(index) => path.push_str(&format!("[{index}]")),
        }
    }
    match error.kind() {
        ValidationErrorKind::Required { property } => push_name(&mut path, property.as_str().unwrap_or_default()),
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            push_name(&mut path, unexpected.first().map_or("", String::as_str));
        }
        _ => {}
    }
    path
}

fn push_name(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(name);
}

/// Whether a schema refers to any other, or to a part of itself.
fn refers(schema: &Json) -> bool {
    match schema {
        Json::Object(members) => {
            members.iter().any(|(key, value)| key.ends_with("Ref") || key == "$ref" || refers(value))
        }
        Json::Array(items) => items.iter().any(refers),
        _ => false,
    }
}

/// The levels of a document, which its reader has limited.
fn depth(document: &Json) -> usize {
    match document {
        Json::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        Json::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use serde_json::json;

    use super::super::schema::definition;
    use super::*;

    fn compile(schema: &Json, others: &[(&str, Json)]) -> Result<JsonSchema, String> {
        let answer = |schema: &Json| json!({ "schemaType": "JSON", "schema": schema.to_string() });
        let of = |name: &str, schema: &Json| definition(name, &answer(schema)).expect("a definition");
        let others: Vec<_> = others.iter().map(|(name, schema)| of(name, schema)).collect();
        JsonSchema::compile(&of("", schema), &others, "of test", Arc::default())
    }

    fn check(schema: &JsonSchema, value: &str) -> Result<(), String> {
        schema.check(&Bytes::copy_from_slice(value.as_bytes())).map_err(|fault| fault.message.to_string())
    }

    #[test]
    fn errors_name_the_field_and_not_its_value() {
        let schema = json!({
            "type": "object", "required": ["id"], "additionalProperties": false,
            "properties": { "id": { "type": "integer", "maximum": 10 }, "lines": { "type": "array", "items": {
                "type": "object", "properties": { "sku": { "type": "string", "pattern": "^[A-Z]+$" } } } } },
        });
        let schema = compile(&schema, &[]).expect("a schema");
        for valid in [r#"{"id":5}"#, r#"{"id":5.0,"lines":[{"sku":"A"}]}"#] {
            assert_eq!(check(&schema, valid), Ok(()), "{valid}");
        }
        for (value, problem) in [
            (r#"{"id":"secret"}"#, "`id`: value is not of type \"integer\""),
            (r#"{"id":11}"#, "`id`: value is greater than the maximum of 10"),
            (r#"{"id":1,"lines":[{"sku":"A"},{"sku":"secret"}]}"#, "`lines[1].sku`: value does not match"),
            ("{}", "`id`: \"id\" is a required property"),
            (r#"{"id":1,"other":"secret"}"#, "`other`: Additional properties are not allowed ('other' was unexpected)"),
            (r#"{"id":1,"id":2}"#, "line 1, column 9"),
            (r#"{"id":1"#, "line 1, column 8"),
            ("", "not valid JSON"),
        ] {
            let found = check(&schema, value).expect_err(value);
            assert!(found.contains(problem) && !found.contains("secret"), "{value}: {found}");
        }
    }

    #[test]
    fn references_are_those_of_the_registry() {
        let place = json!({ "type": "object", "required": ["city"] });
        for (schema, name) in [
            (json!({ "properties": { "to": { "$ref": "place.json" } } }), "place.json"),
            (
                json!({ "$id": "http://a.example/b/order.json", "properties": { "to": { "$ref": "place.json" } } }),
                "place.json",
            ),
            (
                json!({ "properties": { "to": { "$ref": "http://a.example/place.json" } } }),
                "http://a.example/place.json",
            ),
        ] {
            let compiled = compile(&schema, &[(name, place.clone())]).expect("a schema");
            assert_eq!(check(&compiled, r#"{"to":{"city":"a"}}"#), Ok(()), "{schema}");
            let problem = check(&compiled, r#"{"to":{}}"#).expect_err("no city");
            assert!(problem.contains("`to.city`: \"city\" is a required property"), "{problem}");
            assert!(compile(&schema, &[]).is_err(), "nothing is fetched from elsewhere");
        }
        assert!(compile(&json!({ "pattern": "(?=a)b" }), &[]).is_err(), "a look-ahead takes more than linear time");
        assert!(compile(&json!({ "type": "number?" }), &[]).is_err());
    }

    #[test]
    fn schemas_that_refer_to_themselves_take_bounded_time() {
        let branch = |key: &str| json!({ "properties": { "n": { "$ref": "#" } }, "required": [key] });
        let schema = compile(&json!({ "anyOf": [branch("y"), branch("z")] }), &[]).expect("a schema");
        let nested = |depth: usize| format!("{}1{}", "{\"n\":".repeat(depth), "}".repeat(depth));
        let started = Instant::now();
        for depth in [1, EXPLAINED_DEPTH_MAX, 20, 60] {
            let problem = check(&schema, &nested(depth)).expect_err("neither y nor z");
            assert_eq!(problem.contains(", by the"), depth <= EXPLAINED_DEPTH_MAX, "{depth}: {problem}");
        }
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        let endless = compile(&json!({ "allOf": [{ "$ref": "#" }] }), &[]).expect("a schema");
        assert_eq!(check(&endless, "1"), Ok(()));
    }
}
