//! Writes the wire format of protobuf.

use super::error::{Outcome, Problem, fail};
use super::wire::{GROUP_END, LENGTH, patch_len, push_varint, value_type, zigzag};
use super::{BytesRef, Leaf, Position, Sink, Slot, dynamic};
use crate::model::{Contract, Encoding, Field, Kind, RecordType, WellKnownType};

/// Appends a message to a buffer.
pub(crate) struct WireSink<'c, 'o> {
    pub(crate) contract: &'c Contract,
    pub(crate) out: &'o mut Vec<u8>,
}

/// Where the tag and the content of a record or packed list start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WireMark {
    tag_at: usize,
    start: usize,
}

impl WireSink<'_, '_> {
    fn tag(&mut self, slot: Slot<'_>) {
        let field = slot.field;
        match slot.position {
            Position::Root => {}
            Position::Single => push_varint(self.out, field.protobuf.tag),
            Position::Item if field.protobuf.packed => {}
            Position::Item => push_varint(self.out, field.protobuf.tag),
            Position::Key => self.out.push(1 << 3 | value_type(slot.encoding())),
            Position::Value => self.out.push(2 << 3 | value_type(slot.encoding())),
        }
    }

    /// Begins a length-prefixed value; see [`patch_len`].
    fn open(&mut self, tag_at: usize) -> WireMark {
        self.out.push(0);
        WireMark { tag_at, start: self.out.len() }
    }

    /// Whether a record is written without tag and length.
    fn is_bare(slot: Slot<'_>) -> bool {
        slot.position == Position::Root
    }

    fn begin(&mut self, slot: Slot<'_>) -> WireMark {
        let tag_at = self.out.len();
        self.tag(slot);
        if Self::is_bare(slot) || slot.field.protobuf.delimited {
            return WireMark { tag_at, start: self.out.len() };
        }
        self.open(tag_at)
    }

    fn end(&mut self, slot: Slot<'_>, mark: WireMark) {
        if Self::is_bare(slot) {
            return;
        }
        if slot.field.protobuf.delimited {
            push_varint(self.out, u64::from(slot.field.protobuf.number) << 3 | u64::from(GROUP_END));
        } else {
            patch_len(self.out, mark.start);
        }
    }

    fn length_prefixed(&mut self, bytes: &[u8]) {
        push_varint(self.out, bytes.len() as u64);
        self.out.extend_from_slice(bytes);
    }

    fn write_seconds_and_nanos(&mut self, seconds: i64, nanos: i32) {
        if seconds != 0 {
            self.out.push(1 << 3);
            push_varint(self.out, seconds.cast_unsigned());
        }
        if nanos != 0 {
            self.out.push(2 << 3);
            push_varint(self.out, i64::from(nanos).cast_unsigned());
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "sources check the range of every number")]
    fn scalar(&mut self, encoding: Encoding, leaf: Leaf<'_>) -> Outcome<()> {
        match (encoding, leaf) {
            (Encoding::Bool, Leaf::Bool(truth)) => self.out.push(u8::from(truth)),
            (Encoding::Int32 | Encoding::Int64, Leaf::Int(number)) => push_varint(self.out, number.cast_unsigned()),
            (Encoding::Uint32 | Encoding::Uint64, Leaf::UInt(number)) => push_varint(self.out, number),
            (Encoding::Sint32 | Encoding::Sint64, Leaf::Int(number)) => push_varint(self.out, zigzag(number)),
            (Encoding::Fixed32, Leaf::UInt(number)) => self.out.extend_from_slice(&(number as u32).to_le_bytes()),
            (Encoding::Fixed64, Leaf::UInt(number)) => self.out.extend_from_slice(&number.to_le_bytes()),
            (Encoding::Sfixed32, Leaf::Int(number)) => self.out.extend_from_slice(&(number as i32).to_le_bytes()),
            (Encoding::Sfixed64, Leaf::Int(number)) => self.out.extend_from_slice(&number.to_le_bytes()),
            (Encoding::Float, Leaf::Float(number)) => self.out.extend_from_slice(&number.to_le_bytes()),
            (Encoding::Double, Leaf::Double(number)) => self.out.extend_from_slice(&number.to_le_bytes()),
            (Encoding::String, Leaf::Text(text)) => self.length_prefixed(text.text.as_bytes()),
            (Encoding::Bytes, Leaf::Bytes(bytes)) => self.length_prefixed(bytes.bytes),
            (_, Leaf::Null) => return fail(Problem::Unwritable("protobuf cannot represent null")),
            (_, Leaf::Number(_)) => {
                return fail(Problem::Unwritable("protobuf cannot represent a number of unbounded size or precision"));
            }
            _ => return fail(Problem::Unwritable("the value does not have the type of its field")),
        }
        Ok(())
    }

