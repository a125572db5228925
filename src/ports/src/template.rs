//! Path templates: `/v1/orders/{id}/lines/{line}`, `/files/{path=**}`, and the rest of the syntax of `google.api.http`
//! (`google/api/http.proto`, "Path template syntax"): `/v1/{name=shelves/*/books/*}:cancel`.

use std::ops::Range;

use crossdock_message::ByteString;

/// One segment of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// Matches this text.
    Literal(ByteString),
    /// `*`: matches one segment.
    Any,
    /// `**`: matches all remaining segments, at least one.
    Rest,
}

/// A part of a template, for writing an address from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'t> {
    /// A literal segment.
    Literal(&'t ByteString),
    /// The value of a variable, as one segment.
    Segment(&'t ByteString),
    /// The value of a variable, as one or more segments.
    Segments(&'t ByteString),
    /// A wildcard without a variable, for which there is no value.
    Unnamed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Variable {
    name: ByteString,
    segments: Range<usize>,
}

/// A path with variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathTemplate {
    text: String,
    segments: Vec<Segment>,
    variables: Vec<Variable>,
    /// The custom verb behind a colon, if the last segment is a variable; otherwise it is part of the literal.
    verb: Option<ByteString>,
}

/// Why a text is not a valid template, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct TemplateError {
    /// The invalid bytes of the text.
    pub range: Range<usize>,
    /// What is wrong.
    pub problem: String,
    /// What to write instead.
    pub help: String,
}

type Refusal = (&'static str, &'static str);

impl PathTemplate {
    /// The maximum number of variables.
    pub const CAPTURES_MAX: usize = 16;

    /// Reads a template.
    ///
    /// # Errors
    /// [`TemplateError`] if the text does not start with `/`, or has an empty segment, a character that a path cannot contain, a variable that does
    /// not span whole segments, a name twice, or `**` before the end.
    ///
    /// ```
    /// use crossdock_ports::PathTemplate;
    ///
    /// let template = PathTemplate::parse("/shops/{shop}/orders/{id}").expect("a template");
    /// let path = "/shops/north/orders/7";
    /// let values: Vec<_> = template.bind(path).map(|(name, range)| (&**name, &path[range])).collect();
    /// assert_eq!(values, [("shop", "north"), ("id", "7")]);
    ///
    /// let error = PathTemplate::parse("shops").expect_err("no slash");
    /// assert_eq!((&*error.problem, &*error.help), ("a path must start with `/`", "write `/shops`"));
    /// ```
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let error =
            |range, problem: &str, help: &str| TemplateError { range, problem: problem.into(), help: help.into() };
        if !text.starts_with('/') {
            let help = format!("write `/{text}`");
            return Err(error(0..text.len(), "a path must start with `/`", &help));
        }
        let mut template = Self { text: text.to_owned(), segments: Vec::new(), variables: Vec::new(), verb: None };
        if text == "/" {
            return Ok(template);
        }
        for range in parts(text) {
            if template.segments.last() == Some(&Segment::Rest) {
                return Err(error(range, "nothing may follow `**`", "put it at the end of the path"));
            }
            if template.verb.is_some() {
                return Err(error(range, "nothing may follow a verb", "put `:verb` at the end of the path"));
            }
            template.part(&text[range.clone()]).map_err(|(problem, help)| error(range, problem, help))?;
        }
        if template.variables.len() > Self::CAPTURES_MAX {
            return Err(error(0..text.len(), "a path can have at most 16 variables", ""));
        }
        Ok(template)
    }

    /// Adds the text between two slashes; slashes in braces do not count.
    fn part(&mut self, part: &str) -> Result<(), Refusal> {
        const WHOLE: Refusal = ("a variable must span a whole segment", "write `/{name}/`");
        if let Some(inner) = part.strip_prefix('{') {
            let (inner, behind) = inner.split_once('}').ok_or(WHOLE)?;
            let (name, pattern) = inner.split_once('=').unwrap_or((inner, "*"));
            check_name(name)?;
            if self.variables.iter().any(|other| *other.name == *name) {
                return Err(("the variable is declared twice", "give each variable a different name"));
            }
            let start = self.segments.len();
            for segment in pattern.split('/') {
                if self.segments[start..].last() == Some(&Segment::Rest) {
                    return Err(("nothing may follow `**`", "put it at the end of the path"));
                }
                self.segments.push(segment_of(segment)?);
            }
            self.variables.push(Variable { name: name.into(), segments: start..self.segments.len() });
            return match behind.strip_prefix(':') {
                Some(verb) if !verb.is_empty() && verb.bytes().all(is_plain) => {
                    self.verb = Some(verb.into());
                    Ok(())
                }
                None if behind.is_empty() => Ok(()),
                _ => Err(WHOLE),
            };
        }
        if part.contains(['{', '}']) {
            return Err(WHOLE);
        }
        self.segments.push(segment_of(part)?);
        Ok(())
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

    /// The custom verb behind a colon, if the last segment is a variable; otherwise it is part of the literal.
    #[must_use]
    pub fn verb(&self) -> Option<&ByteString> {
        self.verb.as_ref()
    }

    /// The names of its variables, in order.
    pub fn names(&self) -> impl Iterator<Item = &ByteString> {
        self.variables.iter().map(|variable| &variable.name)
    }

    /// The variables of a path that it matches: names, and the ranges of their values.
    pub fn bind<'t>(&'t self, path: &str) -> impl Iterator<Item = (&'t ByteString, Range<usize>)> {
        let len = path.len() - self.verb.as_ref().map_or(0, |verb| verb.len() + 1).min(path.len());
        // The start of each segment in the path, behind its slash.
        let mut starts = [0; 64];
        let count = self.segments.len().min(starts.len());
        let mut at = 1;
        for start in &mut starts[..count] {
            *start = at.min(len);
            at = path[*start..].find('/').map_or(len + 1, |slash| *start + slash + 1);
        }
        self.variables.iter().map(move |variable| {
            let start = starts[variable.segments.start.min(starts.len() - 1)];
            let end = match variable.segments.end {
                end if end < count => starts[end] - 1,
                _ => len,
            };
            (&variable.name, start..end.max(start))
        })
    }

    /// Its parts, for writing an address.
    pub fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let segment = self.segments.get(at)?;
            if let Some(variable) = self.variables.iter().find(|variable| variable.segments.start == at) {
                at = variable.segments.end;
                let one = variable.segments.len() == 1 && *segment == Segment::Any;
                return Some(if one { Part::Segment(&variable.name) } else { Part::Segments(&variable.name) });
            }
            at += 1;
            Some(match segment {
                Segment::Literal(text) => Part::Literal(text),
                Segment::Any | Segment::Rest => Part::Unnamed,
            })
        })
    }
}

