//! Reads a document into the view, within limits.

use std::collections::HashMap;

use bytes::Bytes;
use bytestring::ByteString;
use quick_xml::XmlVersion;
use quick_xml::events::{BytesDecl, BytesStart, Event};
use quick_xml::reader::Reader as Events;

use super::encoding::{self, Encoding};
use super::name::{ExpandedName, is_ncname, is_xml_character};
use crate::{Limits, Record, Value};

/// Why a document was rejected, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {kind}")]
pub struct XmlError {
    /// The cause.
    pub kind: XmlErrorKind,
    /// Line, from 1.
    pub line: usize,
    /// Column in bytes of the text as UTF-8, from 1.
    pub column: usize,
}

/// Why a document was rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum XmlErrorKind {
    /// Neither UTF-8 nor UTF-16 with a byte order mark, or the XML declaration names another encoding.
    #[error("the encoding must be UTF-8, or UTF-16 with a byte order mark, and match the XML declaration")]
    Encoding,
    /// A document type declaration.
    #[error("a document type (DOCTYPE) is not allowed")]
    DocType,
    /// An entity other than the five predefined ones.
    #[error("the entity &{0}; is not predefined in XML")]
    Entity(String),
    /// A reference to a character that XML does not allow.
    #[error("the character reference is not to a character that XML allows")]
    CharacterReference,
    /// A character that XML does not allow.
    #[error("a character that XML does not allow")]
    Character,
    /// Mismatched tags, an unclosed construct, and so on.
    #[error("not well-formed: {0}")]
    Syntax(String),
    /// An invalid name.
    #[error("{0:?} is not a valid name")]
    Name(String),
    /// An undeclared prefix.
    #[error("the prefix {0:?} is not declared")]
    Prefix(String),
    /// A prefix that must not be declared like this (Namespaces in XML 1.0 §3).
    #[error("the prefix {0:?} cannot be declared for this namespace")]
    Declaration(String),
    /// A duplicate attribute.
    #[error("duplicate attribute {0:?}")]
    DuplicateAttribute(String),
    /// No root element, or content outside of it.
    #[error("a document must consist of one root element")]
    Root,
    /// More levels than [`Limits::depth`].
    #[error("nested deeper than {0} levels")]
    Depth(usize),
    /// More attributes than [`Limits::attributes`].
    #[error("an element has more than {0} attributes")]
    Attributes(usize),
    /// More declarations than [`Limits::namespaces`].
    #[error("more than {0} namespace declarations in scope")]
    Namespaces(usize),
    /// A namespace longer than [`Limits::namespace_len`].
    #[error("a namespace name is longer than {0} bytes")]
    NamespaceLen(usize),
    /// More bytes of qualified names than [`Limits::qualified_len`].
    #[error("the names with their namespaces exceed {0} bytes in total")]
    QualifiedLen(usize),
    /// A name longer than [`Limits::name_len`].
    #[error("a name is longer than {0} bytes")]
    NameLen(usize),
    /// Text longer than [`Limits::text_len`].
    #[error("text or an attribute value is longer than {0} bytes")]
    TextLen(usize),
    /// More elements and attributes than [`Limits::nodes`].
    #[error("the document has more than {0} elements and attributes")]
    Nodes(usize),
}

/// Reads a document into the view described in [`crate::xml`].
///
/// # Errors
/// [`XmlError`] with the position, for a document that is not well-formed or violates Namespaces in XML, for any document type, and for documents
/// over a limit.
pub fn read(input: &Bytes, limits: &Limits) -> Result<Value, XmlError> {
    let (text, encoding) =
        encoding::decode(input).map_err(|_| XmlError { kind: XmlErrorKind::Encoding, line: 1, column: 1 })?;
    let mut reader = DocumentReader::new(limits, encoding);
    let mut events = Events::from_str(&text);
    events.config_mut().check_comments = true;
    loop {
        let at = position(events.buffer_position());
        let event = events.read_event().map_err(|error| {
            let place = position(events.error_position());
            XmlError::at(&text, place, XmlErrorKind::Syntax(lower_first(&error.to_string())))
        })?;
        let is_end = matches!(event, Event::Eof);
        reader.event(event, at == 0).map_err(|kind| XmlError::at(&text, at, kind))?;
        if is_end {
            return reader.root.ok_or_else(|| XmlError::at(&text, text.len(), XmlErrorKind::Root));
        }
    }
}

