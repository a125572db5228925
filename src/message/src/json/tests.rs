use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{Decimal, Limits, Record, Value};

fn parse(text: &str) -> Result<Value, JsonError> {
    read(&Bytes::copy_from_slice(text.as_bytes()), &Limits::default())
}

fn round_trip(text: &str) -> String {
    let value = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    String::from_utf8(write(&value).expect("writable")).expect("UTF-8")
}

#[test]
fn all_digits_round_trip() {
    for text in [
        "18446744073709551615",
        "9223372036854775808",
        "-9223372036854775808",
        "-9223372036854775809",
        "12345678901234567.89",
        "1.10",
        "1.0",
        "-0",
        "-0.0",
        "1e5",
        "1E+05",
        "0.1000000000000000055511151231257827021181583404541015625",
        "123456789012345678901234567890",
        r#"{"b":1,"a":[1.50,{"c":null}],"z":"085"}"#,
        "[]",
        "[[]]",
        "{}",
        r#"["one"]"#,
    ] {
        assert_eq!(round_trip(text), text);
    }
}

#[test]
fn integers_above_2_to_the_53_are_exact() {
    assert_eq!(parse("9007199254740993"), Ok(Value::Int(9_007_199_254_740_993)));
}

#[test]
fn text_with_digits_stays_text() {
    assert_eq!(parse("\"085\""), Ok(Value::Text("085".into())));
}

