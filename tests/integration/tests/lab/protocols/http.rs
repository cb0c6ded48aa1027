//! HTTP: an application that hands out tokens and wants them back, and requests that are chosen.

use millrace_integration::number;
use millrace_lab::apps::Nginx;
use millrace_lab::{Host, Process, wait_for};
use serde_json::{Value, json};

use super::{LIMIT, Stand, assert_whole};

const PORT: u16 = 8100;
/// The application's, where nginx stands before it.
const BEHIND: u16 = 8101;
const APPLICATION: &str = include_str!("token_app.py");
/// A cookie, and a token of the body that comes back in a header or a form.
const RULES: &str = r#"
[[token]]
from = "cookie:sid"
[[token]]
from = "json:csrf"
on = "GET /login"
"#;

struct Servers {
    stand: Stand,
    /// The applications' port.
    port: u16,
    _applications: [Process; 2],
    _nginx: Vec<Nginx>,
}

impl Servers {
    fn new() -> Option<Self> {
        Self::start(PORT)
    }

    /// The applications on this port; where it is another than the service's, nginx stands before each.
    fn start(port: u16) -> Option<Self> {
        let mut stand = Stand::new(PORT, "http")?;
        let start = |host: &Host| {
            let (port_text, log) = (port.to_string(), host.file("application.log"));
            let arguments = ["-c", APPLICATION, &port_text];
            let process = host.spawn("/usr/bin/python3", &arguments, &[], &log);
            host.wait_listening(&[port], LIMIT).unwrap();
            process.unwrap()
        };
        let applications = [start(stand.live()), start(stand.target())];
        let hosts = [stand.live(), stand.target()].into_iter();
        let hosts = hosts.filter(|_| port != PORT);
        let nginx = hosts.map(|host| Nginx::start_before(host, PORT, port).unwrap());
        let nginx = nginx.collect();
        stand.scene.start_interceptor();
        Some(Self {
            stand,
            port,
            _applications: applications,
            _nginx: nginx,
        })
    }

    fn copier(&self, rules: &str, more: &[&str]) -> Process {
        let file = self.stand.secret("http.toml", rules);
        self.stand
            .copier(&[&["--http-rules", &file][..], more].concat())
    }

    /// Runs a program in Python on the client's host; `at` is the service's address there.
    fn clients(&self, program: &str) {
        let at = self.stand.live_service().ip();
        let all = format!("import http.client, json, threading\nat = '{at}'\n{program}");
        let client = self.stand.client();
        client.check("/usr/bin/python3", &["-c", &all]).unwrap();
    }

    /// What an application has counted.
    fn counts(&self, host: &Host) -> Value {
        host.get_json(([127, 0, 0, 1], self.port).into(), "/counts")
            .unwrap()
    }

    /// Waits until the target has counted this.
    fn wait_for_counts(&self, expected: &Value) {
        let counts = || self.counts(self.stand.target());
        wait_for("the target to count", LIMIT, || counts() == *expected).unwrap_or_else(|error| {
            panic!("{error}: {:#} {:#}", counts(), self.stand.report());
        });
    }
}

/// So many sessions at a time log in and use their token, some in several connections.
const SHOPPERS: &str = "
def shop(n):
    c = http.client.HTTPConnection(at, 8100)
    for round in range(4):
        c.request('GET', f'/login?user={n}')
        r = c.getresponse(); csrf = json.loads(r.read())['csrf']
        sid = r.getheader('Set-Cookie').split(';')[0]
        for k in range(10):
            c.request('GET', f'/item/{k}', headers={'X-Token': csrf, 'Cookie': f'lang=en; {sid}'})
            assert c.getresponse().read() == b'{\"ok\": true}'
            body = f'n={k}&csrf={csrf}&x=' + 'y' * k
            c.request('POST', '/buy', body, {'Cookie': sid, 'Content-Type': 'application/x-www-form-urlencoded'})
            assert c.getresponse().read() == b'{\"ok\": true}'
    c.close()
threads = [threading.Thread(target=shop, args=(n,)) for n in range(10)]
for t in threads: t.start()
for t in threads: t.join()
";

