//! The JSON Schema (draft 2020-12) of route files.

use std::sync::Arc;

use crossdock_adapter_api::{Adapter, Delivery};
use crossdock_settings::{Duration, FromNode, Spanned};
use serde_json::{Map, Value, json};

use crate::load::schema_parts::{
    ContractSettings, ErrorRuleSettings, HeaderSettings, IdempotencySettings, OrderSettings, STEPS, TestSettings,
};
use crate::load::{BreakerSettings, CodeName, DeadlineSettings, HealthSettings, RetrySettings, TOP_KEYS};
use crate::plan::Balance;

/// The schema of route files with the parts of these adapters.
#[must_use]
pub fn route_file_schema(adapters: &[Arc<dyn Adapter>]) -> Value {
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Crossdock route file",
        "type": "object",
        "required": ["version"],
        "additionalProperties": false,
        "properties": {
            "version": { "const": 1 },
            "contracts": { "type": "object", "additionalProperties": ContractSettings::schema() },
            "services": { "type": "object", "additionalProperties": service(adapters) },
            "routes": { "type": "object", "additionalProperties": route(adapters) },
            "tests": { "type": "array", "items": TestSettings::schema() },
        },
        "$defs": { "steps": steps(), "map": map() },
    });
    debug_assert!(TOP_KEYS.iter().all(|key| schema["properties"].get(key).is_some()));
    schema
}

fn service(adapters: &[Arc<dyn Adapter>]) -> Value {
    let mut properties = Map::new();
    for adapter in adapters {
        properties.insert(adapter.name().to_owned(), adapter.schemas().service);
    }
    properties.insert("timeout".into(), Duration::schema());
    properties.insert("retry".into(), RetrySettings::schema());
    properties.insert("health".into(), HealthSettings::schema());
    properties.insert("breaker".into(), BreakerSettings::schema());
    properties.insert("concurrency".into(), usize::schema());
    properties.insert("balance".into(), Balance::schema());
    properties.insert("idempotent".into(), Vec::<Spanned<String>>::schema());
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

fn route(adapters: &[Arc<dyn Adapter>]) -> Value {
    let mut protocols = Map::new();
    for adapter in adapters {
        protocols.insert(adapter.name().to_owned(), adapter.schemas().entry);
    }
    let entry = json!({
        "type": "object", "properties": protocols, "minProperties": 1, "maxProperties": 1, "additionalProperties": false,
    });
    json!({
        "type": "object",
        "required": ["from", "steps"],
        "additionalProperties": false,
        "properties": {
            "as": { "type": "string", "description": "What the contract says of the messages: pkg.Service/Method, or pkg.Service for all its methods." },
            "from": { "anyOf": [entry, { "type": "array", "items": entry, "minItems": 1 }] },
            "delivery": Delivery::schema(),
            "order": OrderSettings::schema(),
            "idempotency": IdempotencySettings::schema(),
            "deadline": DeadlineSettings::schema(),
            "headers": HeaderSettings::schema(),
            "steps": { "$ref": "#/$defs/steps" },
            "errors": Vec::<ErrorRuleSettings>::schema(),
        },
    })
}

fn object(required: &[&str], properties: &Value) -> Value {
    json!({ "type": "object", "required": required, "properties": properties, "additionalProperties": false })
}

fn steps() -> Value {
    let text = json!({ "type": ["string", "number", "boolean"] });
    let reference = json!({ "type": "string", "description": "service.operation" });
    let map = json!({ "$ref": "#/$defs/map" });
    let headers = json!({ "type": "object", "additionalProperties": text });
    let steps = json!({ "$ref": "#/$defs/steps" });
    let each_step = json!({
        "map": map,
        "set": headers,
        "require": object(&["that", "message"], &json!({ "that": text, "code": CodeName::schema(), "message": text })),
        "filter": text,
        "multicast": { "type": "array", "items": steps, "minItems": 1, "maxItems": 16 },
        "split": object(&["each", "as", "steps"], &json!({
            "each": { "type": "string" }, "as": { "type": "string" }, "steps": steps,
            "at_once": { "type": "integer", "minimum": 1, "maximum": 64 },
        })),
        "call": reference,
        "send": reference,
        "choice": { "type": "array", "items": { "anyOf": [
            object(&["when", "steps"], &json!({ "when": text, "steps": steps })),
            object(&["otherwise"], &json!({ "otherwise": steps })),
        ] } },
        "enrich": object(&["call", "as"], &json!({ "call": reference, "with": map, "as": { "type": "string" } })),
        "tap": object(&["send"], &json!({ "send": reference, "with": map })),
        "respond": object(&[], &json!({
            "status": { "type": "integer", "minimum": 200, "maximum": 299 },
            "headers": headers,
            "body": { "anyOf": [map, { "enum": ["none", null] }] },
        })),
        "fault": object(&["code", "message"], &json!({ "code": CodeName::schema(), "message": text })),
    });
    debug_assert!(STEPS.iter().all(|step| each_step.get(step).is_some()));
    json!({ "type": "array", "items": {
        "type": "object", "properties": each_step, "minProperties": 1, "maxProperties": 1, "additionalProperties": false,
    } })
}

fn map() -> Value {
    let each = object(
        &["each", "as", "map"],
        &json!({
            "each": { "type": "string" }, "as": { "type": "string" }, "map": { "$ref": "#/$defs/map" },
        }),
    );
    json!({ "type": "object", "additionalProperties": { "anyOf": [{ "type": ["string", "number", "boolean"] }, each] } })
}
