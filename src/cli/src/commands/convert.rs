//! `crossdock convert`.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;

use bytes::Bytes;
use crossdock_contract::{TypeRef, UnknownFields};
use crossdock_message::xml::ExpandedName;
use crossdock_message::{Limits, Value, json, xml};

use super::{ConvertFormat, contract};
use crate::outcome::{Failure, Outcome};

/// Maximum length of the input in bytes.
const INPUT_LEN_MAX: u64 = 64 << 20;

/// The arguments of the command.
pub(super) struct Conversion {
    pub(super) from: ConvertFormat,
    pub(super) to: ConvertFormat,
    /// The root element of XML output.
    pub(super) root: Option<String>,
    /// The source of the contract, and the name of the type in it.
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
        _ => return Err(Failure::Error("`--contract FILE` and `--type NAME` must be used together".into())),
    };
    check(from, to, of_type.is_some())?;
    let mut input = Vec::new();
    let unreadable = |error: std::io::Error| Failure::Error(format!("failed to read standard input: {error}"));
    std::io::stdin().take(INPUT_LEN_MAX + 1).read_to_end(&mut input).map_err(unreadable)?;
    if input.len() as u64 > INPUT_LEN_MAX {
        return Err(failed(&format!("the input must not exceed {INPUT_LEN_MAX} bytes")));
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
        (ConvertFormat::Xml, None) => Err(Failure::Error("XML output needs a root element: add `--root NAME`".into())),
        (ConvertFormat::Xml, Some(name)) => {
            let bad =
                || Failure::Error(format!("`{name}` is not an element name: write `Name` or `{{namespace}}Name`"));
            ExpandedName::parse(name).ok_or_else(bad).map(Some)
        }
        (_, Some(_)) => Err(Failure::Error("only XML output has a root element: remove `--root`".into())),
        (_, None) => Ok(None),
    }
}

fn check(from: ConvertFormat, to: ConvertFormat, typed: bool) -> Outcome {
    let proto = |format: ConvertFormat| matches!(format, ConvertFormat::Proto | ConvertFormat::ProtoText);
    let problem = match (from, to) {
        (ConvertFormat::Xml, ConvertFormat::Xml) => {
            "XML cannot be converted to XML: its view does not preserve the whole document"
        }
        (from, to) if typed && (from == ConvertFormat::Xml || to == ConvertFormat::Xml) => {
            "contracts do not apply to XML yet: remove `--contract` and `--type`"
        }
        (from, to) if (proto(from) || proto(to)) && !typed => {
            "protobuf needs a contract: add `--contract FILE --type NAME`"
        }
        _ => return Ok(()),
    };
    Err(Failure::Error(problem.into()))
}

/// Converts by the contract; input that does not match the type is rejected with the position of the error.
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
            crossdock_proto::text_to_wire(of_type, text).map_err(|problem| failed(&problem.to_string()))?
        }
        _ => of_type.normalize(input, limits).map_err(|error| failed(&error.to_string()))?,
    };
    let wire = Bytes::from(wire);
    match to {
        ConvertFormat::Json => of_type.wire_to_json(&wire, limits).map_err(|error| failed(&error.to_string())),
        ConvertFormat::ProtoText => crossdock_proto::wire_to_text(of_type, &wire, limits)
            .map(String::into_bytes)
            .map_err(|problem| failed(&problem.to_string())),
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
