//! Command lines as people write them: wrong ones are answered by one line that says what to change,
//! old ones are understood.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    unused_crate_dependencies
)]

use std::process::{Command, Output};

const COPIER: &str = env!("CARGO_BIN_EXE_millrace-copier");
/// What a right command line has.
const RIGHT: &str = "-x 80-198.18.2.20:8080 -s 198.18.2.30 --insecure";

fn run(words: &[&str]) -> Output {
    Command::new(COPIER)
        .args(words)
        .env_clear()
        .output()
        .unwrap()
}

fn check(line: &str) -> Output {
    let words: Vec<&str> = line.split_whitespace().collect();
    run(&[&["check-config"], words.as_slice()].concat())
}

/// Wrong additions to a right command line, and what the answer must say.
const WRONG: &[(&str, &str)] = &[
    // How much.
    ("-n 0", "1..=1023"),
    ("-n 2000", "1..=1023"),
    ("-n 3 --intensity 0.2", "--intensity 0.6"),
    ("-r abc", "percentage of at most 100"),
    ("-r 0", "--intensity 0"),
    ("-r 120", "--intensity or -n"),
    ("--intensity -1", "from 0 to 1023"),
    ("--intensity lots", "such as 0.2 or 2.5"),
    ("--intensity 5000", "from 0 to 1023"),
    (
        "--ramp 10%..100%",
        "at character 10: expected '/' and a time",
    ),
    ("--ramp 10%,hold", "at character 9: expected ':'"),
    ("--ramp fast", "at character 1: 'fast' is not an intensity"),
    ("--ramp 10%..100%/5", "'5' is not a time"),
    ("--ramp 100%/1m -n 3", "end the ramp with that level"),
    ("--ramp 100%/1m -g", "leave out -g or --ramp"),
    ("--guard latency-p99>3x", "METRIC>LIMIT:ACTION"),
    (
        "--guard cpu>50%:stop",
        "connect-failures, resets, unanswered",
    ),
    ("--guard resets>5:stop", "write a percentage"),
    ("--guard latency-p99>3x:panic", "hold, step-back or stop"),
    ("--guard-window 5", "is not a time"),
    // Which addresses.
    ("-f 1024", "0 to 1023"),
    ("-f 4/4", "K below N"),
    ("-c 198.18.1.5/24", "write 198.18.1.0/24"),
    ("-c 198.18.1.9-198.18.1.1", "write 198.18.1.1-198.18.1.9"),
    ("-c 2001:db8::/64", "add IPv4 addresses"),
    ("-H localhost", "not an IP address"),
    // Limits.
    ("--max-bandwidth 100Mbit", "100M"),
    ("--max-new-sessions 0", "--max-new-sessions"),
    ("-m 0", "1..=1048576"),
    ("-M 100", "576..=65535"),
    ("-t soon", "-t"),
    // What is not there.
    ("-u root@secret", "no module uses accounts"),
    ("-a 10", "name one with -i FILE"),
    ("-d -i -", "there is no standard input"),
    ("--no-such-option", "--no-such-option"),
    ("extra", "extra"),
    ("--admin here", "--admin"),
];

/// Wrong command lines as a whole.
const WRONG_ALTOGETHER: &[(&str, &str)] = &[
    ("-s 198.18.2.30 --insecure", "missing: -x"),
    ("-x 80-198.18.2.20:8080 --insecure", "missing: -s"),
    ("-x 80-8080 -s h --insecure", "write ip:8080"),
    ("-x 80 -s h --insecure", "80-198.18.0.9:8080"),
    ("-x 80-target.example:80 -s h --insecure", "host names"),
    ("-x 80-198.18.2.20 -s h --insecure", "write 198.18.2.20:80"),
    ("-x 80-198.18.2.20:0 -s h --insecure", "1 to 65535"),
    (
        "-x 80-127.0.0.1:80 -s h --insecure",
        "itself the live service",
    ),
    ("-x 80-198.18.2.20:8080 -s h:99999 --insecure", "1 to 65535"),
    ("-x 80-198.18.2.20:8080 -s , --insecure", "write host:port"),
    ("-x 80-198.18.2.20:8080 -s h", "--insecure"),
];

/// Wrong additions to a right command line that replays a file from one host, and what the answer
/// must say.
const WRONG_LOCALLY: &[(&str, &str)] = &[
    ("-s 198.18.2.30", "--interceptors"),
    ("--router-agent 127.0.0.1:1", "--router-agent"),
    ("-C 2", "--connections"),
    ("-p 36524", "--port"),
    ("-H 198.18.1.9", "--loopback-client"),
    ("--id me", "--id"),
    ("--no-probe", "--no-probe"),
    ("--nat", "--nat"),
    ("--ca ca.pem", "--ca"),
    ("--cert cert.pem", "--cert"),
    ("--key key.pem", "--key"),
    ("-B 64", "leave it out to replay a file"),
    ("-S 65599", "leave it out to replay a file"),
    ("-F tcp", "tcpdump -r FILE"),
    ("--local-net 2001:db8::/64", "--local-net holds no address"),
];

