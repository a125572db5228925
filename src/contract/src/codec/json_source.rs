//! Reads ProtoJSON.

use std::borrow::Cow;

use crossdock_message::json::{Cursor, JsonErrorKind, Token, read_value};
use crossdock_message::{ByteString, Limits, Time, TimeSpan};

use super::error::{Failure, Outcome, Problem, fail, nearest};
use super::json_sink::any_type;
use super::numbers::{leaf_of_json_text, leaf_of_number, leaf_of_text, wrong_type};
use super::wire_sink::WireSink;
use super::{ANY_MAX, BytesRef, DEPTH_MAX, Leaf, Position, Sink, Slot, TextRef};
use crate::model::{Cardinality, Contract, EnumType, Field, Kind, RecordId, RecordType, Scalar, WellKnownType};

/// Drives a sink with a JSON document.
pub(crate) struct JsonSource<'r, 'a, 'c, 's, S> {
    contract: &'c Contract,
    cursor: &'r mut Cursor<'a>,
    sink: &'s mut S,
    limits: &'c Limits,
    /// Unknown keys and unknown names of enumeration values are ignored.
    ignore_unknown: bool,
    nodes: usize,
    any_left: usize,
    scratch: Vec<u8>,
}

/// The set of fields of a record that have occurred.
struct Seen {
    small: u64,
    large: Vec<u64>,
}

impl Seen {
    fn new(len: usize) -> Self {
        Self { small: 0, large: if len > 64 { vec![0; len.div_ceil(64)] } else { Vec::new() } }
    }

    /// Adds a field; returns whether it was present.
    fn insert(&mut self, index: u16) -> bool {
        let index = usize::from(index);
        let bits = if self.large.is_empty() { &mut self.small } else { &mut self.large[index / 64] };
        let bit = 1 << (index % 64);
        let before = *bits & bit != 0;
        *bits |= bit;
        before
    }

    fn contains(&self, index: u16) -> bool {
        let index = usize::from(index);
        let bits = if self.large.is_empty() { self.small } else { self.large[index / 64] };
        bits >> (index % 64) & 1 == 1
    }
}

impl<'r, 'a, 'c, 's, S: Sink> JsonSource<'r, 'a, 'c, 's, S> {
    pub(crate) fn new(
        contract: &'c Contract,
        cursor: &'r mut Cursor<'a>,
        sink: &'s mut S,
        limits: &'c Limits,
        ignore_unknown: bool,
    ) -> Self {
        Self { contract, cursor, sink, limits, ignore_unknown, nodes: 0, any_left: ANY_MAX, scratch: Vec::new() }
    }

    /// Reads a whole document.
    pub(crate) fn document(&mut self, id: RecordId) -> Outcome<()> {
        self.value_of_record(id)?;
        Ok(self.cursor.finish()?)
    }

    /// Reads a document that is the value of one field.
    pub(crate) fn field_document(&mut self, record: &RecordType, name: &str) -> Outcome<()> {
        let Some(field) = record.field(name) else { return fail(unknown_field(record, name)) };
        let mut oneofs = Seen::new(record.variants.len());
        let depth = self.limits.depth.min(Limits::DEPTH_CEILING);
        self.field(field, record, &mut oneofs, 0, depth).map_err(|failure| failure.inside(&field.json.name))?;
        Ok(self.cursor.finish()?)
    }

    /// Reads the value at the cursor as a record.
    fn value_of_record(&mut self, id: RecordId) -> Outcome<()> {
        let root = Field::of_document(id);
        self.record(Slot::new(&root, Position::Root), id, self.limits.depth.min(Limits::DEPTH_CEILING))
    }

    fn node(&mut self) -> Outcome<()> {
        self.nodes += 1;
        if self.nodes > self.limits.nodes { fail(Problem::Nodes(self.limits.nodes)) } else { Ok(()) }
    }

