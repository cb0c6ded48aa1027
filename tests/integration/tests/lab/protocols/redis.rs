//! Redis: real servers whose passwords differ, real clients.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use millrace_integration::number;
use millrace_lab::apps::Redis;
use millrace_lab::{Process, wait_for};

use super::{ADMIN, LIMIT, Stand, assert_whole};

const PORT: u16 = 6379;
const LIVE: &str = "of the live service";
const TARGET: &str = "of the target";

/// A Redis at the live server and one at the target, whose passwords differ.
struct Servers {
    stand: Stand,
    live: Redis,
    target: Redis,
}

impl Servers {
    fn new() -> Option<Self> {
        let mut stand = Stand::new(PORT, "redis")?;
        let start = |host, password| Redis::start_with_password(host, PORT, password).unwrap();
        let live = start(stand.live(), LIVE);
        let target = start(stand.target(), TARGET);
        stand.scene.start_interceptor();
        Some(Self {
            stand,
            live,
            target,
        })
    }

    /// A copier that gives the target this password.
    fn copier(&self, password: &str) -> Process {
        let text = format!("# of the test cluster\ndefault@{password}\n");
        let file = self.stand.secret("accounts", &text);
        self.stand.copier(&["--accounts-file", &file])
    }

    /// So many clients log in and count up, each so often, all at the same time. Half of them name the default user.
    fn count_up(&self, clients: u32, times: u32) {
        let to = self.stand.live_service();
        self.stand
            .client()
            .enter(|| {
                std::thread::scope(|scope| {
                    for n in 0..clients {
                        // Threads are of the namespace of the one that starts them.
                        scope.spawn(move || {
                            let mut client = Client::new(to);
                            match n % 2 {
                                0 => client.says(&["AUTH", LIVE], "+OK\r\n"),
                                _ => client.says(&["AUTH", "default", LIVE], "+OK\r\n"),
                            }
                            for _ in 0..times {
                                client.asks(&["INCR", "count"]);
                            }
                        });
                    }
                });
            })
            .unwrap();
    }

    /// Waits until target and live server agree on a key.
    fn wait_until_equal(&self, key: &str) {
        let ask = |server: &Redis| server.ask(&["GET", key]).unwrap();
        wait_for("the target to have what the live server has", LIMIT, || {
            ask(&self.live) == ask(&self.target)
        })
        .unwrap_or_else(|error| {
            panic!(
                "{error}: {} {} {:#}",
                ask(&self.live),
                ask(&self.target),
                self.stand.report()
            )
        });
    }
}

/// A client of Redis.
struct Client(TcpStream);

impl Client {
    fn new(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    /// Gives the answer's line.
    fn asks(&mut self, words: &[&str]) -> String {
        let mut command = format!("*{}\r\n", words.len());
        for word in words {
            command += &format!("${}\r\n{word}\r\n", word.len());
        }
        self.0.write_all(command.as_bytes()).unwrap();
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte).unwrap();
            line.extend(byte);
        }
        String::from_utf8(line).unwrap()
    }

    fn says(&mut self, words: &[&str], expected: &str) {
        assert_eq!(self.asks(words), expected);
    }
}

