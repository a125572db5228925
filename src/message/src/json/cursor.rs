//! A cursor over a document: the lexical grammar of RFC 8259, and positions for errors. It does not build values, so that readers with and
//! without a contract share it.

use std::borrow::Cow;

use bytes::Bytes;
use bytestring::ByteString;

use crate::Limits;
use crate::decimal::scan_number;

/// Why a document was rejected, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {kind}")]
pub struct JsonError {
    /// The cause.
    pub kind: JsonErrorKind,
    /// Line, from 1.
    pub line: usize,
    /// Column in bytes, from 1.
    pub column: usize,
    /// Offset in bytes, from 0.
    pub offset: usize,
}

/// Why a document was rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonErrorKind {
    /// The bytes are not UTF-8.
    #[error("not valid UTF-8")]
    Utf8,
    /// The document ends early.
    #[error("unexpected end of document, expected {0}")]
    End(&'static str),
    /// Something else is expected.
    #[error("expected {0}")]
    Expected(&'static str),
    /// Text after the value.
    #[error("nothing may follow the value")]
    Trailing,
    /// A duplicate key in an object.
    #[error("duplicate key {0:?}")]
    DuplicateKey(String),
    /// A `\u` escape that is half of a surrogate pair.
    #[error("lone surrogate in an escape")]
    LoneSurrogate,
    /// An unescaped control character.
    #[error("a control character must be escaped")]
    ControlCharacter,
    /// A backslash that does not start an escape of JSON.
    #[error("unknown escape")]
    Escape,
    /// Not a JSON number, such as `01`, `+1` or `.5`.
    #[error("not a valid JSON number")]
    Number,
    /// A number beyond the range of a double, such as 1e999.
    #[error("the number is out of range")]
    NumberRange,
    /// More levels than [`Limits::depth`].
    #[error("nested deeper than {0} levels")]
    Depth(usize),
    /// More keys than [`Limits::keys`].
    #[error("an object has more than {0} keys")]
    Keys(usize),
    /// More values than [`Limits::nodes`].
    #[error("the document has more than {0} values")]
    Nodes(usize),
    /// A number longer than [`Limits::number_len`].
    #[error("a number is longer than {0} bytes")]
    NumberLen(usize),
}

/// The result of reading a part of a document. On failure, the cursor is at the error.
pub type Read<T> = Result<T, JsonErrorKind>;

/// The kind of a value, from its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    /// `{`
    Object,
    /// `[`
    Array,
    /// `"`
    String,
    /// A digit, a sign or a point.
    Number,
    /// `true`
    True,
    /// `false`
    False,
    /// `null`
    Null,
}

/// A position in a document.
pub struct Cursor<'a> {
    text: &'a ByteString,
    bytes: &'a [u8],
    at: usize,
    number_len_max: usize,
}

/// The text of a document.
///
/// # Errors
/// [`JsonError`] with the position if the bytes are not valid UTF-8.
pub fn text_of(input: &Bytes) -> Result<ByteString, JsonError> {
    ByteString::try_from(input.clone()).map_err(|_| {
        let valid = std::str::from_utf8(input).map_or_else(|error| error.valid_up_to(), str::len);
        JsonError::at(input, valid, JsonErrorKind::Utf8)
    })
}

impl JsonError {
    /// Creates an error at an offset of a document.
    #[must_use]
    pub fn at(input: &[u8], offset: usize, kind: JsonErrorKind) -> Self {
        let before = &input[..offset.min(input.len())];
        let line = 1 + memchr::memchr_iter(b'\n', before).count();
        let column = 1 + before.len() - memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1);
        Self { kind, line, column, offset: before.len() }
    }
}

impl<'a> Cursor<'a> {
    /// A cursor at the start of a document.
    #[must_use]
    pub fn new(text: &'a ByteString, limits: &Limits) -> Self {
        Self { text, bytes: text.as_bytes(), at: 0, number_len_max: limits.number_len }
    }

