//! Hosts that are broken on purpose: the check that is for it says so and no other, and passes once that is mended.
//!
//! - `copier`, `interceptor`, `target`: what only hosts of this daemon can lack.
//! - `hosts`: what any host can lack: rights, memory, a kernel, room on its disks.
//! - `certificates`: those of each daemon.

mod certificates;
mod copier;
mod hosts;
mod interceptor;
mod target;

use std::path::Path;
use std::time::{Duration, Instant};

use millrace_integration::binary;
use millrace_lab::Host;
use serde_json::Value;

/// What a check that is not content says: how bad it is, its name, and what is next; where its words say that themselves,
/// these.
type Named = (String, String, String);

/// The checks of a daemon with these arguments that are not content; all of them take less than two seconds.
fn named(host: &Host, program: &str, arguments: &[&str]) -> Vec<Named> {
    named_by(host, &[], program, arguments)
}

/// The same of a daemon that another program starts.
fn named_by(host: &Host, by: &[&str], program: &str, arguments: &[&str]) -> Vec<Named> {
    let program = binary(program).display().to_string();
    let line = [by, &[&program], arguments].concat();
    let began = Instant::now();
    let output = host.run(Path::new(line[0]), &line[1..]).unwrap();
    let took = began.elapsed();
    let said = String::from_utf8_lossy(&output.stdout);
    let all: Vec<Value> = serde_json::from_str(&said)
        .unwrap_or_else(|_| panic!("{said}{}", String::from_utf8_lossy(&output.stderr)));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    // A check that must wait for another one's cure names nothing.
    let named: Vec<Named> = all
        .iter()
        .filter(|it| it["level"] != "ok" && !text(&it["found"]).starts_with("not known"))
        .map(|it| {
            let (found, next) = (text(&it["found"]), text(&it["next"]));
            let next = if next.is_empty() { found } else { next };
            (text(&it["level"]), text(&it["name"]), next)
        })
        .collect();
    let failed = named.iter().any(|(level, ..)| level == "failure");
    assert_eq!(output.status.code(), Some(i32::from(failed)), "{said}");
    // Checks wait for others at most so long, all at once; the rest is room for a busy machine.
    assert!(took < Duration::from_secs(20), "{took:?}: {said}");
    named
}

/// The checks that are named are these, and the first says so next.
fn assert_named(found: &[Named], wanted: &[(&str, &str)], next: &str) {
    let names: Vec<(&str, &str)> = found
        .iter()
        .map(|(level, name, _)| (level.as_str(), name.as_str()))
        .collect();
    assert_eq!(names, wanted, "{found:?}");
    assert!(found[0].2.contains(next), "{found:?}");
}

/// Runs the command of what is next: the whole, or what stands between backticks, or from `sysctl` on.
fn mend(host: &Host, next: &str) {
    let mut quoted = next.split('`').skip(1).step_by(2);
    let quoted = quoted.find(|it| {
        ["ip ", "sysctl -w "]
            .iter()
            .any(|word| it.starts_with(word))
    });
    let bare = next.find("sysctl -w ").map(|at| &next[at..]);
    let bare = bare.and_then(|it| it.split(';').next());
    let command = quoted.or(bare).unwrap_or(next);
    host.check("sh", &["-c", command]).unwrap();
}
