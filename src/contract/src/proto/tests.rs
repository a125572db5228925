//! Invalid descriptor sets, which protoc never writes, but a file or a reflection service may contain.

use bytes::Bytes;
use prost::Message as _;

use super::descriptor::{Field, File, FileSet, Oneof, Record};
use super::from_descriptor_set;

fn rejection(records: Vec<Record>) -> String {
    let file = File { name: "a.proto".into(), package: "p".into(), message_type: records, ..File::default() };
    let set = FileSet { file: vec![file.encode_to_vec().into()] };
    from_descriptor_set(&Bytes::from(set.encode_to_vec())).expect_err("an error").to_string()
}

fn field(name: &str, number: i32) -> Field {
    Field { name: name.into(), number, label: 1, r#type: 9, ..Field::default() }
}

fn with(fields: Vec<Field>) -> Record {
    Record { name: "R".into(), field: fields, ..Record::default() }
}

#[test]
fn an_undeclared_oneof_is_rejected() {
    for index in [-1, 1, i32::MAX] {
        let oneof_decl = vec![Oneof { name: "o".into(), ..Oneof::default() }];
        let member = Field { oneof_index: Some(index), ..field("a", 1) };
        let problem = rejection(vec![Record { oneof_decl, ..with(vec![member]) }]);
        assert!(problem.contains("a oneof that is not declared"), "{problem}");
    }
}

#[test]
fn duplicate_names_and_numbers_are_rejected() {
    for fields in [vec![field("a", 1), field("a", 2)], vec![field("a", 1), field("b", 1)], vec![field("", 1)]] {
        let problem = rejection(vec![with(fields)]);
        assert!(problem.contains("missing or duplicate name or number"), "{problem}");
    }
    let json_named = |name: &str, json_name: &str, number| Field { json_name: json_name.into(), ..field(name, number) };
    for (first, second) in [("b", "a"), ("c", "c"), ("b", "b")] {
        let problem = rejection(vec![with(vec![json_named("a", first, 1), json_named("b", second, 2)])]);
        assert!(problem.contains("with the name or JSON name"), "{problem}");
    }
    let problem = rejection(vec![with(Vec::new()), with(Vec::new())]);
    assert!(problem.contains("declared twice"), "{problem}");
    for number in [0, -1, 1 << 29] {
        let problem = rejection(vec![with(vec![field("a", number)])]);
        assert!(problem.contains("has the invalid number"), "{problem}");
    }
}

#[test]
fn full_names_are_limited_before_they_are_allocated() {
    let inner = |index: usize| Record { name: format!("i{index}"), ..Record::default() };
    let outer = Record { name: "n".repeat(100_000), nested_type: (0..2_000).map(inner).collect(), ..Record::default() };
    let problem = rejection(vec![outer]);
    assert!(problem.contains("too many names"), "{problem}");
}

#[test]
fn too_many_fields_are_rejected() {
    let problem = rejection(vec![with((1..=65_001).map(|number| field(&format!("f{number}"), number)).collect())]);
    assert!(problem.contains("more than 65000 fields"), "{problem}");
}
