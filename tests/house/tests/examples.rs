//! What a page says that an example prints is what it prints.

#![allow(clippy::unwrap_used, clippy::panic, unused_crate_dependencies)]

use std::path::PathBuf;
use std::process::Command;

use millrace_house::root;

/// The directory of this profile's programs.
fn built() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap().to_owned()
}

#[test]
fn the_protocol_module_of_the_guide_plays_what_the_guide_says() {
    let page = std::fs::read_to_string(root().join("docs/writing-a-protocol-module.md")).unwrap();
    let shown = page.split("```text\n").nth(1).unwrap();
    let shown = shown.split("```").next().unwrap();
    let release = !cfg!(debug_assertions);
    let mut build = Command::new(env!("CARGO"));
    // The whole workspace: else it is built once more, with other features.
    build.args(["build", "--locked", "-q", "--workspace"]);
    build.args(["--example", "protocol_module"]);
    build.args(release.then_some("--release"));
    let status = build.current_dir(root()).status().unwrap();
    assert!(status.success(), "{status}");
    let example = built().join("examples/protocol_module");
    let output = Command::new(example).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), shown);
}
