//! Writing protobuf's wire format.

use super::error::{Done, Problem, fail};
use super::wire::{GROUP_END, LENGTH, kind_type, patch_len, push_varint, zigzag};
use super::{BytesRef, Leaf, Place, Sink, Slot, dynamic};
use crate::model::{Contract, Field, Kind, RecordType, Scalar, Special};

/// Appends a message to bytes.
pub(crate) struct WireSink<'c, 'o> {
    pub(crate) contract: &'c Contract,
    pub(crate) out: &'o mut Vec<u8>,
}

/// Where the content of a record or run starts, and where its tag does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WireMark {
    tag_at: usize,
    start: usize,
}

impl WireSink<'_, '_> {
    fn tag(&mut self, slot: Slot<'_>) {
        let field = slot.field;
        match slot.place {
            Place::Root => {}
            Place::Single => push_varint(self.out, field.tag),
            Place::Item if field.packed => {}
            Place::Item => push_varint(self.out, field.tag),
            Place::Key => self.out.push(1 << 3 | kind_type(slot.kind())),
            Place::Value => self.out.push(2 << 3 | kind_type(slot.kind())),
        }
    }

    /// Opens what stands behind its length.
    fn open(&mut self, tag_at: usize) -> WireMark {
        self.out.push(0);
        WireMark { tag_at, start: self.out.len() }
    }

    /// A record without a place of its own: only its fields.
    fn is_bare(slot: Slot<'_>) -> bool {
        slot.place == Place::Root
    }

    fn begin(&mut self, slot: Slot<'_>) -> WireMark {
        let tag_at = self.out.len();
        self.tag(slot);
        if Self::is_bare(slot) || slot.field.delimited {
            return WireMark { tag_at, start: self.out.len() };
        }
        self.open(tag_at)
    }

    fn end(&mut self, slot: Slot<'_>, mark: WireMark) {
        if Self::is_bare(slot) {
            return;
        }
        if slot.field.delimited {
            push_varint(self.out, u64::from(slot.field.number) << 3 | u64::from(GROUP_END));
        } else {
            patch_len(self.out, mark.start);
        }
    }

    fn length_prefixed(&mut self, bytes: &[u8]) {
        push_varint(self.out, bytes.len() as u64);
        self.out.extend_from_slice(bytes);
    }

    fn two_numbers(&mut self, seconds: i64, nanos: i32) {
        if seconds != 0 {
            self.out.push(1 << 3);
            push_varint(self.out, seconds.cast_unsigned());
        }
        if nanos != 0 {
            self.out.push(2 << 3);
            push_varint(self.out, i64::from(nanos).cast_unsigned());
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "sources hand on only numbers that fit their kind")]
    fn scalar(&mut self, scalar: Scalar, leaf: Leaf<'_>) -> Done<()> {
        match (scalar, leaf) {
            (Scalar::Bool, Leaf::Bool(truth)) => self.out.push(u8::from(truth)),
            (Scalar::Int32 | Scalar::Int64, Leaf::Int(number)) => push_varint(self.out, number.cast_unsigned()),
            (Scalar::Uint32 | Scalar::Uint64, Leaf::UInt(number)) => push_varint(self.out, number),
            (Scalar::Sint32 | Scalar::Sint64, Leaf::Int(number)) => push_varint(self.out, zigzag(number)),
            (Scalar::Fixed32, Leaf::UInt(number)) => self.out.extend_from_slice(&(number as u32).to_le_bytes()),
            (Scalar::Fixed64, Leaf::UInt(number)) => self.out.extend_from_slice(&number.to_le_bytes()),
            (Scalar::Sfixed32, Leaf::Int(number)) => self.out.extend_from_slice(&(number as i32).to_le_bytes()),
            (Scalar::Sfixed64, Leaf::Int(number)) => self.out.extend_from_slice(&number.to_le_bytes()),
            (Scalar::Float, Leaf::Float(number)) => self.out.extend_from_slice(&number.to_le_bytes()),
            (Scalar::Double, Leaf::Double(number)) => self.out.extend_from_slice(&number.to_le_bytes()),
            (Scalar::String, Leaf::Text(text)) => self.length_prefixed(text.text.as_bytes()),
            (Scalar::Bytes, Leaf::Bytes(bytes)) => self.length_prefixed(bytes.bytes),
            _ => return fail(Problem::Unwritable("a value is not of the kind that its source was asked for")),
        }
        Ok(())
    }

