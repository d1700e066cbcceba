//! Compiles the .proto files with protox, so that no protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["postrider/v1/node.proto", "postrider/v1/round_trips.proto"], ["proto"])?;
    // A shard's row is larger than every other fault: boxed, it makes no refusal large.
    let build = tonic_prost_build::configure().bytes(".").boxed(".postrider.v1.StaleEpoch.current");
    build.compile_fds(files)?;
    Ok(())
}
