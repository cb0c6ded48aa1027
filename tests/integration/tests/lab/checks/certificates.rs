//! Certificates that end soon, have ended, have not begun by this host's clock, or are another daemon's.

use millrace_certificates::Certificates;
use millrace_integration::{HTTP, INTERCEPTOR_PORT, Scene, binary, can_run};
use millrace_lab::{Host, StageOptions};

use super::{Named, assert_named, named_by};
use crate::mistakes::clock_of;

/// Two days, in seconds.
const TWO_DAYS: i64 = 2 * 86_400;

/// A scene whose daemons have certificates.
struct Certified {
    scene: Scene,
    certificates: Certificates,
}

impl Certified {
    fn new() -> Self {
        let mut scene = Scene::new(StageOptions::default());
        let at = scene.stage.target.host.file("pki");
        let open = || Certificates::open(&at, "example.test").unwrap();
        let certificates = open();
        for role in ["copier", "interceptor", "router-agent"] {
            certificates.renew(role, 30).unwrap();
        }
        scene.certificates = Some(open());
        scene.start_interceptor();
        Self {
            scene,
            certificates,
        }
    }

    /// Host, program and arguments of a daemon.
    fn line(&self, role: &str) -> (&Host, String, Vec<String>) {
        let stage = &self.scene.stage;
        let files = self.certificates.files(role);
        let mut all = vec![
            format!("--ca={}", self.certificates.ca().display()),
            format!("--cert={}", files.cert.display()),
            format!("--key={}", files.key.display()),
        ];
        let own = |words: &[&str]| words.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let command = own(&["check", "--json"]);
        let host = match role {
            "copier" => {
                let service = format!("{HTTP}-{}:{HTTP}", stage.target.address.v4);
                let interceptor = format!("{}:{INTERCEPTOR_PORT}", stage.assistant.address.v4);
                all.extend(own(&[
                    "-x",
                    &service,
                    "-s",
                    &interceptor,
                    "-c",
                    "198.18.9.0/24",
                ]));
                &stage.live[0].host
            }
            _ => {
                all.extend(own(&["-b", &stage.target.address.v4.to_string()]));
                &stage.target.host
            }
        };
        let line = match role {
            "router-agent" => {
                let state = host.file("state").display().to_string();
                all.extend(own(&["--state-dir", &state]));
                [all, command].concat()
            }
            _ => [command, all].concat(),
        };
        (host, format!("millrace-{role}"), line)
    }

    fn check(&self, by: &[&str], role: &str) -> Vec<Named> {
        let (host, program, line) = self.line(role);
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        let found = named_by(host, by, &program, &line);
        // Of an agent nothing is asked here.
        let is_skipped = |it: &Named| it.0 == "skipped";
        found.into_iter().filter(|it| !is_skipped(it)).collect()
    }

    /// What is said of one that cannot be used at all.
    fn refusal(&self, role: &str) -> String {
        let (host, program, line) = self.line(role);
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        let output = host.run(binary(&program), &line).unwrap();
        assert_ne!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }
}

#[test]
fn a_certificate_that_cannot_be_used_or_ends_soon_is_named_alone() {
    if !can_run() {
        return;
    }
    let all = Certified::new();
    let skew = format!("MILLRACE_TEST_SKEW=-{TWO_DAYS}");
    let preload = format!("LD_PRELOAD={}", clock_of(&all.scene.stage.live[0].host));
    for role in ["copier", "interceptor", "router-agent"] {
        assert_eq!(all.check(&["env"], role), [], "{role}");
        // A clock that is slow; the cure sets it.
        let found = all.check(&["env", &preload, &skew], role);
        assert_named(
            &found,
            &[("failure", "certificate")],
            "set this host's clock (`date -u`)",
        );

        all.certificates.renew(role, 5).unwrap();
        let found = all.check(&["env"], role);
        assert_named(&found, &[("warning", "certificate")], "renew it");
        all.certificates.renew(role, -1).unwrap();
        let said = all.refusal(role);
        assert!(
            said.contains("expired at") && said.contains("renew it"),
            "{said}"
        );
        all.certificates.renew(role, 30).unwrap();
        assert_eq!(all.check(&["env"], role), [], "{role}: renewed");

        let other = if role == "copier" {
            "interceptor"
        } else {
            "copier"
        };
        let [own, other] = [role, other].map(|role| all.certificates.files(role));
        std::fs::copy(other.cert, own.cert).unwrap();
        std::fs::copy(other.key, own.key).unwrap();
        let said = all.refusal(role);
        let cure = format!("give a certificate for spiffe://example.test/millrace/{role}");
        assert!(said.contains(&cure), "{said}");
        all.certificates.renew(role, 30).unwrap();
    }
}
