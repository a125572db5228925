//! Fuzz targets for the parsers of untrusted input: each target accepts any bytes and panics if a property is violated.
//!
//! The properties: nothing panics or exceeds its limits; what was read can be written; reading what was written returns the same value.
//! `tests/fuzz/run` searches for inputs that violate one; the corpus is checked with every test run.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossdock_contract::{Contract, TypeRef, UnknownFields, from_descriptor_set};
use crossdock_expression::{Budget, Environment, FixedHost, Input, Program, Type, Val, Variable};
use crossdock_message::xml::{self, ExpandedName};
use crossdock_message::{Limits, RequestContext, Value, json};
use crossdock_ports::{Adapter, Address, Head, NoFields, PathTemplate};
use crossdock_proto::{Files, compile};
use crossdock_routing::{ListenerInfo, Table};
use crossdock_settings::{Diagnostics, Resolve};

/// A parser under test.
pub type Target = fn(&[u8]);

/// All targets by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("json", json_text),
    ("xml", xml_text),
    ("protobuf", protobuf),
    ("proto_json", proto_json),
    ("descriptors", descriptors),
    ("proto_file", proto_file),
    ("routes", routes),
    ("template", template),
    ("expression", expression),
    ("http1", crossdock_http::fuzzing::http1),
    ("http2_head", crossdock_http::fuzzing::http2_head),
    ("path", crossdock_http::fuzzing::path),
    ("amqp_frames", crossdock_amqp::fuzzing::frames),
    ("cluster_members", crossdock_cluster::fuzzing::members),
    ("grpc_packed", crossdock_grpc::fuzzing::compressed),
    ("grpc_status", crossdock_grpc::fuzzing::status),
];

fn shared(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

fn json_text(bytes: &[u8]) {
    let limits = Limits::default();
    let Ok(value) = json::read(&shared(bytes), &limits) else { return };
    let written = json::write(&value).expect("what was read can be written");
    assert_eq!(json::read(&written.into(), &limits).expect("what was written can be read"), value);
}

fn xml_text(bytes: &[u8]) {
    let limits = Limits::default();
    let Ok(view) = xml::read(&shared(bytes), &limits) else { return };
    // Not every view can be written; one that consists of records and texts can.
    let root = ExpandedName::parse("{urn:fuzz}root").expect("a name");
    if let Ok(written) = xml::write(&root, &view) {
        let relaxed = Limits { depth: 512, nodes: usize::MAX, text_len: usize::MAX, ..limits };
        assert!(xml::read(&written.into(), &relaxed).is_ok(), "what was written can be read");
    }
}

/// A type with every kind of field, recursion, and all well-known types.
fn contract() -> &'static TypeRef {
    static TYPE: OnceLock<TypeRef> = OnceLock::new();
    TYPE.get_or_init(|| {
        let text = include_str!("../fuzz/all.proto");
        let files = OneFile(Bytes::from_static(text.as_bytes()));
        let contract: Contract = compile(&["all.proto"], &files).expect("the contract");
        let id = contract.find_record("fuzz.All").expect("the type");
        TypeRef::new(Arc::new(contract), id)
    })
}

/// A file source without files.
pub struct NoFiles;

impl Files for NoFiles {
    fn read(&self, _: &str) -> Result<Option<Bytes>, String> {
        Ok(None)
    }
}

struct OneFile(Bytes);

impl Files for OneFile {
    fn read(&self, name: &str) -> Result<Option<Bytes>, String> {
        Ok((name == "all.proto").then(|| self.0.clone()))
    }
}

fn deep_limits() -> Limits {
    Limits { depth: 100, ..Limits::default() }
}

fn protobuf(bytes: &[u8]) {
    let (type_ref, limits, bytes) = (contract(), deep_limits(), shared(bytes));
    let normal = type_ref.normalize(&bytes, &limits);
    let value = type_ref.decode(&bytes, &limits);
    let (Ok(normal), Ok(value)) = (normal, value) else { return };
    let written = type_ref.encode(&value).expect("what was read can be written");
    // Expanding an Any may drop unknown fields of its payload, so only a second round must change nothing.
    let normal = Bytes::from(normal);
    if let Ok(again) = type_ref.normalize(&normal, &limits) {
        assert_eq!(again, normal, "normalization is idempotent");
    }
    let again = type_ref.decode(&written.into(), &limits).expect("what was written can be read");
    if let (Ok(first), Ok(second)) = (type_ref.write_json(&value, &limits), type_ref.write_json(&again, &limits)) {
        assert_eq!(String::from_utf8_lossy(&first), String::from_utf8_lossy(&second));
    }
    if let Ok(text) = type_ref.wire_to_json(&bytes, &limits) {
        std::str::from_utf8(&text).expect("JSON is UTF-8");
        let back = type_ref.json_to_wire(&text.into(), UnknownFields::Refuse, &limits);
        back.expect("JSON that was written can be read");
    }
}