    fn text(&self, text: &'a str) -> TextRef<'a> {
        TextRef { text, owner: Some(self.cursor.document().as_bytes()) }
    }

    fn record(&mut self, slot: Slot<'_>, id: RecordId, depth_left: usize) -> Outcome<()> {
        self.node()?;
        let record = self.contract.record(id);
        if record.well_known.is_some() {
            return self.well_known(slot, record, depth_left);
        }
        let Some(depth_left) = depth_left.checked_sub(1) else { return fail(Problem::Depth(self.limits.depth)) };
        self.expect(Token::Object, "an object")?;
        let mark = self.sink.begin_record(slot, record)?;
        self.fields(record, depth_left, false)?;
        self.sink.end_record(slot, mark)
    }

    fn expect(&mut self, wanted: Token, expected: &str) -> Outcome<()> {
        let found = self.cursor.token()?;
        if found == wanted { Ok(()) } else { wrong_token(expected, found) }
    }

    /// Reads the fields of the object at the cursor. If it is `typed`, its `@type` was read before and is skipped.
    fn fields(&mut self, record: &RecordType, depth_left: usize, typed: bool) -> Outcome<()> {
        let mut seen = Seen::new(record.fields.len());
        let mut oneofs = Seen::new(record.variants.len());
        let mut expected = 0;
        let mut more = self.cursor.enter(b'}');
        while more {
            let key_at = self.cursor.offset();
            let key = self.cursor.key()?;
            // Most documents have the fields in the order of the contract.
            let known = match record.fields.get(expected) {
                Some(field) if field.json.name == *key => Some(field),
                _ => record.field(&key),
            };
            match known {
                Some(field) => {
                    expected = usize::from(field.index) + 1;
                    if seen.insert(field.index) {
                        self.cursor.rewind(key_at);
                        return fail(Problem::DuplicateField(field.json.name.to_string()));
                    }
                    self.field(field, record, &mut oneofs, key_at, depth_left)
                        .map_err(|failure| failure.inside(&field.json.name))?;
                }
                None if typed && key == "@type" => self.skip(depth_left)?,
                None if self.ignore_unknown => self.skip(depth_left)?,
                None => {
                    self.cursor.rewind(key_at);
                    return fail(unknown_field(record, &key));
                }
            }
            more = self.cursor.next(b'}')?;
        }
        for index in &record.required {
            if !seen.contains(*index) {
                return fail(Problem::MissingField(record.fields[usize::from(*index)].json.name.to_string()));
            }
        }
        Ok(())
    }

    fn skip(&mut self, depth_left: usize) -> Outcome<()> {
        let limits = Limits { depth: depth_left, ..self.limits.clone() };
        read_value(self.cursor, &limits, &mut self.nodes)?;
        Ok(())
    }

    fn field(
        &mut self,
        field: &Field,
        record: &RecordType,
        oneofs: &mut Seen,
        key_at: usize,
        depth_left: usize,
    ) -> Outcome<()> {
        let token = self.cursor.token()?;
        if token == Token::Null && !self.accepts_null(field) {
            return Ok(self.cursor.literal(token)?);
        }
        if let Some(oneof) = field.variant_of
            && oneofs.insert(oneof)
        {
            self.cursor.rewind(key_at);
            return fail(Problem::OneofConflict(record.variants[usize::from(oneof)].name.to_string()));
        }
        match field.cardinality {
            Cardinality::Repeated => self.list(field, token, depth_left),
            Cardinality::Map(_) => self.map(field, token, depth_left),
            _ => self.single(Slot::new(field, Position::Single), token, depth_left),
        }
    }

    /// Whether null is a value of the field instead of its absence.
    fn accepts_null(&self, field: &Field) -> bool {
        !field.is_collection() && self.is_nullable(field)
    }

    /// Whether null is a value of the field or of its items.
    fn is_nullable(&self, field: &Field) -> bool {
        field.nullable
            || match field.kind {
                Kind::Record(id) => self.contract.record(id).well_known == Some(WellKnownType::Value),
                Kind::Enum(id) => self.contract.enumeration(id).null,
                Kind::Scalar(_) => false,
            }
    }

    fn list(&mut self, field: &Field, token: Token, depth_left: usize) -> Outcome<()> {
        let Some(depth_left) = depth_left.checked_sub(1) else { return fail(Problem::Depth(self.limits.depth)) };
        if token != Token::Array {
            return wrong_token("a list", token);
        }
        let slot = Slot::new(field, Position::Item);
        let mark = self.sink.begin_list(field)?;
        let mut more = self.cursor.enter(b']');
        let mut index = 0;
        while more {
            let token = self.cursor.token()?;
            if token == Token::Null && !self.is_nullable(field) {
                return fail(Problem::NullItem).map_err(|failure: Box<Failure>| failure.at_index(index));
            }
            self.single(slot, token, depth_left).map_err(|failure| failure.at_index(index))?;
            index += 1;
            more = self.cursor.next(b']')?;
        }
        self.sink.end_list(field, mark)
    }

    fn map(&mut self, field: &Field, token: Token, depth_left: usize) -> Outcome<()> {
        let Some(depth_left) = depth_left.checked_sub(1) else { return fail(Problem::Depth(self.limits.depth)) };
        if token != Token::Object {
            return wrong_token("an object", token);
        }
        let (key_slot, value_slot) = (Slot::new(field, Position::Key), Slot::new(field, Position::Value));
        let Some(key_kind) = field.map_key() else { return fail(Problem::Unwritable("the field is not a map")) };
        let mark = self.sink.begin_map(field)?;
        let mut keys = std::collections::HashSet::new();
        let mut more = self.cursor.enter(b'}');
        while more {
            let key_at = self.cursor.offset();
            let key = self.cursor.key()?;
            let token = self.cursor.token()?;
            if token == Token::Null && !self.is_nullable(field) {
                return fail(Problem::NullItem).map_err(|failure: Box<Failure>| failure.inside(&key));
            }
            if self.ignore_unknown && self.is_unknown_name(field.kind, token)? {
                self.skip(depth_left)?;
                more = self.cursor.next(b'}')?;
                continue;
            }
            let mut scratch = std::mem::take(&mut self.scratch);
            let entry = self.sink.begin_entry(field)?;
            let text = TextRef { text: &key, owner: None };
            let leaf = leaf_of_text(key_kind, text, &mut scratch);
            let leaf = match leaf {
                Ok(leaf) => leaf,
                Err(failure) => {
                    self.cursor.rewind(key_at);
                    return Err(failure.inside(&key));
                }
            };
            let canonical = match leaf {
                Leaf::Int(number) => Cow::Owned(number.to_string()),
                Leaf::UInt(number) => Cow::Owned(number.to_string()),
                _ => Cow::Borrowed(&*key),
            };
            if !keys.insert(canonical.into_owned()) {
                self.cursor.rewind(key_at);
                return fail(Problem::Json(JsonErrorKind::DuplicateKey(key.chars().take(64).collect())));
            }
            self.sink.leaf(key_slot, leaf)?;
            self.scratch = scratch;
            self.single(value_slot, token, depth_left).map_err(|failure| failure.inside(&key))?;
            self.sink.end_entry(field, entry)?;
            more = self.cursor.next(b'}')?;
        }
        self.sink.end_map(field, mark)
    }

    /// Whether the token is an unknown name of an enumeration value. The cursor does not move.
    fn is_unknown_name(&mut self, kind: Kind, token: Token) -> Outcome<bool> {
        let Kind::Enum(id) = kind else { return Ok(false) };
        if token != Token::String {
            return Ok(false);
        }
        let at = self.cursor.offset();
        let name = self.cursor.string()?;
        self.cursor.rewind(at);
        Ok(self.contract.enumeration(id).number_of(&name).is_none())
    }

    /// Reads one value.
    #[inline]
    fn single(&mut self, slot: Slot<'_>, token: Token, depth_left: usize) -> Outcome<()> {
        let start = self.cursor.offset();
        if token == Token::Null && slot.is_nullable() {
            self.node()?;
            self.cursor.literal(token)?;
            return self.sink.leaf(slot, Leaf::Null);
        }
        match slot.kind() {
            Kind::Record(id) => self.record(slot, id, depth_left),
            Kind::Enum(id) => {
                self.node()?;
                let enumeration = self.contract.enumeration(id);
                match self.enum_value(enumeration, token) {
                    Ok(Some(number)) => self.sink.leaf(slot, Leaf::Enum(number)),
                    Ok(None) => Ok(()),
                    Err(failure) => {
                        self.rewind_to(start, &failure);
                        Err(failure)
                    }
                }
            }
            Kind::Scalar(scalar) => {
                self.node()?;
                let done = self.scalar(slot, scalar, token);
                if let Err(failure) = &done {
                    self.rewind_to(start, failure);
                }
                done
            }
        }
    }

    /// Moves the cursor to the start of a value with an invalid type. JSON errors keep their own position.
    fn rewind_to(&mut self, start: usize, failure: &Failure) {
        if !matches!(failure.problem, Problem::Json(_)) {
            self.cursor.rewind(start);
        }
    }

    #[inline]
    fn scalar(&mut self, slot: Slot<'_>, scalar: Scalar, token: Token) -> Outcome<()> {
        match token {
            Token::String => {
                let text = self.cursor.string()?;
                let mut scratch = std::mem::take(&mut self.scratch);
                let text = match &text {
                    Cow::Borrowed(text) => self.text(text),
                    Cow::Owned(text) => TextRef { text, owner: None },
                };
                let done = leaf_of_json_text(scalar, text, &mut scratch)
                    .and_then(|leaf| slot.check(&leaf).and_then(|()| self.sink.leaf(slot, leaf)));
                self.scratch = scratch;
                done
            }
            Token::Number => {
                let (text, _) = self.cursor.number()?;
                let leaf = leaf_of_number(scalar, text)?;
                slot.check(&leaf)?;
                self.sink.leaf(slot, leaf)
            }
            Token::True | Token::False if scalar == Scalar::Bool => {
                self.cursor.literal(token)?;
                self.sink.leaf(slot, Leaf::Bool(token == Token::True))
            }
            other => wrong_type(scalar, token_name(other)),
        }
    }

    /// The number of an enumeration value; `None` for an unknown name that is ignored.
    fn enum_value(&mut self, enumeration: &EnumType, token: Token) -> Outcome<Option<i32>> {
        match token {
            Token::String => {
                let name = self.cursor.string()?;
                match enumeration.number_of(&name) {
                    Some(number) => Ok(Some(number)),
                    None if self.ignore_unknown => Ok(None),
                    None => fail(unknown_name(enumeration, &name)),
                }
            }
            Token::Number => {
                let (text, _) = self.cursor.number()?;
                let Leaf::Int(number) = leaf_of_number(Scalar::Int32, text)? else {
                    return fail(Problem::Range("int32"));
                };
                #[expect(clippy::cast_possible_truncation, reason = "it was read as an int32")]
                let number = number as i32;
                if enumeration.closed && enumeration.name_of(number).is_none() {
                    return fail(unknown_name(enumeration, text));
                }
                Ok(Some(number))
            }
            Token::Null if enumeration.null => {
                self.cursor.literal(token)?;
                Ok(Some(0))
            }
            other => wrong_token(&format!("a value of `{}`", enumeration.name), other),
        }
    }

    fn well_known(&mut self, slot: Slot<'_>, record: &RecordType, depth_left: usize) -> Outcome<()> {
        let start = self.cursor.offset();
        let done = self.well_known_value(slot, record, depth_left);
        if let Err(failure) = &done
            && matches!(
                record.well_known,
                Some(WellKnownType::Time | WellKnownType::Duration | WellKnownType::FieldMask | WellKnownType::Wrapper)
            )
        {
            self.rewind_to(start, failure);
        }
        done
    }

    fn well_known_value(&mut self, slot: Slot<'_>, record: &RecordType, depth_left: usize) -> Outcome<()> {
        let Some(well_known) = record.well_known else { return fail(Problem::Tag) };
        match well_known {
            WellKnownType::Time => {
                let text = self.string("a timestamp such as \"2026-01-31T12:00:00Z\"")?;
                match Time::parse(&text) {
                    Some(time) => self.sink.leaf(slot, Leaf::Time(time)),
                    None => wrong_text("a timestamp such as \"2026-01-31T12:00:00Z\""),
                }
            }
            WellKnownType::Duration => {
                let text = self.string("a duration such as \"1.5s\"")?;
                match TimeSpan::parse(&text) {
                    Some(span) => self.sink.leaf(slot, Leaf::Duration(span)),
                    None => wrong_text("a duration such as \"1.5s\""),
                }
            }
            WellKnownType::FieldMask => {
                let text = self.string("field names separated by commas")?;
                let paths = mask_paths(&text)?;
                self.sink.leaf(slot, Leaf::Mask(&paths))
            }
            WellKnownType::Struct | WellKnownType::Value | WellKnownType::List => {
                let limits = Limits { depth: depth_left, ..self.limits.clone() };
                let token = self.cursor.token()?;
                let wanted = match well_known {
                    WellKnownType::Struct => Token::Object,
                    WellKnownType::List => Token::Array,
                    _ => token,
                };
                if token != wanted {
                    return wrong_token(if wanted == Token::Object { "an object" } else { "a list" }, token);
                }
                let value = read_value(self.cursor, &limits, &mut self.nodes)?;
                self.sink.leaf(slot, Leaf::Dynamic(&value))
            }
            WellKnownType::Wrapper => {
                let Some(inner) = record.fields.first() else { return fail(Problem::Tag) };
                let Kind::Scalar(scalar) = inner.kind else { return fail(Problem::Tag) };
                let token = self.cursor.token()?;
                self.wrapper(slot, inner, scalar, token)
            }
            WellKnownType::Any => self.any(slot, depth_left),
        }
    }

    fn wrapper(&mut self, slot: Slot<'_>, inner: &Field, scalar: Scalar, token: Token) -> Outcome<()> {
        match token {
            Token::String => {
                let text = self.cursor.string()?;
                let mut scratch = Vec::new();
                let text = match &text {
                    Cow::Borrowed(text) => self.text(text),
                    Cow::Owned(text) => TextRef { text, owner: None },
                };
                let leaf = leaf_of_json_text(scalar, text, &mut scratch)?;
                self.sink.wrapped(slot, inner, leaf)
            }
            Token::Number => {
                let (text, _) = self.cursor.number()?;
                self.sink.wrapped(slot, inner, leaf_of_number(scalar, text)?)
            }
            Token::True | Token::False if scalar == Scalar::Bool => {
                self.cursor.literal(token)?;
                self.sink.wrapped(slot, inner, Leaf::Bool(token == Token::True))
            }
            other => wrong_type(scalar, token_name(other)),
        }
    }

    fn string(&mut self, expected: &str) -> Outcome<Cow<'a, str>> {
        self.expect(Token::String, expected)?;
        Ok(self.cursor.string()?)
    }

