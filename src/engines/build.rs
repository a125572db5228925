//! Generates the messages and the client of `etcd.proto`, without a protocol buffer compiler.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=src/etcd/etcd.proto");
    let files = protox::compile(["etcd.proto"], ["src/etcd"])?;
    tonic_prost_build::configure().build_server(false).build_transport(false).bytes(".").compile_fds(files)?;
    Ok(())
}
