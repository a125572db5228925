//! Reads the wire format of protobuf.
//!
//! Each record is scanned twice: first to find its fields, so that sinks get them grouped and in the order of the contract regardless of
//! the order on the wire; then, field by field, to read them. A record that occurs several times is merged by concatenating its bytes
//! (protobuf, "Last One Wins").

use std::collections::HashMap;

use bytes::Bytes;
use crossdock_message::{ByteString, Limits, Time, TimeSpan};

use super::error::{Failure, Outcome, Problem, fail};
use super::wire::{
    GROUP_END, GROUP_START, LENGTH, VARINT, push_varint, read_tag, read_varint, skip_value, unzigzag, value_type,
};
use super::{BytesRef, DEPTH_MAX, Leaf, Position, Sink, Slot, TextRef, dynamic};
use crate::model::{Cardinality, Contract, Encoding, Field, Kind, NO_FIELD, RecordId, RecordType, WellKnownType};

/// Drives a sink with a protobuf message.
pub(crate) struct WireSource<'c, 's, S> {
    contract: &'c Contract,
    sink: &'s mut S,
    /// The fields of the open records, innermost last.
    found: Vec<Occurrence>,
    nodes: NodeBudget,
}

/// An occurrence of a field in the bytes of its record.
#[derive(Debug, Clone, Copy)]
struct Occurrence {
    /// The index of the field in its record; [`NO_FIELD`] for an unknown field.
    index: u16,
    wire: u8,
    tag_at: usize,
    start: usize,
    end: usize,
}

/// The index of an occurrence that is superseded by a later member of its oneof.
const SUPERSEDED: u16 = NO_FIELD - 1;

/// The bytes of a record, and the buffer that they are a slice of.
#[derive(Clone, Copy)]
pub(crate) struct Input<'a> {
    pub(crate) owner: &'a Bytes,
    pub(crate) bytes: &'a [u8],
}

impl<'a> Input<'a> {
    fn part(self, start: usize, end: usize) -> Self {
        Self { owner: self.owner, bytes: &self.bytes[start..end] }
    }

    fn shared(self) -> BytesRef<'a> {
        BytesRef { bytes: self.bytes, owner: Some(self.owner) }
    }
}

/// How many values a message may still contain ([`Limits::nodes`]).
pub(super) struct NodeBudget {
    left: usize,
    max: usize,
}

impl NodeBudget {
    /// Charges one value.
    pub(super) fn charge(&mut self) -> Outcome<()> {
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => fail(Problem::Nodes(self.max)),
        }
    }
}

impl<'c, 's, S: Sink> WireSource<'c, 's, S> {
    pub(crate) fn new(contract: &'c Contract, sink: &'s mut S, limits: &Limits) -> Self {
        Self { contract, sink, found: Vec::new(), nodes: NodeBudget { left: limits.nodes, max: limits.nodes } }
    }

    pub(super) fn sink_mut(&mut self) -> &mut S {
        self.sink
    }

    /// Reads a whole message.
    pub(crate) fn document(&mut self, id: RecordId, input: Input<'_>, depth_left: usize) -> Outcome<()> {
        let root = Field::of_document(id);
        self.record(Slot::new(&root, Position::Root), id, input, depth_left)
    }

    fn record(&mut self, slot: Slot<'_>, id: RecordId, input: Input<'_>, depth_left: usize) -> Outcome<()> {
        let Some(depth_left) = depth_left.checked_sub(1) else { return fail(Problem::Depth(DEPTH_MAX)) };
        self.nodes.charge()?;
        let record = self.contract.record(id);
        if record.well_known.is_some() {
            return self.well_known(slot, record, input, depth_left);
        }
        let mark = self.sink.begin_record(slot, record)?;
        self.fields(record, input, depth_left)?;
        self.sink.end_record(slot, mark)
    }

