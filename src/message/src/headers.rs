//! Headers that cross from one protocol to another.

use bytestring::ByteString;

/// A header that may not cross.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The name is empty or has a character that is no token character (RFC 9110 §5.6.2), or an upper-case letter.
    #[error("header name {0:?} is not a lower-case token")]
    Name(String),
    /// The value holds CR, LF, NUL, another control character, or a character outside ASCII.
    #[error("the value of header {0:?} holds a control or non-ASCII character")]
    Value(String),
}

/// Fields that are lists by their definition: several lines are one list (RFC 9110 §5.3, and the documents that define each). A cookie
/// may be sent in several lines (RFC 9113 §8.2.3).
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

/// Whether several values of a header, named in lower case, are one list rather than an ambiguity.
#[must_use]
pub fn is_list_header(name: &str) -> bool {
    LISTS.contains(&name)
}

/// An ordered multimap from lower-case names to text values.
///
/// What is in it may be written into any protocol's headers as it stands: names are tokens, values are printable ASCII
/// with inner spaces and tabs. Whatever does not fit is refused on the way in, so that no value can split a header.
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

    /// Adds a value after those that the name already has.
    ///
    /// # Errors
    /// [`HeaderError`] when the name or value may not stand in a header of some protocol.
    pub fn append(&mut self, name: impl Into<ByteString>, value: impl Into<ByteString>) -> Result<(), HeaderError> {
        let (name, value) = (name.into(), value.into());
        check_name(&name)?;
        check_value(&name, &value)?;
        self.entries.push((name, value));
        Ok(())
    }

    /// Replaces all values that the name has by this one.
    ///
    /// # Errors
    /// As [`Headers::append`]; the old values stay then.
    pub fn set(&mut self, name: impl Into<ByteString>, value: impl Into<ByteString>) -> Result<(), HeaderError> {
        let (name, value) = (name.into(), value.into());
        check_name(&name)?;
        check_value(&name, &value)?;
        self.entries.retain(|(key, _)| *key != name);
        self.entries.push((name, value));
        Ok(())
    }

    /// Takes all values of a name out.
    pub fn remove(&mut self, name: &str) {
        self.entries.retain(|(key, _)| key != name);
    }

    /// The first value of a name; the name is compared without regard to case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&ByteString> {
        self.entries.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// All values of a name as one text; the name is compared without regard to case.
    ///
    /// Several values are joined by a comma (RFC 9110 §5.3), those of a cookie by a semicolon (RFC 9113 §8.2.3).
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

    /// The first name with several values that is neither a list by its definition nor one of `lists`.
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

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
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
    fn keeps_order_and_repeats() {
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
    fn several_values_are_joined_where_they_are_a_list_and_found_where_they_are_none() {
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
    fn a_value_can_never_split_a_header() {
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
