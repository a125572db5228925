//! Path templates: `/v1/orders/{id}/lines/{line}`, `/files/{path=**}`.

use crossdock_message::ByteString;

/// One segment of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// Stands as it is.
    Literal(ByteString),
    /// One segment, bound to this name.
    Capture(ByteString),
    /// All segments that are left, at least one, bound to this name.
    Rest(ByteString),
}

/// A path with named parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathTemplate {
    text: String,
    segments: Vec<Segment>,
}

/// Why a text is no template: the bytes of the text, and a sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct TemplateError {
    /// The bytes that are wrong.
    pub range: std::ops::Range<usize>,
    /// What is wrong.
    pub problem: String,
    /// What to write instead.
    pub help: String,
}

impl PathTemplate {
    /// Names that one template may bind.
    pub const CAPTURES_MAX: usize = 16;

    /// Reads a template.
    ///
    /// # Errors
    /// [`TemplateError`] where the text does not start with `/`, has an empty segment, a character that has no place in
    /// a path, a brace that does not span a whole segment, a name twice, or a `**` that is not last.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let error =
            |range, problem: &str, help: &str| TemplateError { range, problem: problem.into(), help: help.into() };
        if !text.starts_with('/') {
            let help = format!("write `/{text}`");
            return Err(error(0..text.len(), "a path starts with `/`", &help));
        }
        let mut segments: Vec<Segment> = Vec::new();
        let mut at = 1;
        for part in text[1..].split('/') {
            let range = at..at + part.len();
            at = range.end + 1;
            if text == "/" {
                break;
            }
            if matches!(segments.last(), Some(Segment::Rest(_))) {
                return Err(error(range, "nothing may follow `{name=**}`", "put it at the end of the path"));
            }
            let segment = Self::segment(part).map_err(|(problem, help)| error(range.clone(), problem, help))?;
            let name = segment.name();
            if name.is_some() && segments.iter().any(|other| other.name() == name) {
                return Err(error(range, "the name is bound twice", "give each part a name of its own"));
            }
            segments.push(segment);
        }
        let template = Self { text: text.to_owned(), segments };
        if template.names().count() > Self::CAPTURES_MAX {
            return Err(error(0..text.len(), "a path binds at most 16 names", ""));
        }
        Ok(template)
    }

    fn segment(part: &str) -> Result<Segment, (&'static str, &'static str)> {
        if let Some(inner) = part.strip_prefix('{') {
            let Some(name) = inner.strip_suffix('}') else {
                return Err(("a name in braces spans a whole segment", "write `/{name}/`"));
            };
            let (name, rest) = name.strip_suffix("=**").map_or((name, false), |name| (name, true));
            let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
            if !first || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                return Err((
                    "a name in braces has letters, digits and `_`",
                    "write `{order_id}`, or `{path=**}` for all that is left",
                ));
            }
            return Ok(if rest { Segment::Rest(name.into()) } else { Segment::Capture(name.into()) });
        }
        let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@".contains(&byte);
        if part.is_empty() {
            return Err(("an empty segment never matches", "leave the second `/` out"));
        }
        if part == "." || part == ".." {
            return Err(("`.` and `..` never match: paths are normalised first", "write the path without them"));
        }
        if part.contains(['{', '}']) {
            return Err(("a name in braces spans a whole segment", "write `/{name}/`"));
        }
        if !part.bytes().all(unreserved) {
            return Err(("a character that has no place in a path", "a query is bound with `query:`"));
        }
        Ok(Segment::Literal(part.into()))
    }

    /// The template as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The segments; none for `/`.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The names that it binds, in order.
    pub fn names(&self) -> impl Iterator<Item = &ByteString> {
        self.segments.iter().filter_map(Segment::name)
    }
}

impl Segment {
    fn name(&self) -> Option<&ByteString> {
        match self {
            Self::Literal(_) => None,
            Self::Capture(name) | Self::Rest(name) => Some(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_read() {
        let template = PathTemplate::parse("/v1/orders/{id}/files/{path=**}").expect("a template");
        let names: Vec<&str> = template.names().map(|name| &**name).collect();
        assert_eq!((template.segments().len(), names), (5, vec!["id", "path"]));
        assert!(PathTemplate::parse("/").expect("the root").segments().is_empty());
    }

    #[test]
    fn bad_templates_are_refused_at_their_place() {
        for (text, range) in [
            ("v1", 0..2),
            ("/a//b", 3..3),
            ("/a/", 3..3),
            ("/a/{id", 3..6),
            ("/a/x{id}", 3..8),
            ("/{1}", 1..4),
            ("/{a}/{a}", 5..8),
            ("/{a=**}/b", 8..9),
            ("/a?b", 1..4),
            ("/a/../b", 3..5),
        ] {
            assert_eq!(PathTemplate::parse(text).expect_err(text).range, range, "{text}");
        }
    }
}
