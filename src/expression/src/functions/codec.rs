//! Encodings, digests and random values.

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use bytes::Bytes;
use ring::{digest, hmac};

use super::{Call, Function, bytes_at, take, text_at};
use crate::failure::{Failure, Outcome};
use crate::value::Val;

/// Like other implementations of CEL: complete padding or none, and bits after the last byte are ignored.
const PADDED: GeneralPurpose = decoder(DecodePaddingMode::RequireCanonical);
const UNPADDED: GeneralPurpose = decoder(DecodePaddingMode::RequireNone);

const fn decoder(padding: DecodePaddingMode) -> GeneralPurpose {
    let config = GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true).with_decode_padding_mode(padding);
    GeneralPurpose::new(&alphabet::STANDARD, config)
}

/// Maximum length of the name of a sequence, in bytes.
const SEQUENCE_LEN_MAX: usize = 255;

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "base64.encode",
        group: "Encodings and digests",
        signatures: &["(bytes) -> string"],
        description: "The bytes in base64 (RFC 4648 §4), padded.",
        cost: "the length",
        examples: &[("base64.encode(b'hello')", "'aGVsbG8='")],
        run: |call, arguments| {
            let bytes = bytes_at(call, arguments, 0)?;
            call.charge_output(bytes.len() / 3 * 4 + 4)?;
            Ok(Val::text(STANDARD.encode(bytes)))
        },
    },
    Function {
        name: "base64.decode",
        group: "Encodings and digests",
        signatures: &["(string) -> bytes"],
        description: "The bytes of a base64 string, padded or not; line breaks are ignored.",
        cost: "the length",
        examples: &[("base64.decode('aGVsbG8')", "b'hello'")],
        run: |call, arguments| {
            let text = text_at(call, arguments, 0)?;
            call.charge_output(text.len())?;
            let text: Cow<'_, str> =
                if text.contains(['\r', '\n']) { text.replace(['\r', '\n'], "").into() } else { (&**text).into() };
            let decoder = if text.ends_with('=') { &PADDED } else { &UNPADDED };
            decoder.decode(&*text).map(Val::bytes).map_err(|_| call.fail("the string is not base64"))
        },
    },
    Function {
        name: "hex.encode",
        group: "Encodings and digests",
        signatures: &["(bytes) -> string"],
        description: "The bytes in hexadecimal, in lower case.",
        cost: "the length",
        examples: &[("hex.encode(b'AZ')", "'415a'")],
        run: |call, arguments| {
            let bytes = bytes_at(call, arguments, 0)?;
            call.charge_output(2 * bytes.len())?;
            Ok(Val::text(hexadecimal(bytes)))
        },
    },
    Function {
        name: "hex.decode",
        group: "Encodings and digests",
        signatures: &["(string) -> bytes"],
        description: "The bytes of a hexadecimal string.",
        cost: "the length",
        examples: &[("hex.decode('415A')", "b'AZ'")],
        run: hex_decode,
    },
    Function {
        name: "sha256",
        group: "Encodings and digests",
        signatures: &["(bytes) -> bytes", "(string) -> bytes"],
        description: "The SHA-256 digest of bytes or of the UTF-8 of a string (FIPS 180-4).",
        cost: "the length",
        examples: &[("hex.encode(sha256('abc')).startsWith('ba7816bf')", "true")],
        run: |call, arguments| {
            let input = input(call, arguments, 0)?;
            call.charge_scan(4 * input.len())?;
            call.charge_output(32)?;
            Ok(Val::bytes(Bytes::copy_from_slice(digest::digest(&digest::SHA256, &input).as_ref())))
        },
    },
    Function {
        name: "hmac",
        group: "Encodings and digests",
        signatures: &[
            "(bytes, bytes) -> bytes",
            "(bytes, string) -> bytes",
            "(string, bytes) -> bytes",
            "(string, string) -> bytes",
        ],
        description: "The HMAC-SHA256 of the second argument, keyed with the first (RFC 2104).",
        cost: "the length",
        examples: &[("hex.encode(hmac('key', 'data')).startsWith('5031fe3d')", "true")],
        run: |call, arguments| {
            let (key, input) = (input(call, arguments, 0)?, input(call, arguments, 1)?);
            call.charge_scan(4 * (key.len() + input.len()))?;
            call.charge_output(32)?;
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), &input);
            Ok(Val::bytes(Bytes::copy_from_slice(tag.as_ref())))
        },
    },
    Function {
        name: "uuid",
        group: "Encodings and digests",
        signatures: &["() -> string"],
        description: "A random UUID (RFC 9562, version 4).",
        cost: "1",
        examples: &[("uuid().size()", "36")],
        run: |call, _| {
            call.charge_output(36)?;
            // Version 4, variant 10.
            let bits = (call.host.random() & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
            let all = format!("{bits:032x}");
            Ok(Val::text(format!("{}-{}-{}-{}-{}", &all[..8], &all[8..12], &all[12..16], &all[16..20], &all[20..])))
        },
    },
    Function {
        name: "sequence",
        group: "Encodings and digests",
        signatures: &["(string) -> int"],
        description: "The next number of a sequence of the cluster with this name (1 to 255 bytes): higher than those that were returned \
                      before, on any instance. It begins with 1; numbers may be left out. In steps only.",
        cost: "1",
        examples: &[("sequence('orders') > 0", "true")],
        run: |call, arguments| {
            let Val::Text(name) = take(arguments, 0) else { return call.no_overload() };
            if name.is_empty() || name.len() > SEQUENCE_LEN_MAX {
                return Err(Failure::value(call.span, "the name of a sequence has 1 to 255 bytes"));
            }
            match call.host.number(&name) {
                Some(number) => Ok(Val::Int(number)),
                None => Err(Failure::no_number(call.span)),
            }
        },
    },
    Function {
        name: "random",
        group: "Encodings and digests",
        signatures: &["() -> double"],
        description: "A random number of at least 0 and less than 1.",
        cost: "1",
        examples: &[("random() < 1.0", "true")],
        run: |call, _| {
            // The fraction bits of a double in [1, 2).
            let fraction = u64::try_from(call.host.random() >> 76).unwrap_or(0);
            Ok(Val::Double(f64::from_bits((1023 << 52) | fraction) - 1.0))
        },
    },
];

fn input(call: &Call<'_>, arguments: &mut [Val<'_>], at: usize) -> Outcome<Bytes> {
    match take(arguments, at) {
        Val::Bytes(bytes) => Ok(bytes.into_owned()),
        Val::Text(text) => Ok(text.as_bytes().clone()),
        _ => call.no_overload(),
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |half: u8| char::from(DIGITS[usize::from(half)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn hex_decode<'v>(call: &Call<'_>, arguments: &mut [Val<'v>]) -> Outcome<Val<'v>> {
    let text = text_at(call, arguments, 0)?;
    call.charge_output(text.len() / 2)?;
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let decoded = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect::<Option<Vec<u8>>>();
    decoded.filter(|_| rest.is_empty()).map(Val::bytes).ok_or_else(|| call.fail("the string is not hexadecimal"))
}
