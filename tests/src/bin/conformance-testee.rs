//! Testee of protobuf's conformance runner: reads length-prefixed requests from standard input.
//!
//! Arguments: a descriptor set, and `direct` (transcode bytes to bytes) or `value` (through the canonical value).

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use bytes::Bytes;
use crossdock_contract::{Contract, TypeRef, UnknownFields, from_descriptor_set};
use crossdock_message::Limits;
use prost::Message as _;

#[derive(Clone, PartialEq, prost::Message)]
struct Request {
    #[prost(bytes = "bytes", optional, tag = "1")]
    protobuf_payload: Option<Bytes>,
    #[prost(string, optional, tag = "2")]
    json_payload: Option<String>,
    #[prost(int32, tag = "3")]
    requested_output_format: i32,
    #[prost(string, tag = "4")]
    message_type: String,
    #[prost(int32, tag = "5")]
    test_category: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Response {
    #[prost(oneof = "Outcome", tags = "1, 3, 4, 5, 6")]
    outcome: Option<Outcome>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Outcome {
    #[prost(string, tag = "1")]
    ParseError(String),
    #[prost(bytes = "bytes", tag = "3")]
    Protobuf(Bytes),
    #[prost(string, tag = "4")]
    Json(String),
    #[prost(string, tag = "5")]
    Skipped(String),
    #[prost(string, tag = "6")]
    SerializeError(String),
}

const PROTOBUF: i32 = 1;
const JSON: i32 = 2;
const IGNORE_UNKNOWN: i32 = 3;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let set = std::fs::read(&arguments[1]).expect("the descriptor set");
    let contract = Arc::new(from_descriptor_set(&set.into()).expect("a descriptor set"));
    let direct = arguments[2] == "direct";
    let (mut input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
    loop {
        let mut len = [0; 4];
        if input.read_exact(&mut len).is_err() {
            return;
        }
        let mut bytes = vec![0; u32::from_le_bytes(len) as usize];
        input.read_exact(&mut bytes).expect("a request");
        let request = Request::decode(bytes.as_slice()).expect("a request");
        let response = Response { outcome: Some(answer(&request, &contract, direct)) }.encode_to_vec();
        output.write_all(&u32::try_from(response.len()).expect("a length").to_le_bytes()).expect("the runner reads");
        output.write_all(&response).expect("the runner reads");
        output.flush().expect("the runner reads");
    }
}

fn answer(request: &Request, contract: &Arc<Contract>, direct: bool) -> Outcome {
    let Some(id) = contract.find_record(&request.message_type) else {
        return Outcome::Skipped(format!("unknown message type {}", request.message_type));
    };
    let type_ref = TypeRef::new(Arc::clone(contract), id);
    let limits = Limits { depth: 100, nodes: usize::MAX, ..Limits::default() };
    let unknown = if request.test_category == IGNORE_UNKNOWN { UnknownFields::Ignore } else { UnknownFields::Refuse };
    if !matches!(request.requested_output_format, PROTOBUF | JSON) {
        return Outcome::Skipped("only protobuf and JSON are supported".to_owned());
    }
    let to_json = request.requested_output_format == JSON;
    let parse = |error: Box<crossdock_contract::CodecError>| Outcome::ParseError(error.to_string());
    let serialize = |error: Box<crossdock_contract::CodecError>| Outcome::SerializeError(error.to_string());
    let result = match (&request.protobuf_payload, &request.json_payload) {
        (Some(bytes), _) if direct => type_ref.normalize(bytes, &limits).map_err(parse).and_then(|plain| {
            if to_json { type_ref.wire_to_json(bytes, &limits).map_err(serialize) } else { Ok(plain) }
        }),
        (Some(bytes), _) => type_ref.decode(bytes, &limits).map_err(parse).and_then(|value| {
            let encoded = if to_json { type_ref.write_json(&value, &limits) } else { type_ref.encode(&value) };
            encoded.map_err(serialize)
        }),
        (None, Some(text)) => {
            let bytes = Bytes::copy_from_slice(text.as_bytes());
            if direct {
                type_ref.json_to_wire(&bytes, unknown, &limits).map_err(parse).and_then(|wire| {
                    if to_json { type_ref.wire_to_json(&wire.into(), &limits).map_err(serialize) } else { Ok(wire) }
                })
            } else {
                type_ref.read_json(&bytes, unknown, &limits).map_err(parse).and_then(|value| {
                    let encoded = if to_json { type_ref.write_json(&value, &limits) } else { type_ref.encode(&value) };
                    encoded.map_err(serialize)
                })
            }
        }
        (None, None) => return Outcome::Skipped("unsupported payload format".to_owned()),
    };
    match result {
        Ok(bytes) if to_json => Outcome::Json(String::from_utf8(bytes).expect("JSON is UTF-8")),
        Ok(bytes) => Outcome::Protobuf(bytes.into()),
        Err(outcome) => outcome,
    }
}
