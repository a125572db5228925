//! Writes ProtoJSON.

use base64::Engine as _;
use crossdock_message::{ByteString, Limits, json};

use super::error::{Outcome, Problem, fail};
use super::wire_source::{Input, WireSource};
use super::{ANY_MAX, BytesRef, DEPTH_MAX, Leaf, Position, Sink, Slot};
use crate::model::{Contract, Field, JsonNumbers, Kind, RecordType};

/// Appends a JSON document to a buffer.
pub(crate) struct JsonSink<'c, 'o> {
    pub(crate) contract: &'c Contract,
    pub(crate) out: &'o mut Vec<u8>,
    pub(crate) limits: &'c Limits,
    pub(crate) any_left: usize,
}

impl<'c, 'o> JsonSink<'c, 'o> {
    pub(crate) fn new(contract: &'c Contract, out: &'o mut Vec<u8>, limits: &'c Limits) -> Self {
        Self { contract, out, limits, any_left: ANY_MAX }
    }

    /// Writes a comma, except after an opening bracket. No string or number ends with one.
    fn separate(&mut self) {
        if !matches!(self.out.last(), Some(b'{' | b'[')) {
            self.out.push(b',');
        }
    }

    #[inline]
    fn open(&mut self, slot: Slot<'_>) {
        match slot.position {
            Position::Single => {
                self.separate();
                self.out.extend_from_slice(&slot.field.json.key);
            }
            Position::Item | Position::Key => self.separate(),
            Position::Root | Position::Value => {}
        }
    }

    fn unescaped(&mut self, text: &str, quoted: bool) {
        if quoted {
            self.out.push(b'"');
        }
        self.out.extend_from_slice(text.as_bytes());
        if quoted {
            self.out.push(b'"');
        }
    }

    fn double(&mut self, number: f64, finite: &str, quoted: bool) {
        match number {
            number if number.is_nan() => self.out.extend_from_slice(b"\"NaN\""),
            f64::INFINITY => self.out.extend_from_slice(b"\"Infinity\""),
            f64::NEG_INFINITY => self.out.extend_from_slice(b"\"-Infinity\""),
            _ => self.unescaped(finite, quoted),
        }
    }

    fn quote(&mut self, text: &str) {
        json::append_string(text, self.out);
    }

    fn base64(&mut self, bytes: &[u8]) {
        self.out.push(b'"');
        let start = self.out.len();
        let len = bytes.len().div_ceil(3) * 4;
        self.out.resize(start + len, 0);
        let written = base64::engine::general_purpose::STANDARD.encode_slice(bytes, &mut self.out[start..]);
        debug_assert_eq!(written, Ok(len), "the buffer has the length of the base64");
        self.out.push(b'"');
    }

    /// Writes a value; `key` writes it as the key of a map.
    fn value(&mut self, kind: Kind, numbers: JsonNumbers, key: bool, leaf: Leaf<'_>) -> Outcome<()> {
        let quoted = key || numbers == JsonNumbers::Text;
        match leaf {
            Leaf::Bool(truth) => self.unescaped(if truth { "true" } else { "false" }, key),
            Leaf::Int(number) => self.unescaped(itoa::Buffer::new().format(number), quoted),
            Leaf::UInt(number) => self.unescaped(itoa::Buffer::new().format(number), quoted),
            Leaf::Number(text) => self.unescaped(text, quoted),
            Leaf::Null => self.out.extend_from_slice(b"null"),
            Leaf::Float(number) => {
                self.double(f64::from(number), ryu::Buffer::new().format(number), key);
            }
            Leaf::Double(number) => self.double(number, ryu::Buffer::new().format(number), key),
            Leaf::Text(text) => self.quote(text.text),
            Leaf::Bytes(bytes) => self.base64(bytes.bytes),
            Leaf::Enum(number) => self.enumeration(kind, number),
            Leaf::Time(time) => match time.text() {
                Some(text) => self.unescaped(&text, true),
                None => return fail(Problem::Unwritable("the timestamp must be in the years 1 to 9999")),
            },
            Leaf::Duration(span) => match span.text() {
                Some(text) => self.unescaped(&text, true),
                None => return fail(Problem::Unwritable("the duration is out of range")),
            },
            Leaf::Mask(paths) => {
                let text = mask_text(paths)?;
                self.quote(&text);
            }
            Leaf::Dynamic(value) => {
                if json::write_into(value, self.out).is_err() {
                    return fail(Problem::Unwritable("JSON cannot represent NaN and infinity here"));
                }
            }
            Leaf::Any { url, payload, depth_left } => return self.any(url.text, payload, depth_left),
        }
        Ok(())
    }

    fn enumeration(&mut self, kind: Kind, number: i32) {
        let Kind::Enum(id) = kind else { return };
        let enumeration = self.contract.enumeration(id);
        match enumeration.name_of(number) {
            _ if enumeration.null => self.out.extend_from_slice(b"null"),
            Some(name) => self.unescaped(name, true),
            None => self.out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
        }
    }

