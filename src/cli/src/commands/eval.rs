//! `crossdock eval`: an expression, evaluated as a route would.

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

/// Bytes of a message.
const INPUT_LEN_MAX: u64 = 64 << 20;
/// What a route has where nothing else is said.
const TIME: Duration = Duration::from_secs(30);

/// What is evaluated, and over what.
pub(super) struct Evaluation {
    pub(super) expression: Option<String>,
    /// The file that `req` is read from.
    pub(super) req: Option<PathBuf>,
    pub(super) format: EvalFormat,
    pub(super) contract: Option<String>,
    pub(super) type_name: Option<String>,
    pub(super) include: Vec<PathBuf>,
    /// Lists the functions instead.
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
        return Err(Failure::Misuse("write an expression, such as `crossdock eval '1.10 * 2'`".into()));
    };
    let of_type = match (&evaluation.contract, &evaluation.type_name) {
        (Some(place), Some(name)) => {
            let type_ref = contract::type_named(&contract::read(place, &evaluation.include)?, name)?;
            Some(Arc::new(Typed::new(type_ref, UnknownFields::Refuse, Arc::new(Limits::default()))))
        }
        (None, None) => None,
        _ => return Err(Failure::Misuse("a type needs both `--contract FILE` and `--type NAME`".into())),
    };
    let root = ByteString::from_static("req");
    let names = Names {
        variables: ["req", "header", "msg"].map(ByteString::from_static).to_vec(),
        unbound: vec![("res".into(), "there is no reply here; give it as `--req` and call it `req`")],
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
    let (meter, limits) = (Meter::new(Instant::now() + TIME), Limits::default());
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
            let unreadable = |error| Failure::Misuse(format!("`{}` cannot be read: {error}", path.display()));
            let file = std::fs::File::open(path).map_err(unreadable)?;
            file.take(INPUT_LEN_MAX + 1).read_to_end(&mut input).map_err(unreadable)?;
        }
        _ if std::io::stdin().is_terminal() => {
            let problem = "the expression looks at `req`: give it as `--req FILE`, or on standard input";
            return Err(Failure::Misuse(problem.into()));
        }
        _ => {
            let unreadable = |error| Failure::Misuse(format!("standard input cannot be read: {error}"));
            std::io::stdin().take(INPUT_LEN_MAX + 1).read_to_end(&mut input).map_err(unreadable)?;
        }
    }
    if input.len() as u64 > INPUT_LEN_MAX {
        return Err(failed(&format!("the message is larger than {INPUT_LEN_MAX} bytes")));
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
