//! Traces of sampled sessions, where they are wanted: between the shard, the report and the exporter.

use millrace_replay::shard::Tell;
use tokio::runtime::Handle;

use crate::otlp::{Exporter, TraceFigures};
use crate::plan::Plan;
use crate::report::Report;

/// The exporter, if there is one.
pub(super) struct Traces(Option<Exporter>);

impl Traces {
    /// Begins to send what is told, to whom the plan says.
    pub(super) fn start(plan: &Plan, runtime: &Handle) -> Self {
        let services = &plan.engine.services;
        let start = |traces| Exporter::start(traces, &plan.id, services, runtime);
        Self(plan.traces.as_ref().map(start))
    }

    /// Takes what the shard is told.
    pub(super) fn tell(&self) -> Tell {
        match &self.0 {
            Some(exporter) => Box::new(exporter.tell()),
            None => Box::new(drop),
        }
    }

    /// Notes in a report what has become of spans.
    pub(super) fn noting(&self) -> impl Fn(&mut Report) + Send + 'static {
        let figures = self.0.as_ref().map(Exporter::figures);
        move |report| {
            if let Some(figures) = &figures {
                note(report, figures());
            }
        }
    }

    /// The report, once the last spans were sent or given up.
    pub(super) fn finish(self, mut report: Report, runtime: &Handle) -> Report {
        if let Some(exporter) = self.0 {
            note(&mut report, exporter.finish(runtime));
        }
        report
    }
}

fn note(report: &mut Report, spans: TraceFigures) {
    let TraceFigures {
        exported,
        dropped,
        rejected,
    } = spans;
    report.traces.note(exported, dropped, rejected);
}