    /// Reads the fields of a record, without its beginning and end.
    pub(crate) fn fields(&mut self, record: &RecordType, input: Input<'_>, depth_left: usize) -> Outcome<()> {
        let base = self.found.len();
        self.find(record, input.bytes, depth_left)?;
        let found = &mut self.found[base..];
        if !found.is_sorted_by_key(|found| found.index) {
            found.sort_by_key(|found| found.index);
        }
        let mut at = base;
        while at < self.found.len() {
            let index = self.found[at].index;
            if index >= SUPERSEDED {
                break;
            }
            let len = self.found[at..].iter().take_while(|found| found.index == index).count();
            let field = &record.fields[usize::from(index)];
            self.field(field, at..at + len, input, depth_left).map_err(|failure| failure.inside(&field.name))?;
            at += len;
        }
        for at in at..self.found.len() {
            let found = self.found[at];
            if found.index == NO_FIELD {
                self.sink.unknown(input.part(found.tag_at, found.end).shared());
            }
        }
        self.found.truncate(base);
        Ok(())
    }

    /// Finds the fields of a record.
    fn find(&mut self, record: &RecordType, bytes: &[u8], depth_left: usize) -> Outcome<()> {
        let base = self.found.len();
        // Per oneof: its index, its last member, and the first occurrence of that member.
        let mut members: Vec<(u16, u16, usize)> = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let tag_at = at;
            let (number, wire) = read_tag(bytes, &mut at)?;
            if record.protobuf.is_message_set && wire == GROUP_START && number == 1 {
                let (start, end) = skip_value(bytes, &mut at, number, wire, depth_left)?;
                self.message_set_item(record, bytes, tag_at, (start, end), at, depth_left)?;
                continue;
            }
            let (start, end) = skip_value(bytes, &mut at, number, wire, depth_left)?;
            let end_of_field = if wire == GROUP_START { at } else { end };
            let known = record.field_by_number(number).filter(|field| self.accepts(field, wire, &bytes[start..end]));
            let Some(field) = known else {
                self.found.push(Occurrence { index: NO_FIELD, wire, tag_at, start, end: end_of_field });
                continue;
            };
            if let Some(oneof) = field.variant_of {
                let here = self.found.len();
                match members.iter_mut().find(|(other, ..)| *other == oneof) {
                    None => members.push((oneof, field.index, here)),
                    Some((_, member, since)) if *member != field.index => {
                        for other in &mut self.found[*since..] {
                            if other.index == *member {
                                other.index = SUPERSEDED;
                            }
                        }
                        (*member, *since) = (field.index, here);
                    }
                    Some(_) => {}
                }
            }
            self.found.push(Occurrence { index: field.index, wire, tag_at, start, end });
        }
        debug_assert!(self.found.len() >= base, "the fields of outer records are kept");
        Ok(())
    }

    /// Reads an item of a message set: a group with the number of an extension and its message.
    fn message_set_item(
        &mut self,
        record: &RecordType,
        bytes: &[u8],
        tag_at: usize,
        (start, end): (usize, usize),
        item_end: usize,
        depth_left: usize,
    ) -> Outcome<()> {
        let item = &bytes[start..end];
        let (mut at, mut type_number, mut content) = (0, None, None);
        while at < item.len() {
            let (number, wire) = read_tag(item, &mut at)?;
            let (from, to) = skip_value(item, &mut at, number, wire, depth_left)?;
            match (number, wire) {
                (2, VARINT) => type_number = u32::try_from(read_varint(item, &mut from.clone())?).ok(),
                (3, LENGTH) => content = Some((start + from, start + to)),
                _ => {}
            }
        }
        let field = type_number.and_then(|number| record.field_by_number(number));
        match field.zip(content) {
            Some((field, (start, end))) => {
                self.found.push(Occurrence { index: field.index, wire: LENGTH, tag_at, start, end });
            }
            None => self.found.push(Occurrence { index: NO_FIELD, wire: GROUP_START, tag_at, start, end: item_end }),
        }
        Ok(())
    }

    /// Whether a field accepts a value; if not, the value is kept as an unknown field.
    fn accepts(&self, field: &Field, wire: u8, content: &[u8]) -> bool {
        if matches!(field.cardinality, Cardinality::Map(_)) {
            return wire == LENGTH && self.accepts_entry(field, content);
        }
        let own = value_type(field.protobuf.encoding);
        if field.cardinality == Cardinality::Repeated && wire == LENGTH && own != LENGTH {
            return true;
        }
        if matches!(field.kind, Kind::Record(_)) {
            return wire == if field.protobuf.delimited { GROUP_START } else { LENGTH };
        }
        wire == own && self.accepts_number(field.kind, content)
    }

    /// Whether a number is valid; closed enumerations reject unknown numbers.
    fn accepts_number(&self, kind: Kind, content: &[u8]) -> bool {
        let Kind::Enum(id) = kind else { return true };
        let enumeration = self.contract.enumeration(id);
        !enumeration.closed
            || read_varint(content, &mut 0).is_ok_and(|number| enumeration.name_of(enum_number(number)).is_some())
    }

    fn accepts_entry(&self, field: &Field, content: &[u8]) -> bool {
        let Kind::Enum(_) = field.kind else { return true };
        let mut at = 0;
        while at < content.len() {
            let Ok((number, wire)) = read_tag(content, &mut at) else { return true };
            let Ok((start, end)) = skip_value(content, &mut at, number, wire, DEPTH_MAX) else { return true };
            if number == 2 && wire == VARINT && !self.accepts_number(field.kind, &content[start..end]) {
                return false;
            }
        }
        true
    }

    fn field(
        &mut self,
        field: &Field,
        range: std::ops::Range<usize>,
        input: Input<'_>,
        depth_left: usize,
    ) -> Outcome<()> {
        match field.cardinality {
            Cardinality::Repeated => self.list(field, range, input, depth_left),
            Cardinality::Map(_) => self.map(field, range, input, depth_left),
            _ => {
                let slot = Slot::new(field, Position::Single);
                let last = self.found[range.end - 1];
                let Kind::Record(id) = field.kind else {
                    return self.value(slot, input.part(last.start, last.end));
                };
                if range.len() == 1 {
                    return self.record(slot, id, input.part(last.start, last.end), depth_left);
                }
                let mut merged = Vec::new();
                for found in &self.found[range] {
                    merged.extend_from_slice(&input.bytes[found.start..found.end]);
                }
                let owner = Bytes::from(merged);
                self.record(slot, id, Input { owner: &owner, bytes: &owner }, depth_left)
            }
        }
    }

    fn list(
        &mut self,
        field: &Field,
        range: std::ops::Range<usize>,
        input: Input<'_>,
        depth_left: usize,
    ) -> Outcome<()> {
        let slot = Slot::new(field, Position::Item);
        let is_packed = |found: &Occurrence| found.wire == LENGTH && value_type(field.protobuf.encoding) != LENGTH;
        // Only empty packed values: the list is absent.
        if self.found[range.clone()].iter().all(|found| is_packed(found) && found.start == found.end) {
            return Ok(());
        }
        let mark = self.sink.begin_list(field)?;
        let mut count = 0;
        let mut unknown = Vec::new();
        for at in range {
            let found = self.found[at];
            let part = input.part(found.start, found.end);
            let done = match field.kind {
                Kind::Record(id) => self.record(slot, id, part, depth_left),
                _ if is_packed(&found) => self.packed(slot, part, &mut count, &mut unknown),
                _ => self.value(slot, part),
            };
            done.map_err(|failure| failure.at_index(count))?;
            count += 1;
        }
        self.sink.end_list(field, mark)?;
        if !unknown.is_empty() {
            self.sink.unknown(BytesRef { bytes: &unknown, owner: None });
        }
        Ok(())
    }

    /// Reads packed numbers. Numbers that a closed enumeration does not know are added to `unknown`.
    fn packed(&mut self, slot: Slot<'_>, input: Input<'_>, count: &mut usize, unknown: &mut Vec<u8>) -> Outcome<()> {
        let (kind, wire) = (slot.field.kind, value_type(slot.field.protobuf.encoding));
        let mut at = 0;
        while at < input.bytes.len() {
            let (start, end) = skip_value(input.bytes, &mut at, slot.field.protobuf.number, wire, 0)?;
            let part = input.part(start, end);
            if self.accepts_number(kind, part.bytes) {
                self.value(slot, part)?;
                *count += 1;
            } else {
                push_varint(unknown, u64::from(slot.field.protobuf.number) << 3 | u64::from(wire));
                unknown.extend_from_slice(part.bytes);
            }
        }
        Ok(())
    }

    fn map(
        &mut self,
        field: &Field,
        range: std::ops::Range<usize>,
        input: Input<'_>,
        depth_left: usize,
    ) -> Outcome<()> {
        let mut entries = Vec::with_capacity(range.len());
        for at in range {
            let found = self.found[at];
            entries.push(entry_parts(field, input.part(found.start, found.end))?);
        }
        if entries.len() > 1 {
            // Of several entries with the same key, the last one wins, at the index of the first.
            let mut indices: HashMap<Vec<u8>, usize> = HashMap::with_capacity(entries.len());
            let mut kept: Vec<Entry<'_>> = Vec::with_capacity(entries.len());
            for entry in entries {
                match indices.entry(canonical_key(field, &entry)?) {
                    std::collections::hash_map::Entry::Occupied(index) => kept[*index.get()] = entry,
                    std::collections::hash_map::Entry::Vacant(index) => {
                        index.insert(kept.len());
                        kept.push(entry);
                    }
                }
            }
            entries = kept;
        }
        let mark = self.sink.begin_map(field)?;
        for (index, entry) in entries.iter().enumerate() {
            self.entry(field, entry, input.owner, depth_left).map_err(|failure| failure.at_index(index))?;
        }
        self.sink.end_map(field, mark)
    }

    fn entry(&mut self, field: &Field, entry: &Entry<'_>, owner: &Bytes, depth_left: usize) -> Outcome<()> {
        let mark = self.sink.begin_entry(field)?;
        let key = Slot::new(field, Position::Key);
        match entry.key {
            Some(bytes) => self.value(key, Input { owner, bytes })?,
            None => self.sink.leaf(key, zero(key.encoding()))?,
        }
        let value = Slot::new(field, Position::Value);
        match (field.kind, &entry.value) {
            (Kind::Record(id), parts) => {
                let merged;
                let part = match parts.as_slice() {
                    [] => Input { owner, bytes: &[] },
                    [one] => Input { owner, bytes: one },
                    several => {
                        merged = Bytes::from(several.concat());
                        Input { owner: &merged, bytes: &merged }
                    }
                };
                self.record(value, id, part, depth_left)?;
            }
            (_, parts) => match parts.last() {
                Some(bytes) => self.value(value, Input { owner, bytes })?,
                None => self.sink.leaf(value, zero(field.protobuf.encoding))?,
            },
        }
        self.sink.end_entry(field, mark)
    }

    /// Reads a scalar or the value of an enumeration.
    #[inline]
    fn value(&mut self, slot: Slot<'_>, input: Input<'_>) -> Outcome<()> {
        self.nodes.charge()?;
        let leaf = match slot.kind() {
            Kind::Scalar(_) => scalar_leaf(slot.encoding(), input)?,
            Kind::Enum(_) => Leaf::Enum(enum_number(read_varint(input.bytes, &mut 0)?)),
            Kind::Record(_) => return fail(Problem::Tag),
        };
        slot.check(&leaf)?;
        self.sink.leaf(slot, leaf)
    }

    fn well_known(&mut self, slot: Slot<'_>, record: &RecordType, input: Input<'_>, depth_left: usize) -> Outcome<()> {
        let Some(well_known) = record.well_known else { return fail(Problem::Tag) };
        match well_known {
            WellKnownType::Time => {
                let (seconds, nanos) = seconds_and_nanos(input.bytes)?;
                self.sink.leaf(slot, Leaf::Time(Time { seconds, nanos }))
            }
            WellKnownType::Duration => {
                let (seconds, nanos) = seconds_and_nanos(input.bytes)?;
                self.sink.leaf(slot, Leaf::Duration(TimeSpan { seconds, nanos }))
            }
            WellKnownType::FieldMask => {
                let mut paths = Vec::new();
                for_each_field(input.bytes, |number, wire, content| {
                    if (number, wire) == (1, LENGTH) {
                        let part = Input { owner: input.owner, bytes: content };
                        paths.push(text_of(part)?.shared());
                    }
                    Ok(())
                })?;
                self.sink.leaf(slot, Leaf::Mask(&paths))
            }
            WellKnownType::Any => {
                let (mut url, mut payload) = (&input.bytes[..0], &input.bytes[..0]);
                for_each_field(input.bytes, |number, wire, content| {
                    match (number, wire) {
                        (1, LENGTH) => url = content,
                        (2, LENGTH) => payload = content,
                        _ => {}
                    }
                    Ok(())
                })?;
                let url = text_of(Input { owner: input.owner, bytes: url })?;
                let payload = BytesRef { bytes: payload, owner: Some(input.owner) };
                self.sink.leaf(slot, Leaf::Any { url, payload, depth_left })
            }
            WellKnownType::Struct | WellKnownType::Value | WellKnownType::List => {
                let value = dynamic::read(well_known, input, depth_left, &mut self.nodes)?;
                self.sink.leaf(slot, Leaf::Dynamic(&value))
            }
            WellKnownType::Wrapper => {
                let Some(inner) = record.fields.first() else { return fail(Problem::Tag) };
                let mut content = None;
                for_each_field(input.bytes, |number, wire, found| {
                    if number == inner.protobuf.number && wire == value_type(inner.protobuf.encoding) {
                        content = Some(found);
                    }
                    Ok(())
                })?;
                let leaf = match (inner.kind, content) {
                    (Kind::Scalar(_), Some(bytes)) => {
                        scalar_leaf(inner.protobuf.encoding, Input { owner: input.owner, bytes })?
                    }
                    _ => zero(inner.protobuf.encoding),
                };
                self.sink.wrapped(slot, inner, leaf)
            }
        }
    }
}