#[test]
fn log_ins_bear_the_password_of_the_target() {
    let Some(servers) = Servers::new() else {
        return;
    };
    let stand = &servers.stand;
    let mut copier = servers.copier(TARGET);
    servers.count_up(40, 50);
    servers.wait_until_equal("count");
    // An argument that takes many segments.
    let large = "x".repeat(1 << 20);
    let (to, client) = (stand.live_service(), stand.client());
    client
        .enter(|| {
            let mut client = Client::new(to);
            client.says(&["AUTH", LIVE], "+OK\r\n");
            client.says(&["SET", "large", &large], "+OK\r\n");
        })
        .unwrap();
    servers.wait_until_equal("large");
    let calls = servers.target.ask(&["INFO", "commandstats"]).unwrap();
    let failed = calls
        .lines()
        .filter(|line| !line.contains("failed_calls=0"));
    let failed: Vec<&str> = failed
        .filter(|line| line.contains("failed_calls"))
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
    let report = stand.settled(41);
    assert_whole(&report);
    // Payload comes back for the log-ins alone: each answer to one has five bytes, and what follows it at once may come
    // along.
    let carried = || {
        number(
            &stand.scene.interceptor_status(),
            "/report/returned_payload",
        )
    };
    // What it shows is up to 250 ms old.
    wait_for("all log-ins to be counted", LIMIT, || carried() >= 41 * 5).unwrap();
    assert!(carried() < 41 * 100, "{} bytes", carried());
    let log = copier.log();
    assert!(!log.contains(TARGET) && !log.contains(LIVE), "{log}");
    copier.terminate(LIMIT).unwrap();
}

#[test]
fn a_session_that_began_before_the_copier_logs_in_first() {
    let Some(servers) = Servers::new() else {
        return;
    };
    let stand = &servers.stand;
    let (to, client) = (stand.live_service(), stand.client());
    let mut early = client.enter(|| Client::new(to)).unwrap();
    early.says(&["AUTH", LIVE], "+OK\r\n");
    early.says(&["SET", "early", "0"], "+OK\r\n");
    servers.target.ask(&["SET", "early", "0"]).unwrap();
    let mut copier = servers.copier(TARGET);
    for n in 1..=20 {
        early.says(&["INCR", "early"], &format!(":{n}\r\n"));
        std::thread::sleep(Duration::from_millis(20));
    }
    // What it asked before the copier had seen a turn of it is not copied.
    let last = |server: &Redis| -> u64 {
        let text = server.ask(&["GET", "early"]).unwrap();
        text.trim().parse().unwrap()
    };
    wait_for("the target to count up", LIMIT, || {
        last(&servers.target) >= 18
    })
    .unwrap_or_else(|error| panic!("{error}: {} {:#}", last(&servers.target), stand.report()));
    let report = stand.report();
    assert_eq!(number(&report, "/sessions/midway"), 1, "{report:#}");
    assert_eq!(
        report["replicas"]["aborted"],
        serde_json::json!({}),
        "{report:#}"
    );
    copier.terminate(LIMIT).unwrap();
}

#[test]
fn a_wrong_password_ends_its_replicas_and_no_others() {
    let Some(servers) = Servers::new() else {
        return;
    };
    let stand = &servers.stand;
    let mut copier = stand.copier(&["-u", "default@forgotten,other@too"]);
    // It is not in the list of processes, nor in what the copier was started with.
    let shown = std::fs::read_to_string(format!("/proc/{}/cmdline", copier.pid())).unwrap();
    assert!(shown.contains("--protocol") && !shown.contains("forgotten"));
    let config = stand.live().get(ADMIN.parse().unwrap(), "/config").unwrap();
    assert!(config.1.contains("(hidden)") && !config.1.contains("forgotten"));
    servers.count_up(10, 5);
    // This one does not log in, and its commands are refused as they are at the live server.
    let (to, client) = (stand.live_service(), stand.client());
    client
        .enter(|| {
            let mut client = Client::new(to);
            for _ in 0..5 {
                assert!(client.asks(&["INCR", "other"]).starts_with("-NOAUTH"));
            }
        })
        .unwrap();
    let report = stand.settled(11);
    assert_eq!(
        number(&report, "/replicas/aborted/protocol"),
        10,
        "{report:#}"
    );
    assert_eq!(number(&report, "/replicas/completed"), 1, "{report:#}");
    // No second attempt: the target has heard of each log-in once.
    let calls = servers.target.commands().unwrap();
    let of = |name: &str| {
        let call = calls.iter().find(|(command, _)| command == name);
        call.map_or(0, |(_, calls)| *calls)
    };
    assert_eq!(of("auth"), 10 + 1, "and one of who asks: {calls:?}");
    copier.terminate(LIMIT).unwrap();
}
