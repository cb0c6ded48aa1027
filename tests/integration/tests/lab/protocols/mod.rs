//! Sessions that protocol modules replay: real servers with passwords of their own, real clients.

mod http;
mod mysql;
mod redis;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use millrace_integration::{Scene, can_run, number};
use millrace_lab::{Host, Process, StageOptions, wait_for};
use serde_json::Value;

const ADMIN: &str = "127.0.0.1:36530";
const LIMIT: Duration = Duration::from_secs(60);

/// A stage whose live server and target get a real server each, with an interceptor.
struct Stand {
    scene: Scene,
    port: u16,
    module: &'static str,
}

impl Stand {
    fn new(port: u16, module: &'static str) -> Option<Self> {
        if !can_run() {
            return None;
        }
        let scene = Scene::new(StageOptions::default());
        Some(Self {
            scene,
            port,
            module,
        })
    }

    fn live(&self) -> &Host {
        &self.scene.stage.live[0].host
    }

    fn target(&self) -> &Host {
        &self.scene.stage.target.host
    }

    fn client(&self) -> &Host {
        &self.scene.stage.client().unwrap().host
    }

    fn live_service(&self) -> SocketAddr {
        SocketAddr::new(self.scene.stage.live[0].address.v4.into(), self.port)
    }

    /// A file of the live host that its user alone can read.
    fn secret(&self, name: &str, text: &str) -> String {
        let file = self.live().file(name);
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        file.display().to_string()
    }

    /// A copier with the module, once its target is open.
    fn copier(&self, more: &[&str]) -> Process {
        let module = format!("{}={}", self.port, self.module);
        self.copier_without_module(&[&["--protocol", &module][..], more].concat())
    }

    fn copier_without_module(&self, more: &[&str]) -> Process {
        let target = self.scene.stage.target.address.v4;
        let service = format!("{}-{target}:{}", self.live_service(), self.port);
        let copier = self.scene.copier_of(&service, ADMIN, more);
        wait_for("the target to be open", LIMIT, || {
            let status = self.live().get(ADMIN.parse().unwrap(), "/readyz");
            status.is_ok_and(|(code, _)| code == 200)
        })
        .unwrap_or_else(|error| panic!("{error}: {}", copier.log()));
        copier
    }

    fn report(&self) -> Value {
        let status = self.live().get_json(ADMIN.parse().unwrap(), "/status");
        status.unwrap()["report"].clone()
    }

    /// What the copier has written.
    fn log(&self) -> String {
        std::fs::read_to_string(self.live().file("copier-alone.log")).unwrap_or_default()
    }

    /// Waits until so many sessions are captured and all their replicas have ended; gives the report.
    fn settled(&self, sessions: u64) -> Value {
        wait_for("all replicas to end", LIMIT, || {
            let report = self.report();
            let captured = number(&report, "/sessions/captured");
            captured == sessions && number(&report, "/replicas/open") == 0
        })
        .unwrap_or_else(|error| panic!("{error}: {:#}", self.report()));
        self.report()
    }
}

/// Every byte that was wanted has arrived, and every copy ended as its client did.
fn assert_whole(report: &Value) {
    assert_eq!(report["fidelity"], 1.0, "{report:#}");
    let aborted = &report["replicas"]["aborted"];
    assert_eq!(*aborted, serde_json::json!({}), "{report:#}");
}
