//! Mutual TLS, rotation and privileges, on the whole system and under load.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::PathBuf;
use std::time::Duration;

use millrace_certificates::Certificates;
use millrace_integration::{Family, HTTP, INTERCEPTOR_PORT, Scene, can_run, number};
use millrace_lab::load::{Kind, Load, Summary};
use millrace_lab::{Process, StageOptions, wait_for};
use rustix::process::Signal;

/// Certificates in a directory of their own, removed at the end.
struct Pki(PathBuf);

impl Pki {
    fn new(name: &str) -> (Self, Certificates) {
        let dir = std::env::temp_dir().join(format!("millrace-{name}-{}", std::process::id()));
        let certificates = Certificates::open(&dir, "example.test").unwrap();
        let pki = Pki(dir);
        issue(&certificates);
        (pki, certificates)
    }
}

impl Drop for Pki {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn issue(certificates: &Certificates) {
    for path in ["copier", "interceptor"] {
        certificates.renew(path, 30).unwrap();
    }
}

/// New sessions and sessions that stay, of both families.
fn mixed_load(
    scene: &Scene,
    seconds: u64,
) -> Vec<std::thread::JoinHandle<millrace_lab::Result<Summary>>> {
    let client = &scene.stage.client().unwrap().host;
    let lasting = Duration::from_secs(seconds);
    let path = "/bytes/300".to_owned();
    Family::BOTH
        .into_iter()
        .flat_map(|family| {
            let to = scene.live_service(0, family, HTTP);
            let from = scene.client_addresses(family);
            [
                Kind::OneRequest {
                    count: 100 * seconds,
                    rate: Some(100.0),
                    path: path.clone(),
                },
                Kind::KeepAlive {
                    lasting,
                    pause: Duration::from_millis(5),
                    path: path.clone(),
                },
            ]
            .map(|kind| Load::new(kind, to).from(&from).concurrency(6))
        })
        .map(|load| client.start(move || load.run()))
        .collect()
}

fn join(loads: Vec<std::thread::JoinHandle<millrace_lab::Result<Summary>>>) {
    for load in loads {
        assert_eq!(load.join().unwrap().unwrap().errors, 0);
    }
}

/// Everything on the port between copier and interceptor, as tcpdump saw it there.
struct Tap {
    process: Process,
    file: PathBuf,
}

impl Tap {
    fn start(scene: &Scene) -> Self {
        let host = &scene.stage.assistant.host;
        let file = host.file("port.pcap");
        let shown = file.display().to_string();
        let port = INTERCEPTOR_PORT.to_string();
        let arguments = [
            "-i", "eth0", "-U", "-s", "0", "-Z", "root", "-w", &shown, "tcp", "port", &port,
        ];
        let program = millrace_lab::find_program("tcpdump").unwrap();
        let process = host
            .spawn(program, &arguments, &[], &host.file("tcpdump.log"))
            .unwrap();
        wait_for("tcpdump to listen", Duration::from_secs(10), || {
            process.log().contains("listening on")
        })
        .unwrap();
        Tap { process, file }
    }

    fn stop(mut self) -> Vec<u8> {
        self.process.terminate(Duration::from_secs(10)).unwrap();
        fs::read(&self.file).unwrap()
    }
}

fn occurrences(haystack: &[u8], needle: &[u8]) -> usize {
    haystack
        .windows(needle.len())
        .filter(|it| *it == needle)
        .count()
}

/// How often client addresses stand in the bytes: as the protocol packs them, and as text.
fn client_addresses_in(bytes: &[u8], clients: &[IpAddr]) -> Vec<usize> {
    clients
        .iter()
        .map(|address| {
            let packed = match address {
                IpAddr::V4(it) => occurrences(bytes, &it.octets()),
                IpAddr::V6(it) => occurrences(bytes, &it.octets()),
            };
            packed + occurrences(bytes, address.to_string().as_bytes())
        })
        .collect()
}

/// Runs sessions of both families; gives what went over the port, and the clients' addresses.
fn copy_and_listen(certificates: Option<Certificates>) -> (Vec<u8>, Vec<IpAddr>) {
    let mut scene = Scene::new(StageOptions::default());
    scene.certificates = certificates;
    scene.start_interceptor();
    let tap = Tap::start(&scene);
    scene.start_copier(0, &[]);
    join(mixed_load(&scene, 3));
    scene.settle(Duration::from_secs(60));
    let clients = Family::BOTH
        .into_iter()
        .flat_map(|family| scene.client_addresses(family))
        .collect();
    let seen = tap.stop();
    scene.finish_exact(Duration::from_secs(60));
    (seen, clients)
}

#[test]
fn the_port_shows_client_addresses_in_plain_text_and_not_with_tls() {
    if !can_run() {
        return;
    }
    let (plain, clients) = copy_and_listen(None);
    let seen = client_addresses_in(&plain, &clients);
    assert!(
        seen.iter().all(|count| *count > 20),
        "{seen:?}: would be found if it were there"
    );

    let (_pki, certificates) = Pki::new("port");
    let (sealed, clients) = copy_and_listen(Some(certificates));
    assert!(
        sealed.len() > plain.len() / 2,
        "{} of {}",
        sealed.len(),
        plain.len()
    );
    let seen = client_addresses_in(&sealed, &clients);
    // Four given bytes stand in a megabyte of random ones every 4,000 runs.
    assert!(seen.iter().all(|count| *count < 3), "{seen:?}");
}

#[test]
fn certificates_and_their_ca_rotate_under_load_without_a_lost_session() {
    if !can_run() {
        return;
    }
    let (_pki, certificates) = Pki::new("rotate");
    let mut scene = Scene::new(StageOptions::default());
    scene.certificates = Some(certificates);
    scene.start_interceptor();
    scene.start_copier(0, &[]);
    let loads = mixed_load(&scene, 24);

    // As docs/security.md says: first the new CA beside the old one, then new certificates, then
    // the old CA goes.
    for step in 0..3 {
        let certificates = scene.certificates.as_mut().unwrap();
        match step {
            0 => certificates.renew_ca().unwrap(),
            1 => issue(certificates),
            _ => certificates.forget_old_cas().unwrap(),
        }
        wait_for("new certificates in use", Duration::from_secs(15), || {
            [scene.status(0), scene.interceptor_status()]
                .iter()
                .all(|status| {
                    number(status, "/certificate/reloads") > step
                        && status["certificate"]["last_error"] == ""
                })
        })
        .unwrap();
    }
    // No stream was dropped for it.
    let status = scene.status(0);
    assert_eq!(number(&status, "/interceptors/0/attempts"), 1, "{status:#}");
    // And who comes back comes back with the new ones.
    scene.interceptor.take().unwrap().kill().unwrap();
    scene.start_interceptor();
    join(loads);
    let status = scene.status(0);
    assert_eq!(status["interceptors"][0]["connected"], true, "{status:#}");
    scene.finish_exact(Duration::from_secs(60));
}

/// Ids of all threads, by the fields of /proc/PID/task/*/status.
fn of_all_threads(process: &Process, field: &str) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", process.pid())).unwrap();
    tasks
        .map(|task| {
            let text = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
            let line = text.lines().find(|it| it.starts_with(field)).unwrap();
            let words = line.split_whitespace().skip(1);
            words.collect::<Vec<_>>().join(" ")
        })
        .collect()
}

