//! MySQL: real MariaDB servers whose passwords and statement ids differ, real clients.

use std::time::Duration;

use millrace_certificates::Certificates;
use millrace_integration::number;
use millrace_lab::apps::{Asked, MariaDb};
use millrace_lab::{Host, Process, wait_for};
use serde_json::Value;

use super::{LIMIT, Stand, assert_whole};

const PORT: u16 = 3306;
const LIVE: &str = "of-the-live-service";
const TARGET: &str = "of-the-target";
const SHA2_SERVER: &str = include_str!("sha2_server.py");

/// A MariaDB at the live server and one at the target.
struct Servers {
    live: MariaDb,
    target: MariaDb,
    stand: Stand,
}

impl Servers {
    /// With these further options of the live server.
    fn new(live_options: &[&str]) -> Option<Self> {
        let mut stand = Stand::new(PORT, "mysql")?;
        let accounts = |password: &str| {
            format!(
                "CREATE DATABASE shop; CREATE DATABASE store;
                 CREATE USER app IDENTIFIED BY '{password}'; CREATE USER web IDENTIFIED BY '{password}';
                 CREATE USER open; GRANT ALL ON *.* TO app, web, open;"
            )
        };
        // Statements of the target have other numbers: each session has prepared one before its client does.
        let prepares = "--init-connect=PREPARE ahead FROM 'SELECT 1'";
        let grants = "REVOKE SUPER, CONNECTION ADMIN ON *.* FROM app, web, open";
        let live = format!("{}{grants}", accounts(LIVE));
        let live = MariaDb::start(stand.live(), PORT, live_options, &live).unwrap();
        let target = format!("{}{grants}", accounts(TARGET));
        let target = MariaDb::start(stand.target(), PORT, &["--server-id=2", prepares], &target);
        stand.scene.start_interceptor();
        Some(Self {
            live,
            target: target.unwrap(),
            stand,
        })
    }

    /// A copier that knows these accounts of the target.
    fn copier(&self, accounts: &str, more: &[&str]) -> Process {
        let file = self.stand.secret("accounts", accounts);
        let more = [&["--accounts-file", &file][..], more].concat();
        self.stand.copier(&more)
    }

    /// What the command line client prints, as a user of the live service.
    fn says(&self, user: &str, options: &[&str], statements: &str) -> String {
        let host = format!("-h{}", self.stand.live_service().ip());
        let password = format!("-p{LIVE}");
        let login = match user {
            "open" => vec![],
            _ => vec![password.as_str()],
        };
        let usual = ["--no-defaults", &host, "-u", user, "-N", "-B"];
        let all = [&usual[..], &login, options, &["-e", statements]].concat();
        self.stand.client().check("mariadb", &all).unwrap()
    }

    fn sysbench(&self, more: &[&str]) {
        let host = format!("--mysql-host={}", self.stand.live_service().ip());
        let password = format!("--mysql-password={LIVE}");
        let usual = [
            "--db-driver=mysql",
            &host,
            "--mysql-user=app",
            &password,
            "--mysql-db=shop",
            "--tables=2",
            "--table-size=500",
            "--rand-seed=7",
            "oltp_read_write",
        ];
        let all = [&usual[..], more].concat();
        self.stand.client().check("sysbench", &all).unwrap();
    }

    /// Waits until the target was asked the same, session by session.
    fn assert_asked_alike(&self) {
        let both = || {
            let of = |server: &MariaDb| {
                let mut all = Vec::new();
                for user in ["app", "web", "open"] {
                    all.extend(server.asked_by(user).unwrap().into_iter().map(plain));
                }
                all.sort();
                all
            };
            (of(&self.live), of(&self.target))
        };
        let alike = wait_for("the target to be asked the same", LIMIT, || {
            let (live, target) = both();
            live == target
        });
        if alike.is_err() {
            let (live, target) = both();
            let first = live
                .iter()
                .zip(&target)
                .find(|(live, target)| live != target);
            panic!(
                "{} and {} sessions, the first that differ: {first:?}, {}",
                live.len(),
                target.len(),
                self.stand.log()
            );
        }
    }

