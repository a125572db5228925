//! `crossdock convert`.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;

use bytes::Bytes;
use crossdock_contract::{TypeRef, UnknownFields};
use crossdock_message::xml::ExpandedName;
use crossdock_message::{Limits, Value, json, xml};

use super::{ConvertFormat, contract};
use crate::outcome::{Failure, Outcome};

/// Bytes of the input.
const INPUT_LEN_MAX: u64 = 64 << 20;

/// What a conversion is asked to do.
pub(super) struct Conversion {
    pub(super) from: ConvertFormat,
    pub(super) to: ConvertFormat,
    /// The root element of an output in XML.
    pub(super) root: Option<String>,
    /// Where the contract is, and the name of the type in it.
    pub(super) contract: Option<String>,
    pub(super) type_name: Option<String>,
    pub(super) include: Vec<PathBuf>,
}

pub(super) fn convert(conversion: &Conversion) -> Outcome {
    let Conversion { from, to, .. } = *conversion;
    let root = root_of(to, conversion.root.as_deref())?;
    let of_type = match (&conversion.contract, &conversion.type_name) {
        (Some(source), Some(name)) => Some(contract::type_named(&contract::read(source, &conversion.include)?, name)?),
        (None, None) => None,
        _ => return Err(Failure::Misuse("a type needs both `--contract FILE` and `--type NAME`".into())),
    };
    check(from, to, of_type.is_some())?;
    let mut input = Vec::new();
    let unreadable = |error: std::io::Error| Failure::Misuse(format!("standard input cannot be read: {error}"));
    std::io::stdin().take(INPUT_LEN_MAX + 1).read_to_end(&mut input).map_err(unreadable)?;
    if input.len() as u64 > INPUT_LEN_MAX {
        return Err(failed(&format!("the input is larger than {INPUT_LEN_MAX} bytes")));
    }
    let limits = Limits { nodes: usize::MAX, keys: usize::MAX, text_len: usize::MAX, ..Limits::default() };
    let input = Bytes::from(input);
    let mut output = match &of_type {
        Some(of_type) => typed(of_type, from, to, &input, &limits)?,
        None => untyped(from, &input, root.as_ref(), &limits)?,
    };
    if to != ConvertFormat::Proto && output.last() != Some(&b'\n') {
        output.push(b'\n');
    }
    std::io::stdout().write_all(&output).map_err(|error| failed(&error.to_string()))
}

fn root_of(to: ConvertFormat, root: Option<&str>) -> Result<Option<ExpandedName>, Failure> {
    match (to, root) {
        (ConvertFormat::Xml, None) => Err(Failure::Misuse("XML needs a root element: add `--root NAME`".into())),
        (ConvertFormat::Xml, Some(name)) => {
            let bad = || Failure::Misuse(format!("`{name}` is not the name of an element"));
            ExpandedName::parse(name).ok_or_else(bad).map(Some)
        }
        (_, Some(_)) => Err(Failure::Misuse("only XML has a root element: leave `--root` out".into())),
        (_, None) => Ok(None),
    }
}

fn check(from: ConvertFormat, to: ConvertFormat, typed: bool) -> Outcome {
    let proto = |format: ConvertFormat| matches!(format, ConvertFormat::Proto | ConvertFormat::ProtoText);
    let problem = match (from, to) {
        (ConvertFormat::Xml, ConvertFormat::Xml) => {
            "XML is read through a view that does not keep all of it, and never written back from there"
        }
        (from, to) if typed && (from == ConvertFormat::Xml || to == ConvertFormat::Xml) => {
            "no contract for XML can be read yet: leave `--contract` and `--type` out"
        }
        (from, to) if (proto(from) || proto(to)) && !typed => {
            "protobuf means nothing without its contract: add `--contract FILE --type NAME`"
        }
        _ => return Ok(()),
    };
    Err(Failure::Misuse(problem.into()))
}

/// By the type: what is not of it is refused with its place.
fn typed(
    of_type: &TypeRef,
    from: ConvertFormat,
    to: ConvertFormat,
    input: &Bytes,
    limits: &Limits,
) -> Result<Vec<u8>, Failure> {
    let wire = match from {
        ConvertFormat::Json => {
            of_type.json_to_wire(input, UnknownFields::Refuse, limits).map_err(|error| failed(&error.to_string()))?
        }
        ConvertFormat::ProtoText => {
            let text = std::str::from_utf8(input).map_err(|error| failed(&error.to_string()))?;
            crossdock_proto::text_to_wire(of_type, text).map_err(|problem| failed(&problem))?
        }
        _ => of_type.normalize(input, limits).map_err(|error| failed(&error.to_string()))?,
    };
    let wire = Bytes::from(wire);
    match to {
        ConvertFormat::Json => of_type.wire_to_json(&wire, limits).map_err(|error| failed(&error.to_string())),
        ConvertFormat::ProtoText => crossdock_proto::wire_to_text(of_type, &wire, limits)
            .map(String::into_bytes)
            .map_err(|problem| failed(&problem)),
        _ => Ok(wire.into()),
    }
}

fn untyped(
    from: ConvertFormat,
    input: &Bytes,
    root: Option<&ExpandedName>,
    limits: &Limits,
) -> Result<Vec<u8>, Failure> {
    let value: Value = match from {
        ConvertFormat::Xml => xml::read(input, limits).map_err(|error| failed(&error.to_string()))?,
        _ => json::read(input, limits).map_err(|error| failed(&error.to_string()))?,
    };
    match root {
        None => json::write(&value).map_err(|error| failed(&error.to_string())),
        Some(root) => xml::write(root, &value).map_err(|error| failed(&error.to_string())),
    }
}

fn failed(problem: &str) -> Failure {
    eprintln!("{problem}");
    Failure::Failed
}