/// The key and the value of a map entry. A value that is a record may have several parts.
struct Entry<'a> {
    key: Option<&'a [u8]>,
    value: Vec<&'a [u8]>,
}

fn entry_parts<'a>(field: &Field, input: Input<'a>) -> Outcome<Entry<'a>> {
    let mut entry = Entry { key: None, value: Vec::new() };
    let key_type = value_type(field.protobuf.key_encoding);
    for_each_field(input.bytes, |number, wire, content| {
        if number == 1 && wire == key_type {
            entry.key = Some(content);
        } else if number == 2 && wire == value_type(field.protobuf.encoding) {
            entry.value.push(content);
        }
        Ok(())
    })?;
    Ok(entry)
}

/// The key in a canonical form, since a varint can be encoded in several ways.
fn canonical_key(field: &Field, entry: &Entry<'_>) -> Outcome<Vec<u8>> {
    let Some(bytes) = entry.key else { return Ok(if is_text_key(field) { Vec::new() } else { vec![0; 8] }) };
    if is_text_key(field) {
        return Ok(bytes.to_vec());
    }
    let number = match bytes.len() {
        _ if value_type(field.protobuf.key_encoding) == VARINT => {
            match (field.protobuf.key_encoding, read_varint(bytes, &mut 0)?) {
                (Encoding::Bool, number) => u64::from(number != 0),
                // The upper bits are dropped.
                (Encoding::Int32 | Encoding::Uint32 | Encoding::Sint32, number) => number & u64::from(u32::MAX),
                (_, number) => number,
            }
        }
        _ => bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
    };
    Ok(number.to_le_bytes().to_vec())
}