    /// Reads an `Any`. `@type` need not be the first key, so the object is scanned for it before it is read.
    fn any(&mut self, slot: Slot<'_>, depth_left: usize) -> Outcome<()> {
        let Some(inner_depth) = depth_left.checked_sub(1) else { return fail(Problem::Depth(self.limits.depth)) };
        let Some(any_left) = self.any_left.checked_sub(1) else { return fail(Problem::AnyDepth(ANY_MAX)) };
        self.expect(Token::Object, "an object with `@type`")?;
        let start = self.cursor.offset();
        let Some(url) = self.find_type(inner_depth)? else {
            if self.cursor.document().as_bytes()[start..self.cursor.offset()].contains(&b'"') {
                return fail(Problem::MalformedAny("an `Any` must have its type URL in `@type`"));
            }
            let none = TextRef { text: "", owner: None };
            let payload = BytesRef { bytes: &[], owner: None };
            return self.sink.leaf(slot, Leaf::Any { url: none, payload, depth_left: 0 });
        };
        self.cursor.rewind(start);
        let Some(id) = any_type(self.contract, &url) else {
            return fail(Problem::AnyType(url.chars().take(256).collect()));
        };
        let record = self.contract.record(id);
        let mut payload = Vec::new();
        let mut sink = WireSink { contract: self.contract, out: &mut payload };
        let mut inner = JsonSource {
            contract: self.contract,
            cursor: &mut *self.cursor,
            sink: &mut sink,
            limits: self.limits,
            ignore_unknown: self.ignore_unknown,
            nodes: self.nodes,
            any_left,
            scratch: Vec::new(),
        };
        if record.well_known.is_none() {
            inner.fields(record, inner_depth, true)?;
        } else {
            inner.well_known_payload(id, inner_depth)?;
        }
        self.nodes = inner.nodes;
        let url = TextRef { text: &url, owner: None };
        let payload = BytesRef { bytes: &payload, owner: None };
        self.sink.leaf(slot, Leaf::Any { url, payload, depth_left: DEPTH_MAX })
    }

