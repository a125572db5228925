//! Generates the code of `schemas/gateway.proto`, without a protocol buffer compiler.

use std::path::PathBuf;

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../schemas");
    println!("cargo::rerun-if-changed={}", folder.join("gateway.proto").display());
    let files = protox::compile(["gateway.proto"], [&folder])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("gateway.binpb"), files.encode_to_vec())?;
    tonic_prost_build::configure().build_transport(false).bytes(".").compile_fds(files)?;
    Ok(())
}