    fn any(&mut self, url: &str, payload: BytesRef<'_>, depth_left: usize) -> Outcome<()> {
        if url.is_empty() && payload.bytes.is_empty() {
            self.out.extend_from_slice(b"{}");
            return Ok(());
        }
        let Some(any_left) = self.any_left.checked_sub(1) else { return fail(Problem::AnyDepth(ANY_MAX)) };
        let Some(id) = any_type(self.contract, url) else {
            return fail(Problem::AnyType(url.chars().take(256).collect()));
        };
        let record = self.contract.record(id);
        self.out.extend_from_slice(b"{\"@type\":");
        self.quote(url);
        self.any_left = any_left;
        let owner = payload.shared();
        let input = Input { owner: &owner, bytes: &owner };
        let (contract, limits) = (self.contract, self.limits);
        let mut source = WireSource::new(contract, self, limits);
        if record.well_known.is_none() {
            let Some(depth_left) = depth_left.checked_sub(1) else { return fail(Problem::Depth(DEPTH_MAX)) };
            source.fields(record, input, depth_left)?;
        } else {
            source.before_value();
            source.document(id, input, depth_left)?;
        }
        self.any_left = any_left + 1;
        self.out.push(b'}');
        Ok(())
    }
}

impl WireSource<'_, '_, JsonSink<'_, '_>> {
    /// Writes the key of the payload of an `Any` of a well-known type.
    fn before_value(&mut self) {
        self.sink_mut().out.extend_from_slice(b",\"value\":");
    }
}

/// Finds the type of a URL: its name follows the last slash.
pub(super) fn any_type(contract: &Contract, url: &str) -> Option<crate::model::RecordId> {
    let (_, name) = url.rsplit_once('/')?;
    contract.find_record(name)
}

/// The paths of a field mask in JSON: in camel case, separated by commas.
fn mask_text(paths: &[ByteString]) -> Outcome<String> {
    let mut out = String::new();
    for (index, path) in paths.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        let mut capital = false;
        for character in path.chars() {
            match character {
                'A'..='Z' | ',' => return fail(Problem::Unwritable("JSON cannot represent a path of the field mask")),
                '_' if capital => return fail(Problem::Unwritable("JSON cannot represent a path of the field mask")),
                '_' => capital = true,
                'a'..='z' if capital => {
                    out.push(character.to_ascii_uppercase());
                    capital = false;
                }
                _ if capital => return fail(Problem::Unwritable("JSON cannot represent a path of the field mask")),
                other => out.push(other),
            }
        }
        if capital {
            return fail(Problem::Unwritable("JSON cannot represent a path of the field mask"));
        }
    }
    Ok(out)
}

impl Sink for JsonSink<'_, '_> {
    type Mark = ();

    #[inline]
    fn leaf(&mut self, slot: Slot<'_>, leaf: Leaf<'_>) -> Outcome<()> {
        if slot.is_implicit() && leaf.is_default() {
            return Ok(());
        }
        self.open(slot);
        let key = slot.position == Position::Key;
        self.value(slot.kind(), slot.field.json.numbers, key, leaf)?;
        if key {
            self.out.push(b':');
        }
        Ok(())
    }

    fn wrapped(&mut self, slot: Slot<'_>, inner: &Field, leaf: Leaf<'_>) -> Outcome<()> {
        self.open(slot);
        self.value(inner.kind, inner.json.numbers, false, leaf)
    }

    fn begin_record(&mut self, slot: Slot<'_>, _: &RecordType) -> Outcome<()> {
        self.open(slot);
        self.out.push(b'{');
        Ok(())
    }

    fn end_record(&mut self, _: Slot<'_>, (): ()) -> Outcome<()> {
        self.out.push(b'}');
        Ok(())
    }

    fn begin_list(&mut self, field: &Field) -> Outcome<()> {
        self.separate();
        self.out.extend_from_slice(&field.json.key);
        self.out.push(b'[');
        Ok(())
    }

    fn end_list(&mut self, _: &Field, (): ()) -> Outcome<()> {
        self.out.push(b']');
        Ok(())
    }

    fn begin_map(&mut self, field: &Field) -> Outcome<()> {
        self.separate();
        self.out.extend_from_slice(&field.json.key);
        self.out.push(b'{');
        Ok(())
    }

    fn end_map(&mut self, _: &Field, (): ()) -> Outcome<()> {
        self.out.push(b'}');
        Ok(())
    }

    fn begin_entry(&mut self, _: &Field) -> Outcome<()> {
        Ok(())
    }

    fn end_entry(&mut self, _: &Field, (): ()) -> Outcome<()> {
        Ok(())
    }

    fn unknown(&mut self, _: BytesRef<'_>) {}
}
