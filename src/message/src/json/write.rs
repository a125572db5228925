//! Writes compact JSON in the order of the value, with all digits of numbers.

use base64::Engine as _;

use crate::Value;

/// Maximum capacity allocated before a document is written.
const CAPACITY_MAX: usize = 16 << 20;

/// A value that JSON cannot represent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("JSON cannot represent {0}")]
pub struct JsonWriteError(&'static str);

/// Writes a value as a compact document. Bytes are written as base64 (RFC 4648 §4).
///
/// # Errors
/// [`JsonWriteError`] for NaN and infinities, and for times out of range.
pub fn write(value: &Value) -> Result<Vec<u8>, JsonWriteError> {
    // Growing the vector step by step would take several times the memory of a large document.
    let mut out = Vec::with_capacity(value.written_len(CAPACITY_MAX).clamp(64, CAPACITY_MAX));
    write_into(value, &mut out)?;
    Ok(out)
}

/// Like [`write()`], but appends to `out`.
///
/// # Errors
/// Those of [`write()`]; `out` then ends with a part of the document.
pub fn write_into(value: &Value, out: &mut Vec<u8>) -> Result<(), JsonWriteError> {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Int(number) => out.extend_from_slice(itoa::Buffer::new().format(*number).as_bytes()),
        Value::UInt(number) => out.extend_from_slice(itoa::Buffer::new().format(*number).as_bytes()),
        Value::Decimal(number) => out.extend_from_slice(number.as_str().as_bytes()),
        Value::F64(number) if number.is_finite() => {
            out.extend_from_slice(ryu::Buffer::new().format_finite(*number).as_bytes());
        }
        Value::F32(number) if number.is_finite() => {
            out.extend_from_slice(ryu::Buffer::new().format_finite(*number).as_bytes());
        }
        Value::F32(_) => return Err(JsonWriteError("a float that is infinite or NaN")),
        Value::F64(number) if number.is_nan() => return Err(JsonWriteError("a double that is NaN")),
        Value::F64(_) => return Err(JsonWriteError("an infinite double")),
        Value::Text(text) => append_string(text, out),
        Value::Time(time) => {
            append_string(&time.text().ok_or(JsonWriteError("a timestamp outside the years 1 to 9999"))?, out);
        }
        Value::Duration(span) => {
            append_string(&span.text().ok_or(JsonWriteError("a duration that is out of range"))?, out);
        }
        Value::Bytes(bytes) => append_string(&base64::engine::general_purpose::STANDARD.encode(bytes), out),
        Value::List(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_into(item, out)?;
            }
            out.push(b']');
        }
        Value::Record(record) => {
            out.push(b'{');
            for (index, (name, field)) in record.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                append_string(name, out);
                out.push(b':');
                write_into(field, out)?;
            }
            out.push(b'}');
        }
    }
    Ok(())
}

/// Appends a JSON string with its quotes. Escapes only what RFC 8259 §7 requires.
pub fn append_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut run = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0x8 => b"\\b",
            0xc => b"\\f",
            0..=0x1f => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(&bytes[run..at]);
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
                run = at + 1;
                continue;
            }
            _ => continue,
        };
        out.extend_from_slice(&bytes[run..at]);
        out.extend_from_slice(escape);
        run = at + 1;
    }
    out.extend_from_slice(&bytes[run..]);
    out.push(b'"');
}
