//! Compiles the `.proto` files in Rust, so that a build needs no `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const FILES: [&str; 3] = [
        "millrace/v1/interceptor.proto",
        "millrace/v1/router.proto",
        // OTLP 1: the files of OpenTelemetry itself, as they are.
        "opentelemetry/proto/collector/trace/v1/trace_service.proto",
    ];
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["."])?;
    tonic_prost_build::configure()
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}