fn is_text_key(field: &Field) -> bool {
    field.protobuf.key_encoding == Encoding::String
}

/// Visits each field of a message whose type is known to this crate.
fn for_each_field<'a>(bytes: &'a [u8], mut visit: impl FnMut(u32, u8, &'a [u8]) -> Outcome<()>) -> Outcome<()> {
    let mut at = 0;
    while at < bytes.len() {
        let (number, wire) = read_tag(bytes, &mut at)?;
        if wire == GROUP_END {
            return fail(Problem::Group);
        }
        let (start, end) = skip_value(bytes, &mut at, number, wire, DEPTH_MAX)?;
        visit(number, wire, &bytes[start..end])?;
    }
    Ok(())
}

/// Reads the seconds and nanoseconds of a timestamp or duration.
#[expect(clippy::cast_possible_truncation, reason = "an int32 is the low half of its varint")]
fn seconds_and_nanos(bytes: &[u8]) -> Outcome<(i64, i32)> {
    let (mut seconds, mut nanos) = (0, 0);
    for_each_field(bytes, |number, wire, content| {
        if wire == VARINT {
            let value = read_varint(content, &mut 0)?;
            match number {
                1 => seconds = value.cast_signed(),
                2 => nanos = value.cast_signed() as i32,
                _ => {}
            }
        }
        Ok(())
    })?;
    Ok((seconds, nanos))
}