#[test]
fn tokens_of_the_target_stand_in_place_of_the_live_ones() {
    let Some(servers) = Servers::new() else {
        return;
    };
    let target = servers.stand.target();
    // Byte for byte all is refused.
    let mut copier = servers.stand.copier_without_module(&[]);
    servers.clients(SHOPPERS);
    servers.wait_for_counts(&json!({"login": 40, "item refused": 400, "buy refused": 400}));
    copier.terminate(LIMIT).unwrap();
    let mut copier = servers.copier(RULES, &[]);
    servers.clients(SHOPPERS);
    let report = servers.stand.settled(10);
    assert_whole(&report);
    let counts = servers.counts(target);
    assert_eq!(
        counts,
        json!({
            "login": 80, "item refused": 400, "buy refused": 400, "item accepted": 400, "buy accepted": 400
        }),
        "{report:#}"
    );
    copier.terminate(LIMIT).unwrap();
}

#[test]
fn tokens_in_the_chunks_of_nginx_stand_in_place_of_the_live_ones() {
    let Some(servers) = Servers::start(BEHIND) else {
        return;
    };
    let mut copier = servers.copier(RULES, &[]);
    servers.clients(SHOPPERS);
    let report = servers.stand.settled(10);
    assert_whole(&report);
    let accepted = json!({"login": 40, "item accepted": 400, "buy accepted": 400});
    let counts = servers.counts(servers.stand.target());
    assert_eq!(counts, accepted, "{report:#}");
    copier.terminate(LIMIT).unwrap();
}

#[test]
fn a_token_that_other_connections_use_is_known_in_all() {
    let Some(servers) = Servers::new() else {
        return;
    };
    let rules = RULES.replace("[[token]]", "[[token]]\nshared = true");
    let mut copier = servers.copier(&rules, &[]);
    // Every request has a connection of its own.
    servers.clients(
        "
import time
def ask(*request):
    c = http.client.HTTPConnection(at, 8100)
    c.request(*request)
    r = c.getresponse()
    body = r.read()
    c.close()
    return r, body
r, body = ask('GET', '/login')
csrf, sid = json.loads(body)['csrf'], r.getheader('Set-Cookie').split(';')[0]
# A value is known in other sessions once the target has answered with it; the first copy waits for first contact, too.
time.sleep(2)
for k in range(50):
    time.sleep(0.02)
    assert ask('GET', f'/item/{k}', None, {'X-Token': csrf, 'Cookie': sid})[1] == b'{\"ok\": true}'
",
    );
    servers.wait_for_counts(&json!({"login": 1, "item accepted": 50}));
    copier.terminate(LIMIT).unwrap();
}

#[test]
fn requests_are_chosen_and_what_writes_is_left_out() {
    let Some(servers) = Servers::new() else {
        return;
    };
    let rules = "only = [\"* /api/*\", \"* /form\"]\nexcept = [\"* /api/secret*\"]\n";
    let more = ["--read-only", "--allow-writes", "http:POST /form"];
    let mut copier = servers.copier(rules, &more);
    servers.clients(
        "
for n in range(5):
    c = http.client.HTTPConnection(at, 8100)
    for k in range(20):
        for method, path, body in [
            ('GET', '/api/a', None), ('GET', '/other', None), ('POST', '/api/a', 'x' * 3000), ('GET', '/api/secret', None),
            ('POST', '/form', 'y' * 5000), ('GET', '/form', None),
        ]:
            c.request(method, path, body)
            c.getresponse().read()
    c.close()
",
    );
    let expected = json!({"GET /api/a": 100, "POST /form": 100, "GET /form": 100});
    servers.wait_for_counts(&expected);
    let report = servers.stand.settled(5);
    assert_whole(&report);
    assert_eq!(number(&report, "/protocols/left_out"), 300, "{report:#}");
    let writes = &report["protocols"]["writes"]["http"];
    assert_eq!(
        *writes,
        json!({
            "POST /api/a": {"sent": 0, "left_out": 100}, "POST /form": {"sent": 100, "left_out": 0}
        })
    );
    copier.terminate(LIMIT).unwrap();
}