impl XmlError {
    fn at(text: &str, offset: usize, kind: XmlErrorKind) -> Self {
        let before = &text.as_bytes()[..offset.min(text.len())];
        let line = 1 + memchr::memchr_iter(b'\n', before).count();
        let column = 1 + before.len() - memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1);
        Self { kind, line, column }
    }
}

fn position(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

fn lower_first(text: &str) -> String {
    let mut characters = text.chars();
    let text: String =
        characters.next().map(|first| first.to_lowercase().chain(characters).collect()).unwrap_or_default();
    shortened(&text)
}

/// Truncates a part of a document for an error message.
fn shortened(text: &str) -> String {
    const LEN_MAX: usize = 120;
    if text.chars().count() <= LEN_MAX { text.to_owned() } else { text.chars().take(LEN_MAX).chain(['…']).collect() }
}

const XML_NAMESPACE: &str = "http://www.w3.org/XML/1998/namespace";
const XMLNS_NAMESPACE: &str = "http://www.w3.org/2000/xmlns/";

/// Elements with at least this many different child names use an index.
const INDEXED_NAMES_MIN: usize = 16;

type Read<T> = Result<T, XmlErrorKind>;

/// An element whose end tag has not been read.
struct Open {
    name: ExpandedName,
    attributes: Vec<(ByteString, Value)>,
    text: String,
    children: Vec<(ByteString, Vec<Value>)>,
    index: HashMap<ByteString, usize>,
    /// The number of namespace declarations in scope outside of it.
    namespaces_before: usize,
}

struct DocumentReader<'l> {
    limits: &'l Limits,
    encoding: Encoding,
    open: Vec<Open>,
    /// Pairs of prefix and namespace, innermost last. The default namespace has an empty prefix.
    namespaces: Vec<(ByteString, ByteString)>,
    nodes: usize,
    qualified_len: usize,
    root: Option<Value>,
}

impl<'l> DocumentReader<'l> {
    fn new(limits: &'l Limits, encoding: Encoding) -> Self {
        Self { limits, encoding, open: Vec::new(), namespaces: Vec::new(), nodes: 0, qualified_len: 0, root: None }
    }

    fn event(&mut self, event: Event<'_>, first: bool) -> Read<()> {
        match event {
            Event::Decl(declaration) if first => self.declaration(&declaration),
            Event::Decl(_) => Err(XmlErrorKind::Syntax("an XML declaration is only allowed at the start".into())),
            Event::DocType(_) => Err(XmlErrorKind::DocType),
            Event::Start(tag) => self.start(&tag),
            Event::Empty(tag) => {
                self.start(&tag)?;
                self.end()
            }
            Event::End(_) => self.end(),
            Event::Text(text) => {
                if text.contains("]]>") {
                    return Err(XmlErrorKind::Syntax("`]]>` is not allowed in text".into()));
                }
                self.text(&text.xml10_content())
            }
            Event::CData(text) => {
                if self.open.is_empty() {
                    return Err(XmlErrorKind::Root);
                }
                self.text(&text.xml10_content())
            }
            Event::GeneralRef(reference) => {
                let character = match reference.resolve_char_ref() {
                    Ok(Some(character)) if is_xml_character(character) => character,
                    Ok(None) => predefined_entity(&reference)?,
                    Ok(Some(_)) | Err(_) => return Err(XmlErrorKind::CharacterReference),
                };
                if self.open.is_empty() {
                    return Err(XmlErrorKind::Root);
                }
                self.text(character.encode_utf8(&mut [0; 4]))
            }
            Event::Comment(comment) => check_characters(&comment),
            Event::PI(instruction) => {
                let target = instruction.split([' ', '\t', '\r', '\n']).next().unwrap_or("");
                if target.eq_ignore_ascii_case("xml") || !is_ncname(target) {
                    return Err(XmlErrorKind::Name(target.chars().take(64).collect()));
                }
                check_characters(&instruction)
            }
            Event::Eof => match self.open.last() {
                Some(open) => Err(XmlErrorKind::Syntax(format!("the element `{}` is not closed", open.name.local))),
                None => Ok(()),
            },
        }
    }