#[test]
fn escapes_are_read_and_written() {
    assert_eq!(parse(r#""a\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00b""#), Ok("a\"\\/\u{8}\u{c}\n\r\t\u{e9}\u{1f600}b".into()));
    assert_eq!(round_trip(r#""\u0000\u001f\u007f""#), "\"\\u0000\\u001f\u{7f}\"");
}

#[test]
fn invalid_documents_are_rejected_with_the_position() {
    use JsonErrorKind as K;
    let cases: &[(&str, K, usize, usize)] = &[
        ("", K::End("a value"), 1, 1),
        ("{\"a\":1,\n \"a\":2}", K::DuplicateKey("a".into()), 2, 2),
        ("{\"a\":1,\"\\u0061\":2}", K::DuplicateKey("a".into()), 1, 8),
        ("\"\\ud800\"", K::LoneSurrogate, 1, 2),
        ("\"\\udc00x\"", K::LoneSurrogate, 1, 2),
        ("\"\\ud800\\u0041\"", K::LoneSurrogate, 1, 2),
        ("[1,]", K::Expected("a value"), 1, 4),
        ("[1 2]", K::Expected("`,` or `]`"), 1, 4),
        ("{\"a\" 1}", K::Expected("`:`"), 1, 6),
        ("{a:1}", K::Expected("a quoted key"), 1, 2),
        ("[1", K::End("`,` or `]`"), 1, 3),
        ("\"abc", K::End("the closing quote"), 1, 5),
        ("\"a\tb\"", K::ControlCharacter, 1, 3),
        ("\"\\x\"", K::Escape, 1, 2),
        ("1 2", K::Trailing, 1, 3),
        ("1e999", K::NumberRange, 1, 1),
        ("-1e999", K::NumberRange, 1, 1),
        ("01", K::Number, 1, 1),
        ("+1", K::Number, 1, 1),
        (".5", K::Number, 1, 1),
        ("1.", K::Number, 1, 1),
        ("1.5.5", K::Number, 1, 1),
        ("NaN", K::Expected("a value"), 1, 1),
        ("nul", K::Expected("a value"), 1, 1),
        ("\u{feff}1", K::Expected("a value"), 1, 1),
    ];
    for (text, kind, line, column) in cases {
        let error = parse(text).expect_err(text);
        assert_eq!((&error.kind, error.line, error.column), (kind, *line, *column), "{text:?}");
    }
    let error = read(&Bytes::from_static(b"[\"\xff\"]"), &Limits::default()).expect_err("invalid UTF-8");
    assert_eq!((error.kind, error.offset), (K::Utf8, 2));
}

#[test]
fn limits_are_exact() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let keys = |count: usize| {
        let fields: Vec<String> = (0..count).map(|number| format!("\"k{number}\":0")).collect();
        format!("{{{}}}", fields.join(","))
    };
    let limits = Limits { depth: 10, keys: 40, nodes: 50, number_len: 12, ..Limits::default() };
    let bounded = |text: String| read(&Bytes::from(text), &limits).map_err(|error| error.kind);
    assert!(bounded(nested(9)).is_ok() && bounded(nested(10)).is_ok());
    assert_eq!(bounded(nested(11)), Err(JsonErrorKind::Depth(10)));
    assert!(bounded(keys(39)).is_ok() && bounded(keys(40)).is_ok());
    assert_eq!(bounded(keys(41)), Err(JsonErrorKind::Keys(40)));
    let items = |count: usize| format!("[{}]", vec!["0"; count].join(","));
    assert!(bounded(items(48)).is_ok() && bounded(items(49)).is_ok());
    assert_eq!(bounded(items(50)), Err(JsonErrorKind::Nodes(50)));
    assert!(bounded("1".repeat(11)).is_ok() && bounded("1".repeat(12)).is_ok());
    assert_eq!(bounded("1".repeat(13)), Err(JsonErrorKind::NumberLen(12)));
}

#[test]
fn bombs_are_rejected_early() {
    assert_eq!(parse(&"[".repeat(100_000)).expect_err("deep").kind, JsonErrorKind::Depth(64));
    assert_eq!(parse(&"{\"a\":".repeat(100_000)).expect_err("deep").kind, JsonErrorKind::Depth(64));
    let keys: Vec<String> = (0..1_000_000).map(|number| format!("\"{number}\":0")).collect();
    let wide = format!("{{{}}}", keys.join(","));
    assert_eq!(parse(&wide).expect_err("wide").kind, JsonErrorKind::Keys(10_000));
}

#[test]
fn the_depth_limit_cannot_exceed_the_ceiling() {
    let limits = Limits { depth: usize::MAX, ..Limits::default() };
    let deep = Bytes::from("[".repeat(1_000_000));
    assert_eq!(read(&deep, &limits).expect_err("deep").kind, JsonErrorKind::Depth(Limits::DEPTH_CEILING));
}

#[test]
fn nan_and_infinities_cannot_be_written() {
    for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert!(write(&Value::F64(number)).is_err());
    }
}

fn values() -> impl Strategy<Value = Value> {
    let number = "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?";
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        any::<u64>().prop_map(Value::from),
        number.prop_filter_map("not an integer of 64 bits", |text| {
            let fits = text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok();
            if fits && text != "-0" { None } else { Decimal::new(text).ok().map(Value::Decimal) }
        }),
        any::<String>().prop_map(|text| Value::Text(text.into())),
    ];
    scalar.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::List),
            prop::collection::vec((any::<String>(), inner), 0..6)
                .prop_map(|fields| Value::Record(fields.into_iter().collect::<Record>())),
        ]
    })
}

proptest! {
    #[test]
    fn values_round_trip(value in values()) {
        let bytes = Bytes::from(write(&value).expect("writable"));
        prop_assert_eq!(read(&bytes, &Limits::default()).expect("readable"), value);
    }

    #[test]
    fn never_panics_and_agrees_with_serde_json(text in r#"[\[\]{}",:0-9eE.+\-a-z\\ ud8]{0,24}"#) {
        let ours = parse(&text);
        let theirs = serde_json::from_str::<serde_json::Value>(&text);
        match ours {
            Ok(_) => prop_assert!(theirs.is_ok(), "only ours accepts {:?}", text),
            Err(error) if matches!(error.kind, JsonErrorKind::DuplicateKey(_)) => {}
            Err(error) => prop_assert!(theirs.is_err(), "only ours rejects {:?}: {}", text, error),
        }
    }
}
