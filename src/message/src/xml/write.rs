//! Writes trees made by routes.

use base64::Engine as _;
use bytestring::ByteString;

use super::name::{ExpandedName, is_xml_character};
use crate::{Limits, Record, Value};

/// A value that XML cannot represent, and its path in the tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct XmlWriteError {
    /// The names from the root element to the value, joined by dots.
    pub path: String,
    /// The cause.
    pub problem: &'static str,
}

/// Writes a document with an XML declaration, in UTF-8.
///
/// The fields of a record become child elements in order; a list repeats its element; `@name` is an attribute and `$text` is character data.
/// Numbers keep all digits, bytes are written as base64 (XML Schema part 2 §3.2.16).
///
/// # Errors
/// [`XmlWriteError`] for null, a list in a list, a name or character that XML does not allow, a time out of range, and a tree deeper than
/// [`Limits::DEPTH_CEILING`].
pub fn write(root: &ExpandedName, value: &Value) -> Result<Vec<u8>, XmlWriteError> {
    let mut out = Vec::with_capacity(512);
    out.extend_from_slice(b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>");
    let mut writer = Writer { out, path: Vec::new() };
    writer.element(root, "", value)?;
    Ok(writer.out)
}

struct Writer {
    out: Vec<u8>,
    path: Vec<ByteString>,
}

impl Writer {
    fn error(&self, problem: &'static str) -> XmlWriteError {
        let path: Vec<&str> = self.path.iter().map(|name| &**name).collect();
        XmlWriteError { path: path.join("."), problem }
    }

    fn element(&mut self, name: &ExpandedName, parent: &str, value: &Value) -> Result<(), XmlWriteError> {
        self.path.push(name.local.clone());
        if self.path.len() > Limits::DEPTH_CEILING {
            return Err(self.error("the tree is nested too deeply"));
        }
        self.out.push(b'<');
        self.out.extend_from_slice(name.local.as_bytes());
        if name.namespace != parent {
            self.out.extend_from_slice(b" xmlns=\"");
            self.escaped(&name.namespace, true)?;
            self.out.push(b'"');
        }
        match value {
            Value::Record(record) => self.record(record, name)?,
            scalar => {
                let mark = self.out.len();
                self.out.push(b'>');
                self.scalar(scalar, false)?;
                self.close(name, mark);
            }
        }
        self.path.pop();
        Ok(())
    }

    fn record(&mut self, record: &Record, name: &ExpandedName) -> Result<(), XmlWriteError> {
        for (key, field) in record.iter() {
            if let Some(attribute) = key.strip_prefix('@') {
                self.attribute(attribute, field)?;
            }
        }
        let mark = self.out.len();
        self.out.push(b'>');
        for (key, field) in record.iter().filter(|(key, _)| !key.starts_with('@')) {
            if key == "$text" {
                self.scalar(field, false)?;
                continue;
            }
            let Some(mut child) = ExpandedName::parse(key) else {
                self.path.push(key.clone());
                return Err(self.error("is not a valid element name"));
            };
            if !key.starts_with('{') {
                child.namespace = name.namespace.clone();
            }
            let items = match field {
                Value::List(items) => items.as_slice(),
                single => std::slice::from_ref(single),
            };
            for item in items {
                self.element(&child, &name.namespace, item)?;
            }
        }
        self.close(name, mark);
        Ok(())
    }

    fn attribute(&mut self, attribute: &str, field: &Value) -> Result<(), XmlWriteError> {
        self.path.push(attribute.into());
        match ExpandedName::parse(attribute) {
            // An attribute with a namespace needs a prefix, which the tree does not have.
            Some(name) if name.namespace.is_empty() && attribute != "xmlns" => {}
            _ => return Err(self.error("is not a valid attribute name without namespace")),
        }
        self.out.push(b' ');
        self.out.extend_from_slice(attribute.as_bytes());
        self.out.extend_from_slice(b"=\"");
        self.scalar(field, true)?;
        self.out.push(b'"');
        self.path.pop();
        Ok(())
    }

    /// Closes the element, as an empty-element tag if nothing was written since its `>` at `mark`.
    fn close(&mut self, name: &ExpandedName, mark: usize) {
        if self.out.len() == mark + 1 {
            self.out.truncate(mark);
            self.out.extend_from_slice(b"/>");
        } else {
            self.out.extend_from_slice(b"</");
            self.out.extend_from_slice(name.local.as_bytes());
            self.out.push(b'>');
        }
    }

    fn scalar(&mut self, value: &Value, is_attribute: bool) -> Result<(), XmlWriteError> {
        match value {
            Value::Text(text) => self.escaped(text, is_attribute),
            Value::Bytes(bytes) => self.escaped(&base64::engine::general_purpose::STANDARD.encode(bytes), is_attribute),
            Value::F64(number) if number.is_nan() => self.escaped("NaN", is_attribute),
            Value::F64(number) if number.is_infinite() => {
                self.escaped(if *number > 0.0 { "INF" } else { "-INF" }, is_attribute)
            }
            Value::F32(number) if !number.is_finite() => self.scalar(&Value::F64(f64::from(*number)), is_attribute),
            Value::Null => Err(self.error("XML cannot represent null; omit the field or use text")),
            Value::List(_) => Err(self.error("expected a single value, found a list")),
            Value::Record(_) => Err(self.error("expected a single value, found a record")),
            number => match number.scalar_text() {
                Some(text) => self.escaped(&text, is_attribute),
                None => Err(self.error("the value is out of range")),
            },
        }
    }

    fn escaped(&mut self, text: &str, is_attribute: bool) -> Result<(), XmlWriteError> {
        if !text.chars().all(is_xml_character) {
            return Err(self.error("contains a character that XML does not allow"));
        }
        let mut run = 0;
        for (at, byte) in text.bytes().enumerate() {
            let escape: &[u8] = match byte {
                b'&' => b"&amp;",
                b'<' => b"&lt;",
                b'>' => b"&gt;",
                // Unescaped, it would be read as a line feed (XML 1.0 §2.11).
                b'\r' => b"&#13;",
                b'"' if is_attribute => b"&quot;",
                // Unescaped, they would be read as spaces (XML 1.0 §3.3.3).
                b'\n' if is_attribute => b"&#10;",
                b'\t' if is_attribute => b"&#9;",
                _ => continue,
            };
            self.out.extend_from_slice(&text.as_bytes()[run..at]);
            self.out.extend_from_slice(escape);
            run = at + 1;
        }
        self.out.extend_from_slice(&text.as_bytes()[run..]);
        Ok(())
    }
}
