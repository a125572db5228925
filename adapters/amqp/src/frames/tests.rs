use std::sync::Arc;

use lapin::BasicProperties;
use lapin::protocol::basic::parse_properties;
use lapin::protocol::parse_class;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use super::content::{DEPTH_MAX, UNREADABLE};
use super::*;

pub(super) fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&channel.to_be_bytes());
    bytes.extend_from_slice(&u32::try_from(payload.len()).expect("a length").to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes.push(FRAME_END);
    bytes
}

fn short(text: &[u8]) -> Vec<u8> {
    let mut bytes = vec![u8::try_from(text.len()).expect("a short string")];
    bytes.extend_from_slice(text);
    bytes
}

fn long(content: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(content.len()).expect("a length").to_be_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes
}

/// A table of `levels` nesting levels, the table itself included.
fn nested(levels: usize, kind: u8) -> Vec<u8> {
    let mut content = Vec::new();
    for level in 1..levels {
        let is_outermost = level + 1 == levels;
        let mut outer = if kind == b'F' || is_outermost { short(b"a") } else { Vec::new() };
        outer.push(kind);
        outer.extend(long(&content));
        content = outer;
    }
    content
}

/// The payload of a content header.
fn header(body_len: u64, flags: u16, list: &[u8]) -> Vec<u8> {
    let mut payload = vec![0, 60, 0, 0];
    payload.extend_from_slice(&body_len.to_be_bytes());
    payload.extend_from_slice(&flags.to_be_bytes());
    payload.extend_from_slice(list);
    payload
}

fn filtered(input: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut out = Vec::new();
    Filter::new(Arc::default()).push(input, &mut out)?;
    Ok(out)
}

/// The properties that lapin parses after the filter.
fn parsed(flags: u16, list: &[u8]) -> BasicProperties {
    let out = filtered(&frame(HEADER, 1, &header(0, flags, list))).expect("a frame");
    let payload = &out[HEAD_LEN..out.len() - 1];
    let (rest, properties) = parse_properties(&payload[12..]).expect("properties that lapin can parse");
    assert!(rest.is_empty());
    properties
}

const HEADERS: u16 = 1 << 13;

fn is_marked(properties: &BasicProperties) -> bool {
    properties.headers().as_ref().is_some_and(|table| table.inner().contains_key(UNREADABLE))
}

#[test]
fn tables_within_the_depth_limit_pass_unchanged_and_deeper_ones_are_marked() {
    for kind in [b'F', b'A'] {
        for (levels, marked) in
            [(1, false), (DEPTH_MAX - 1, false), (DEPTH_MAX, false), (DEPTH_MAX + 1, true), (9000, true)]
        {
            let list = long(&nested(levels, kind));
            assert_eq!(is_marked(&parsed(HEADERS, &list)), marked, "{levels} levels");
            let input = frame(HEADER, 1, &header(0, HEADERS, &list));
            assert_eq!(filtered(&input).expect("a frame") == input, !marked, "{levels} levels");
        }
    }
}

#[test]
fn readable_properties_are_kept() {
    // Content type, headers, correlation id, message id: the last is Latin-1.
    let flags = 1 << 15 | HEADERS | 1 << 10 | 1 << 7;
    let list = [short(b"text/plain"), long(&nested(5000, b'F')), short(b"c-1"), short(b"gr\xfc\xdf")].concat();
    let properties = parsed(flags, &list);
    assert_eq!(properties.content_type().as_ref().map(ShortString::as_str), Some("text/plain"));
    assert_eq!(properties.correlation_id().as_ref().map(ShortString::as_str), Some("c-1"));
    assert_eq!(*properties.message_id(), None);
    let raw = [&flags.to_be_bytes()[..], &list].concat();
    let mut expected = FieldTable::default();
    expected.insert(UNREADABLE.into(), AMQPValue::ByteArray(raw.into()));
    assert_eq!(*properties.headers(), Some(expected));
}

#[test]
fn malformed_tables_are_marked() {
    let tables: [&[u8]; 7] = [
        b"\x01aQ",                      // an unknown type
        b"\x01\xffV",                   // a name that is not UTF-8
        b"\x01aS\x00\x00\x00\x09x",     // a string that exceeds its table
        b"\x05a",                       // a truncated name
        b"\x01a",                       // no type
        b"\x01aI\x00",                  // a truncated number
        b"\x01aF\x00\x00\x00\x02\x01b", // a truncated inner table
    ];
    for table in tables {
        assert!(is_marked(&parsed(HEADERS, &long(table))), "{table:?}");
    }
    assert!(is_marked(&parsed(0b10, b"")), "an unknown property flag");
    assert!(is_marked(&parsed(0, b"surplus")), "bytes after the last property");
}

#[test]
fn a_table_with_all_types_passes_unchanged() {
    let list = long(
        b"\x01at\x01\x01bb\x01\x01cB\x01\x01ds\0\x01\x01eu\0\x01\x01fI\0\0\0\x01\x01gi\0\0\0\x01\x01hl\0\0\0\0\0\0\0\x01\
          \x01jf\0\0\0\0\x01kd\0\0\0\0\0\0\0\0\x01lD\x02\0\0\0\x01\x01mS\0\0\0\x01x\x01nA\0\0\0\x02t\x01\
          \x01oT\0\0\0\0\0\0\0\x01\x01pF\0\0\0\0\x01qx\0\0\0\x01\xff\x01rV",
    );
    let properties = parsed(HEADERS, &list);
    assert!(!is_marked(&properties));
    assert_eq!(properties.headers().as_ref().map(|table| table.inner().len()), Some(17));
}

