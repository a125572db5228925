//! Descriptor sets that protoc would never write, from a file or from a service that was asked for them.

use bytes::Bytes;
use prost::Message as _;

use super::descriptor::{Field, File, FileSet, Oneof, Record};
use super::from_descriptor_set;

fn refused(records: Vec<Record>) -> String {
    let file = File { name: "a.proto".into(), package: "p".into(), message_type: records, ..File::default() };
    let set = FileSet { file: vec![file.encode_to_vec().into()] };
    from_descriptor_set(&Bytes::from(set.encode_to_vec())).expect_err("refused").to_string()
}

fn field(name: &str, number: i32) -> Field {
    Field { name: name.into(), number, label: 1, r#type: 9, ..Field::default() }
}

fn with(fields: Vec<Field>) -> Record {
    Record { name: "R".into(), field: fields, ..Record::default() }
}

#[test]
fn a_oneof_that_is_not_declared_is_refused() {
    for index in [-1, 1, i32::MAX] {
        let oneof_decl = vec![Oneof { name: "o".into(), ..Oneof::default() }];
        let member = Field { oneof_index: Some(index), ..field("a", 1) };
        let problem = refused(vec![Record { oneof_decl, ..with(vec![member]) }]);
        assert!(problem.contains("of a oneof that is not there"), "{problem}");
    }
}

#[test]
fn names_and_numbers_stand_once() {
    for fields in [vec![field("a", 1), field("a", 2)], vec![field("a", 1), field("b", 1)], vec![field("", 1)]] {
        let problem = refused(vec![with(fields)]);
        assert!(problem.contains("a second field"), "{problem}");
    }
    let called = |name: &str, json_name: &str, number| Field { json_name: json_name.into(), ..field(name, number) };
    for (first, second) in [("b", "a"), ("c", "c"), ("b", "b")] {
        let problem = refused(vec![with(vec![called("a", first, 1), called("b", second, 2)])]);
        assert!(problem.contains("that may be called"), "{problem}");
    }
    let problem = refused(vec![with(Vec::new()), with(Vec::new())]);
    assert!(problem.contains("declared twice"), "{problem}");
    for number in [0, -1, 1 << 29] {
        let problem = refused(vec![with(vec![field("a", number)])]);
        assert!(problem.contains("has the number"), "{problem}");
    }
}

#[test]
fn names_inside_long_names_are_counted_before_they_are_made() {
    let inner = |index: usize| Record { name: format!("i{index}"), ..Record::default() };
    let outer = Record { name: "n".repeat(100_000), nested_type: (0..2_000).map(inner).collect(), ..Record::default() };
    let problem = refused(vec![outer]);
    assert!(problem.contains("too many names"), "{problem}");
}

#[test]
fn more_fields_than_places_are_refused() {
    let problem = refused(vec![with((1..=65_001).map(|number| field(&format!("f{number}"), number)).collect())]);
    assert!(problem.contains("more than 65000 fields"), "{problem}");
}
