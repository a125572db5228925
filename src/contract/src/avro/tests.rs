//! The codec against that of `apache-avro`, and at its limits.

use std::sync::Arc;

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value as Peer;
use apache_avro::writer::datum::GenericDatumWriter;
use bytes::Bytes;
use crossdock_message::{BodyType, Format, Limits, Value, json};

use super::AvroType;

fn parse(schema: &str) -> AvroType {
    AvroType::parse(schema, &[], "test", Arc::default()).expect("a schema")
}

fn read_json(text: &str) -> Value {
    json::read(&Bytes::copy_from_slice(text.as_bytes()), &Limits::default()).expect("JSON")
}

/// A document of a schema as JSON, and as `apache-avro` sees it.
fn agree(schema: &str, document: &str, expected: Peer) {
    let of_type = parse(schema);
    let peer = apache_avro::Schema::parse_str(schema).expect("a schema");
    let written = of_type.write(&read_json(document), Format::Avro).expect(document);
    let reader = GenericDatumReader::builder(&peer).build().expect("a reader");
    let found = reader.read_value(&mut &written[..]).expect("readable");
    assert_eq!(found, expected, "{schema}");
    let writer = GenericDatumWriter::builder(&peer).build().expect("a writer");
    let by_peer = writer.write_value_to_vec(expected).expect("writable");
    let back = of_type.recode(&by_peer.into(), Format::Avro, Format::Json).expect("readable");
    assert_eq!(std::str::from_utf8(&back).expect("text"), document, "{schema}");
}

