//! The wire format of protobuf: tags, varints and values.

use super::error::{Failure, Outcome, Problem, fail};
use crate::model::{Cardinality, Encoding, Field};

pub(crate) const VARINT: u8 = 0;
pub(crate) const FIXED64: u8 = 1;
pub(crate) const LENGTH: u8 = 2;
pub(crate) const GROUP_START: u8 = 3;
pub(crate) const GROUP_END: u8 = 4;
pub(crate) const FIXED32: u8 = 5;

/// The wire type of one value.
pub(super) fn value_type(encoding: Encoding) -> u8 {
    match encoding {
        Encoding::Double | Encoding::Fixed64 | Encoding::Sfixed64 => FIXED64,
        Encoding::Float | Encoding::Fixed32 | Encoding::Sfixed32 => FIXED32,
        Encoding::String | Encoding::Bytes | Encoding::Message => LENGTH,
        _ => VARINT,
    }
}

/// The wire type of a field as written.
pub(crate) fn wire_type(field: &Field) -> u8 {
    if field.protobuf.packed || matches!(field.cardinality, Cardinality::Map(_)) {
        return LENGTH;
    }
    if field.protobuf.delimited { GROUP_START } else { value_type(field.protobuf.encoding) }
}

/// Bytes of the longest tag; the protobuf parsers reject longer ones, too.
const TAG_LEN_MAX: usize = 5;

/// Reads a varint at `at`, and advances it.
#[inline]
pub(super) fn read_varint(bytes: &[u8], at: &mut usize) -> Outcome<u64> {
    match bytes.get(*at) {
        Some(first) if *first < 0x80 => {
            *at += 1;
            Ok(u64::from(*first))
        }
        _ => read_long_varint(bytes, at),
    }
}

fn read_long_varint(bytes: &[u8], at: &mut usize) -> Outcome<u64> {
    let mut number = 0_u64;
    for index in 0..10 {
        let Some(byte) = bytes.get(*at + index) else { return fail(Problem::End) };
        let bits = u64::from(byte & 0x7f);
        number |= bits << (7 * index);
        if byte & 0x80 == 0 {
            // Only one bit of the tenth byte fits. The others are dropped, as by the protobuf parsers.
            *at += index + 1;
            return Ok(number);
        }
    }
    fail(Problem::Varint)
}

/// Reads a tag: field number and wire type.
#[inline]
pub(super) fn read_tag(bytes: &[u8], at: &mut usize) -> Outcome<(u32, u8)> {
    let start = *at;
    let tag = read_varint(bytes, at)?;
    if *at - start > TAG_LEN_MAX {
        return fail(Problem::Varint);
    }
    let (number, kind) = (tag >> 3, (tag & 7) as u8);
    match u32::try_from(number) {
        Ok(number) if (1..1 << 29).contains(&number) && kind <= FIXED32 => Ok((number, kind)),
        _ => fail(Problem::Tag),
    }
}

/// Skips a value; returns the start and end of its content.
#[inline]
pub(super) fn skip_value(
    bytes: &[u8],
    at: &mut usize,
    number: u32,
    kind: u8,
    depth_left: usize,
) -> Outcome<(usize, usize)> {
    let start = *at;
    let len = match kind {
        VARINT => {
            read_varint(bytes, at)?;
            return Ok((start, *at));
        }
        FIXED64 => 8,
        FIXED32 => 4,
        LENGTH => {
            let len = read_varint(bytes, at)?;
            let start = *at;
            let end =
                usize::try_from(len).ok().and_then(|len| start.checked_add(len)).filter(|end| *end <= bytes.len());
            *at = end.ok_or_else(|| Failure::of(Problem::End))?;
            return Ok((start, *at));
        }
        GROUP_START => return skip_group(bytes, at, number, depth_left),
        _ => return fail(Problem::Group),
    };
    if bytes.len() - start < len {
        return fail(Problem::End);
    }
    *at = start + len;
    Ok((start, *at))
}

fn skip_group(bytes: &[u8], at: &mut usize, number: u32, depth_left: usize) -> Outcome<(usize, usize)> {
    let start = *at;
    let mut open = vec![number];
    loop {
        let before = *at;
        if before == bytes.len() {
            return fail(Problem::Group);
        }
        let (number, kind) = read_tag(bytes, at)?;
        match kind {
            GROUP_START if open.len() >= depth_left => return fail(Problem::Depth(super::DEPTH_MAX)),
            GROUP_START => open.push(number),
            GROUP_END => {
                if open.pop() != Some(number) {
                    return fail(Problem::Group);
                }
                if open.is_empty() {
                    return Ok((start, before));
                }
            }
            _ => {
                skip_value(bytes, at, number, kind, 0)?;
            }
        }
    }
}

/// Appends a varint.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "seven bits are written at a time")]
pub(super) fn push_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number as u8 & 0x7f) | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// The length of a varint in bytes.
pub(super) fn varint_len(number: u64) -> usize {
    let bits = 64 - (number | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Inserts the length of the content since `start` before it. One byte before `start` is reserved for it.
#[expect(clippy::cast_possible_truncation, reason = "seven bits are written at a time")]
pub(super) fn patch_len(out: &mut Vec<u8>, start: usize) {
    let len = out.len() - start;
    let extra = varint_len(len as u64) - 1;
    if extra > 0 {
        let end = out.len();
        out.resize(end + extra, 0);
        out.copy_within(start..end, start + extra);
    }
    let mut number = len as u64;
    for (index, byte) in out[start - 1..start + extra].iter_mut().enumerate() {
        *byte = (number as u8 & 0x7f) | if index < extra { 0x80 } else { 0 };
        number >>= 7;
    }
}

/// Zigzag encoding: numbers with a small absolute value get a short varint.
pub(super) fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

pub(super) fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}