    /// The value of `@type` in the object at the cursor, which is skipped.
    fn find_type(&mut self, depth_left: usize) -> Outcome<Option<String>> {
        let mut found = None;
        let mut more = self.cursor.enter(b'}');
        while more {
            let key = self.cursor.key()?;
            if key == "@type" {
                if found.is_some() {
                    return fail(Problem::DuplicateField("@type".to_owned()));
                }
                found = Some(self.string("a type URL")?.into_owned());
            } else {
                // These values are read again later, and counted then.
                let nodes = self.nodes;
                self.skip(depth_left)?;
                self.nodes = nodes;
            }
            more = self.cursor.next(b'}')?;
        }
        Ok(found)
    }

    /// Reads the payload of an `Any` of a well-known type, which is in `value`.
    fn well_known_payload(&mut self, id: RecordId, depth_left: usize) -> Outcome<()> {
        let root = Field::of_document(id);
        let slot = Slot::new(&root, Position::Root);
        let mut found = false;
        let mut more = self.cursor.enter(b'}');
        while more {
            let key = self.cursor.key()?;
            match &*key {
                "@type" => self.skip(depth_left)?,
                "value" if !found => {
                    found = true;
                    self.cursor.token()?;
                    self.record(slot, id, depth_left).map_err(|failure| failure.inside("value"))?;
                }
                "value" => return fail(Problem::DuplicateField("value".to_owned())),
                _ if self.ignore_unknown => self.skip(depth_left)?,
                _ => return fail(Problem::MalformedAny("an `Any` of this type can have only `@type` and `value`")),
            }
            more = self.cursor.next(b'}')?;
        }
        if found { Ok(()) } else { fail(Problem::MalformedAny("an `Any` of this type must have `value`")) }
    }
}

