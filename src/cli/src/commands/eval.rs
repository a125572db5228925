//! `crossdock eval`: evaluates an expression as a route would.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::ValueEnum;
use crossdock_contract::{Typed, UnknownFields};
use crossdock_message::{Body, BodyType, ByteString, Format, Limits, Message, json};
use crossdock_ports::Binding;
use crossdock_routing::expression::{Expression, Meter, Names, Request, Scope, reference};

use super::contract;
use crate::outcome::{Failure, Outcome};
use crossdock_gateway::SystemHost;

/// Maximum length of the message in bytes.
const INPUT_LEN_MAX: u64 = 64 << 20;
/// The default deadline of a route.
const DEADLINE: Duration = Duration::from_secs(30);

/// The arguments of the command.
pub(super) struct Evaluation {
    pub(super) expression: Option<String>,
    /// The file that contains `req`.
    pub(super) req: Option<PathBuf>,
    pub(super) format: EvalFormat,
    pub(super) contract: Option<String>,
    pub(super) type_name: Option<String>,
    pub(super) include: Vec<PathBuf>,
    /// Print the reference of functions instead.
    pub(super) functions: bool,
}

/// The format of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum EvalFormat {
    Json,
    Xml,
}

pub(super) fn eval(evaluation: &Evaluation) -> Outcome {
    if evaluation.functions {
        return print(&reference());
    }
    let Some(source) = &evaluation.expression else {
        return Err(Failure::Error("write an expression, such as `crossdock eval '1.10 * 2'`".into()));
    };
    let of_type = match (&evaluation.contract, &evaluation.type_name) {
        (Some(place), Some(name)) => {
            let type_ref = contract::type_named(&contract::read(place, &evaluation.include)?, name)?;
            Some(Arc::new(Typed::new(type_ref, UnknownFields::Refuse, Arc::new(Limits::default()))))
        }
        (None, None) => None,
        _ => return Err(Failure::Error("`--contract FILE` and `--type NAME` must be used together".into())),
    };
    let root = ByteString::from_static("req");
    let names = Names {
        variables: ["req", "header", "msg"].map(ByteString::from_static).to_vec(),
        unbound: vec![
            ("res".into(), "there is no reply; pass the message with `--req` and use `req`"),
            ("sequence".into(), "its numbers are those of a cluster: use it in a route"),
        ],
        types: of_type.iter().map(|typed| (root.clone(), Arc::clone(typed))).collect(),
        of_services: Vec::new(),
    };
    let compiled = Expression::compile(source, &names).map_err(|problems| {
        let shown: Vec<String> = problems.iter().map(|problem| problem.show(source)).collect();
        failed(&shown.join("\n\n"))
    })?;
    let mut message = Message::new("eval".into(), "eval".into());
    if compiled.inputs().any(|(name, _)| *name == root) {
        message.body = body(evaluation, of_type)?;
    }
    let request = Request { message, binding: Binding::default().into() };
    let (meter, limits) = (Meter::new(Instant::now() + DEADLINE), Limits::default());
    let scope = Scope {
        request: &request,
        current: &request.message,
        reply: None,
        variables: &[],
        item: None,
        host: &SystemHost,
        meter: &meter,
        limits: &limits,
    };
    let value = compiled.evaluate(&scope).map_err(|fault| failed(&fault.message))?;
    let shown = json::write(&value).ok().and_then(|written| String::from_utf8(written).ok());
    let shown =
        shown.unwrap_or_else(|| value.scalar_text().map_or_else(|| value.kind().to_owned(), |text| text.to_string()));
    let (work, bytes) = meter.used();
    print(&format!("value: {shown}\ntype: {}\ncost: {work} units of work, {bytes} bytes\n", compiled.result_type()))
}

fn body(evaluation: &Evaluation, of_type: Option<Arc<Typed>>) -> Result<Body, Failure> {
    let bytes = Bytes::from(read(evaluation.req.as_ref())?);
    let format = match evaluation.format {
        EvalFormat::Json => Format::Json,
        EvalFormat::Xml => Format::Xml,
    };
    Ok(match of_type {
        Some(typed) => Body::typed(bytes.into(), format, typed as Arc<dyn BodyType>),
        None => Body::raw(bytes.into(), format),
    })
}

fn read(file: Option<&PathBuf>) -> Result<Vec<u8>, Failure> {
    let mut input = Vec::new();
    match file {
        Some(path) if path.as_os_str() != "-" => {
            let unreadable = |error| Failure::Error(format!("failed to read `{}`: {error}", path.display()));
            let file = std::fs::File::open(path).map_err(unreadable)?;
            file.take(INPUT_LEN_MAX + 1).read_to_end(&mut input).map_err(unreadable)?;
        }
        _ if std::io::stdin().is_terminal() => {
            let problem = "the expression uses `req`: pass it with `--req FILE` or on standard input";
            return Err(Failure::Error(problem.into()));
        }
        _ => {
            let unreadable = |error| Failure::Error(format!("failed to read standard input: {error}"));
            std::io::stdin().take(INPUT_LEN_MAX + 1).read_to_end(&mut input).map_err(unreadable)?;
        }
    }
    if input.len() as u64 > INPUT_LEN_MAX {
        return Err(failed(&format!("the message must not exceed {INPUT_LEN_MAX} bytes")));
    }
    Ok(input)
}

fn print(text: &str) -> Outcome {
    std::io::stdout().write_all(text.as_bytes()).map_err(|error| failed(&error.to_string()))
}

fn failed(problem: &str) -> Failure {
    eprintln!("{problem}");
    Failure::Failed
}
