//! Spans of sampled sessions, as a collector of OpenTelemetry gets them: one that takes them all, one that is away, and one
//! that comes back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread::JoinHandle;
use std::time::Duration;

use millrace_integration::{Family, HTTP, Scene, can_run, number};
use millrace_lab::load::{Kind, Load};
use millrace_lab::{Host, StageOptions, wait_for};
use millrace_proto::otlp::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use millrace_proto::otlp::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use millrace_proto::otlp::common::v1::any_value::Value;
use millrace_proto::otlp::trace::v1::Span;
use tokio::sync::oneshot;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

const PORT: u16 = 4317;
const COLLECTOR: [&str; 2] = ["--otlp-endpoint", "http://127.0.0.1:4317"];
const SETTLE: Duration = Duration::from_secs(30);

/// What a collector has taken.
#[derive(Clone, Default)]
struct Taken(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Taken {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut taken = self.0.lock().unwrap();
        for resource in request.into_inner().resource_spans {
            let attributes = &resource.resource.as_ref().unwrap().attributes;
            assert!(attributes.iter().any(|it| it.key == "service.name"));
            taken.extend(resource.scope_spans.into_iter().flat_map(|it| it.spans));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Taken {
    fn named(&self, name: &str) -> Vec<Span> {
        let all = self.0.lock().unwrap();
        all.iter()
            .filter(|span| span.name == name)
            .cloned()
            .collect()
    }
}

/// A collector on a host, until it is stopped.
struct Collector {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<millrace_lab::Result<()>>,
}

impl Collector {
    fn start(host: &Host, taken: &Taken) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let service = TraceServiceServer::new(taken.clone());
        let thread = host.start(move || async move {
            let server = Server::builder().add_service(service);
            let serve = server.serve(([127, 0, 0, 1], PORT).into());
            tokio::select! {
                served = serve => served.unwrap(),
                _ = stopped => {}
            }
        });
        host.wait_listening(&[PORT], Duration::from_secs(10))
            .unwrap();
        Self { stop, thread }
    }

    fn stop(self) {
        drop(self.stop);
        self.thread.join().unwrap().unwrap();
    }
}

/// So many connections of one request, and some that stay for several. Gives sessions and requests.
fn load(scene: &Scene, count: u64) -> (u64, u64) {
    let path = "/bytes/300".to_owned();
    let one = Kind::OneRequest {
        count,
        rate: Some(250.0),
        path: path.clone(),
    };
    let several = Kind::KeepAlive {
        lasting: Duration::from_secs(1),
        pause: Duration::from_millis(20),
        path,
    };
    let summaries = [one, several].map(|kind| {
        let to = scene.live_service(0, Family::V4, HTTP);
        let load = Load::new(kind, to).from(&scene.client_addresses(Family::V4));
        scene.load(load.concurrency(8))
    });
    (
        summaries.iter().map(|it| it.sessions).sum(),
        summaries.iter().map(|it| it.requests).sum(),
    )
}

/// A number that a span bears.
fn said(span: &Span, key: &str) -> Option<i64> {
    let found = span.attributes.iter().find(|it| it.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::IntValue(number) => Some(*number),
        other => panic!("{key}: {other:?}"),
    }
}

fn scene(more: &[&str]) -> Scene {
    let mut scene = Scene::new(StageOptions::default());
    scene.start_interceptor();
    scene.start_copier(0, &[&COLLECTOR[..], more].concat());
    scene
}

#[test]
fn every_turn_of_every_session_is_a_span_where_all_are_sampled() {
    if !can_run() {
        return;
    }
    let mut scene = Scene::new(StageOptions::default());
    let taken = Taken::default();
    let collector = Collector::start(&scene.stage.live[0].host.clone(), &taken);
    scene.start_interceptor();
    scene.start_copier(0, &[&COLLECTOR[..], &["--otlp-sample", "1"]].concat());
    let (sessions, requests) = load(&scene, 200);
    scene.settle(SETTLE);
    let report = scene.finish_exact(SETTLE).reports.remove(0);
    collector.stop();
    let (turns, replicas) = (taken.named("turn"), taken.named("replica"));
    assert_eq!(turns.len() as u64, requests);
    assert_eq!(replicas.len() as u64, sessions);
    assert_eq!(number(&report, "/traces/exported"), requests + sessions);
    assert_eq!(number(&report, "/traces/dropped"), 0);
    let names: BTreeSet<_> = replicas.iter().map(|it| it.span_id.to_vec()).collect();
    for turn in &turns {
        assert!(names.contains(&turn.links[0].span_id.to_vec()));
        assert_eq!(turn.status, None, "{turn:?}");
        assert!(turn.start_time_unix_nano < turn.end_time_unix_nano);
        assert!(turn.events[0].time_unix_nano <= turn.start_time_unix_nano);
        let size = said(turn, "millrace.turn.size").unwrap();
        assert!(size > 20 && said(turn, "millrace.turn.delivered") == Some(size));
        assert!(
            said(turn, "millrace.turn.answered").unwrap() > 300,
            "{turn:?}"
        );
        for key in [
            "millrace.turn.lag_us",
            "millrace.live.first_byte_us",
            "millrace.target.first_byte_us",
            "millrace.target.last_byte_us",
        ] {
            assert!(said(turn, key).is_some(), "{key}: {turn:?}");
        }
    }
    let text = format!("{turns:?}{replicas:?}");
    for client in scene_clients() {
        assert!(!text.contains(&client), "a client's address");
    }
}

/// The clients' network in the lab.
fn scene_clients() -> [String; 1] {
    ["198.18.1.".to_owned()]
}

#[test]
fn a_tenth_of_the_sessions_is_a_tenth_of_the_spans() {
    if !can_run() {
        return;
    }
    let mut scene = Scene::new(StageOptions::default());
    let taken = Taken::default();
    let collector = Collector::start(&scene.stage.live[0].host.clone(), &taken);
    scene.start_interceptor();
    scene.start_copier(0, &[&COLLECTOR[..], &["--otlp-sample", "10%"]].concat());
    let (sessions, _) = load(&scene, 1000);
    scene.finish_exact(SETTLE);
    collector.stop();
    let replicas = taken.named("replica");
    let share = replicas.len() as f64 / sessions as f64;
    assert!((0.05..0.16).contains(&share), "{share} of {sessions}");
    let turns: i64 = replicas
        .iter()
        .map(|it| said(it, "millrace.replica.turns").unwrap())
        .sum();
    assert_eq!(taken.named("turn").len() as i64, turns);
}

#[test]
fn a_collector_that_is_away_costs_only_spans_and_gets_more_when_it_comes_back() {
    if !can_run() {
        return;
    }
    let scene = scene(&["--otlp-sample", "1"]);
    // More than wait: what finds no room is dropped.
    let (sessions, requests) = load(&scene, 1500);
    scene.settle(SETTLE);
    let status = scene.status(0);
    assert_eq!(number(&status, "/report/replicas/completed"), sessions);
    assert_eq!(number(&status, "/report/traces/exported"), 0);
    let dropped = number(&status, "/report/traces/dropped");
    assert!(dropped > 0 && dropped < sessions + requests, "{dropped}");
    let taken = Taken::default();
    let collector = Collector::start(&scene.stage.live[0].host.clone(), &taken);
    let exported = || number(&scene.status(0), "/report/traces/exported");
    let waited = sessions + requests - dropped;
    wait_for("what had waited", Duration::from_secs(30), || {
        exported() == waited
    })
    .unwrap();
    let (more, of) = load(&scene, 100);
    scene.settle(SETTLE);
    wait_for("the new spans", Duration::from_secs(10), || {
        exported() == waited + more + of
    })
    .unwrap();
    let log = scene.copiers[0].log();
    assert_eq!(log.matches("takes no spans").count(), 1, "{log}");
    assert_eq!(log.matches("takes spans").count(), 1, "{log}");
    let outcome = scene.finish_exact(SETTLE);
    collector.stop();
    assert_eq!(number(&outcome.reports[0], "/traces/dropped"), dropped);
}

#[test]
fn a_collector_that_comes_back_before_the_end_gets_what_waits() {
    if !can_run() {
        return;
    }
    let scene = scene(&["--otlp-sample", "1"]);
    let (sessions, requests) = load(&scene, 100);
    scene.settle(SETTLE);
    // By now the pauses between attempts are longer than the end waits.
    std::thread::sleep(Duration::from_secs(7));
    let collector = Collector::start(&scene.stage.live[0].host.clone(), &Taken::default());
    let outcome = scene.finish_exact(SETTLE);
    collector.stop();
    let report = &outcome.reports[0];
    assert_eq!(number(report, "/traces/dropped"), 0, "{report:#}");
    assert_eq!(number(report, "/traces/exported"), sessions + requests);
}
