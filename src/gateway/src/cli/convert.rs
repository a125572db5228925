//! `crossdock convert`.

use std::io::{Read as _, Write as _};

use bytes::Bytes;
use crossdock_message::xml::ExpandedName;
use crossdock_message::{Limits, json, xml};

use super::{ConvertFormat, Ending, Failure};

/// Bytes of the input.
const INPUT_LEN_MAX: u64 = 64 << 20;

pub(super) fn convert(from: ConvertFormat, to: ConvertFormat, root: Option<&str>) -> Ending {
    if from == ConvertFormat::Xml && to == ConvertFormat::Xml {
        let problem = "XML is read through a view that does not keep all of it, and never written back from there";
        return Err(Failure::Misuse(problem.into()));
    }
    let root = match (to, root) {
        (ConvertFormat::Xml, None) => {
            return Err(Failure::Misuse("XML needs a root element: add `--root NAME`".into()));
        }
        (ConvertFormat::Json, Some(_)) => {
            return Err(Failure::Misuse("only XML has a root element: leave `--root` out".into()));
        }
        (_, root) => root
            .map(|name| {
                ExpandedName::parse(name)
                    .ok_or_else(|| Failure::Misuse(format!("`{name}` is not the name of an element")))
            })
            .transpose()?,
    };
    let mut input = Vec::new();
    let unreadable = |error: std::io::Error| Failure::Misuse(format!("standard input cannot be read: {error}"));
    std::io::stdin().take(INPUT_LEN_MAX + 1).read_to_end(&mut input).map_err(unreadable)?;
    if input.len() as u64 > INPUT_LEN_MAX {
        return Err(failed(&format!("the input is larger than {INPUT_LEN_MAX} bytes")));
    }
    let limits = Limits { nodes: usize::MAX, keys: usize::MAX, text_len: usize::MAX, ..Limits::default() };
    let value = match from {
        ConvertFormat::Json => json::read(&Bytes::from(input), &limits).map_err(|error| failed(&error.to_string()))?,
        ConvertFormat::Xml => xml::read(&Bytes::from(input), &limits).map_err(|error| failed(&error.to_string()))?,
    };
    let mut output = match root {
        None => json::write(&value).map_err(|error| failed(&error.to_string()))?,
        Some(root) => xml::write(&root, &value).map_err(|error| failed(&error.to_string()))?,
    };
    output.push(b'\n');
    std::io::stdout().write_all(&output).map_err(|error| failed(&error.to_string()))
}

fn failed(problem: &str) -> Failure {
    eprintln!("{problem}");
    Failure::Failed
}