/// Converts the paths of a field mask from JSON to the field names of the contract.
pub(super) fn mask_paths(text: &str) -> Outcome<Vec<ByteString>> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let mut paths = Vec::new();
    for path in text.split(',') {
        let mut out = String::with_capacity(path.len() + 4);
        for character in path.chars() {
            match character {
                '_' => return wrong_text("field names in camel case"),
                'A'..='Z' => {
                    out.push('_');
                    out.push(character.to_ascii_lowercase());
                }
                other => out.push(other),
            }
        }
        paths.push(out.into());
    }
    Ok(paths)
}

pub(super) fn unknown_field(record: &RecordType, name: &str) -> Problem {
    let known = record.fields.iter().map(|field| &*field.json.name);
    Problem::UnknownField {
        record: record.name.to_string(),
        name: name.chars().take(64).collect(),
        suggestion: nearest(name, known),
    }
}

pub(super) fn unknown_name(enumeration: &EnumType, name: &str) -> Problem {
    Problem::EnumValue {
        name: enumeration.name.to_string(),
        value: name.chars().take(64).collect(),
        suggestion: nearest(name, enumeration.values.iter().map(|(name, _)| &**name)),
    }
}

fn token_name(token: Token) -> &'static str {
    match token {
        Token::Object => "an object",
        Token::Array => "a list",
        Token::String => "a string",
        Token::Number => "a number",
        Token::True | Token::False => "a boolean",
        Token::Null => "null",
    }
}

fn wrong_token<T>(expected: &str, found: Token) -> Outcome<T> {
    fail(Problem::WrongType { expected: expected.to_owned(), found: token_name(found) })
}

pub(super) fn wrong_text<T>(expected: &str) -> Outcome<T> {
    fail(Problem::WrongType { expected: expected.to_owned(), found: "another string" })
}