fn record(fields: &[(&str, Peer)]) -> Peer {
    Peer::Record(fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
}

#[test]
fn values_of_all_types_are_those_of_apache_avro() {
    for (schema, document, expected) in [
        (r#""null""#, "null", Peer::Null),
        (r#""boolean""#, "true", Peer::Boolean(true)),
        (r#""int""#, "-2147483648", Peer::Int(i32::MIN)),
        (r#""long""#, "9223372036854775807", Peer::Long(i64::MAX)),
        (r#""float""#, "0.1", Peer::Float(0.1)),
        (r#""double""#, "0.1", Peer::Double(0.1)),
        (r#""bytes""#, r#""AP8=""#, Peer::Bytes(vec![0, 255])),
        (r#""string""#, r#""héllo""#, Peer::String("héllo".to_owned())),
        (r#"{"type":"array","items":"int"}"#, "[]", Peer::Array(vec![])),
        (
            r#"{"type":"array","items":{"type":"array","items":"int"}}"#,
            "[[1,2],[]]",
            Peer::Array(vec![Peer::Array(vec![Peer::Int(1), Peer::Int(2)]), Peer::Array(vec![])]),
        ),
        (r#"{"type":"map","values":"long"}"#, r#"{"a b":1}"#, Peer::Map([("a b".to_owned(), Peer::Long(1))].into())),
        (r#"{"type":"enum","name":"E","symbols":["A","B"]}"#, r#""B""#, Peer::Enum(1, "B".to_owned())),
        (r#"{"type":"fixed","name":"F","size":2}"#, r#""AP8=""#, Peer::Fixed(2, vec![0, 255])),
        (r#"["null","string"]"#, "null", Peer::Union(0, Box::new(Peer::Null))),
        (r#"["null","string"]"#, r#""x""#, Peer::Union(1, Box::new(Peer::String("x".to_owned())))),
        (r#"["string","null"]"#, r#""x""#, Peer::Union(0, Box::new(Peer::String("x".to_owned())))),
        (r#"["null","string","long"]"#, r#"{"long":5}"#, Peer::Union(2, Box::new(Peer::Long(5)))),
        (
            r#"["null",{"type":"record","name":"a.R","fields":[{"name":"x","type":"int"}]},"string"]"#,
            r#"{"a.R":{"x":1}}"#,
            Peer::Union(1, Box::new(record(&[("x", Peer::Int(1))]))),
        ),
        (
            r#"{"type":"record","name":"n.List","fields":[{"name":"v","type":"int"},{"name":"next","type":["null","List"]}]}"#,
            r#"{"v":1,"next":{"v":2,"next":null}}"#,
            record(&[
                ("v", Peer::Int(1)),
                (
                    "next",
                    Peer::Union(
                        1,
                        Box::new(record(&[("v", Peer::Int(2)), ("next", Peer::Union(0, Box::new(Peer::Null)))])),
                    ),
                ),
            ]),
        ),
        (r#"{"type":"int","logicalType":"date"}"#, r#""1969-12-31""#, Peer::Date(-1)),
        (r#"{"type":"int","logicalType":"time-millis"}"#, r#""23:59:59.999""#, Peer::TimeMillis(86_399_999)),
        (r#"{"type":"long","logicalType":"time-micros"}"#, r#""00:00:00.000001""#, Peer::TimeMicros(1)),
        (
            r#"{"type":"long","logicalType":"timestamp-millis"}"#,
            r#""1969-12-31T23:59:59.999Z""#,
            Peer::TimestampMillis(-1),
        ),
        (
            r#"{"type":"long","logicalType":"timestamp-micros"}"#,
            r#""2026-01-31T06:00:00.000001Z""#,
            Peer::TimestampMicros(1_769_839_200_000_001),
        ),
        (
            r#"{"type":"long","logicalType":"local-timestamp-millis"}"#,
            r#""2026-01-31T06:00:00""#,
            Peer::LocalTimestampMillis(1_769_839_200_000),
        ),
    ] {
        agree(schema, document, expected);
    }
}

#[test]
fn decimals_keep_their_digits_and_scale() {
    let bytes = parse(r#"{"type":"bytes","logicalType":"decimal","precision":6,"scale":2}"#);
    let fixed = parse(r#"{"type":"fixed","name":"D","size":3,"logicalType":"decimal","precision":6,"scale":2}"#);
    for (document, of_bytes, of_fixed, back) in [
        ("12.34", &[4, 0x04, 0xd2][..], &[0x00, 0x04, 0xd2][..], "12.34"),
        ("-0.05", &[2, 0xfb], &[0xff, 0xff, 0xfb], "-0.05"),
        ("1", &[2, 0x64], &[0, 0, 0x64], "1.00"),
        ("1e1", &[4, 0x03, 0xe8], &[0, 0x03, 0xe8], "10.00"),
        ("0.010e1", &[2, 10], &[0, 0, 10], "0.10"),
    ] {
        for (of_type, expected) in [(&bytes, of_bytes), (&fixed, of_fixed)] {
            let written = of_type.recode(&Bytes::copy_from_slice(document.as_bytes()), Format::Json, Format::Avro);
            let written = written.expect(document);
            assert_eq!(&written[..], expected, "{document}");
            let read = of_type.recode(&written, Format::Avro, Format::Json).expect(document);
            assert_eq!(&read[..], back.as_bytes());
        }
    }
    for (document, problem) in [
        ("0.001", "more than 2 digits after the point"),
        ("12345.67", "more than 6 digits"),
        ("\"1\"", "expected a number"),
    ] {
        let fault = bytes.write(&read_json(document), Format::Avro).expect_err(document);
        assert!(fault.message.contains(problem), "{}", fault.message);
    }
    let whole = parse(r#"{"type":"bytes","logicalType":"decimal","precision":30}"#);
    let written = whole.write(&read_json("123456789012345678901234567890"), Format::Avro).expect("30 digits");
    assert_eq!(whole.read(&written, Format::Avro).expect("readable"), read_json("123456789012345678901234567890"));
    let any = parse(r#"{"type":"bytes","logicalType":"big-decimal"}"#);
    for document in ["0.00100", "-5", "123456789012345678901234567890.5"] {
        let written = any.write(&read_json(document), Format::Avro).expect(document);
        assert_eq!(any.recode(&written, Format::Avro, Format::Json).expect(document), document.as_bytes());
    }
    // 5E+3 of Java: a negative scale stands for zeros.
    let negative = Bytes::from_static(&[6, 2, 5, 5]);
    assert_eq!(any.recode(&negative, Format::Avro, Format::Json).expect("a number"), "5000".as_bytes());
}

const ORDER: &str = r#"{"type":"record","name":"shop.Order","fields":[
    {"name":"id","type":"long"},
    {"name":"items","type":{"type":"array","items":{"type":"record","name":"Item","fields":[
        {"name":"sku","type":"string"},{"name":"count","type":"int","default":1}]}}},
    {"name":"note","type":["null","string"],"default":null},
    {"name":"tags","type":{"type":"map","values":"string"},"default":{"a":"b"}},
    {"name":"raw","type":"bytes","default":"ÿ"},
    {"name":"kind","type":["string","long"],"default":"new"}]}"#;

#[test]
fn absent_fields_have_the_defaults_of_the_schema() {
    let of_type = parse(ORDER);
    let document = Bytes::from_static(br#"{"id":1,"items":[{"sku":"x"}]}"#);
    let written = of_type.recode(&document, Format::Json, Format::Avro).expect("defaults");
    let back = of_type.recode(&written, Format::Avro, Format::Json).expect("readable");
    let expected =
        r#"{"id":1,"items":[{"sku":"x","count":1}],"note":null,"tags":{"a":"b"},"raw":"/w==","kind":{"string":"new"}}"#;
    assert_eq!(std::str::from_utf8(&back).expect("text"), expected);
}

#[test]
fn errors_name_the_field() {
    let of_type = parse(ORDER);
    for (document, field, problem) in [
        (r#"{"items":[]}"#, "id", "the field is missing"),
        (r#"{"id":1,"items":[{"sku":"a"},{"sku":5}]}"#, "items[1].sku", "expected a string"),
        (r#"{"id":1,"items":[],"nota":1}"#, "nota", "no such field"),
        (r#"{"id":1.5,"items":[]}"#, "id", "int64"),
        (r#"{"id":1,"items":[{"sku":"a","count":2147483648}]}"#, "items[0].count", "int32"),
        (r#"{"id":1,"items":[],"kind":"x"}"#, "kind", "`string`, `long`"),
        (r#"{"id":1,"items":[],"kind":{"long":"x"}}"#, "kind.long", "expected a number"),
    ] {
        let fault = of_type
            .recode(&Bytes::copy_from_slice(document.as_bytes()), Format::Json, Format::Avro)
            .expect_err(document);
        assert!(fault.message.contains(problem), "{}", fault.message);
        let found = fault.details.iter().find(|(name, _)| *name == "field").map(|(_, value)| value.to_string());
        assert_eq!(found.as_deref(), Some(field), "{}", fault.message);
    }
    let written = of_type.recode(&Bytes::from_static(br#"{"id":1,"items":[{"sku":"x"}]}"#), Format::Json, Format::Avro);
    let written = written.expect("an order");
    for len in 0..written.len() {
        assert!(of_type.read(&written.slice(..len), Format::Avro).is_err(), "{len} bytes of {}", written.len());
    }
    let longer = [&written[..], &[0]].concat();
    assert!(of_type.read(&longer.into(), Format::Avro).is_err());
}

#[test]
fn hostile_bytes_cost_little() {
    let list = parse(r#"{"type":"array","items":"null"}"#);
    // 2^62 items without a byte.
    let many = [&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f][..], &[0]].concat();
    assert!(list.read(&many.into(), Format::Avro).is_err());
    let text = parse(r#""string""#);
    for bytes in [&[0x01][..], &[0xfe, 0xff, 0xff, 0xff, 0x0f, b'x'], &[2, 0xff], &[0xff; 11], &[]] {
        assert!(text.read(&Bytes::copy_from_slice(bytes), Format::Avro).is_err(), "{bytes:?}");
    }
    // A record that contains itself cannot end.
    let endless = parse(r#"{"type":"record","name":"R","fields":[{"name":"r","type":"R"}]}"#);
    let fault = endless.read(&Bytes::new(), Format::Avro).expect_err("endless");
    assert!(fault.message.contains("nested"), "{}", fault.message);
    let deep = parse(r#"{"type":"record","name":"R","fields":[{"name":"r","type":["null","R"]}]}"#);
    assert!(deep.read(&Bytes::from(vec![2; 10_000]), Format::Avro).is_err());
    // Each item takes no byte in Avro, and a long name in JSON.
    let name = "n".repeat(10_000);
    let schema = format!(
        r#"{{"type":"array","items":{{"type":"record","name":"R","fields":[{{"name":"{name}","type":"null"}}]}}}}"#
    );
    let wide = Bytes::from_static(&[0xa0, 0x9c, 0x01, 0]);
    let fault = parse(&schema).recode(&wide, Format::Avro, Format::Json).expect_err("10 000 times 10 000 bytes");
    assert!(fault.message.contains("bytes in JSON"), "{}", fault.message);
    let keys = parse(r#"{"type":"map","values":"null"}"#);
    assert!(keys.read(&Bytes::from_static(&[4, 2, b'a', 2, b'a', 0]), Format::Avro).is_err(), "a key twice");
}

#[test]
fn names_without_a_namespace_are_not_those_of_the_enclosing_one() {
    let of_type = parse(
        r#"{"type":"record","name":"a.R","fields":[
            {"name":"x","type":{"type":"enum","name":"E","symbols":["A","B"]}},
            {"name":"y","type":{"type":"enum","name":"E","namespace":"","symbols":["X","Y"]}},
            {"name":"z","type":"a.E"},
            {"name":"u","type":["null",{"type":"fixed","name":"F","namespace":"","size":1},"a.E"]}]}"#,
    );
    let document = Bytes::from_static(br#"{"x":"A","y":"Y","z":"B","u":{"F":"AA=="}}"#);
    let written = of_type.recode(&document, Format::Json, Format::Avro).expect("valid");
    assert_eq!(&written[..], [0, 2, 2, 2, 0]);
    assert_eq!(of_type.recode(&written, Format::Avro, Format::Json).expect("valid"), document);
    let twice = r#"["null",{"type":"fixed","name":"F","size":1},{"type":"array","items":{"type":"fixed","name":"F","size":2}}]"#;
    assert!(AvroType::parse(twice, &[], "test", Arc::default()).is_err());
}

#[test]
fn defaults_of_unions_are_those_of_the_branch_that_they_are_of() {
    for (branches, default, expected) in [
        (r#"["long","string"]"#, r#""5""#, r#"{"string":"5"}"#),
        (r#"["string","long"]"#, "5", r#"{"long":5}"#),
        (
            r#"[{"type":"record","name":"A","fields":[{"name":"x","type":"int","default":1}]},
                {"type":"record","name":"B","fields":[{"name":"y","type":"int"}]}]"#,
            r#"{"y":7}"#,
            r#"{"B":{"y":7}}"#,
        ),
        (r#"["int","long"]"#, "2147483648", r#"{"long":2147483648}"#),
    ] {
        let schema = format!(
            r#"{{"type":"record","name":"R","fields":[{{"name":"u","type":{branches},"default":{default}}}]}}"#
        );
        let of_type = parse(&schema);
        let written = of_type.write(&read_json("{}"), Format::Avro).expect("a default");
        let back = of_type.recode(&written, Format::Avro, Format::Json).expect("readable");
        assert_eq!(std::str::from_utf8(&back).expect("text"), format!(r#"{{"u":{expected}}}"#));
    }
}

#[test]
fn hostile_schemas_cost_little() {
    let refused =
        |schema: &str, references: &[&str]| AvroType::parse(schema, references, "test", Arc::default()).is_err();
    assert!(refused(r#"{"type":"fixed","name":"F","size":100000000000}"#, &[]));
    for (digits, inner) in [("70000", r#""bytes""#), ("4", r#""fixed","name":"F","size":100000000000"#)] {
        let schema = format!(r#"{{"type":{inner},"logicalType":"decimal","precision":{digits},"scale":{digits}}}"#);
        assert!(refused(&schema, &[]), "{schema}");
    }
    // Each document is nested a little, and all of them together too deeply for a stack.
    let chain: Vec<String> = (0..50)
        .map(|number| {
            let inner = (0..50)
                .fold(format!("\"t.R{}\"", number + 1), |inner, _| format!(r#"{{"type":"array","items":{inner}}}"#));
            format!(r#"{{"type":"record","name":"t.R{number}","fields":[{{"name":"f","type":{inner}}}]}}"#)
        })
        .collect();
    assert!(refused(&chain[0], &chain[1..].iter().map(String::as_str).collect::<Vec<_>>()));
    // Defaults that double with each level.
    let mut schema = r#"{"type":"record","name":"A0","fields":[]}"#.to_owned();
    for level in 1..40 {
        schema = format!(
            r#"{{"type":"record","name":"A{level}","fields":[{{"name":"a","type":{schema},"default":{{}}}},{{"name":"b","type":"A{}","default":{{}}}}]}}"#,
            level - 1
        );
    }
    let doubling = parse(&schema);
    let fault = doubling.write(&read_json("{}"), Format::Avro).expect_err("2^40 values");
    assert!(fault.message.contains("more than 200000 values"), "{}", fault.message);
}

#[test]
fn the_first_and_last_times_are_written_as_they_are_read() {
    for logical in ["timestamp-millis", "timestamp-micros", "timestamp-nanos", "local-timestamp-nanos"] {
        let of_type = parse(&format!(r#"{{"type":"long","logicalType":"{logical}"}}"#));
        for count in [i64::MIN, i64::MIN + 1, -1, 0, i64::MAX] {
            let mut bytes = vec![];
            let mut left = ((count << 1) ^ (count >> 63)).cast_unsigned();
            while left >= 0x80 {
                bytes.push(left.to_le_bytes()[0] | 0x80);
                left >>= 7;
            }
            bytes.push(left.to_le_bytes()[0]);
            let bytes = Bytes::from(bytes);
            let value = of_type.read(&bytes, Format::Avro).expect("a time");
            assert_eq!(of_type.write(&value, Format::Avro).expect("the same"), bytes, "{logical} {count}");
        }
    }
}

#[test]
fn schemas_may_refer_to_others() {
    let order = r#"{"type":"record","name":"shop.Order","fields":[{"name":"to","type":"geo.Address"}]}"#;
    let address = r#"{"type":"record","name":"geo.Address","fields":[{"name":"city","type":"string"},{"name":"in","type":"Country"}]}"#;
    let country = r#"{"type":"enum","name":"geo.Country","symbols":["CH"]}"#;
    let of_type = AvroType::parse(order, &[address, country], "test", Arc::default()).expect("references");
    let document = Bytes::from_static(br#"{"to":{"city":"Bern","in":"CH"}}"#);
    let written = of_type.recode(&document, Format::Json, Format::Avro).expect("an order");
    assert_eq!(of_type.recode(&written, Format::Avro, Format::Json).expect("an order"), document);
    assert!(AvroType::parse(order, &[], "test", Arc::default()).is_err(), "a missing reference");
    for invalid in ["", "{", r#"{"type":"record"}"#, r#"{"type":"unknown"}"#, &"[".repeat(100_000)] {
        assert!(AvroType::parse(invalid, &[], "test", Arc::default()).is_err());
    }
}