    /// The whole document.
    #[must_use]
    pub fn document(&self) -> &'a ByteString {
        self.text
    }

    /// The offset of the cursor in bytes.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.at
    }

    /// Moves back to an offset, so that an error points there.
    pub fn rewind(&mut self, offset: usize) {
        debug_assert!(offset <= self.at, "the cursor only moves back");
        self.at = offset;
    }

    /// Skips white space and returns the kind of the next value.
    ///
    /// # Errors
    /// If there is no value.
    #[inline]
    pub fn token(&mut self) -> Read<Token> {
        self.skip_white_space();
        match self.bytes.get(self.at) {
            Some(b'"') => Ok(Token::String),
            Some(b'{') => Ok(Token::Object),
            Some(b'[') => Ok(Token::Array),
            Some(b'-' | b'0'..=b'9' | b'+' | b'.') => Ok(Token::Number),
            Some(b't') => Ok(Token::True),
            Some(b'f') => Ok(Token::False),
            Some(b'n') => Ok(Token::Null),
            Some(_) => Err(JsonErrorKind::Expected("a value")),
            None => Err(JsonErrorKind::End("a value")),
        }
    }

    /// Reads the literal `true`, `false` or `null`.
    ///
    /// # Errors
    /// If the document has something else there.
    pub fn literal(&mut self, token: Token) -> Read<()> {
        let literal: &[u8] = match token {
            Token::True => b"true",
            Token::False => b"false",
            _ => b"null",
        };
        if self.bytes[self.at..].starts_with(literal) {
            self.at += literal.len();
            Ok(())
        } else {
            Err(JsonErrorKind::Expected("a value"))
        }
    }

    /// Enters the array or object at the cursor. Returns false after skipping an empty one.
    pub fn enter(&mut self, close: u8) -> bool {
        self.at += 1;
        self.skip_white_space();
        !self.eat(close)
    }

    /// Skips the comma before the next item, or the closing bracket. Returns false at the end.
    ///
    /// # Errors
    /// If there is neither.
    #[inline]
    pub fn next(&mut self, close: u8) -> Read<bool> {
        self.skip_white_space();
        if self.eat(close) {
            return Ok(false);
        }
        let what = if close == b']' { "`,` or `]`" } else { "`,` or `}`" };
        self.expect(b',', what)?;
        self.skip_white_space();
        Ok(true)
    }

    /// Reads a key and its colon.
    ///
    /// # Errors
    /// If there is no key or no colon.
    #[inline]
    pub fn key(&mut self) -> Read<Cow<'a, str>> {
        if self.bytes.get(self.at) != Some(&b'"') {
            return Err(self.missing("a quoted key"));
        }
        let key = self.string()?;
        self.skip_white_space();
        self.expect(b':', "`:`")?;
        Ok(key)
    }

    /// Converts text to a string that shares the bytes of the document if possible.
    #[must_use]
    pub fn shared(&self, text: Cow<'a, str>) -> ByteString {
        match text {
            Cow::Borrowed(text) => self.text.slice_ref(text),
            Cow::Owned(text) => text.into(),
        }
    }

    /// Checks that only white space follows.
    ///
    /// # Errors
    /// If something else follows.
    pub fn finish(&mut self) -> Read<()> {
        self.skip_white_space();
        if self.at == self.bytes.len() { Ok(()) } else { Err(JsonErrorKind::Trailing) }
    }

    /// Reads a number. Returns its text, and whether it has neither fraction nor exponent.
    ///
    /// # Errors
    /// If there is no valid number (RFC 8259 §6), or it is longer than [`Limits::number_len`].
    pub fn number(&mut self) -> Read<(&'a str, bool)> {
        let scan = scan_number(&self.bytes[self.at..]).ok_or(JsonErrorKind::Number)?;
        let end = self.at + scan.len;
        if scan.len > self.number_len_max {
            return Err(JsonErrorKind::NumberLen(self.number_len_max));
        }
        if matches!(self.bytes.get(end), Some(b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-')) {
            return Err(JsonErrorKind::Number);
        }
        let text = &self.text[self.at..end];
        self.at = end;
        Ok((text, scan.is_integer))
    }

    /// Reads the string at the cursor. Without escapes, it borrows from the document.
    ///
    /// # Errors
    /// For a control character, an invalid escape, a lone surrogate, or a missing closing quote.
    pub fn string(&mut self) -> Read<Cow<'a, str>> {
        let start = self.at + 1;
        let end = start + plain_len(&self.bytes[start..]);
        match self.bytes.get(end) {
            Some(b'"') => {
                self.at = end + 1;
                Ok(Cow::Borrowed(&self.text[start..end]))
            }
            Some(b'\\') => self.escaped_string(start, end),
            Some(_) => {
                self.at = end;
                Err(JsonErrorKind::ControlCharacter)
            }
            None => {
                self.at = end;
                Err(JsonErrorKind::End("the closing quote"))
            }
        }
    }

    fn escaped_string(&mut self, start: usize, first_escape: usize) -> Read<Cow<'a, str>> {
        let mut text = String::with_capacity(first_escape - start + 32);
        let mut run = start;
        self.at = first_escape;
        loop {
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    text.push_str(&self.text[run..self.at]);
                    self.at += 1;
                    return Ok(Cow::Owned(text));
                }
                Some(b'\\') => {
                    text.push_str(&self.text[run..self.at]);
                    text.push(self.escape()?);
                    run = self.at;
                }
                Some(0..=0x1f) => return Err(JsonErrorKind::ControlCharacter),
                Some(_) => self.at += plain_len(&self.bytes[self.at..]).max(1),
                None => return Err(JsonErrorKind::End("the closing quote")),
            }
        }
    }

    fn escape(&mut self) -> Read<char> {
        let character = match self.bytes.get(self.at + 1) {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(),
            Some(_) => return Err(JsonErrorKind::Escape),
            None => return Err(JsonErrorKind::End("an escape")),
        };
        self.at += 2;
        Ok(character)
    }

    fn unicode_escape(&mut self) -> Read<char> {
        let first = self.hex4(self.at)?;
        let (scalar, len) = match first {
            0xd800..=0xdbff => {
                let second = self.hex4(self.at + 6).map_err(|_| JsonErrorKind::LoneSurrogate)?;
                if !(0xdc00..=0xdfff).contains(&second) {
                    return Err(JsonErrorKind::LoneSurrogate);
                }
                (0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00), 12)
            }
            _ => (first, 6),
        };
        let character = char::from_u32(scalar).ok_or(JsonErrorKind::LoneSurrogate)?;
        self.at += len;
        Ok(character)
    }

    /// The four hex digits of the `\u` escape at `at`.
    fn hex4(&self, at: usize) -> Read<u32> {
        let escape = self.bytes.get(at..at + 6).ok_or(JsonErrorKind::Escape)?;
        if !escape.starts_with(b"\\u") || !escape[2..].iter().all(u8::is_ascii_hexdigit) {
            return Err(JsonErrorKind::Escape);
        }
        u32::from_str_radix(&self.text[at + 2..at + 6], 16).map_err(|_| JsonErrorKind::Escape)
    }

    fn skip_white_space(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\n' | b'\t' | b'\r')) {
            self.at += 1;
        }
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.bytes.get(self.at) == Some(&byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8, what: &'static str) -> Read<()> {
        if self.eat(byte) { Ok(()) } else { Err(self.missing(what)) }
    }

    fn missing(&self, what: &'static str) -> JsonErrorKind {
        if self.at == self.bytes.len() { JsonErrorKind::End(what) } else { JsonErrorKind::Expected(what) }
    }
}

/// The number of bytes before the first quote, backslash or control character. Checks eight bytes at a time.
#[inline]
fn plain_len(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let (words, _) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let (quote, backslash) = (word ^ (ONES * 0x22), word ^ (ONES * 0x5c));
        // Sets the high bit of each byte that is below 0x20, a quote or a backslash. A borrow can only affect bytes above a match.
        let found = (word.wrapping_sub(ONES * 0x20) & !word)
            | (quote.wrapping_sub(ONES) & !quote)
            | (backslash.wrapping_sub(ONES) & !backslash);
        let found = found & HIGHS;
        if found != 0 {
            return index * 8 + (found.trailing_zeros() / 8) as usize;
        }
    }
    let done = words.len() * 8;
    let rest = &bytes[done..];
    done + rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f)).unwrap_or(rest.len())
}