#[test]
fn as_nobody_the_daemons_copy_rotate_logs_and_report() {
    if !can_run() {
        return;
    }
    let (pki, certificates) = Pki::new("nobody");
    let mut scene = Scene::new(StageOptions::default());
    let nobody = 65_534;
    // What docs/security.md asks for: keys that the user may read, a directory for its logs.
    let own = |path: &std::path::Path| chown(path, Some(nobody), Some(nobody)).unwrap();
    for path in ["copier", "interceptor"] {
        own(&certificates.files(path).key);
    }
    let logs = pki.0.join("log");
    fs::create_dir(&logs).unwrap();
    own(&logs);
    let work = scene.stage.live().unwrap().host.file("x");
    for dir in work
        .ancestors()
        .skip(1)
        .take_while(|it| *it != std::env::temp_dir())
    {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let log = |name: &str| logs.join(name).display().to_string();
    let (copier_log, interceptor_log) = (log("copier.log"), log("interceptor.log"));

    scene.certificates = Some(certificates);
    scene.interceptor_arguments = ["--user", "nobody", "-l", &interceptor_log]
        .map(str::to_owned)
        .to_vec();
    scene.start_interceptor();
    scene.start_copier(0, &["--user", "nobody", "-l", &copier_log]);
    let loads = mixed_load(&scene, 4);
    for process in [&scene.copiers[0], scene.interceptor.as_ref().unwrap()] {
        let ids = format!("{nobody} {nobody} {nobody} {nobody}");
        let users = of_all_threads(process, "Uid:");
        assert!(
            users.len() > 2 && users.iter().all(|it| *it == ids),
            "{users:?}"
        );
        // CAP_NET_RAW alone.
        for field in ["CapEff:", "CapPrm:", "CapBnd:"] {
            let sets = of_all_threads(process, field);
            assert!(
                sets.iter().all(|it| it == "0000000000002000"),
                "{field} {sets:?}"
            );
        }
        let flags = of_all_threads(process, "NoNewPrivs:");
        assert!(flags.iter().all(|it| it == "1"), "{flags:?}");
    }
    let status = scene.status(0);
    assert_eq!(
        number(&status, "/privileges/uid"),
        u64::from(nobody),
        "{status:#}"
    );
    assert_eq!(status["privileges"]["capabilities"][0], "CAP_NET_RAW");

    // Rotation of the log, and of the certificate, as this user.
    fs::rename(&copier_log, logs.join("copier.log.1")).unwrap();
    scene.copiers[0].signal(Signal::HUP).unwrap();
    wait_for("a fresh log", Duration::from_secs(10), || {
        fs::read_to_string(&copier_log).is_ok_and(|it| it.contains("reopened"))
    })
    .unwrap();
    let certificates = scene.certificates.as_ref().unwrap();
    let files = certificates.renew("copier", 30).unwrap();
    own(&files.key);
    wait_for(
        "the new certificate in use",
        Duration::from_secs(15),
        || number(&scene.status(0), "/certificate/reloads") > 0,
    )
    .unwrap();
    join(loads);
    // It demands the report, too, which the copier wrote at its end.
    scene.finish_exact(Duration::from_secs(60));
}