#[test]
fn a_routing_key_that_is_not_utf8_is_converted() {
    let deliver =
        [&[0, 60, 0, 60][..], &short(b"tag"), &7u64.to_be_bytes(), &[1], &short(b""), &short(b"k\xff")].concat();
    let get_ok =
        [&[0, 60, 0, 71][..], &7u64.to_be_bytes(), &[1], &short(b"\xfe"), &short(&[0xff; 255]), &[0, 0, 0, 9]].concat();
    for payload in [deliver, get_ok] {
        let out = filtered(&frame(METHOD, 1, &payload)).expect("a frame");
        let (rest, _) = parse_class(&out[HEAD_LEN..out.len() - 1]).expect("a method that lapin can parse");
        assert!(rest.is_empty());
    }
}

#[test]
fn server_properties_beyond_the_depth_limit_are_malformed() {
    let start =
        |levels| [&[0, 10, 0, 10, 0, 9][..], &long(&nested(levels, b'F')), &long(b"PLAIN"), &long(b"en_US")].concat();
    assert!(filtered(&frame(METHOD, 0, &start(DEPTH_MAX))).is_ok());
    assert!(filtered(&frame(METHOD, 0, &start(DEPTH_MAX + 1))).is_err());
    // So are methods that only clients send.
    let declare = [&[0, 50, 0, 10, 0, 0][..], &short(b"q"), &[0], &long(&nested(9000, b'F'))].concat();
    assert!(filtered(&frame(METHOD, 1, &declare)).is_err());
}

#[test]
fn frames_and_returns_do_not_depend_on_how_the_bytes_are_split() {
    let returned = [&[0, 60, 0, 50, 1, 56][..], &short(b"NO_ROUTE"), &short(b"hx"), &short(b"key")].concat();
    let input = [
        frame(METHOD, 0, &[&[0, 10, 0, 10, 0, 9][..], &long(b""), &long(b"PLAIN"), &long(b"en_US")].concat()),
        frame(METHOD, 3, &returned),
        frame(HEADER, 3, &header(10, 1 << 7, &short(b"m-1"))),
        frame(BODY, 3, b"01234"),
        frame(HEARTBEAT, 0, b""),
        frame(BODY, 3, b"56789"),
        frame(METHOD, 4, &returned),
        frame(HEADER, 4, &header(0, 0, b"")),
        frame(METHOD, 3, &[0, 60, 0, 80, 0, 0, 0, 0, 0, 0, 0, 1, 0]),
    ]
    .concat();
    for size in [1, 2, 3, 7, 8, 50, input.len()] {
        let returns = Arc::new(Returns::default());
        let mut filter = Filter::new(Arc::clone(&returns));
        let mut out = Vec::new();
        for part in input.chunks(size) {
            filter.push(part, &mut out).expect("frames");
        }
        assert_eq!(out, input, "parts of {size} bytes");
        let expected = Returned {
            exchange: "hx".into(),
            key: "key".into(),
            properties: BasicProperties::default().with_message_id("m-1".into()),
            body_len: 10,
            body_digest: body_digest(b"0123456789"),
        };
        assert_eq!(returns.take(3), [expected]);
        let empty = returns.take(4);
        assert_eq!((empty.len(), empty[0].body_digest), (1, body_digest(b"")));
        assert!(returns.take(3).is_empty());
    }
}

#[test]
fn a_reopened_channel_does_not_inherit_returned_messages() {
    let returned = [&[0, 60, 0, 50, 1, 56][..], &short(b"NO_ROUTE"), &short(b""), &short(b"key")].concat();
    let returns = Arc::new(Returns::default());
    let mut filter = Filter::new(Arc::clone(&returns));
    let mut push = |bytes: Vec<u8>| filter.push(&bytes, &mut Vec::new()).expect("frames");
    push(frame(METHOD, 3, &returned));
    push(frame(HEADER, 3, &header(0, 0, b"")));
    push(frame(METHOD, 3, &[0, 20, 0, 11, 0, 0, 0, 0]));
    assert!(returns.take(3).is_empty());
}

#[test]
fn malformed_frames_are_rejected_without_being_buffered() {
    assert_eq!(filtered(b"\x05\0\0\0\0\0\0\xce"), Err(Malformed("a frame of an unknown type")));
    assert_eq!(filtered(b"\x01\0\0\xff\xff\xff\xff"), Err(Malformed("a frame of more than 4 MiB")));
    assert_eq!(filtered(b"\x01\0\0\0\0\0\x01xx"), Err(Malformed("a frame does not end where its size says")));
    assert!(filtered(&frame(HEADER, 1, b"short")).is_err());
    assert!(filtered(&frame(METHOD, 1, b"")).is_err());
    // A broker that does not support AMQP 0.9.1.
    assert_eq!(filtered(b"AMQP\0\0\x09\x01"), Ok(b"AMQP\0\0\x09\x01".to_vec()));
}
