//! What stands in front of a value: a zero byte, the number of its schema in four bytes, and for protobuf the position of its message in the schema.

use bytes::{Buf as _, Bytes};
use crossdock_message::{Code, Fault};

const MAGIC: u8 = 0;
const PREFIX_LEN: usize = 5;
/// The levels of nested messages.
const PATH_LEN_MAX: usize = 100;

fn malformed(problem: &str) -> Fault {
    Fault::caller(
        Code::InvalidArgument,
        "SCHEMA_NUMBER",
        format!("the value does not begin with the number of a schema: {problem}"),
    )
}

/// The number of the schema, and what follows it.
///
/// # Errors
/// INVALID_ARGUMENT if there is none.
pub(super) fn split(value: &Bytes) -> Result<(u32, Bytes), Fault> {
    let mut rest = value.clone();
    if rest.len() < PREFIX_LEN {
        return Err(malformed(&format!("it has {} bytes", value.len())));
    }
    match rest.get_u8() {
        MAGIC => Ok((rest.get_u32(), rest)),
        other => Err(malformed(&format!("its first byte is {other}, not 0"))),
    }
}

pub(super) fn prefix(id: u32) -> Vec<u8> {
    let mut prefix = vec![MAGIC];
    prefix.extend_from_slice(&id.to_be_bytes());
    prefix
}

/// The position of a protobuf message, and what follows it. A single zero is the first message.
///
/// # Errors
/// INVALID_ARGUMENT if it cannot be read.
pub(super) fn split_path(bytes: &Bytes) -> Result<(Vec<usize>, Bytes), Fault> {
    let mut rest = bytes.clone();
    let count = number(&mut rest)?;
    if count > PATH_LEN_MAX {
        return Err(malformed("the position of its message is too long"));
    }
    let path = (0..count).map(|_| number(&mut rest)).collect::<Result<Vec<_>, _>>()?;
    Ok((if path.is_empty() { vec![0] } else { path }, rest))
}

pub(super) fn append_path(path: &[usize], out: &mut Vec<u8>) {
    if path == [0] {
        out.push(0);
        return;
    }
    append_number(path.len(), out);
    for index in path {
        append_number(*index, out);
    }
}

/// A variable-length integer in zigzag encoding that is not negative.
fn number(bytes: &mut Bytes) -> Result<usize, Fault> {
    let mut number = 0_u64;
    for shift in (0..35).step_by(7) {
        let byte = bytes.try_get_u8().map_err(|_| malformed("the position of its message is incomplete"))?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            let is_negative = number & 1 == 1;
            let number = usize::try_from(number >> 1).ok().filter(|_| !is_negative);
            return number.ok_or_else(|| malformed("the position of its message is negative"));
        }
    }
    Err(malformed("the position of its message is too large"))
}

fn append_number(number: usize, out: &mut Vec<u8>) {
    let mut left = number << 1;
    while left >= 0x80 {
        out.push(left.to_le_bytes()[0] | 0x80);
        left >>= 7;
    }
    out.push(left.to_le_bytes()[0]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_positions_are_read_as_written() {
        for (id, path, bytes) in [
            (1, vec![0], &[0, 0, 0, 0, 1, 0][..]),
            (u32::MAX, vec![1], &[0, 255, 255, 255, 255, 2, 2]),
            (258, vec![0, 100, 2], &[0, 0, 0, 1, 2, 6, 0, 200, 1, 4]),
        ] {
            let mut written = prefix(id);
            append_path(&path, &mut written);
            assert_eq!(written, bytes);
            written.push(b'x');
            let (found, rest) = split(&written.into()).expect("a number");
            assert_eq!(found, id);
            assert_eq!(split_path(&rest).expect("a position"), (path, Bytes::from_static(b"x")));
        }
    }

    #[test]
    fn values_without_a_number_are_refused() {
        for bytes in [&[][..], &[0, 0, 0, 1], &[1, 0, 0, 0, 1], b"{\"a\":1}"] {
            assert!(split(&Bytes::copy_from_slice(bytes)).is_err(), "{bytes:?}");
        }
        for bytes in [&[][..], &[1], &[2], &[2, 1], &[255, 255, 255, 255, 255, 255], &[202, 1]] {
            assert!(split_path(&Bytes::copy_from_slice(bytes)).is_err(), "{bytes:?}");
        }
    }
}
