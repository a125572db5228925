//! Decodes UTF-8, and UTF-16 with a byte order mark (XML 1.0 §4.3.3, appendix F). No other encodings are supported.

use bytes::Bytes;
use bytestring::ByteString;

/// The detected encoding of a document, to compare with its XML declaration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Utf8,
    Utf16,
}

impl Encoding {
    /// Whether `name` in an XML declaration matches this encoding.
    pub(super) fn is_named(self, name: &str) -> bool {
        match self {
            Self::Utf8 => name.eq_ignore_ascii_case("utf-8") || name.eq_ignore_ascii_case("us-ascii"),
            Self::Utf16 => name.eq_ignore_ascii_case("utf-16"),
        }
    }
}

/// The text of a document without its byte order mark; `Err` is the offset of the first invalid byte.
pub(super) fn decode(input: &Bytes) -> Result<(ByteString, Encoding), usize> {
    match input.as_ref() {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes).map(|text| (text, Encoding::Utf16)),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes).map(|text| (text, Encoding::Utf16)),
        [0xef, 0xbb, 0xbf, ..] => utf8(input.slice(3..)).map_err(|at| at + 3).map(|text| (text, Encoding::Utf8)),
        _ => utf8(input.clone()).map(|text| (text, Encoding::Utf8)),
    }
}

fn utf8(bytes: Bytes) -> Result<ByteString, usize> {
    match std::str::from_utf8(&bytes) {
        Ok(_) => ByteString::try_from(bytes).map_err(|_| 0),
        Err(error) => Err(error.valid_up_to()),
    }
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<ByteString, usize> {
    let pairs = bytes.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return Err(bytes.len() + 2);
    }
    let mut offset = 2;
    let mut text = String::with_capacity(bytes.len() / 2);
    for character in char::decode_utf16(pairs.map(|pair| unit([pair[0], pair[1]]))) {
        let character = character.map_err(|_| offset)?;
        offset += character.len_utf16() * 2;
        text.push(character);
    }
    Ok(text.into())
}
