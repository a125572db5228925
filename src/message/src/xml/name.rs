//! Names in XML with namespaces.

use bytestring::ByteString;

/// A name with its namespace (Namespaces in XML 1.0 §2.1), written `{namespace}local`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpandedName {
    /// The namespace name; empty if the name is in no namespace.
    pub namespace: ByteString,
    /// The local part, an NCName.
    pub local: ByteString,
}

impl ExpandedName {
    /// Parses `local` or `{namespace}local`; `None` if the local part is not an NCName.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (namespace, local) = match text.strip_prefix('{') {
            Some(rest) => rest.rsplit_once('}')?,
            None => ("", text),
        };
        is_ncname(local).then(|| Self { namespace: namespace.into(), local: local.into() })
    }

    /// The name as `local` if its namespace is `parent`, otherwise as `{namespace}local`.
    pub(super) fn relative_to(&self, parent: &str) -> ByteString {
        if self.namespace == parent {
            self.local.clone()
        } else {
            format!("{{{}}}{}", self.namespace, self.local).into()
        }
    }
}

/// Whether the text is an NCName: an XML name (XML 1.0 fifth edition §2.3) without a colon.
pub(super) fn is_ncname(text: &str) -> bool {
    let mut characters = text.chars();
    characters.next().is_some_and(is_name_start) && characters.all(is_name_character)
}

fn is_name_start(character: char) -> bool {
    matches!(character,
        'A'..='Z' | '_' | 'a'..='z' | '\u{c0}'..='\u{d6}' | '\u{d8}'..='\u{f6}' | '\u{f8}'..='\u{2ff}'
        | '\u{370}'..='\u{37d}' | '\u{37f}'..='\u{1fff}' | '\u{200c}'..='\u{200d}' | '\u{2070}'..='\u{218f}'
        | '\u{2c00}'..='\u{2fef}' | '\u{3001}'..='\u{d7ff}' | '\u{f900}'..='\u{fdcf}' | '\u{fdf0}'..='\u{fffd}'
        | '\u{10000}'..='\u{effff}')
}

fn is_name_character(character: char) -> bool {
    is_name_start(character)
        || matches!(character, '-' | '.' | '0'..='9' | '\u{b7}' | '\u{300}'..='\u{36f}' | '\u{203f}'..='\u{2040}')
}

/// Whether a document may contain the character (XML 1.0 §2.2).
pub(super) fn is_xml_character(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\r' | '\u{20}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..='\u{10ffff}')
}
