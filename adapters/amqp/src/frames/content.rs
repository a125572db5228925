//! Content headers: removes properties that lapin cannot parse safely.

use super::Malformed;

/// The maximum nesting depth of tables and arrays, the header table included. The same limit applies to JSON.
pub(crate) const DEPTH_MAX: usize = 64;
/// The header that marks a message with unreadable properties; its value is the raw property list.
pub(crate) const UNREADABLE: &str = "crossdock-unreadable-properties";

/// The property flags follow class, weight and body size (AMQP 0.9.1 §4.2.6.1).
const FLAGS_AT: usize = 12;
const LIST_AT: usize = FLAGS_AT + 2;
/// The encodings of the properties of class `basic`, in the order of their flags from the highest bit.
const PROPERTIES: [Encoding; 14] = [
    Encoding::Short, // content-type
    Encoding::Short, // content-encoding
    Encoding::Table, // headers
    Encoding::Octet, // delivery-mode
    Encoding::Octet, // priority
    Encoding::Short, // correlation-id
    Encoding::Short, // reply-to
    Encoding::Short, // expiration
    Encoding::Short, // message-id
    Encoding::Time,  // timestamp
    Encoding::Short, // type
    Encoding::Short, // user-id
    Encoding::Short, // app-id
    Encoding::Short, // cluster-id
];
const HEADERS_FLAG: u16 = 1 << 13;
/// Flags without a property of class `basic`; the lowest bit means that more flags follow.
const UNKNOWN_FLAGS: u16 = 0b11;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Short,
    Table,
    Octet,
    Time,
}

/// Rewrites the payload of a content header so that lapin can parse it.
///
/// Removes unreadable properties (text that is not UTF-8, a table nested more than [`DEPTH_MAX`] deep or of unknown types) and marks the message:
/// its only header is then [`UNREADABLE`], with all properties as received.
pub(super) fn make_readable(payload: &mut Vec<u8>) -> Result<(), Malformed> {
    let truncated = Malformed("a truncated content header");
    let (Some(flags), Some(list)) = (payload.get(FLAGS_AT..LIST_AT), payload.get(LIST_AT..)) else {
        return Err(truncated);
    };
    let flags = u16::from_be_bytes([flags[0], flags[1]]);
    let Some(readable) = readable_properties(flags, list) else { return Ok(()) };
    let mut kept_flags = HEADERS_FLAG;
    let mut kept = Vec::with_capacity(payload.len() + UNREADABLE.len() + 16);
    kept.extend_from_slice(&payload[..FLAGS_AT]);
    kept.extend_from_slice(&[0; 2]);
    for (number, encoding) in PROPERTIES.iter().enumerate() {
        if *encoding == Encoding::Table {
            let raw = &payload[FLAGS_AT..];
            let len = |len: usize| u32::try_from(len).map_err(|_| Malformed("properties of more than 4 GiB"));
            kept.extend_from_slice(&len(1 + UNREADABLE.len() + 1 + 4 + raw.len())?.to_be_bytes());
            kept.push(u8::try_from(UNREADABLE.len()).unwrap_or(u8::MAX));
            kept.extend_from_slice(UNREADABLE.as_bytes());
            // The type tag of a byte array.
            kept.push(b'x');
            kept.extend_from_slice(&len(raw.len())?.to_be_bytes());
            kept.extend_from_slice(raw);
        } else if let Some(Some(bytes)) = readable.get(number) {
            kept_flags |= 1 << (15 - number);
            kept.extend_from_slice(bytes);
        }
    }
    kept[FLAGS_AT..LIST_AT].copy_from_slice(&kept_flags.to_be_bytes());
    *payload = kept;
    Ok(())
}

/// The encoded properties that are readable; `None` if all are.
fn readable_properties(flags: u16, list: &[u8]) -> Option<[Option<&[u8]>; 14]> {
    let mut cursor = Cursor::new(list);
    let mut readable = [None; 14];
    let mut is_all_readable = flags & UNKNOWN_FLAGS == 0;
    for (number, encoding) in PROPERTIES.iter().enumerate() {
        if flags & (1 << (15 - number)) == 0 {
            continue;
        }
        let before = cursor.rest();
        let is_readable = match encoding {
            Encoding::Short => cursor.short().map(|text| std::str::from_utf8(text).is_ok()),
            Encoding::Table => cursor.long().map(is_table_readable),
            Encoding::Octet => cursor.take(1).map(|_| true),
            Encoding::Time => cursor.take(8).map(|_| true),
        };
        match is_readable {
            Some(true) => readable[number] = before.get(..before.len() - cursor.rest().len()),
            Some(false) => is_all_readable = false,
            // Truncated: the rest cannot be parsed.
            None => return Some(readable),
        }
    }
    (!is_all_readable || !cursor.rest().is_empty()).then_some(readable)
}

/// Whether a table's content has only types that lapin knows, names in UTF-8, and at most [`DEPTH_MAX`] levels.
pub(super) fn is_table_readable(content: &[u8]) -> bool {
    // The ends of the open tables and arrays, and whether each is a table.
    let mut open = [(0, false); DEPTH_MAX];
    let mut depth = 1;
    open[0] = (content.len(), true);
    let mut at = 0;
    while depth > 0 {
        let (end, is_table) = open[depth - 1];
        if at == end {
            depth -= 1;
            continue;
        }
        let mut cursor = Cursor::new(&content[at..end]);
        if is_table && cursor.short().is_none_or(|name| std::str::from_utf8(name).is_err()) {
            return false;
        }
        let skipped = match cursor.take(1) {
            Some(b"t" | b"b" | b"B") => cursor.take(1),
            Some(b"s" | b"U" | b"u") => cursor.take(2),
            Some(b"I" | b"i" | b"f") => cursor.take(4),
            Some(b"L" | b"l" | b"d" | b"T") => cursor.take(8),
            Some(b"D") => cursor.take(5),
            Some(b"S" | b"x") => cursor.long(),
            Some(b"V") => cursor.take(0),
            Some(kind @ (b"F" | b"A")) => match cursor.long() {
                Some(inner) if depth < DEPTH_MAX => {
                    let inner_end = end - cursor.rest().len();
                    at = inner_end - inner.len();
                    open[depth] = (inner_end, kind == b"F");
                    depth += 1;
                    continue;
                }
                _ => return false,
            },
            _ => None,
        };
        if skipped.is_none() {
            return false;
        }
        at = end - cursor.rest().len();
    }
    true
}

/// Reads encoded values in sequence.
pub(super) struct Cursor<'b>(&'b [u8]);

impl<'b> Cursor<'b> {
    pub(super) fn new(bytes: &'b [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn rest(&self) -> &'b [u8] {
        self.0
    }

    pub(super) fn take(&mut self, len: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    /// A short string, without its length.
    pub(super) fn short(&mut self) -> Option<&'b [u8]> {
        let len = usize::from(*self.0.first()?);
        let text = self.0.get(1..1 + len)?;
        self.0 = &self.0[1 + len..];
        Some(text)
    }

    /// A long string, table or array, without its length.
    pub(super) fn long(&mut self) -> Option<&'b [u8]> {
        let len = u32::from_be_bytes(*self.0.first_chunk()?) as usize;
        let content = self.0.get(4..)?.get(..len)?;
        self.0 = &self.0[4 + len..];
        Some(content)
    }
}