    /// Checks the XML declaration (XML 1.0 §2.8): version, optional encoding, optional standalone, in this order.
    fn declaration(&self, declaration: &BytesDecl<'_>) -> Read<()> {
        let malformed = || {
            let form = "the XML declaration must be `<?xml version=\"1.0\" encoding=\"…\" standalone=\"…\"?>`";
            XmlErrorKind::Syntax(form.into())
        };
        let mut rest = declaration.strip_prefix("xml").ok_or_else(malformed)?;
        let version = take_pseudo_attribute(&mut rest, "version").ok_or_else(malformed)?;
        if version != "1.0" {
            return Err(XmlErrorKind::Syntax("the XML version must be 1.0".into()));
        }
        let encoding = take_pseudo_attribute(&mut rest, "encoding");
        let standalone = take_pseudo_attribute(&mut rest, "standalone");
        if !is_white_space(rest) || !matches!(standalone, None | Some("yes" | "no")) {
            return Err(malformed());
        }
        match encoding {
            Some(name) if !self.encoding.is_named(name) => Err(XmlErrorKind::Encoding),
            _ => Ok(()),
        }
    }

    fn count_node(&mut self) -> Read<()> {
        self.nodes += 1;
        if self.nodes > self.limits.nodes { Err(XmlErrorKind::Nodes(self.limits.nodes)) } else { Ok(()) }
    }

    fn start(&mut self, tag: &BytesStart<'_>) -> Read<()> {
        let depth = self.limits.depth.min(Limits::DEPTH_CEILING);
        if self.open.is_empty() && self.root.is_some() {
            return Err(XmlErrorKind::Root);
        }
        if self.open.len() == depth {
            return Err(XmlErrorKind::Depth(depth));
        }
        self.count_node()?;
        let namespaces_before = self.namespaces.len();
        let plain = self.declare_namespaces(tag)?;
        let name = self.resolve(tag.name().0, true)?;
        let mut attributes: Vec<(ByteString, Value)> = Vec::with_capacity(plain.len());
        for (attribute, value) in plain {
            self.count_node()?;
            let attribute = self.resolve(&attribute, false)?;
            let key = ByteString::from(format!("@{}", self.field_name(&attribute, "")?));
            if attributes.iter().any(|(old, _)| *old == key) {
                return Err(XmlErrorKind::DuplicateAttribute(shortened(&attribute.local)));
            }
            attributes.push((key, Value::Text(value.into())));
        }
        let (text, children, index) = (String::new(), Vec::new(), HashMap::new());
        self.open.push(Open { name, attributes, text, children, index, namespaces_before });
        Ok(())
    }

    /// Adds the namespace declarations of a tag to the scope. Returns the other attributes with their values.
    fn declare_namespaces(&mut self, tag: &BytesStart<'_>) -> Read<Vec<(String, String)>> {
        let mut plain: Vec<(String, String)> = Vec::new();
        let mut declared: Vec<String> = Vec::new();
        if !attributes_are_separated(tag) {
            return Err(XmlErrorKind::Syntax("attributes must be separated by white space".into()));
        }
        for attribute in tag.attributes().with_checks(false) {
            let attribute = attribute.map_err(|error| XmlErrorKind::Syntax(lower_first(&error.to_string())))?;
            let name = attribute.key.0;
            if attribute.value.contains('<') {
                return Err(XmlErrorKind::Syntax("`<` is not allowed in an attribute value".into()));
            }
            if attribute.value.len() > self.limits.text_len {
                return Err(XmlErrorKind::TextLen(self.limits.text_len));
            }
            let value =
                attribute.normalized_value(XmlVersion::Implicit1_0).map_err(|_| unresolved(&attribute.value))?;
            check_characters(&value)?;
            let prefix = match name.strip_prefix("xmlns") {
                Some("") => "",
                Some(":") => return Err(XmlErrorKind::Name(name.to_owned())),
                Some(rest) if rest.starts_with(':') => &rest[1..],
                _ => {
                    if plain.len() == self.limits.attributes {
                        return Err(XmlErrorKind::Attributes(self.limits.attributes));
                    }
                    plain.push((name.to_owned(), value.into_owned()));
                    continue;
                }
            };
            if declared.iter().any(|old| old == prefix) {
                return Err(XmlErrorKind::DuplicateAttribute(name.to_owned()));
            }
            check_declaration(prefix, &value, self.limits)?;
            if self.namespaces.len() == self.limits.namespaces {
                return Err(XmlErrorKind::Namespaces(self.limits.namespaces));
            }
            declared.push(prefix.to_owned());
            self.namespaces.push((prefix.into(), value.into_owned().into()));
        }
        Ok(plain)
    }

