//! Contracts compiled from `.proto` files, and their codecs.

use std::sync::Arc;

use bytes::Bytes;
use crossdock_contract::{Cardinality, Contract, Param, Problem, Scalar, TypeRef, Typed, UnknownFields, show};
use crossdock_message::{BodyType as _, Code, Format, Limits, Record, Value};
use crossdock_proto::{Files, compile, text_to_wire, wire_to_text};

struct Shop;

impl Files for Shop {
    fn read(&self, name: &str) -> Result<Option<Bytes>, String> {
        Ok((name == "shop.proto").then(|| Bytes::from_static(include_bytes!("../testdata/shop.proto"))))
    }
}

fn shop() -> Arc<Contract> {
    Arc::new(compile(&["shop.proto"], &Shop).unwrap_or_else(|error| panic!("{error}")))
}

fn named(name: &str) -> TypeRef {
    let contract = shop();
    let id = contract.find_record(name).expect(name);
    TypeRef::new(contract, id)
}

fn order() -> TypeRef {
    named("shop.v1.Order")
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn read(text: &str) -> Result<Value, String> {
    let read = order().read_json(&bytes(text), UnknownFields::Refuse, &Limits::default());
    read.map_err(|error| error.to_string())
}

/// Converts JSON to protobuf and back, both in one pass and by way of a value.
fn round_trip(text: &str) -> String {
    let (order, limits) = (order(), Limits::default());
    let wire = Bytes::from(order.json_to_wire(&bytes(text), UnknownFields::Refuse, &limits).expect(text));
    let direct = String::from_utf8(order.wire_to_json(&wire, &limits).expect(text)).expect("UTF-8");
    let value = order.decode(&wire, &limits).expect(text);
    let by_value = String::from_utf8(order.write_json(&value, &limits).expect(text)).expect("UTF-8");
    assert_eq!(by_value, direct, "both conversions agree");
    assert_eq!(order.encode(&value).expect(text), wire, "the value round-trips");
    direct
}

#[test]
fn a_proto_file_is_read_into_the_model() {
    let contract = shop();
    let (service, method) = contract.method("shop.v1.Orders/GetOrder").expect("the method");
    assert_eq!(service.doc, "Takes orders.");
    assert_eq!((method.doc.as_str(), method.idempotent), ("Finds one.", true));
    let rules: Vec<_> =
        method.http.iter().map(|rule| (&*rule.method, &*rule.path, &*rule.body, &*rule.response_body)).collect();
    assert_eq!(rules, [("GET", "/v1/orders/{id}", "", ""), ("POST", "/v1/orders:find", "*", "lines")]);
    let (_, watch) = contract.method("shop.v1.Orders/Watch").expect("the method");
    assert!(watch.server_streaming && !watch.client_streaming);
    let order = contract.record(method.output);
    assert_eq!(order.doc, "One order.");
    let field = order.field("customerName").expect("by its JSON name");
    assert_eq!((&*field.name, field.protobuf.number, field.cardinality), ("customer_name", 2, Cardinality::Implicit));
    assert_eq!(
        order.field("lines").map(|field| (field.cardinality, field.doc.as_str())),
        Some((Cardinality::Repeated, "What was ordered."))
    );
    assert_eq!(order.field("counts").map(|field| field.cardinality), Some(Cardinality::Map(Scalar::Text)));
    assert_eq!(
        order.field("priority").map(|field| (field.cardinality, field.variant_of)),
        Some((Cardinality::Optional, None))
    );
    assert_eq!(order.field("card").map(|field| field.variant_of), Some(Some(0)));
    assert!(order.field("deltas").expect("deltas").protobuf.packed);
}

#[test]
fn errors_in_a_file_have_their_location() {
    struct Broken;
    impl Files for Broken {
        fn read(&self, name: &str) -> Result<Option<Bytes>, String> {
            Ok((name == "a.proto")
                .then(|| Bytes::from_static(b"syntax = \"proto3\";\nmessage A {\n  Missing m = 1;\n}\n")))
        }
    }
    let error = compile(&["a.proto"], &Broken).expect_err("a type is missing");
    let location = error.location.expect("a location");
    assert_eq!((&*location.file, &location.text[location.range.clone()]), ("a.proto", "Missing"), "{}", error.problem);
    let error = compile(&["b.proto"], &Broken).expect_err("a file is missing");
    assert!(error.problem.contains("b.proto"), "{error}");
}

#[test]
fn imports_are_found_however_they_are_written() {
    struct Two;
    impl Files for Two {
        fn read(&self, name: &str) -> Result<Option<Bytes>, String> {
            Ok(match name {
                "a.proto" => Some(Bytes::from_static(
                    b"syntax = 'proto3';/**/import\n  public 'b' \".proto\"; message A { B b = 1; }",
                )),
                "b.proto" => Some(Bytes::from_static(b"syntax = \"proto3\"; message B { int32 n = 1; }")),
                _ => None,
            })
        }
    }
    let contract = compile(&["a.proto"], &Two).unwrap_or_else(|error| panic!("{error}"));
    assert!(contract.find_record("B").is_some());
}

#[test]
fn strings_of_digits_stay_strings() {
    assert_eq!(
        round_trip(r#"{"customerName":"085","lines":[{"sku":"007"}]}"#),
        r#"{"customerName":"085","lines":[{"sku":"007"}]}"#
    );
}

#[test]
fn a_list_of_one_item_stays_a_list() {
    assert_eq!(round_trip(r#"{"lines":[{"sku":"a"}],"deltas":[-1]}"#), r#"{"lines":[{"sku":"a"}],"deltas":[-1]}"#);
}

#[test]
fn an_empty_list_stays_a_list() {
    let value = read(r#"{"lines":[]}"#).expect("valid");
    assert_eq!(value.get("lines"), Some(&Value::List(Vec::new())));
    assert_eq!(
        read("{}").expect("valid").get("lines"),
        Some(&Value::List(Vec::new())),
        "an absent list is an empty list"
    );
    let written = order().write_json(&value, &Limits::default()).expect("writable");
    assert_eq!(String::from_utf8(written).as_deref(), Ok(r#"{"lines":[]}"#));
}

#[test]
fn int64_above_2_to_the_53_survives() {
    assert_eq!(
        round_trip(r#"{"id":"9007199254740993","big":18446744073709551615}"#),
        r#"{"id":"9007199254740993","big":"18446744073709551615"}"#
    );
}

#[test]
fn strings_that_are_not_numbers_are_rejected() {
    assert_eq!(read(r#"{"id":"a"}"#), Err("line 1, column 7: `id`: expected a number (int64), found a string".into()));
    assert!(read(r#"{"id":1.5}"#).expect_err("not an integer").contains("does not fit in int64"));
    assert!(read(r#"{"customerName":5}"#).expect_err("not a string").contains("expected a string, found a number"));
}

#[test]
fn enumerations_are_names_and_unknown_numbers_are_kept() {
    assert_eq!(round_trip(r#"{"status":"OPEN"}"#), r#"{"status":"OPEN"}"#);
    assert_eq!(round_trip(r#"{"status":77}"#), r#"{"status":77}"#);
    assert_eq!(
        read(r#"{"status":"OPN"}"#),
        Err("line 1, column 11: `status`: `shop.v1.Status` has no value `OPN`; did you mean `OPEN`?".into())
    );
}

#[test]
fn wrappers_distinguish_null_from_the_default() {
    assert_eq!(round_trip(r#"{"note":""}"#), r#"{"note":""}"#);
    assert_eq!(round_trip(r#"{"note":null}"#), "{}");
    assert_eq!(round_trip(r#"{"priority":0}"#), r#"{"priority":0}"#);
}

#[test]
fn two_fields_of_a_oneof_are_rejected() {
    assert_eq!(
        read(r#"{"card":"x","invoice":1}"#),
        Err("line 1, column 13: `invoice`: only one field of `payment` can be set".into())
    );
}

#[test]
fn null_in_a_list_is_rejected() {
    assert_eq!(
        read(r#"{"lines":[null]}"#),
        Err("line 1, column 11: `lines[0]`: null is not allowed in a list or map".into())
    );
    assert_eq!(
        round_trip(r#"{"extra":{"a":[null,1.5,{"b":"c"}]},"anything":null}"#),
        r#"{"extra":{"a":[null,1.5,{"b":"c"}]},"anything":null}"#
    );
}

#[test]
fn unknown_names_are_rejected_in_requests_and_ignored_in_replies() {
    assert_eq!(
        read("{\"id\":1,\n \"customerNam\":\"a\"}"),
        Err("line 2, column 2: `shop.v1.Order` has no field `customerNam`; did you mean `customerName`?".into())
    );
    let text = bytes(r#"{"new":[{"x":1}],"id":"7","status":"NEW"}"#);
    let value = order().read_json(&text, UnknownFields::Ignore, &Limits::default()).expect("ignored");
    assert_eq!(value.get("id"), Some(&Value::Int(7)));
    assert_eq!(value.get("status"), Some(&Value::from("STATUS_UNSPECIFIED")));
}

#[test]
fn duplicate_fields_are_rejected_even_under_two_names() {
    for text in [
        r#"{"customerName":"a","customer_name":"b"}"#,
        r#"{"id":1,"id":1}"#,
        r#"{"counts":{"a":1,"a":2}}"#,
        r#"{"byNumber":{"1":{},"01":{}}}"#,
    ] {
        assert!(read(text).is_err(), "{text}");
    }
}

#[test]
fn timestamps_durations_maps_and_bytes_round_trip() {
    let text = concat!(
        r#"{"counts":{"a":1,"b":0},"byNumber":{"-7":{"sku":"x"}},"placed":"2026-11-24T10:00:00.500Z","openFor":"-1.500s","#,
        r#""weight":0.1,"price":0.1,"seal":"_-8=","parent":{"id":"1"}}"#
    );
    assert_eq!(round_trip(text), text.replace("_-8=", "/+8="));
    for (text, value) in [(r#"{"price":"NaN"}"#, "NaN"), (r#"{"price":"-Infinity"}"#, "-Infinity")] {
        assert!(round_trip(text).contains(value));
    }
}

#[test]
fn an_any_is_decoded_if_its_type_is_known_and_kept_otherwise() {
    let text = r#"{"detail":{"@type":"type.googleapis.com/shop.v1.Line","sku":"a"}}"#;
    assert_eq!(round_trip(text), text);
    let reordered = r#"{"detail":{"sku":"a","@type":"type.googleapis.com/shop.v1.Line"}}"#;
    assert_eq!(round_trip(reordered), text);
    let duration = r#"{"detail":{"@type":"type.googleapis.com/google.protobuf.Duration","value":"1s"}}"#;
    assert_eq!(round_trip(duration), duration);
    assert!(
        read(r#"{"detail":{"@type":"type.googleapis.com/nowhere.X"}}"#).expect_err("unknown").contains("nowhere.X")
    );
    // Protobuf to protobuf does not need the type of the payload.
    let mut wire = vec![0x5a, 0];
    let any = [&[0x0a, 3][..], b"a/b", &[0x12, 2, 9, 9]].concat();
    wire[1] = u8::try_from(any.len()).expect("short");
    wire.extend(any);
    let wire = Bytes::from(wire);
    let value = order().decode(&wire, &Limits::default()).expect("kept");
    assert_eq!(order().encode(&value).expect("kept"), wire);
    assert!(order().wire_to_json(&wire, &Limits::default()).is_err(), "JSON needs the type");
}

#[test]
fn unknown_fields_are_kept_within_the_same_type_only() {
    // The field 99, a varint, and id = 7.
    let wire = Bytes::from_static(&[0x08, 7, 0x98, 0x06, 42]);
    let value = order().decode(&wire, &Limits::default()).expect("valid");
    assert_eq!(order().encode(&value).expect("valid"), wire);
    let request = named("shop.v1.GetOrderRequest");
    assert_eq!(request.encode(&value).expect("its fields fit"), [0x08, 7]);
}

#[test]
fn an_absent_field_without_presence_has_its_default() {
    let value = order().decode(&Bytes::new(), &Limits::default()).expect("valid");
    assert_eq!(value.get("id"), Some(&Value::Int(0)));
    assert_eq!(value.get("customer_name"), Some(&Value::from("")));
    assert_eq!(value.get("priority"), None);
    assert_eq!(value.get("parent"), None);
    assert!(matches!(&value, Value::Record(record) if record.is_empty()));
}

#[test]
fn a_value_of_the_wrong_type_is_rejected_with_its_path() {
    let rejection = |value: Value| order().encode(&value).expect_err("an error").to_string();
    let record = |name: &str, value: Value| Value::Record(Record::from_iter([(name.to_owned(), value)]));
    assert_eq!(rejection(record("custmer", Value::Null)), "`shop.v1.Order` has no field `custmer`");
    assert_eq!(rejection(record("customer_name", Value::Int(1))), "`customer_name`: expected a string, found a number");
    let lines = Value::List(vec![record("sku", Value::from("a")), record("quantity", Value::Int(-1))]);
    assert_eq!(rejection(record("lines", lines)), "`lines[1].quantity`: the number does not fit in uint32");
}

fn push_len(out: &mut Vec<u8>, mut len: usize) {
    while len >= 0x80 {
        out.push(u8::try_from(len & 0x7f).expect("seven bits") | 0x80);
        len >>= 7;
    }
    out.push(u8::try_from(len).expect("seven bits"));
}

/// A chain of `levels` records: field 20 of an order is an order.
fn nested(levels: usize) -> Bytes {
    let mut wire: Vec<u8> = Vec::new();
    for _ in 0..levels {
        let mut outer = vec![0xa2, 0x01];
        push_len(&mut outer, wire.len());
        outer.extend(wire);
        wire = outer;
    }
    wire.into()
}

#[test]
fn a_request_is_assembled_from_body_and_parameters() {
    let typed = Typed::new(order(), UnknownFields::Refuse, Arc::new(Limits::default()));
    let param = |path: &str, texts: &[&str]| Param {
        path: path.into(),
        texts: texts.iter().map(|text| (*text).into()).collect(),
    };
    let json = |wire: Bytes| {
        String::from_utf8(order().wire_to_json(&wire, &Limits::default()).expect("valid").clone()).expect("UTF-8")
    };
    let body = bytes(r#"{"customerName":"a","parent":{"customerName":"p"}}"#);
    let params = [
        param("id", &["7"]),
        param("parent.id", &["8"]),
        param("deltas", &["1", "-2"]),
        param("note", &["n"]),
        param("status", &["OPEN"]),
    ];
    assert_eq!(
        json(typed.assemble(Some((&body, Format::Json)), None, &params).expect("fits")),
        r#"{"id":"7","customerName":"a","status":"OPEN","note":"n","deltas":[1,-2],"parent":{"id":"8","customerName":"p"}}"#
    );
    let lines = bytes(r#"[{"sku":"a"}]"#);
    assert_eq!(
        json(typed.assemble(Some((&lines, Format::Json)), Some("lines"), &params[..1]).expect("fits")),
        r#"{"id":"7","lines":[{"sku":"a"}]}"#
    );
    for wrong in [
        param("id", &["a"]),
        param("nothing", &["1"]),
        param("id", &["1", "2"]),
        param("lines", &["x"]),
        param("parent", &["x"]),
        param("status", &["NEW"]),
    ] {
        assert_eq!(
            typed.assemble(None, None, std::slice::from_ref(&wrong)).map_err(|fault| fault.code),
            Err(Code::InvalidArgument),
            "{wrong:?}"
        );
    }
}

#[test]
fn a_field_can_be_set_only_once_by_any_of_its_names() {
    let typed = Typed::new(order(), UnknownFields::Refuse, Arc::new(Limits::default()));
    let param = |path: &str| Param { path: path.into(), texts: vec!["7".into()] };
    let reason = |body: Option<&str>, paths: &[&str]| {
        let field = bytes(r#"{"id":"1"}"#);
        let params: Vec<Param> = paths.iter().map(|path| param(path)).collect();
        typed.assemble(body.map(|_| (&field, Format::Json)), body, &params).map_err(|fault| fault.reason.to_string())
    };
    let duplicate = Err("FIELD_TWICE".to_owned());
    // The JSON name of the same field.
    assert_eq!(reason(None, &["customer_name", "customerName"]), duplicate);
    assert_eq!(reason(None, &["parent.customer_name", "parent.customerName"]), duplicate);
    // Within the field that is the body, and that field itself.
    assert_eq!(reason(Some("parent"), &["parent.id"]), duplicate);
    assert_eq!(reason(Some("parent"), &["id", "parent"]), duplicate);
    // A second member of the oneof would replace the first.
    assert_eq!(reason(None, &["card", "invoice"]), duplicate);
    for fits in [&["id", "customer_name"][..], &["parent.id", "id"], &["parent.card", "invoice"]] {
        assert!(reason(None, fits).is_ok(), "{fits:?}");
    }
    let deep = vec!["parent"; 100_000].join(".");
    assert_eq!(reason(None, &[&deep]), Err("ADDRESS_FIELD".to_owned()));
}

#[test]
fn one_field_can_be_the_response_body() {
    let typed = Typed::new(order(), UnknownFields::Refuse, Arc::new(Limits::default()))
        .field_as_body("lines")
        .expect("a field");
    let wire = Bytes::from(
        order()
            .json_to_wire(&bytes(r#"{"id":"1","lines":[{"sku":"a"}]}"#), UnknownFields::Refuse, &Limits::default())
            .expect("valid"),
    );
    assert_eq!(typed.recode(&wire, Format::Protobuf, Format::Json).as_deref(), Ok(&br#"[{"sku":"a"}]"#[..]));
    assert_eq!(typed.recode(&Bytes::new(), Format::Protobuf, Format::Json).as_deref(), Ok(&b"[]"[..]));
}

#[test]
fn the_proto_output_declares_the_same_contract() {
    struct Shown(String);
    impl Files for Shown {
        fn read(&self, name: &str) -> Result<Option<Bytes>, String> {
            Ok((name == "shown.proto").then(|| Bytes::from(self.0.clone())))
        }
    }
    let text = show::proto(&shop());
    let again = compile(&["shown.proto"], &Shown(text.clone())).unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(show::proto(&again), text);
    assert_eq!(show::json_schema(&again), show::json_schema(&shop()));
    assert!(show::outline(&again).contains("GET /v1/orders/{id}"), "{}", show::outline(&again));
}

#[test]
fn the_text_format_round_trips() {
    let (order, limits) = (order(), Limits::default());
    let wire = Bytes::from(text_to_wire(&order, "id: 5\nlines { sku: \"a\" }").expect("a text"));
    assert_eq!(order.wire_to_json(&wire, &limits).as_deref(), Ok(&br#"{"id":"5","lines":[{"sku":"a"}]}"#[..]));
    assert_eq!(text_to_wire(&order, &wire_to_text(&order, &wire, &limits).expect("a text")).map(Bytes::from), Ok(wire));
    assert!(
        text_to_wire(&order, "id: 5\nnothing: 1").expect_err("no field").to_string().starts_with("line 2, column 1")
    );
}

#[test]
fn depth_is_limited_in_both_formats() {
    let (order, limits) = (order(), Limits { depth: 500, ..Limits::default() });
    assert!(order.decode(&nested(99), &limits).is_ok());
    for levels in [100, 5_000] {
        for error in [
            order.decode(&nested(levels), &limits).expect_err("too deep"),
            order.wire_to_json(&nested(levels), &limits).expect_err("too deep"),
            order.normalize(&nested(levels), &limits).expect_err("too deep"),
        ] {
            assert_eq!(error.problem, Problem::Depth(100));
        }
    }
    let json = |levels: usize| bytes(&format!("{}{}", "{\"parent\":".repeat(levels) + "{}", "}".repeat(levels)));
    let narrow = Limits { depth: 10, ..Limits::default() };
    assert!(order.json_to_wire(&json(9), UnknownFields::Refuse, &narrow).is_ok());
    assert!(order.json_to_wire(&json(10), UnknownFields::Refuse, &narrow).is_err());
    let deep = bytes(&format!("{{\"anything\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000)));
    assert!(order.json_to_wire(&deep, UnknownFields::Refuse, &Limits::default()).is_err());
}

#[test]
fn nested_any_are_limited_before_they_are_decoded() {
    let chain = |levels: usize| {
        let mut payload: Vec<u8> = Vec::new();
        for _ in 0..levels {
            let url = b"type.googleapis.com/google.protobuf.Any";
            let mut any = vec![0x0a, u8::try_from(url.len()).expect("short")];
            any.extend_from_slice(url);
            any.push(0x12);
            push_len(&mut any, payload.len());
            any.extend(payload);
            payload = any;
        }
        Bytes::from(payload)
    };
    let any = named("google.protobuf.Any");
    let limits = Limits::default();
    assert!(any.wire_to_json(&chain(30), &limits).is_ok());
    for levels in [34, 11_000] {
        assert_eq!(any.wire_to_json(&chain(levels), &limits).expect_err("too deep").problem, Problem::AnyDepth(32));
        assert_eq!(any.decode(&chain(levels), &limits).expect_err("too deep").problem, Problem::AnyDepth(32));
    }
}

#[test]
fn the_number_of_values_is_limited() {
    let limits = Limits { nodes: 1000, ..Limits::default() };
    let run = |count: usize| {
        let mut wire = vec![0x7a];
        push_len(&mut wire, count);
        wire.extend(std::iter::repeat_n(2, count));
        Bytes::from(wire)
    };
    assert!(order().decode(&run(999), &limits).is_ok());
    assert_eq!(order().decode(&run(1000), &limits).expect_err("too many").problem, Problem::Nodes(1000));
    // Each empty item of a google.protobuf.ListValue is a null, of two bytes.
    let list = Bytes::from([0x0a, 0x00].repeat(1000));
    let error = named("google.protobuf.ListValue").decode(&list, &limits).expect_err("too many");
    assert_eq!(error.problem, Problem::Nodes(1000));
}

#[test]
fn truncated_and_corrupted_input_never_panics() {
    let text = r#"{"id":"5","lines":[{"sku":"abc","quantity":3}],"counts":{"a":1},"note":"n","placed":"2026-11-24T10:00:00Z","extra":{"a":[1,null]},"deltas":[1,2,-3],"detail":{"@type":"type.googleapis.com/shop.v1.Line","sku":"a"}}"#;
    let (order, limits) = (order(), Limits::default());
    let wire = Bytes::from(order.json_to_wire(&bytes(text), UnknownFields::Refuse, &limits).expect("valid"));
    for end in 0..wire.len() {
        let _ = order.decode(&wire.slice(..end), &limits);
        let _ = order.wire_to_json(&wire.slice(..end), &limits);
    }
    for at in 0..wire.len() {
        for bit in 0..8 {
            let mut changed = wire.to_vec();
            changed[at] ^= 1 << bit;
            let changed = Bytes::from(changed);
            if let Ok(value) = order.decode(&changed, &limits) {
                let again = Bytes::from(order.encode(&value).expect("a decoded value can be encoded"));
                assert_eq!(
                    order.decode(&again, &limits).map_err(|error| error.to_string()).map(|value| format!("{value:?}")),
                    Ok(format!("{value:?}"))
                );
            }
            let _ = order.wire_to_json(&changed, &limits);
        }
    }
    for end in 0..text.len() {
        assert!(order.json_to_wire(&bytes(&text[..end]), UnknownFields::Refuse, &limits).is_err());
    }
}