    fn checksums(&self, tables: &str) -> (String, String) {
        let ask = |server: &MariaDb| server.ask(&format!("CHECKSUM TABLE {tables}")).unwrap();
        (ask(&self.live), ask(&self.target))
    }
}

/// What a session asked, without what the target's own set-up says.
fn plain(asked: Asked) -> Asked {
    let is_own = |(command, text): &(String, String)| {
        text.starts_with("PREPARE ahead") || (command == "Prepare" && text == "SELECT 1")
    };
    asked.into_iter().filter(|entry| !is_own(entry)).collect()
}

fn both_accounts() -> String {
    format!("app@{TARGET}\nweb@{TARGET}\nopen@\n")
}

#[test]
fn every_session_logs_in_at_the_target_and_asks_the_same() {
    let Some(servers) = Servers::new(&[]) else {
        return;
    };
    let mut copier = servers.copier(&both_accounts(), &[]);
    servers.says(
        "app",
        &["shop"],
        "CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, word TEXT);
         INSERT INTO t (word) VALUES ('a'), ('b'); USE store; SELECT 1; USE shop;
         SELECT COUNT(*) FROM t; BEGIN; DELETE FROM t; ROLLBACK",
    );
    servers.says("open", &[], "SELECT CURRENT_USER()");
    servers.sysbench(&["prepare"]);
    for prepared in ["--db-ps-mode=auto", "--db-ps-mode=disable"] {
        // Sessions are copied each by itself, so that what follows at once on the live server may come first at the target.
        servers.assert_asked_alike();
        servers.sysbench(&["--threads=1", "--events=60", "--time=0", prepared, "run"]);
    }
    servers.assert_asked_alike();
    let (live, target) = servers.checksums("shop.t, shop.sbtest1, shop.sbtest2");
    assert_eq!(live, target);
    for prepared in ["--db-ps-mode=auto", "--db-ps-mode=disable"] {
        servers.sysbench(&["--threads=8", "--events=200", "--time=0", prepared, "run"]);
    }
    python(&servers, LIVE);
    servers.assert_asked_alike();
    let sessions = servers.live.asked_by("app").unwrap().len()
        + servers.live.asked_by("web").unwrap().len()
        + servers.live.asked_by("open").unwrap().len();
    let report = servers.stand.settled(sessions as u64);
    assert_whole(&report);
    let log = copier.log();
    assert!(!log.contains(TARGET) && !log.contains(LIVE), "{log}");
    copier.terminate(LIMIT).unwrap();
}

/// A connector written in Python: another user, another database, changed in the middle, prepared by the text protocol.
fn python(servers: &Servers, password: &str) {
    let host = servers.stand.live_service().ip();
    let program = format!(
        "import pymysql\n\
         for n in range(20):\n\
         \x20   c = pymysql.connect(host='{host}', user='web', password='{password}', database='shop', charset='utf8mb4')\n\
         \x20   k = c.cursor()\n\
         \x20   k.execute('SELECT %s, COUNT(*) FROM t', (n,))\n\
         \x20   c.select_db('store')\n\
         \x20   c.ping()\n\
         \x20   k.execute('SELECT REPEAT(\\'x\\', 300000)')\n\
         \x20   assert len(k.fetchone()[0]) == 300000\n\
         \x20   k.execute('SELECT LENGTH(%s)', ('y' * 500000,))\n\
         \x20   assert k.fetchone()[0] == 500000\n\
         \x20   c.close()\n"
    );
    let client = servers.stand.client();
    client.check("/usr/bin/python3", &["-c", &program]).unwrap();
}

