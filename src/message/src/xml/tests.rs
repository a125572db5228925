use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{Limits, Record, Value, json};

fn parse(text: &str) -> Result<Value, XmlError> {
    read(&Bytes::copy_from_slice(text.as_bytes()), &Limits::default())
}

/// The view as JSON, which is easier to read.
fn view(text: &str) -> String {
    let value = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    String::from_utf8(json::write(&value).expect("writable")).expect("UTF-8")
}

fn refusal(text: &str) -> XmlErrorKind {
    parse(text).expect_err(text).kind
}

#[test]
fn a_single_child_is_a_list_too() {
    assert_eq!(view("<o><i>1</i></o>"), r#"{"$root":"o","i":[{"$text":"1"}]}"#);
    assert_eq!(
        view("<o><i>1</i><j/><i>2</i></o>"),
        r#"{"$root":"o","i":[{"$text":"1"},{"$text":"2"}],"j":[{"$text":""}]}"#
    );
}

#[test]
fn text_never_becomes_a_number_and_keeps_white_space() {
    assert_eq!(view("<a b=\"007\"> 085 </a>"), r#"{"$root":"a","@b":"007","$text":" 085 "}"#);
    assert_eq!(
        view("<a>x&lt;&amp;&#65;&#x1F600;<![CDATA[<b>]]>y</a>"),
        "{\"$root\":\"a\",\"$text\":\"x<&A\u{1f600}<b>y\"}"
    );
    assert_eq!(view("<a>\r\n1\r2</a>"), r#"{"$root":"a","$text":"\n1\n2"}"#);
}

#[test]
fn names_do_not_depend_on_prefixes() {
    let default = r#"<o xmlns="urn:a"><i id="1"/><n xmlns="urn:b"/></o>"#;
    let prefixed = r#"<a:o xmlns:a="urn:a" xmlns:b="urn:b"><a:i id="1"/><b:n/></a:o>"#;
    assert_eq!(view(default), view(prefixed));
    assert_eq!(view(default), r#"{"$root":"{urn:a}o","i":[{"@id":"1","$text":""}],"{urn:b}n":[{"$text":""}]}"#);
    assert_eq!(
        view(r#"<o xml:lang="de"/>"#),
        r#"{"$root":"o","@{http://www.w3.org/XML/1998/namespace}lang":"de","$text":""}"#
    );
}

#[test]
fn document_types_are_rejected_unread() {
    for text in [
        "<!DOCTYPE a><a/>",
        "<!DOCTYPE a SYSTEM \"file:///etc/passwd\"><a/>",
        "<!DOCTYPE a [<!ENTITY b \"b\"><!ENTITY c \"&b;&b;\">]><a>&c;</a>",
        "<?xml version=\"1.0\"?><!DOCTYPE a [<!ENTITY % p SYSTEM \"http://127.0.0.1/\"> %p;]><a/>",
    ] {
        assert_eq!(refusal(text), XmlErrorKind::DocType, "{text}");
    }
    assert_eq!(refusal("<a>&nbsp;</a>"), XmlErrorKind::Entity("nbsp".into()));
    assert_eq!(refusal("<a b=\"&nbsp;\"/>"), XmlErrorKind::Entity("nbsp".into()));
}

#[test]
fn documents_that_are_not_well_formed_are_rejected() {
    for text in [
        "",
        " ",
        "text",
        "<a>",
        "<a></b>",
        "</a>",
        "<a/><b/>",
        "<a/>text",
        "text<a/>",
        "<a b=1/>",
        "<a b=\"1\" b=\"2\"/>",
        "<a b=\"<\"/>",
        "<1a/>",
        "<a:b/>",
        "<a b:c=\"1\"/>",
        "<a>\u{1}</a>",
        "<a>&#0;</a>",
        "<a>&#xd800;</a>",
        "<a>]]></a>",
        "<a><!-- -- --></a>",
        " <?xml version=\"1.0\"?><a/>",
        "<?xml version=\"1.1\"?><a/>",
        "<a>&</a>",
        "<a><?xml ?></a>",
        "<a xmlns:b=\"\"/>",
        "<a xmlns:xml=\"urn:x\"/>",
        "<a xmlns:p=\"urn:x\" xmlns:q=\"urn:x\" p:b=\"1\" q:b=\"2\"/>",
        "<?xml version='1.0'encoding='UTF-8'?><a/>",
        "<?xml version='1.0' standalone='yes' encoding='UTF-8'?><a/>",
        "<?xml version='1.0' standalone='YES'?><a/>",
        "<?xml version='1.0' xencoding='latin1'?><a/>",
        "<?xml encoding='UTF-8'?><a/>",
        "<?xml version='1.0' ??><a/>",
        "<a xmlns:=\"u\"/>",
        "<a><![CDATA[</a>",
        "<!-- <a/>",
        "<a b=\"1\"c=\"2\"/>",
        "<a:b:c xmlns:a=\"urn:a\"/>",
        "<![CDATA[x]]><a/>",
        "&amp;<a/>",
    ] {
        assert!(parse(text).is_err(), "{text:?} was accepted as {:?}", parse(text));
    }
    let error = parse("<a>\n  <b></c>\n</a>").expect_err("mismatch");
    assert_eq!(error.line, 2);
}

#[test]
fn utf_8_and_utf_16_are_decoded_and_must_match_the_declaration() {
    let utf16 = |text: &str, little: bool| -> Bytes {
        std::iter::once(0xfeff_u16)
            .chain(text.encode_utf16())
            .flat_map(|unit| if little { unit.to_le_bytes() } else { unit.to_be_bytes() })
            .collect()
    };
    let limits = Limits::default();
    let expected = parse("<a>\u{e9}\u{1f600}</a>").expect("valid");
    for little in [true, false] {
        let text = "<?xml version=\"1.0\" encoding=\"UTF-16\"?><a>\u{e9}\u{1f600}</a>";
        assert_eq!(read(&utf16(text, little), &limits), Ok(expected.clone()));
        assert!(read(&utf16("<?xml version=\"1.0\" encoding=\"UTF-8\"?><a/>", little), &limits).is_err());
    }
    assert_eq!(parse("\u{feff}<a>\u{e9}\u{1f600}</a>"), Ok(expected));
    assert_eq!(refusal("<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?><a/>"), XmlErrorKind::Encoding);
    for bytes in [&b"<a>\xe9</a>"[..], b"\xff\xfe<\0a\0/\0>", b"\xff\xfe\x00\xd8<\0", b"\0<\0a\0/\0>"] {
        assert!(read(&Bytes::copy_from_slice(bytes), &limits).is_err(), "{bytes:?}");
    }
}

#[test]
fn limits_are_exact() {
    let limits =
        Limits { depth: 8, attributes: 5, namespaces: 4, name_len: 10, text_len: 20, nodes: 30, ..Limits::default() };
    let bounded = |text: String| read(&Bytes::from(text), &limits).map_err(|error| error.kind);
    let nested = |depth: usize| format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth));
    let attributes = |count: usize| format!("<a{}/>", (0..count).map(|n| format!(" b{n}=\"\"")).collect::<String>());
    let spaces = |count: usize| format!("<a{}/>", (0..count).map(|n| format!(" xmlns:b{n}=\"u\"")).collect::<String>());
    let name = |len: usize| format!("<{}/>", "n".repeat(len));
    let text = |len: usize| format!("<a>{}</a>", "t".repeat(len));
    let value = |len: usize| format!("<a b=\"{}\"/>", "t".repeat(len));
    let nodes = |count: usize| format!("<a>{}</a>", "<b/>".repeat(count - 1));
    let cases: [(&dyn Fn(usize) -> String, usize, XmlErrorKind); 7] = [
        (&nested, 8, XmlErrorKind::Depth(8)),
        (&attributes, 5, XmlErrorKind::Attributes(5)),
        (&spaces, 4, XmlErrorKind::Namespaces(4)),
        (&name, 10, XmlErrorKind::NameLen(10)),
        (&text, 20, XmlErrorKind::TextLen(20)),
        (&value, 20, XmlErrorKind::TextLen(20)),
        (&nodes, 30, XmlErrorKind::Nodes(30)),
    ];
    for (document, limit, kind) in cases {
        assert!(bounded(document(limit - 1)).is_ok(), "{kind} at {}", limit - 1);
        assert!(bounded(document(limit)).is_ok(), "{kind} at {limit}");
        assert_eq!(bounded(document(limit + 1)), Err(kind));
    }
}

#[test]
fn long_namespaces_cannot_expand_without_limit() {
    let long = format!("<r xmlns:p=\"{}\"/>", "u".repeat(2049));
    assert_eq!(refusal(&long), XmlErrorKind::NamespaceLen(2048));
    let many = format!("<r xmlns:p=\"{}\">{}</r>", "u".repeat(2048), "<x p:a=\"\"/>".repeat(20_000));
    assert_eq!(refusal(&many), XmlErrorKind::QualifiedLen(4 << 20));
}

#[test]
fn error_messages_are_short() {
    let error = parse(&format!("<a></{}>", "b".repeat(300_000))).expect_err("no match");
    assert!(error.to_string().len() < 500, "{} bytes", error.to_string().len());
}

#[test]
fn bombs_are_rejected_early() {
    assert_eq!(refusal(&"<a>".repeat(100_000)), XmlErrorKind::Depth(64));
    let attributes: String = (0..1_000_000).map(|number| format!(" a{number}=\"\"")).collect();
    assert_eq!(refusal(&format!("<a{attributes}/>")), XmlErrorKind::Attributes(128));
    let names: String = (0..150_000).map(|number| format!("<n{number}/>")).collect();
    assert!(parse(&format!("<a>{names}</a>")).is_ok(), "many names must be read in linear time");
}

fn tree(fields: &[(&str, Value)]) -> Value {
    Value::Record(fields.iter().map(|(name, value)| (*name, value.clone())).collect::<Record>())
}

fn written(value: &Value) -> Result<String, XmlWriteError> {
    let root = ExpandedName::parse("{urn:o}Order").expect("a name");
    write(&root, value).map(|bytes| {
        let text = String::from_utf8(bytes).expect("UTF-8");
        text.strip_prefix("<?xml version=\"1.0\" encoding=\"UTF-8\"?>").expect("a declaration").to_owned()
    })
}

#[test]
fn a_tree_is_written_in_field_order() {
    let lines = Value::List(vec![tree(&[("Sku", "a<b".into()), ("@no", Value::Int(1))]), tree(&[])]);
    let order = tree(&[
        ("Id", Value::Int(7)),
        ("Total", Value::Decimal(crate::Decimal::new("1.10").expect("a number"))),
        ("@v", "\"1\"\n".into()),
        ("Line", lines),
        ("{urn:n}Note", "x\r".into()),
        ("Open", Value::Bool(true)),
        ("None", Value::List(vec![])),
    ]);
    assert_eq!(
        written(&order).expect("writable"),
        "<Order xmlns=\"urn:o\" v=\"&quot;1&quot;&#10;\"><Id>7</Id><Total>1.10</Total><Line no=\"1\"><Sku>a&lt;b</Sku></Line>\
         <Line/><Note xmlns=\"urn:n\">x&#13;</Note><Open>true</Open></Order>"
    );
}

#[test]
fn unrepresentable_values_are_rejected_with_their_path() {
    let cases = [
        (tree(&[("a", tree(&[("b", Value::Null)]))]), "Order.a.b"),
        (tree(&[("a", Value::List(vec![Value::List(vec![])]))]), "Order.a"),
        (tree(&[("a b", "x".into())]), "Order.a b"),
        (tree(&[("a", "\u{1}".into())]), "Order.a"),
        (tree(&[("@a", tree(&[]))]), "Order.a"),
        (tree(&[("$root", "x".into())]), "Order.$root"),
    ];
    for (value, path) in cases {
        assert_eq!(written(&value).expect_err(path).path, path);
    }
}

proptest! {
    #[test]
    fn text_and_attributes_round_trip(text in "[ -~\n\t\r\u{e9}\u{4e00}]{0,40}", attribute in "[ -~\n\t\r\u{e9}]{0,40}") {
        let value = tree(&[("@a", attribute.as_str().into()), ("$text", text.as_str().into())]);
        let bytes = Bytes::from(write(&ExpandedName::parse("r").expect("a name"), &value).expect("writable"));
        let back = read(&bytes, &Limits::default()).expect("readable");
        prop_assert_eq!(back.get("@a"), Some(&Value::from(attribute.as_str())));
        prop_assert_eq!(back.get("$text"), Some(&Value::from(text.as_str())));
    }

    #[test]
    fn never_panics(text in r#"[<>/a:b =\"'!\-\[\]?&;#x0CDAT\n]{0,40}"#) {
        let _ = parse(&text);
    }
}