#[expect(clippy::cast_possible_truncation, reason = "an enumeration is the low half of its varint")]
fn enum_number(number: u64) -> i32 {
    number.cast_signed() as i32
}

fn text_of(input: Input<'_>) -> Outcome<TextRef<'_>> {
    match std::str::from_utf8(input.bytes) {
        Ok(text) => Ok(TextRef { text, owner: Some(input.owner) }),
        Err(_) => fail(Problem::Utf8),
    }
}

fn zero(encoding: Encoding) -> Leaf<'static> {
    match encoding {
        Encoding::Bool => Leaf::Bool(false),
        Encoding::Double => Leaf::Double(0.0),
        Encoding::Float => Leaf::Float(0.0),
        Encoding::String => Leaf::Text(TextRef { text: "", owner: None }),
        Encoding::Bytes => Leaf::Bytes(BytesRef { bytes: &[], owner: None }),
        Encoding::Uint32 | Encoding::Uint64 | Encoding::Fixed32 | Encoding::Fixed64 => Leaf::UInt(0),
        Encoding::Enum | Encoding::Message => Leaf::Enum(0),
        _ => Leaf::Int(0),
    }
}

fn fixed<const N: usize>(bytes: &[u8]) -> Outcome<[u8; N]> {
    bytes.try_into().map_err(|_| Failure::of(Problem::End))
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "a 32-bit number is the low half of its varint")]
fn scalar_leaf(encoding: Encoding, input: Input<'_>) -> Outcome<Leaf<'_>> {
    let bytes = input.bytes;
    let varint = || read_varint(bytes, &mut 0);
    Ok(match encoding {
        Encoding::Bool => Leaf::Bool(varint()? != 0),
        Encoding::Int32 => Leaf::Int(i64::from(varint()?.cast_signed() as i32)),
        Encoding::Int64 => Leaf::Int(varint()?.cast_signed()),
        Encoding::Uint32 => Leaf::UInt(u64::from(varint()? as u32)),
        Encoding::Uint64 => Leaf::UInt(varint()?),
        Encoding::Sint32 => Leaf::Int(unzigzag(u64::from(varint()? as u32))),
        Encoding::Sint64 => Leaf::Int(unzigzag(varint()?)),
        Encoding::Fixed32 => Leaf::UInt(u64::from(u32::from_le_bytes(fixed(bytes)?))),
        Encoding::Fixed64 => Leaf::UInt(u64::from_le_bytes(fixed(bytes)?)),
        Encoding::Sfixed32 => Leaf::Int(i64::from(i32::from_le_bytes(fixed(bytes)?))),
        Encoding::Sfixed64 => Leaf::Int(i64::from_le_bytes(fixed(bytes)?)),
        Encoding::Float => Leaf::Float(f32::from_le_bytes(fixed(bytes)?)),
        Encoding::Double => Leaf::Double(f64::from_le_bytes(fixed(bytes)?)),
        Encoding::String => Leaf::Text(text_of(input)?),
        Encoding::Bytes => Leaf::Bytes(input.shared()),
        Encoding::Enum | Encoding::Message => return fail(Problem::Tag),
    })
}

/// Reads a string that shares its input.
pub(super) fn shared_text(input: Input<'_>) -> Outcome<ByteString> {
    text_of(input).map(TextRef::shared)
}