fn proto_json(bytes: &[u8]) {
    let (type_ref, limits, bytes) = (contract(), deep_limits(), shared(bytes));
    let direct = type_ref.json_to_wire(&bytes, UnknownFields::Refuse, &limits);
    let value = type_ref.read_json(&bytes, UnknownFields::Refuse, &limits);
    assert_eq!(direct.is_ok(), value.is_ok(), "both paths accept the same input: {direct:?} {value:?}");
    let (Ok(wire), Ok(value)) = (direct, value) else { return };
    let (wire, encoded) = (Bytes::from(wire), type_ref.encode(&value).expect("what was read can be written"));
    let (one, other) = (type_ref.normalize(&wire, &limits), type_ref.normalize(&encoded.into(), &limits));
    if let (Ok(one), Ok(other)) = (one, other) {
        assert_eq!(one, other, "both paths give the same message");
    }
    for json in [type_ref.wire_to_json(&wire, &limits), type_ref.write_json(&value, &limits)].into_iter().flatten() {
        let again = type_ref.json_to_wire(&json.into(), UnknownFields::Refuse, &limits);
        again.expect("what was written can be read");
    }
}

/// The first line is an expression, the rest a message in JSON.
fn expression(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (source, message) = text.split_once('\n').unwrap_or((text, "{}"));
    let environment = Environment {
        variables: vec![Variable { name: "req".into(), ty: Type::Dyn }],
        splits_inputs: source.len() % 2 == 0,
        ..Environment::default()
    };
    let program = match Program::compile(source, &environment) {
        Ok(program) => program,
        Err(problems) => {
            for problem in problems {
                assert!(source.get(problem.range.clone()).is_some(), "{problem:?} is not in {source:?}");
                let _ = problem.show(source);
            }
            return;
        }
    };
    let message = json::read(&shared(message.as_bytes()), &Limits::default()).unwrap_or(Value::Null);
    let value_of = |input: &Input| match &input.field {
        None => Some(Val::data(&message, false)),
        Some(name) => message.get(name).map(|value| Val::data(value, false)),
    };
    let inputs: Vec<_> = program.inputs().iter().map(value_of).collect();
    let evaluated = || {
        let (budget, host) = (Budget::new(Instant::now() + Duration::from_secs(10)), FixedHost::default());
        let value = program.evaluate(&inputs, &budget, &host).map(|value| {
            let same = crossdock_expression::value::equal(&value, &value, &budget);
            // Only NaN differs from itself.
            assert!(same != Ok(false) || format!("{value:?}").contains("NaN"), "{value:?} differs from itself");
            value.to_value(&budget)
        });
        format!("{value:?}")
    };
    assert_eq!(evaluated(), evaluated(), "evaluation is deterministic");
}

fn descriptors(bytes: &[u8]) {
    let _ = from_descriptor_set(&shared(bytes));
}

fn proto_file(bytes: &[u8]) {
    if let Ok(contract) = compile(&["all.proto"], &OneFile(shared(bytes))) {
        let shown = crossdock_contract::show::proto(&contract);
        let again = compile(&["all.proto"], &OneFile(shown.clone().into()));
        // The compiler does not read editions, which some contracts are shown in.
        let is_edition = shown.starts_with("edition");
        assert!(is_edition || again.is_ok(), "the shown contract can be compiled: {:?}\n{shown}", again.err());
    }
}

struct NoSources;

impl Resolve for NoSources {
    fn env(&self, _: &str) -> Result<String, String> {
        Err("there is no environment".into())
    }

    fn file(&self, _: &str) -> Result<String, String> {
        Err("there are no files".into())
    }
}

fn routes(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let adapters: [Arc<dyn Adapter>; 2] =
        [Arc::new(crossdock_http::HttpAdapter), Arc::new(crossdock_grpc::GrpcAdapter)];
    let listeners = [("public", "http"), ("internal", "grpc")].map(|(name, adapter)| ListenerInfo {
        name: name.to_owned(),
        adapter,
        transactions: None,
    });
    let mut diagnostics = Diagnostics::new();
    let inputs = crossdock_routing::Inputs {
        adapters: &adapters,
        listeners: &listeners,
        resolve: &NoSources,
        files: &OneFile(Bytes::from_static(include_str!("../fuzz/all.proto").as_bytes())),
        reflect: &|_| Err("reflection is unavailable".into()),
        limits: &Limits::default(),
        has_cluster: true,
        locks: Some(crossdock_ports::EngineRow::EMBEDDED),
    };
    let plan = crossdock_routing::load(&[("fuzz.yaml".to_owned(), text.to_owned())], &inputs, &mut diagnostics);
    assert!(plan.is_none() || !diagnostics.has_errors(), "a plan despite errors");
    // Every diagnostic range must lie within the text.
    let _ = diagnostics.render_short();
    let _ = diagnostics.render(false);
}

fn template(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (template, path) = text.split_once('\n').unwrap_or((text, "/a/b:c"));
    match PathTemplate::parse(template) {
        Ok(template) => {
            let _ = template.parts().count();
            let address =
                Address { listener: "l".into(), method: "GET".into(), path: template.clone(), headers: Vec::new() };
            let mut table = Table::default();
            table.add(&address, (0, 0)).expect("the first entry");
            let mut context = RequestContext::new("1".into(), Instant::now());
            let head = Head {
                context: &mut context,
                listener: "l",
                method: "GET",
                path,
                headers: &NoFields,
                is_accepted: false,
            };
            if table.find(&head).is_ok() {
                for (_, range) in template.bind(path) {
                    assert!(path.get(range).is_some(), "the range lies within the path");
                }
            }
        }
        Err(error) => assert!(template.get(error.range).is_some(), "the error range lies within the template"),
    }
}
