//! Generates the types and services of the metadata store's gRPC API.

fn main() -> std::io::Result<()> {
    println!("cargo::rerun-if-changed=proto");
    tonic_prost_build::configure().build_client(false).compile_protos(&["proto/rpc.proto"], &["proto"])
}