    /// The content of a record with a form of its own.
    fn special(&mut self, special: Special, leaf: Leaf<'_>) -> Done<()> {
        match (special, leaf) {
            (Special::Time, Leaf::Time(time)) => self.two_numbers(time.seconds, time.nanos),
            (Special::Duration, Leaf::Duration(span)) => self.two_numbers(span.seconds, span.nanos),
            (Special::FieldMask, Leaf::Mask(paths)) => {
                for path in paths {
                    self.out.push(1 << 3 | LENGTH);
                    self.length_prefixed(path.as_bytes());
                }
            }
            (Special::Any, Leaf::Any { url, payload, .. }) => {
                for (number, bytes) in [(1, url.text.as_bytes()), (2, payload.bytes)] {
                    if !bytes.is_empty() {
                        self.out.push(number << 3 | LENGTH);
                        self.length_prefixed(bytes);
                    }
                }
            }
            (Special::Struct | Special::Value | Special::List, Leaf::Dynamic(value)) => {
                return dynamic::write(special, value, self.out);
            }
            _ => return fail(Problem::Unwritable("a value is not of the kind that its source was asked for")),
        }
        Ok(())
    }
}

impl Sink for WireSink<'_, '_> {
    type Mark = WireMark;

    fn leaf(&mut self, slot: Slot<'_>, leaf: Leaf<'_>) -> Done<()> {
        if slot.is_implicit() && leaf.is_default() {
            return Ok(());
        }
        match slot.kind() {
            Kind::Scalar(scalar) => {
                self.tag(slot);
                self.scalar(scalar, leaf)
            }
            Kind::Enum(_) => {
                self.tag(slot);
                match leaf {
                    Leaf::Enum(number) => push_varint(self.out, i64::from(number).cast_unsigned()),
                    _ => return fail(Problem::Unwritable("a value is not of its enumeration")),
                }
                Ok(())
            }
            Kind::Record(id) => {
                let mark = self.begin(slot);
                self.special(self.contract.record(id).special, leaf)?;
                self.end(slot, mark);
                Ok(())
            }
        }
    }

    fn wrapped(&mut self, slot: Slot<'_>, inner: &Field, leaf: Leaf<'_>) -> Done<()> {
        let mark = self.begin(slot);
        self.leaf(Slot::new(inner, Place::Single), leaf)?;
        self.end(slot, mark);
        Ok(())
    }

    fn begin_record(&mut self, slot: Slot<'_>, _: &RecordType) -> Done<WireMark> {
        Ok(self.begin(slot))
    }

    fn end_record(&mut self, slot: Slot<'_>, mark: WireMark) -> Done<()> {
        self.end(slot, mark);
        Ok(())
    }

    fn begin_list(&mut self, field: &Field) -> Done<WireMark> {
        let tag_at = self.out.len();
        if !field.packed {
            return Ok(WireMark { tag_at, start: tag_at });
        }
        push_varint(self.out, field.tag);
        Ok(self.open(tag_at))
    }

    fn end_list(&mut self, field: &Field, mark: WireMark) -> Done<()> {
        if !field.packed {
            return Ok(());
        }
        if self.out.len() == mark.start {
            self.out.truncate(mark.tag_at);
        } else {
            patch_len(self.out, mark.start);
        }
        Ok(())
    }

    fn begin_map(&mut self, _: &Field) -> Done<WireMark> {
        Ok(WireMark { tag_at: self.out.len(), start: self.out.len() })
    }

    fn end_map(&mut self, _: &Field, _: WireMark) -> Done<()> {
        Ok(())
    }

    fn begin_entry(&mut self, field: &Field) -> Done<WireMark> {
        let tag_at = self.out.len();
        push_varint(self.out, field.tag);
        Ok(self.open(tag_at))
    }

    fn end_entry(&mut self, _: &Field, mark: WireMark) -> Done<()> {
        patch_len(self.out, mark.start);
        Ok(())
    }

    fn unknown(&mut self, fields: BytesRef<'_>) {
        self.out.extend_from_slice(fields.bytes);
    }
}