#[test]
fn wrong_command_lines_are_answered_by_one_line_that_says_what_to_change() {
    let added = WRONG
        .iter()
        .map(|(wrong, says)| (format!("{RIGHT} {wrong}"), *says));
    let whole = WRONG_ALTOGETHER
        .iter()
        .map(|(line, says)| ((*line).to_owned(), *says));
    // Any file will do: nothing is read before the options are right.
    let local = "-x 80-127.0.0.1:8080 -i Cargo.toml --local";
    let local = WRONG_LOCALLY
        .iter()
        .map(|(wrong, says)| (format!("{local} {wrong}"), *says));
    let with_file = [("-B 64", "leave it out"), ("-S 65599", "leave it out")]
        .map(|(wrong, says)| (format!("{RIGHT} -i Cargo.toml {wrong}"), says));
    let mut failures = Vec::new();
    for (line, says) in added.chain(whole).chain(local).chain(with_file) {
        let words: Vec<&str> = line.split_whitespace().collect();
        // The daemon itself and check-config say the same.
        for command in [&[][..], &["check-config"]] {
            let output = run(&[command, words.as_slice()].concat());
            let error = String::from_utf8(output.stderr).unwrap();
            let good = output.status.code() == Some(64)
                && error.lines().count() == 1
                && error.starts_with("millrace-copier: ")
                && error.contains(says)
                && output.stdout.is_empty();
            if !good {
                failures.push(format!(
                    "{command:?} {line}: {:?} {error}",
                    output.status.code()
                ));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(WRONG.len() + WRONG_ALTOGETHER.len() >= 30);
}

/// TCPCopy's command lines, in their old forms.
#[test]
fn old_command_lines_are_understood() {
    for line in [
        "-x80-198.18.2.20:8080 -s198.18.2.30 --insecure",
        "-x 80-198.18.2.20:8080 -s 198.18.2.30:36524 -c 198.18.9.x --insecure",
        "-x 80-198.18.2.20:8080,81-198.18.2.20:8081 -s 198.18.2.30,198.18.2.31 -C2 --insecure",
        "-x 80-198.18.2.20:8080 -s 198.18.2.30 -n3 -f1 -m 1024 -M1400 -D 1300 --insecure",
        "-x 80-198.18.2.20:8080 -s 198.18.2.30 -r 20 -LWO -t60 -k 300 --insecure",
        "-x 80-198.18.2.20:8080 -s 198.18.2.30 -g -R 100 -B 16 -S 4096 --insecure",
        "-x 80-198.18.2.20:8080 -s 198.18.2.30 -p 36525 -H 198.18.1.9 -d -l log -P pid --insecure",
        "-x 80-198.18.2.20:8080 -s 198.18.2.30 -o lo -i lo --insecure",
        "-x 80-198.18.2.20:80@02:00:5e:10:00:02 -s 198.18.2.30 -o lo --insecure",
    ] {
        let output = check(line);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{line}: {error}");
    }
}

#[test]
fn frames_bear_no_mac_address_but_the_devices_own() {
    let output = check(
        "-x 80@02:00:5e:10:00:01-198.18.2.20:80@02:00:5e:10:00:02 -s 198.18.2.30 -o lo --insecure",
    );
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64), "{error}");
    assert!(
        error.contains("02:00:5e:10:00:01 is not the MAC address of lo"),
        "{error}"
    );
}

#[test]
fn check_config_explains_in_words_and_does_nothing() {
    let explained = |more: &str| {
        let output = check(&format!("{RIGHT} {more}"));
        assert!(output.status.success(), "{more}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    for (more, says) in [
        (
            "",
            "connections of clients to port 80 of any address of this host go to 198.18.2.20:8080 too",
        ),
        ("", "every session once"),
        ("", "--insecure: whoever"),
        ("-r 20", "20% of the sessions, always the same ones"),
        ("-n 3", "every session 3 times"),
        (
            "-r 20 -n 3",
            "20% of the sessions, always the same ones, each of them 3 times",
        ),
        ("-n 3", "more than the live traffic without a guard"),
        (
            "--intensity 2.5",
            "every session 2 times, and 50% of the sessions once more",
        ),
        ("-g", "from 0% to 100% within 100s"),
        (
            "--ramp 10%..100%/5m,hold:10m,300%",
            "from 15m: every session 3 times",
        ),
        (
            "--guard resets>5%:stop",
            "when resets>5%: nothing more is copied until you say so",
        ),
        (
            "-c 198.18.9.1-198.18.9.10 -f 1/2",
            "share 1 of 2 of the client pool: 5 IPv4 addresses",
        ),
        (
            "-f 7",
            "for each client address and target, 63 of them from the share",
        ),
        ("-f 7/1024", "write K/N with as many shares"),
        ("-W", "in another order than clients would send them"),
        ("-L", "-L is not needed"),
        ("-o lo", "at the link layer from lo"),
        (
            "--max-open 100 --max-bandwidth 10M",
            "at most 10000000 bytes of payload a second",
        ),
        (
            "--otlp-endpoint http://198.18.2.41",
            "a span for each turn of 1% of the sessions goes to http://198.18.2.41:4317/, with no client addresses",
        ),
        (
            "--otlp-endpoint http://198.18.2.41 --otlp-clients plain",
            "client addresses go through the network unencrypted",
        ),
        ("--admin 0.0.0.0:0", "whoever reaches it sees figures"),
    ] {
        let text = explained(more);
        assert!(text.contains(says), "{more}: {text}");
    }
    // Not even the files of the options are touched.
    let directory = std::env::temp_dir().join(format!("millrace-check-{}", std::process::id()));
    let file = directory.join("pid").display().to_string();
    explained(&format!("-P {file} -l {file}.log --report {file}.json -d"));
    assert!(!directory.exists());
}

#[test]
fn help_names_the_commands() {
    let help = String::from_utf8(run(&["--help"]).stdout).unwrap();
    for command in ["check-config", "ctl", "record"] {
        assert!(help.contains(command), "{command}");
    }
    let wrong = run(&["chekc-config"]);
    assert_eq!(wrong.status.code(), Some(64));
    assert_eq!(String::from_utf8(wrong.stderr).unwrap().lines().count(), 1);
}
