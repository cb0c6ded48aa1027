//! Compiles the `.proto` files in Rust, so that a build needs no `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const FILE: &str = "millrace/v1/interceptor.proto";
    println!("cargo:rerun-if-changed={FILE}");
    let descriptors = protox::compile([FILE], ["."])?;
    tonic_prost_build::configure()
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}