    /// The content of a well-known type.
    fn well_known(&mut self, well_known: WellKnownType, leaf: Leaf<'_>) -> Outcome<()> {
        match (well_known, leaf) {
            (WellKnownType::Time, Leaf::Time(time)) => self.write_seconds_and_nanos(time.seconds, time.nanos),
            (WellKnownType::Duration, Leaf::Duration(span)) => self.write_seconds_and_nanos(span.seconds, span.nanos),
            (WellKnownType::FieldMask, Leaf::Mask(paths)) => {
                for path in paths {
                    self.out.push(1 << 3 | LENGTH);
                    self.length_prefixed(path.as_bytes());
                }
            }
            (WellKnownType::Any, Leaf::Any { url, payload, .. }) => {
                for (number, bytes) in [(1, url.text.as_bytes()), (2, payload.bytes)] {
                    if !bytes.is_empty() {
                        self.out.push(number << 3 | LENGTH);
                        self.length_prefixed(bytes);
                    }
                }
            }
            (WellKnownType::Struct | WellKnownType::Value | WellKnownType::List, Leaf::Dynamic(value)) => {
                return dynamic::write(well_known, value, self.out);
            }
            _ => return fail(Problem::Unwritable("the value does not have the type of its field")),
        }
        Ok(())
    }
}

impl Sink for WireSink<'_, '_> {
    type Mark = WireMark;

    fn leaf(&mut self, slot: Slot<'_>, leaf: Leaf<'_>) -> Outcome<()> {
        if slot.is_implicit() && leaf.is_default() {
            return Ok(());
        }
        match slot.kind() {
            Kind::Scalar(_) => {
                self.tag(slot);
                self.scalar(slot.encoding(), leaf)
            }
            Kind::Enum(_) => {
                self.tag(slot);
                match leaf {
                    Leaf::Enum(number) => push_varint(self.out, i64::from(number).cast_unsigned()),
                    _ => return fail(Problem::Unwritable("the value is not a value of its enumeration")),
                }
                Ok(())
            }
            Kind::Record(id) => {
                let mark = self.begin(slot);
                let Some(well_known) = self.contract.record(id).well_known else {
                    return fail(Problem::Unwritable("a record cannot be written as a single value"));
                };
                self.well_known(well_known, leaf)?;
                self.end(slot, mark);
                Ok(())
            }
        }
    }

    fn wrapped(&mut self, slot: Slot<'_>, inner: &Field, leaf: Leaf<'_>) -> Outcome<()> {
        let mark = self.begin(slot);
        self.leaf(Slot::new(inner, Position::Single), leaf)?;
        self.end(slot, mark);
        Ok(())
    }

    fn begin_record(&mut self, slot: Slot<'_>, _: &RecordType) -> Outcome<WireMark> {
        Ok(self.begin(slot))
    }

    fn end_record(&mut self, slot: Slot<'_>, mark: WireMark) -> Outcome<()> {
        self.end(slot, mark);
        Ok(())
    }

    fn begin_list(&mut self, field: &Field) -> Outcome<WireMark> {
        let tag_at = self.out.len();
        if !field.protobuf.packed {
            return Ok(WireMark { tag_at, start: tag_at });
        }
        push_varint(self.out, field.protobuf.tag);
        Ok(self.open(tag_at))
    }

    fn end_list(&mut self, field: &Field, mark: WireMark) -> Outcome<()> {
        if !field.protobuf.packed {
            return Ok(());
        }
        if self.out.len() == mark.start {
            self.out.truncate(mark.tag_at);
        } else {
            patch_len(self.out, mark.start);
        }
        Ok(())
    }

    fn begin_map(&mut self, _: &Field) -> Outcome<WireMark> {
        Ok(WireMark { tag_at: self.out.len(), start: self.out.len() })
    }

    fn end_map(&mut self, _: &Field, _: WireMark) -> Outcome<()> {
        Ok(())
    }

    fn begin_entry(&mut self, field: &Field) -> Outcome<WireMark> {
        let tag_at = self.out.len();
        push_varint(self.out, field.protobuf.tag);
        Ok(self.open(tag_at))
    }

    fn end_entry(&mut self, _: &Field, mark: WireMark) -> Outcome<()> {
        patch_len(self.out, mark.start);
        Ok(())
    }

    fn unknown(&mut self, fields: BytesRef<'_>) {
        self.out.extend_from_slice(fields.bytes);
    }
}
