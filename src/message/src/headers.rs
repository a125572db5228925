//! Headers that pass from one protocol to another.

use bytestring::ByteString;

/// An invalid header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The name is not a token (RFC 9110 §5.6.2) or has an upper-case letter.
    #[error("header name {0:?} must be a lower-case token")]
    Name(String),
    /// The value contains a control character other than a tab, or a character outside ASCII.
    #[error("the value of header {0:?} must be printable ASCII")]
    Value(String),
}

/// Fields defined as lists, whose field lines may be combined (RFC 9110 §5.3, and the definition of each field). Cookies may be split into
/// several field lines (RFC 9113 §8.2.3).
const LISTS: [&str; 43] = [
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-patch",
    "accept-post",
    "accept-ranges",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-expose-headers",
    "access-control-request-headers",
    "allow",
    "alt-svc",
    "baggage",
    "cache-control",
    "cache-status",
    "cdn-loop",
    "clear-site-data",
    "connection",
    "content-encoding",
    "content-language",
    "cookie",
    "dav",
    "expect",
    "forwarded",
    "if-match",
    "if-none-match",
    "keep-alive",
    "link",
    "pragma",
    "prefer",
    "preference-applied",
    "server-timing",
    "set-cookie",
    "te",
    "trailer",
    "tracestate",
    "transfer-encoding",
    "upgrade",
    "vary",
    "via",
    "warning",
    "www-authenticate",
];

/// Whether several values of a header are one list rather than ambiguous. `name` must be in lower case.
#[must_use]
pub fn is_list_header(name: &str) -> bool {
    LISTS.contains(&name)
}

/// An ordered multimap from lower-case names to text values.
///
/// Entries can be written to the headers of any protocol unchanged: names are tokens, and values are printable ASCII, spaces and tabs. Anything
/// else is rejected on insertion, so that no value can split a header.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Headers {
    entries: Vec<(ByteString, ByteString)>,
}

impl Headers {
    /// No headers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value after the existing ones of the name.
    ///
    /// # Errors
    /// [`HeaderError`] if the name or value is invalid.
    pub fn append(&mut self, name: impl Into<ByteString>, value: impl Into<ByteString>) -> Result<(), HeaderError> {
        let (name, value) = (name.into(), value.into());
        check_name(&name)?;
        check_value(&name, &value)?;
        self.entries.push((name, value));
        Ok(())
    }

    /// Replaces all values of the name.
    ///
    /// # Errors
    /// [`HeaderError`] if the name or value is invalid; the old values are kept.
    pub fn set(&mut self, name: impl Into<ByteString>, value: impl Into<ByteString>) -> Result<(), HeaderError> {
        let (name, value) = (name.into(), value.into());
        check_name(&name)?;
        check_value(&name, &value)?;
        self.entries.retain(|(key, _)| *key != name);
        self.entries.push((name, value));
        Ok(())
    }

    /// Removes all values of a name.
    pub fn remove(&mut self, name: &str) {
        self.entries.retain(|(key, _)| key != name);
    }

    /// The first value of a name, ignoring case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&ByteString> {
        self.entries.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// All values of a name, ignoring case, joined by commas (RFC 9110 §5.3), those of `cookie` by semicolons (RFC 9113 §8.2.3).
    #[must_use]
    pub fn joined(&self, name: &str) -> Option<ByteString> {
        let mut values = self.entries.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
        let first = values.next()?;
        let separator = if name.eq_ignore_ascii_case("cookie") { "; " } else { ", " };
        let mut joined = String::new();
        for value in values {
            if joined.is_empty() {
                joined.push_str(first);
            }
            joined.push_str(separator);
            joined.push_str(value);
        }
        Some(if joined.is_empty() { first.clone() } else { joined.into() })
    }

    /// The first name with several values that is neither defined as a list nor one of `lists`.
    #[must_use]
    pub fn repeated(&self, lists: &[ByteString]) -> Option<&ByteString> {
        let mut names = self.entries.iter().enumerate();
        let is_repeated = |at: usize, name: &ByteString| self.entries[..at].iter().any(|(other, _)| other == name);
        let found = names.find(|(at, (name, _))| {
            is_repeated(*at, name) && !is_list_header(name) && !lists.iter().any(|list| list == name)
        });
        found.map(|(_, (name, _))| name)
    }

    /// All entries in order.
    pub fn iter(&self) -> impl Iterator<Item = (&ByteString, &ByteString)> {
        self.entries.iter().map(|(name, value)| (name, value))
    }

    /// The number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

fn check_name(name: &str) -> Result<(), HeaderError> {
    let token = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if !name.is_empty() && name.bytes().all(token) { Ok(()) } else { Err(HeaderError::Name(name.to_owned())) }
}

fn check_value(name: &str, value: &str) -> Result<(), HeaderError> {
    let printable = |byte: u8| byte == b'\t' || (b' '..=b'~').contains(&byte);
    if value.bytes().all(printable) { Ok(()) } else { Err(HeaderError::Value(name.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn append_keeps_order_and_repeated_names() {
        let mut headers = Headers::new();
        for (name, value) in [("b", "1"), ("a", "2"), ("b", "3")] {
            headers.append(name, value).expect(name);
        }
        let entries: Vec<_> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(entries, [("b", "1"), ("a", "2"), ("b", "3")]);
        headers.set("b", "4").expect("b");
        assert_eq!(headers.get("B").map(|value| &**value), Some("4"));
        assert_eq!(headers.len(), 2);
    }

    #[test]
    fn list_values_are_joined_and_other_repeated_names_are_found() {
        let mut headers = Headers::new();
        for (name, value) in
            [("accept", "a"), ("x-role", "user"), ("accept", "b"), ("cookie", "c=1"), ("cookie", "d=2")]
        {
            headers.append(name, value).expect(name);
        }
        assert_eq!(headers.repeated(&[]), None);
        assert_eq!(headers.joined("Accept").as_deref(), Some("a, b"));
        assert_eq!(headers.joined("cookie").as_deref(), Some("c=1; d=2"));
        assert_eq!(headers.joined("x-role").as_deref(), Some("user"));
        headers.append("x-role", "admin").expect("a value");
        assert_eq!(headers.repeated(&[]).map(|name| &**name), Some("x-role"));
        assert_eq!(headers.repeated(&["x-role".into()]), None);
    }

    #[test]
    fn values_cannot_split_a_header() {
        let mut headers = Headers::new();
        for value in ["a\r\nb: c", "a\nb", "a\rb", "a\0b", "caf\u{e9}", "\u{7f}"] {
            assert_eq!(headers.append("x", value), Err(HeaderError::Value("x".into())), "{value:?}");
        }
        for name in ["", "a b", "a:b", "A", "a\r", "\u{fc}"] {
            assert_eq!(headers.append(name, "v"), Err(HeaderError::Name(name.into())), "{name:?}");
        }
        assert!(headers.is_empty());
    }
}