    fn resolve(&self, name: &str, is_element: bool) -> Read<ExpandedName> {
        if name.len() > self.limits.name_len {
            return Err(XmlErrorKind::NameLen(self.limits.name_len));
        }
        let (prefix, local) = name.split_once(':').map_or((None, name), |(prefix, local)| (Some(prefix), local));
        if !is_ncname(local) || prefix.is_some_and(|prefix| !is_ncname(prefix)) {
            return Err(XmlErrorKind::Name(name.chars().take(64).collect()));
        }
        let namespace = match prefix {
            None if !is_element => ByteString::new(),
            None => self.namespace("").unwrap_or_default(),
            Some("xml") => ByteString::from_static(XML_NAMESPACE),
            Some(prefix) => self.namespace(prefix).ok_or_else(|| XmlErrorKind::Prefix(prefix.to_owned()))?,
        };
        Ok(ExpandedName { namespace, local: local.into() })
    }

    /// The name of a field of the view. Its length is counted before it is allocated.
    fn field_name(&mut self, name: &ExpandedName, parent: &str) -> Read<ByteString> {
        if name.namespace != parent {
            self.qualified_len += name.namespace.len() + name.local.len() + 2;
            if self.qualified_len > self.limits.qualified_len {
                return Err(XmlErrorKind::QualifiedLen(self.limits.qualified_len));
            }
        }
        Ok(name.relative_to(parent))
    }

    fn namespace(&self, prefix: &str) -> Option<ByteString> {
        self.namespaces.iter().rev().find(|(declared, _)| declared == prefix).map(|(_, namespace)| namespace.clone())
    }

    fn text(&mut self, text: &str) -> Read<()> {
        check_characters(text)?;
        match self.open.last_mut() {
            Some(open) if open.text.len() + text.len() > self.limits.text_len => {
                Err(XmlErrorKind::TextLen(self.limits.text_len))
            }
            Some(open) => {
                open.text.push_str(text);
                Ok(())
            }
            None if is_white_space(text) => Ok(()),
            None => Err(XmlErrorKind::Root),
        }
    }

    fn end(&mut self) -> Read<()> {
        let Some(open) = self.open.pop() else {
            return Err(XmlErrorKind::Syntax("an end tag without a start tag".into()));
        };
        self.namespaces.truncate(open.namespaces_before);
        let (name, mut fields) = open.into_fields();
        if let Some(mut parent) = self.open.pop() {
            let key = self.field_name(&name, &parent.name.namespace)?;
            parent.add_child(key, Value::Record(Record::from_unique(fields)));
            self.open.push(parent);
        } else {
            let root = (ByteString::from_static("$root"), Value::Text(self.field_name(&name, "")?));
            fields.insert(0, root);
            self.root = Some(Value::Record(Record::from_unique(fields)));
        }
        Ok(())
    }
}

