//! What ARCHITECTURE.md says of the structure is true, and stays so.

#![allow(clippy::unwrap_used, clippy::panic, unused_crate_dependencies)]

use millrace_house::{Picture, Uses, circle, code, crates, modules, root, sources};

/// Beside the product: what builds upon all of it for tests and measurements.
const BESIDE: [&str; 6] = [
    "lab",
    "bench",
    "tests/house",
    "tests/integration",
    "fuzz/bodies",
    "deploy/manuals",
];
/// Lines of a file without its tests.
const LONGEST_FILE: usize = 600;

fn architecture() -> String {
    std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap()
}

fn product() -> Uses {
    let mut uses = crates(&root()).unwrap();
    uses.retain(|name, _| !BESIDE.contains(&name.as_str()));
    uses
}

#[test]
fn the_floors_that_are_drawn_are_those_of_manifests_and_imports() {
    let pictures = Picture::all(&architecture());
    let drawn: Vec<&str> = pictures.iter().map(|it| it.of.as_str()).collect();
    assert_eq!(drawn, ["crates", "copier/src", "replay/src", "engine/src"]);
    for picture in pictures {
        let uses = match picture.of.as_str() {
            "crates" => product(),
            folder => modules(&root().join(folder)).unwrap(),
        };
        let wrong = picture.contradictions(&uses);
        assert!(wrong.is_empty(), "{}:\n{}", picture.of, wrong.join("\n"));
    }
}

#[test]
fn no_modules_use_each_other_in_a_circle() {
    for name in product().keys() {
        let uses = modules(&root().join(name).join("src")).unwrap();
        let circle = circle(&uses);
        assert_eq!(circle, None, "in {name}");
    }
}

#[test]
fn no_file_outgrows_its_idea() {
    for name in product().keys() {
        for file in sources(&root().join(name).join("src")).unwrap() {
            let lines = code(&std::fs::read_to_string(&file).unwrap())
                .lines()
                .count();
            assert!(lines <= LONGEST_FILE, "{}: {lines} lines", file.display());
        }
    }
}

#[test]
fn every_path_that_is_named_exists() {
    let text = architecture();
    let quoted = text.split('`').skip(1).step_by(2);
    let (root, mut folder, mut count) = (root(), root(), 0);
    for name in quoted.filter(|it| !it.contains([' ', '*', '$', '<', ':'])) {
        let path = if name.contains('/') {
            let path = root.join(name.trim_end_matches('/'));
            folder = match name.ends_with('/') {
                true => path.clone(),
                false => path.parent().unwrap().to_owned(),
            };
            path
        } else if name.ends_with(".rs") {
            // In the folder of the one before.
            folder.join(name)
        } else {
            continue;
        };
        assert!(
            path.exists(),
            "ARCHITECTURE.md names {name}: {}",
            path.display()
        );
        count += 1;
    }
    assert!(count > 100, "{count} paths");
}
