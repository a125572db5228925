//! A cursor over a document: the lexical grammar of RFC 8259, and places for errors. What a value becomes is its
//! caller's business, so that readers with and without a contract share it.

use std::borrow::Cow;

use bytes::Bytes;
use bytestring::ByteString;

use crate::Limits;
use crate::decimal::scan_number;

/// Why a document was refused, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {kind}")]
pub struct JsonError {
    /// What is wrong.
    pub kind: JsonErrorKind,
    /// From 1.
    pub line: usize,
    /// From 1, in bytes.
    pub column: usize,
    /// From 0, in bytes.
    pub offset: usize,
}

/// What is wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonErrorKind {
    /// The bytes are not UTF-8.
    #[error("not valid UTF-8")]
    Utf8,
    /// The document ends in the middle of a value.
    #[error("the document ends here, but {0} is expected")]
    End(&'static str),
    /// Something else stands where this should.
    #[error("expected {0}")]
    Expected(&'static str),
    /// Something stands after the value.
    #[error("nothing may follow the value")]
    Trailing,
    /// A key stands twice in one object.
    #[error("the key {0:?} stands twice in one object")]
    DuplicateKey(String),
    /// `\u` escapes that are half of a surrogate pair.
    #[error("a lone surrogate is no character")]
    LoneSurrogate,
    /// A control character that must be escaped.
    #[error("a control character must be written as an escape")]
    ControlCharacter,
    /// A backslash with something else than JSON's escapes.
    #[error("unknown escape")]
    Escape,
    /// No number as JSON writes them, such as `01`, `+1`, `.5`, `NaN`.
    #[error("not a number as JSON writes it")]
    Number,
    /// A number that no double comes near, such as 1e999.
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

/// The result of reading a part of a document; the cursor stands where it is wrong.
pub type Read<T> = Result<T, JsonErrorKind>;

/// What a value is, by its first byte.
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

/// Where a reader stands in a document.
pub struct Cursor<'a> {
    text: &'a ByteString,
    bytes: &'a [u8],
    at: usize,
    number_len_max: usize,
}

/// A document's text.
///
/// # Errors
/// [`JsonError`] with the place where the bytes are not UTF-8.
pub fn text_of(input: &Bytes) -> Result<ByteString, JsonError> {
    ByteString::try_from(input.clone()).map_err(|_| {
        let valid = std::str::from_utf8(input).map_or_else(|error| error.valid_up_to(), str::len);
        JsonError::at(input, valid, JsonErrorKind::Utf8)
    })
}

impl JsonError {
    /// An error at an offset of a document.
    #[must_use]
    pub fn at(input: &[u8], offset: usize, kind: JsonErrorKind) -> Self {
        let before = &input[..offset.min(input.len())];
        let line = 1 + memchr::memchr_iter(b'\n', before).count();
        let column = 1 + before.len() - memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1);
        Self { kind, line, column, offset: before.len() }
    }
}

impl<'a> Cursor<'a> {
    /// At the start of a document.
    #[must_use]
    pub fn new(text: &'a ByteString, limits: &Limits) -> Self {
        Self { text, bytes: text.as_bytes(), at: 0, number_len_max: limits.number_len }
    }

    /// The whole document.
    #[must_use]
    pub fn document(&self) -> &'a ByteString {
        self.text
    }

    /// Bytes that were read.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.at
    }

    /// Goes back to a place that was passed, so that an error shows it.
    pub fn rewind(&mut self, offset: usize) {
        debug_assert!(offset <= self.at, "only what was read is read again");
        self.at = offset;
    }

    /// What the next value is; white space before it is passed.
    ///
    /// # Errors
    /// Where no value stands.
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

    /// Reads the word of a token that is one.
    ///
    /// # Errors
    /// Where something else stands there.
    pub fn word(&mut self, token: Token) -> Read<()> {
        let word: &[u8] = match token {
            Token::True => b"true",
            Token::False => b"false",
            _ => b"null",
        };
        if self.bytes[self.at..].starts_with(word) {
            self.at += word.len();
            Ok(())
        } else {
            Err(JsonErrorKind::Expected("a value"))
        }
    }

    /// Enters an array or object whose bracket stands here; false where it is empty and was passed whole.
    pub fn enter(&mut self, close: u8) -> bool {
        self.at += 1;
        self.skip_white_space();
        !self.eat(close)
    }

    /// Passes the comma before the next item, or the bracket at the end; false at the end.
    ///
    /// # Errors
    /// Where neither stands there.
    #[inline]
    pub fn next(&mut self, close: u8) -> Read<bool> {
        self.skip_white_space();
        if self.eat(close) {
            return Ok(false);
        }
        let what = if close == b']' { "a comma or the array's end" } else { "a comma or the object's end" };
        self.expect(b',', what)?;
        self.skip_white_space();
        Ok(true)
    }

    /// Reads a key and the colon behind it.
    ///
    /// # Errors
    /// Where no key stands there.
    #[inline]
    pub fn key(&mut self) -> Read<Cow<'a, str>> {
        if self.bytes.get(self.at) != Some(&b'"') {
            return Err(self.missing("a key in quotes"));
        }
        let key = self.string()?;
        self.skip_white_space();
        self.expect(b':', "a colon")?;
        Ok(key)
    }

    /// As a text that shares the document's bytes where it can.
    #[must_use]
    pub fn shared(&self, text: Cow<'a, str>) -> ByteString {
        match text {
            Cow::Borrowed(text) => self.text.slice_ref(text),
            Cow::Owned(text) => text.into(),
        }
    }

    /// Nothing but white space may follow.
    ///
    /// # Errors
    /// Where something does.
    pub fn finish(&mut self) -> Read<()> {
        self.skip_white_space();
        if self.at == self.bytes.len() { Ok(()) } else { Err(JsonErrorKind::Trailing) }
    }

    /// Reads a number: its text, and whether it has neither fraction nor exponent.
    ///
    /// # Errors
    /// Where no number of RFC 8259 §6 stands there, or one that is longer than [`Limits::number_len`].
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
        Ok((text, scan.integer))
    }

    /// Reads a string whose opening quote stands here; without an escape it is a part of the document.
    ///
    /// # Errors
    /// For a control character, a bad escape, a lone surrogate, or where the quote that closes it is missing.
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
        let plain = match self.bytes.get(self.at + 1) {
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
        Ok(plain)
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

    /// The four hex digits of a `\u` escape whose backslash stands at `at`.
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

/// Bytes before the first quote, backslash or control character, eight at a time.
#[inline]
fn plain_len(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let (words, _) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let (quote, backslash) = (word ^ (ONES * 0x22), word ^ (ONES * 0x5c));
        // The high bit of each byte that is below 0x20, a quote or a backslash; a borrow can only flag bytes above it.
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