impl Open {
    fn add_child(&mut self, key: ByteString, child: Value) {
        let at = if self.children.len() < INDEXED_NAMES_MIN {
            self.children.iter().position(|(old, _)| *old == key)
        } else {
            if self.index.is_empty() {
                self.index.extend(self.children.iter().enumerate().map(|(at, (old, _))| (old.clone(), at)));
            }
            self.index.get(&key).copied()
        };
        match at {
            Some(at) => self.children[at].1.push(child),
            None => {
                if !self.index.is_empty() {
                    self.index.insert(key.clone(), self.children.len());
                }
                self.children.push((key, vec![child]));
            }
        }
    }

    fn into_fields(self) -> (ExpandedName, Vec<(ByteString, Value)>) {
        let mut fields = self.attributes;
        if self.children.is_empty() || !is_white_space(&self.text) {
            fields.push((ByteString::from_static("$text"), Value::Text(self.text.into())));
        }
        fields.extend(self.children.into_iter().map(|(name, elements)| (name, Value::List(elements))));
        (self.name, fields)
    }
}

fn predefined_entity(name: &str) -> Read<char> {
    Ok(match name {
        "lt" => '<',
        "gt" => '>',
        "amp" => '&',
        "apos" => '\'',
        "quot" => '"',
        _ => return Err(XmlErrorKind::Entity(name.chars().take(64).collect())),
    })
}

/// Takes ` name="value"` from the front of the text; `None`, with the text unchanged, if it is not there.
fn take_pseudo_attribute<'t>(text: &mut &'t str, name: &str) -> Option<&'t str> {
    let spaced = text.trim_start_matches([' ', '\t', '\r', '\n']);
    if spaced.len() == text.len() {
        return None;
    }
    let equals = spaced.strip_prefix(name)?.trim_start_matches([' ', '\t', '\r', '\n']).strip_prefix('=')?;
    let quoted = equals.trim_start_matches([' ', '\t', '\r', '\n']);
    let quote = quoted.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
    let (value, rest) = quoted[1..].split_once(quote)?;
    *text = rest;
    Some(value)
}

/// Finds the reference in an attribute value that could not be resolved.
fn unresolved(value: &str) -> XmlErrorKind {
    let references = value.split('&').skip(1).filter_map(|rest| rest.split_once(';')).map(|(name, _)| name);
    for name in references {
        if !name.starts_with('#')
            && let Err(kind) = predefined_entity(name)
        {
            return kind;
        }
    }
    XmlErrorKind::CharacterReference
}

/// Checks a namespace declaration (Namespaces in XML 1.0 §3 and §5).
fn check_declaration(prefix: &str, namespace: &str, limits: &Limits) -> Read<()> {
    if prefix.len() > limits.name_len {
        return Err(XmlErrorKind::NameLen(limits.name_len));
    }
    if namespace.len() > limits.namespace_len {
        return Err(XmlErrorKind::NamespaceLen(limits.namespace_len));
    }
    let reserved = prefix == "xmlns"
        || (prefix == "xml") != (namespace == XML_NAMESPACE)
        || namespace == XMLNS_NAMESPACE
        || (!prefix.is_empty() && namespace.is_empty());
    if reserved || (!prefix.is_empty() && !is_ncname(prefix)) {
        return Err(XmlErrorKind::Declaration(prefix.to_owned()));
    }
    Ok(())
}

/// Whether white space or the end of the tag follows every attribute value (XML 1.0 §3.1).
fn attributes_are_separated(tag: &str) -> bool {
    let mut quote = None;
    let mut closed = false;
    for byte in tag.bytes() {
        if std::mem::take(&mut closed) && !byte.is_ascii_whitespace() {
            return false;
        }
        match (quote, byte) {
            (None, b'"' | b'\'') => quote = Some(byte),
            (Some(opened), _) if opened == byte => (quote, closed) = (None, true),
            _ => {}
        }
    }
    true
}

fn check_characters(text: &str) -> Read<()> {
    // Check bytes first: nearly all text has no suspicious byte, and need not be decoded into characters.
    let suspicious = |byte: u8| (byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r')) || byte == 0xef;
    if !text.bytes().any(suspicious) || text.chars().all(is_xml_character) {
        Ok(())
    } else {
        Err(XmlErrorKind::Character)
    }
}

fn is_white_space(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'))
}
