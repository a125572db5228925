//! One message of 1 KiB in JSON, converted by each codec and by an equivalent library.
//!
//! `cargo bench -p crossdock-bench-codecs`; every result is for one message on one core.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use crossdock_contract::{TypeRef, UnknownFields};
use crossdock_message::{Limits, json};
use crossdock_proto::{Files, compile};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};

/// The allocator of the gateway, used for both sides.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../grpc"))
}

struct Folder;

impl Files for Folder {
    fn read(&self, name: &str) -> Result<Option<Bytes>, String> {
        Ok(std::fs::read(folder().join(name)).ok().map(Bytes::from))
    }
}

fn our_type() -> TypeRef {
    let contract = compile(&["bench.proto"], &Folder).expect("the contract");
    let id = contract.find_record("bench.v1.Order").expect("the type");
    TypeRef::new(Arc::new(contract), id)
}

fn their_type() -> MessageDescriptor {
    let mut resolver = protox::file::ChainFileResolver::new();
    resolver.add(protox::file::IncludeFileResolver::new(folder().to_owned()));
    // The annotations are not needed to read messages, so a stub of their file is enough.
    resolver.add(Annotations);
    resolver.add(protox::file::GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).open_file("bench.proto").expect("the contract");
    let pool: DescriptorPool = compiler.descriptor_pool();
    pool.get_message_by_name("bench.v1.Order").expect("the type")
}

/// The part of `google/api/annotations.proto` that is used here.
struct Annotations;

impl protox::file::FileResolver for Annotations {
    fn open_file(&self, name: &str) -> Result<protox::file::File, protox::Error> {
        if name != "google/api/annotations.proto" {
            return Err(protox::Error::file_not_found(name));
        }
        let text = "syntax = \"proto3\"; package google.api; import \"google/protobuf/descriptor.proto\";
            extend google.protobuf.MethodOptions { HttpRule http = 72295728; }
            message HttpRule { oneof pattern { string post = 4; } string body = 7; }";
        protox::file::File::from_source(name, text)
    }
}

fn read_their_json(bytes: &[u8], of_type: &MessageDescriptor) -> DynamicMessage {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    DynamicMessage::deserialize(of_type.clone(), &mut reader).expect("valid JSON")
}

fn codecs(criterion: &mut Criterion) {
    let text = std::fs::read(folder().join("order.json")).expect("the message");
    let text = Bytes::from(text.trim_ascii_end().to_vec());
    let (our_type, their_type, limits) = (our_type(), their_type(), Limits::default());
    let wire = Bytes::from(our_type.json_to_wire(&text, UnknownFields::Refuse, &limits).expect("valid"));
    // The results must be equal for the comparison to be meaningful.
    let their_wire = read_their_json(&text, &their_type).encode_to_vec();
    let reread = DynamicMessage::decode(their_type.clone(), wire.clone()).expect("valid");
    assert_eq!(reread, DynamicMessage::decode(their_type.clone(), their_wire.as_slice()).expect("valid"));

    let mut group = criterion.benchmark_group("json to protobuf");
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("crossdock", |bencher| {
        bencher.iter(|| our_type.json_to_wire(black_box(&text), UnknownFields::Refuse, &limits).expect("valid"));
    });
    group.bench_function("prost-reflect", |bencher| {
        bencher.iter(|| read_their_json(black_box(&text), &their_type).encode_to_vec());
    });
    group.finish();

    let mut group = criterion.benchmark_group("protobuf to json");
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("crossdock", |bencher| {
        bencher.iter(|| our_type.wire_to_json(black_box(&wire), &limits).expect("valid"));
    });
    group.bench_function("prost-reflect", |bencher| {
        bencher.iter(|| {
            let message = DynamicMessage::decode(their_type.clone(), black_box(&wire).clone()).expect("valid");
            serde_json::to_vec(&message).expect("valid")
        });
    });
    group.finish();

    let mut group = criterion.benchmark_group("protobuf to value and back");
    group.throughput(Throughput::Bytes(wire.len() as u64));
    group.bench_function("crossdock", |bencher| {
        bencher.iter(|| {
            let value = our_type.decode(black_box(&wire), &limits).expect("valid");
            our_type.encode(&value).expect("valid")
        });
    });
    group.bench_function("prost-reflect", |bencher| {
        bencher.iter(|| {
            let message = DynamicMessage::decode(their_type.clone(), black_box(&wire).clone()).expect("valid");
            message.encode_to_vec()
        });
    });
    group.finish();

    let mut group = criterion.benchmark_group("json to value and back, without a contract");
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("crossdock", |bencher| {
        bencher.iter(|| json::write(&json::read(black_box(&text), &limits).expect("valid")).expect("valid"));
    });
    group.bench_function("serde_json", |bencher| {
        bencher.iter(|| {
            let value: serde_json::Value = serde_json::from_slice(black_box(&text)).expect("valid");
            serde_json::to_vec(&value).expect("valid")
        });
    });
    group.finish();
}

criterion_group!(benches, codecs);
criterion_main!(benches);
