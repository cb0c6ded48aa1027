//! The table in README.md names every line and only tests that exist.

use std::collections::BTreeSet;

const TABLE: &str = include_str!("README.md");
const SOURCES: [(&str, &str); 19] = [
    ("capture", include_str!("capture.rs")),
    ("contact", include_str!("contact.rs")),
    ("identity", include_str!("identity.rs")),
    ("path", include_str!("path.rs")),
    ("windows", include_str!("windows.rs")),
    ("turns", include_str!("turns.rs")),
    ("ends", include_str!("ends.rs")),
    ("gaps", include_str!("gaps.rs")),
    ("flows", include_str!("flows.rs")),
    ("limits", include_str!("limits.rs")),
    ("intensity", include_str!("intensity.rs")),
    ("recorded", include_str!("recorded.rs")),
    ("sampled", include_str!("sampled.rs")),
    ("silence", include_str!("silence.rs")),
    ("misdirected", include_str!("misdirected.rs")),
    ("doubts", include_str!("doubts.rs")),
    ("forged", include_str!("forged.rs")),
    ("protocol", include_str!("protocol.rs")),
    ("hearing", include_str!("hearing.rs")),
];

/// The tests of all files, as `file::name`.
fn tests() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (file, source) in SOURCES {
        let mut lines = source.lines();
        while let Some(line) = lines.next() {
            if line == "#[test]" {
                let head = lines.next().expect("a function follows");
                let name = head
                    .strip_prefix("fn ")
                    .and_then(|rest| rest.split('(').next());
                names.insert(format!("{file}::{}", name.expect("a test function")));
            }
        }
    }
    names
}

/// The rows of the table: what stands in the first column, and the tests of the third.
fn rows() -> Vec<(&'static str, Vec<&'static str>)> {
    let rows = TABLE.lines().filter_map(|line| {
        let cells: Vec<_> = line.strip_prefix('|')?.split('|').map(str::trim).collect();
        let named = cells.get(2)?.split('`').filter(|name| name.contains("::"));
        Some((cells[0], named.collect::<Vec<_>>()))
    });
    rows.filter(|(_, named)| !named.is_empty()).collect()
}

#[test]
fn every_line_from_1_to_27_has_its_tests() {
    let lines: BTreeSet<_> = rows().iter().map(|(line, _)| line.to_string()).collect();
    for line in 1..=27 {
        assert!(lines.contains(&line.to_string()), "line {line} is missing");
    }
}

#[test]
fn the_table_names_only_tests_that_exist_and_all_of_them() {
    let tests = tests();
    let named: BTreeSet<String> = rows()
        .into_iter()
        .flat_map(|(_, named)| named)
        .map(str::to_owned)
        .collect();
    let unknown: Vec<_> = named.difference(&tests).collect();
    assert!(unknown.is_empty(), "no such tests: {unknown:#?}");
    let unnamed: Vec<_> = tests.difference(&named).collect();
    assert!(unnamed.is_empty(), "not in the table: {unnamed:#?}");
    assert!(tests.len() > 100, "{}", tests.len());
}
