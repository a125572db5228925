use std::sync::Arc;

use bytes::Bytes;
use crossdock_message::{ByteString, Decimal, Limits, Value};

use super::*;

/// A contract without protobuf: `t.Reading` with exact numbers, a nullable list and facets.
fn neutral() -> TypeRef {
    use crate::model::{Bound, Builder, Facets, Field, JsonField, Kind, ProtobufField};

    let field = |name: &'static str, cardinality, scalar, nullable, facets: Option<Facets>| Field {
        name: name.into(),
        cardinality,
        kind: Kind::Scalar(scalar),
        nullable,
        variant_of: None,
        facets: facets.map(Box::new),
        doc: String::new(),
        json: JsonField { name: name.into(), ..JsonField::default() },
        protobuf: ProtobufField::absent(),
        xml: None,
        index: 0,
    };
    let mut builder = Builder::default();
    let id = builder.declare_record("t.Reading".into(), String::new());
    let bound = |text: &'static str| Some(Bound { number: Decimal::new(text).expect("a number"), is_exclusive: false });
    let positive = Facets { min: bound("0"), ..Facets::default() };
    builder.record_mut(id).fields = vec![
        field("exact", Cardinality::Required, Scalar::Decimal, false, Some(positive)),
        field("count", Cardinality::Optional, Scalar::Integer, true, None),
        field("on", Cardinality::Optional, Scalar::Lexical, false, None),
        field("gaps", Cardinality::Repeated, Scalar::Int32, true, None),
    ];
    TypeRef::new(Arc::new(builder.finish()), id)
}

fn through_json(text: &'static str) -> Result<String, String> {
    let limits = Limits::default();
    let read = neutral().read_json(&Bytes::from_static(text.as_bytes()), UnknownFields::Refuse, &limits);
    let value = read.map_err(|error| error.to_string())?;
    let written = neutral().write_json(&value, &limits).map_err(|error| error.to_string())?;
    Ok(String::from_utf8(written).expect("JSON is UTF-8"))
}

#[test]
fn exact_numbers_and_lexical_values_keep_their_digits() {
    for text in [
        r#"{"exact":0.1000}"#,
        r#"{"exact":123456789012345678901234567890.12345}"#,
        r#"{"exact":1,"count":123456789012345678901234567890}"#,
        r#"{"exact":1,"on":"2026-01-31"}"#,
    ] {
        assert_eq!(through_json(text).as_deref(), Ok(text));
    }
    assert!(through_json(r#"{"exact":1,"count":1.5}"#).is_err(), "an integer has no fraction");
}

#[test]
fn null_differs_from_absence_if_a_field_is_nullable() {
    for text in [r#"{"exact":1,"count":null}"#, r#"{"exact":1,"gaps":[1,null,3]}"#, r#"{"exact":1}"#] {
        assert_eq!(through_json(text).as_deref(), Ok(text));
    }
    assert_eq!(
        through_json(r#"{"exact":1,"on":null}"#).as_deref(),
        Ok(r#"{"exact":1}"#),
        "null means absence elsewhere"
    );
}

#[test]
fn facets_are_checked_on_every_value_that_is_read() {
    assert_eq!(
        through_json(r#"{"exact":-0.01}"#),
        Err("line 1, column 10: `exact`: the number must be at least 0".to_owned())
    );
    let value = Value::Record([(ByteString::from_static("exact"), Value::Int(-1))].into_iter().collect());
    let error = neutral().write_json(&value, &Limits::default()).expect_err("out of range");
    assert_eq!(error.problem, Problem::Facet(FacetViolation::Range { rule: "at least", bound: "0".to_owned() }));
}

#[test]
fn values_that_protobuf_cannot_represent_are_rejected() {
    let read = neutral().read_json(&Bytes::from_static(br#"{"exact":0.5}"#), UnknownFields::Refuse, &Limits::default());
    let error = neutral().encode(&read.expect("JSON")).expect_err("no encoding");
    assert!(matches!(error.problem, Problem::Unwritable(_)), "{error}");
}
