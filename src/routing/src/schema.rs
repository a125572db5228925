//! The JSON Schema (draft 2020-12) of route files.

use std::sync::Arc;

use crossdock_ports::Adapter;
use crossdock_settings::{FromNode as _, Settings as _, described};
use serde_json::{Map, Value, json};

use crate::load::{ClusterRole, ContractSettings, RouteSettings, TOP_KEYS, TestSettings};
use crate::policies::policy_schemas;
use crate::services::service_properties;
use crate::steps::{map_schema, steps_schema};

/// The schema of route files with the parts of these adapters.
#[must_use]
pub fn route_file_schema(adapters: &[Arc<dyn Adapter>]) -> Value {
    let by_name = |schema: Value| json!({ "type": "object", "additionalProperties": schema });
    let properties = [
        ("version", json!({ "const": 1 }), "The version of the format."),
        ("contracts", by_name(ContractSettings::schema()), "Contracts by name: the types of messages and calls."),
        ("services", by_name(service(adapters)), "Services by name: what routes call, and how."),
        (
            "routes",
            by_name(route(adapters)),
            "Routes by name: the messages that are accepted, and what is done with them.",
        ),
        (
            "tests",
            json!({ "type": "array", "items": TestSettings::schema() }),
            "Tests of routes, run by `crossdock test`.",
        ),
    ];
    debug_assert!(TOP_KEYS.iter().eq(properties.iter().map(|(key, ..)| key)));
    let properties: Map<String, Value> =
        properties.into_iter().map(|(key, schema, text)| (key.to_owned(), described(schema, text))).collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Crossdock route file",
        "type": "object",
        "required": ["version"],
        "additionalProperties": false,
        "properties": properties,
        "$defs": { "steps": steps_schema(), "map": map_schema() },
    })
}

fn service(adapters: &[Arc<dyn Adapter>]) -> Value {
    let mut properties = service_properties();
    for adapter in adapters {
        let text = format!("The service is called over {}.", adapter.name());
        properties.insert(adapter.name().to_owned(), described(adapter.schemas().service, &text));
    }
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

fn route(adapters: &[Arc<dyn Adapter>]) -> Value {
    let mut protocols = Map::new();
    for adapter in adapters {
        let text = format!("Messages that arrive over {}.", adapter.name());
        protocols.insert(adapter.name().to_owned(), described(adapter.schemas().entry, &text));
    }
    let role = "With `singleton`, one instance of the cluster reads the messages at a time.";
    protocols.insert("cluster".to_owned(), described(ClusterRole::schema(), role));
    let entry = json!({
        "type": "object", "properties": protocols, "minProperties": 1, "maxProperties": 2, "additionalProperties": false,
    });
    let mut properties = RouteSettings::properties();
    let mut refine = |key: &str, schema: Value| {
        if let (Some(Value::Object(property)), Value::Object(schema)) = (properties.get_mut(key), schema) {
            property.extend(schema);
        }
    };
    refine("from", json!({ "anyOf": [entry, { "type": "array", "items": entry, "minItems": 1 }] }));
    refine("steps", json!({ "$ref": "#/$defs/steps" }));
    properties.extend(policy_schemas());
    json!({ "type": "object", "required": ["from", "steps"], "properties": properties, "additionalProperties": false })
}
