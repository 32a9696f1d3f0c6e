//! Compiles the `.proto` files, without protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(["cluster.proto", "quorum.proto", "replication.proto"], ["proto"])?;
    // `bytes` fields arrive as slices of the message that they came in.
    tonic_prost_build::configure().bytes(".").compile_fds(files)?;
    Ok(())
}