/// MySQL 8 is in no registry that tests reach: a server written from its documentation stands at both ends, and a real client
/// talks to it.
#[test]
fn log_ins_by_caching_sha2_are_made_anew_by_their_full_and_their_fast_path() {
    let Some(mut stand) = Stand::new(PORT, "mysql") else {
        return;
    };
    let start = |host: &Host, password: &str| {
        let (file, port) = (host.file("asked").display().to_string(), PORT.to_string());
        let arguments = ["-c", SHA2_SERVER, &port, "app", password, &file];
        let log = host.file("server.log");
        let process = host.spawn("/usr/bin/python3", &arguments, &[], &log);
        host.wait_listening(&[PORT], LIMIT).unwrap();
        process.unwrap()
    };
    let _servers = [start(stand.live(), LIVE), start(stand.target(), TARGET)];
    stand.scene.start_interceptor();
    let file = stand.secret("accounts", &format!("app@{TARGET}\n"));
    let mut copier = stand.copier(&["--accounts-file", &file]);
    let program = format!(
        "import pymysql\n\
         for n in range(10):\n\
         \x20   c = pymysql.connect(host='{}', user='app', password='{LIVE}', autocommit=None)\n\
         \x20   for k in range(5): c.query(f'statement {{n}} {{k}}')\n\
         \x20   c.close()\n",
        stand.live_service().ip()
    );
    let client = stand.client();
    client.check("/usr/bin/python3", &["-c", &program]).unwrap();
    let report = stand.settled(10);
    assert_whole(&report);
    let asked = |host: &Host| {
        let text = std::fs::read_to_string(host.file("asked")).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let (live, target) = (asked(stand.live()), asked(stand.target()));
    let count = |lines: &[String], what: &str| lines.iter().filter(|it| *it == what).count();
    assert_eq!((count(&live, "full"), count(&live, "fast")), (1, 9));
    assert_eq!(count(&target, "refused"), 0, "{target:?}");
    assert!(count(&target, "full") >= 1 && count(&target, "fast") >= 1);
    let statements = |lines: &[String]| -> Vec<String> {
        let all = lines
            .iter()
            .filter(|it| !["full", "fast"].contains(&it.as_str()));
        all.cloned().collect()
    };
    assert_eq!(statements(&live).len(), 50);
    assert_eq!(statements(&live), statements(&target));
    copier.terminate(LIMIT).unwrap();
}

#[test]
fn what_cannot_be_replayed_is_counted_by_its_reason_and_hurts_nobody_else() {
    let directory = std::env::temp_dir().join(format!("millrace-mysql-{}", std::process::id()));
    let certificates = Certificates::open(&directory, "lab.test").unwrap();
    let server = certificates.issue("interceptor/live", 1).unwrap();
    let own = [
        format!("--ssl-cert={}", server.cert.display()),
        format!("--ssl-key={}", server.key.display()),
    ];
    let Some(servers) = Servers::new(&own.each_ref().map(String::as_str)) else {
        return;
    };
    // The password of `web` is wrong, `open` is not known.
    let accounts = format!("app@{TARGET}\nweb@forgotten\n");
    let mut copier = servers.copier(&accounts, &[]);
    let ask = "SELECT 1; SELECT 2";
    for _ in 0..5 {
        assert_eq!(servers.says("web", &["--skip-ssl"], ask), "1\n2\n");
    }
    for _ in 0..4 {
        servers.says("open", &["--skip-ssl"], ask);
    }
    for _ in 0..3 {
        servers.says("app", &["--ssl", "--skip-ssl-verify-server-cert"], ask);
    }
    for _ in 0..2 {
        servers.says("app", &["--skip-ssl", "--compress"], ask);
    }
    servers.says("app", &["--skip-ssl"], ask);
    let report = servers.stand.settled(15);
    let failed = &report["protocols"]["failed"];
    let expected = serde_json::json!({"login": 5, "account": 4, "encrypted": 3, "compressed": 2});
    assert_eq!(*failed, expected, "{report:#}");
    assert_eq!(number(&report, "/replicas/aborted/protocol"), 14);
    assert_eq!(number(&report, "/replicas/completed"), 1, "{report:#}");
    // Each log-in was tried once.
    let refused = servers.target.asked_by("web").unwrap();
    assert_eq!(refused.len(), 5, "{refused:?}");
    let whole = servers.target.asked_by("app").unwrap();
    assert_eq!(whole.len(), 1, "{whole:?}");
    copier.terminate(LIMIT).unwrap();
}

#[test]
fn a_session_that_began_before_the_copier_logs_in_first() {
    let Some(servers) = Servers::new(&[]) else {
        return;
    };
    servers.live.ask("CREATE TABLE shop.early (n INT)").unwrap();
    servers
        .target
        .ask("CREATE TABLE shop.early (n INT)")
        .unwrap();
    let host = servers.stand.live_service().ip();
    let file = servers.stand.live().file("go");
    let path = file.display().to_string();
    let program = format!(
        "import pymysql, os, time\n\
         c = pymysql.connect(host='{host}', user='app', password='{LIVE}', autocommit=True)\n\
         k = c.cursor()\n\
         k.execute('SELECT 1')\n\
         while not os.path.exists('{path}'): time.sleep(0.05)\n\
         for n in range(20):\n\
         \x20   k.execute('INSERT INTO shop.early VALUES (%s)', (n,))\n\
         \x20   time.sleep(0.02)\n\
         c.close()\n"
    );
    let client = servers.stand.client();
    let log = client.file("early.log");
    let mut early = client
        .spawn("/usr/bin/python3", &["-c", &program], &[], &log)
        .unwrap();
    wait_for("the early session", LIMIT, || {
        !servers.live.asked_by("app").unwrap().is_empty()
    })
    .unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let mut copier = servers.copier(&format!("app@{TARGET}\n"), &[]);
    std::fs::write(&file, "").unwrap();
    assert!(early.wait(LIMIT).unwrap().success(), "{}", early.log());
    let count = |server: &MariaDb| -> u64 {
        let text = server.ask("SELECT COUNT(*) FROM shop.early").unwrap();
        text.trim().parse().unwrap()
    };
    assert_eq!(count(&servers.live), 20);
    // What it asked before the copier had seen a turn of it is not copied.
    wait_for("the target to have nearly all", LIMIT, || {
        count(&servers.target) >= 18
    })
    .unwrap_or_else(|error| panic!("{error}: {:#}", servers.stand.report()));
    let report = servers.stand.settled(1);
    assert_eq!(number(&report, "/sessions/midway"), 1, "{report:#}");
    assert_whole(&report);
    copier.terminate(LIMIT).unwrap();
}

#[test]
fn a_target_that_is_only_read_stays_as_it_was() {
    let Some(servers) = Servers::new(&[]) else {
        return;
    };
    servers.says(
        "open",
        &[],
        "CREATE TABLE shop.log (n INT); CREATE TABLE shop.t (n INT)",
    );
    servers
        .target
        .ask("CREATE TABLE shop.log (n INT); CREATE TABLE shop.t (n INT)")
        .unwrap();
    let more = [
        "--read-only",
        "--allow-writes",
        "mysql:INSERT INTO shop.log *",
    ];
    let mut copier = servers.copier(&both_accounts(), &more);
    for n in 0..10 {
        let statements = format!(
            "INSERT INTO shop.t VALUES ({n}); SELECT COUNT(*) FROM shop.t; UPDATE shop.t SET n = n + 1;
             INSERT INTO shop.log VALUES ({n}); SELECT 'last'"
        );
        servers.says("app", &[], &statements);
    }
    let report = servers.stand.settled(10);
    assert_whole(&report);
    assert_eq!(number(&report, "/protocols/left_out"), 20, "{report:#}");
    let count = |table: &str| servers.target.ask(&format!("SELECT COUNT(*) FROM {table}"));
    assert_eq!(count("shop.t").unwrap(), "0\n");
    assert_eq!(count("shop.log").unwrap(), "10\n");
    let writes: &Value = &report["protocols"]["writes"]["mysql"];
    let of = |digest: &str, what: &str| writes[digest][what].as_u64();
    assert_eq!(
        (
            of("INSERT INTO shop.t VALUES (?)", "left_out"),
            of("UPDATE shop.t SET n = n + ?", "left_out"),
            of("INSERT INTO shop.log VALUES (?)", "sent"),
        ),
        (Some(10), Some(10), Some(10)),
        "{writes:#}"
    );
    copier.terminate(LIMIT).unwrap();
}