/// The ranges between slashes that are not in braces.
fn parts(text: &str) -> Vec<Range<usize>> {
    let (mut parts, mut start, mut in_braces) = (Vec::new(), 1, false);
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            b'{' => in_braces = true,
            b'}' => in_braces = false,
            b'/' if !in_braces => {
                parts.push(start..at);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(start..text.len());
    parts
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@".contains(&byte)
}

/// A name, or names separated by dots for a nested field.
fn check_name(name: &str) -> Result<(), Refusal> {
    let good = |part: &str| {
        let first = part.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
        first && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    if name.split('.').all(good) {
        return Ok(());
    }
    Err((
        "the name of a variable must consist of letters, digits and `_`",
        "write `{order_id}`, or `{path=**}` for all remaining segments",
    ))
}

fn segment_of(part: &str) -> Result<Segment, Refusal> {
    match part {
        "*" => Ok(Segment::Any),
        "**" => Ok(Segment::Rest),
        "" => Err(("a segment cannot be empty", "remove the second `/`")),
        "." | ".." => {
            Err(("`.` and `..` never match, because paths are normalised first", "write the path without them"))
        }
        _ if part.bytes().all(is_plain) => Ok(Segment::Literal(part.into())),
        _ => Err(("a path cannot contain this character", "bind query parameters with `query`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_parsed() {
        let template = PathTemplate::parse("/v1/orders/{id}/files/{path=**}").expect("a template");
        let names: Vec<&str> = template.names().map(|name| &**name).collect();
        assert_eq!((template.segments().len(), names), (5, vec!["id", "path"]));
        assert!(PathTemplate::parse("/").expect("the root").segments().is_empty());
    }

    #[test]
    fn variables_are_bound_to_whole_segments() {
        let cases: &[(&str, &str, &[(&str, &str)])] = &[
            ("/v1/orders/{id}", "/v1/orders/7", &[("id", "7")]),
            ("/v1/{name=shelves/*/books/*}:cancel", "/v1/shelves/1/books/2:cancel", &[("name", "shelves/1/books/2")]),
            ("/v1/{order.id}/lines/{line}", "/v1/a/lines/b", &[("order.id", "a"), ("line", "b")]),
            ("/files/{path=**}", "/files/a/b/c", &[("path", "a/b/c")]),
            ("/v1/{parent=projects/*}/{rest=**}", "/v1/projects/p/x/y", &[("parent", "projects/p"), ("rest", "x/y")]),
            ("/v1/*/{id}", "/v1/any/7", &[("id", "7")]),
            ("/v1/orders:find", "/v1/orders:find", &[]),
        ];
        for (text, path, expected) in cases {
            let template = PathTemplate::parse(text).expect(text);
            let bound: Vec<(&str, &str)> = template.bind(path).map(|(name, range)| (&**name, &path[range])).collect();
            assert_eq!(bound, *expected, "{text}");
        }
    }

    #[test]
    fn invalid_templates_are_rejected_with_the_range() {
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
