//! What copier and interceptor use for sessions of one request each.

use millrace_lab::load::{Kind, Load};
use millrace_lab::{CpuTime, Error, Process, Result, Stage};

use super::Service;
use super::programs::{Copier, Work};

const AT_A_TIME: u64 = 64;
/// What the figures are scaled to.
const SCALE: f64 = 100_000.0;

/// The outcome.
#[derive(Debug)]
pub(super) struct Sessions {
    /// Sessions that were copied and completed.
    pub(super) completed: u64,
    pub(super) per_second: f64,
    pub(super) copier: Work,
    /// Processor seconds of the interceptor.
    interceptor: f64,
}

impl Sessions {
    pub(super) fn run(
        stage: &Stage,
        service: &Service,
        interceptor: &Process,
        (count, rate): (u64, u32),
    ) -> Result<Self> {
        let client = stage.client()?;
        let copier = Copier::start(stage, service, &[])?;
        let before = interceptor.cpu_time()?;
        let kind = Kind::OneRequest {
            count,
            rate: Some(rate.into()),
            path: "/".to_owned(),
        };
        let from: Vec<_> = client.addresses.iter().map(|pair| pair.v4.into()).collect();
        let load = Load::new(kind, service.live)
            .from(&from)
            .concurrency(AT_A_TIME);
        let summary = client.host.enter_async(move || load.run())?;
        let (copier, report) = copier.finish()?;
        let used = interceptor.cpu_time()?.since(before).total();
        let completed = report.number("/replicas/completed").unwrap_or_default();
        // Figures of sessions that were not copied would be too good.
        if summary.errors > 0 || completed != count {
            return Err(Error::Unsupported(format!(
                "of {count} sessions {} failed for the clients ({:?}) and {completed} were completed at the target",
                summary.errors, summary.examples
            )));
        }
        Ok(Self {
            completed,
            per_second: count as f64 / summary.seconds.max(0.001),
            copier,
            interceptor: used.as_secs_f64(),
        })
    }

    /// Processor seconds of the copier for 100,000 sessions: of its shard, and of all.
    pub(super) fn copier_seconds(&self) -> (f64, f64) {
        (
            self.scaled(self.copier.shard),
            self.scaled(self.copier.process),
        )
    }

    /// Processor seconds of the interceptor for 100,000 sessions.
    pub(super) fn interceptor_seconds(&self) -> f64 {
        self.scaled(self.interceptor)
    }

    /// Microseconds of the copier for one session: of the program, and of the kernel for it.
    pub(super) fn copier_micros(&self) -> [f64; 2] {
        let CpuTime { user, system } = self.copier.split;
        [user, system].map(|time| time.as_secs_f64() * 1e6 / self.completed.max(1) as f64)
    }

    fn scaled(&self, seconds: f64) -> f64 {
        seconds * SCALE / (self.completed.max(1) as f64)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn seconds_are_scaled_to_100_000_sessions() {
        let sessions = Sessions {
            completed: 20_000,
            per_second: 1500.0,
            copier: Work {
                shard: 1.0,
                process: 1.5,
                split: CpuTime {
                    user: Duration::from_millis(500),
                    system: Duration::from_secs(1),
                },
                ..Work::default()
            },
            interceptor: 0.5,
        };
        assert_eq!(sessions.copier_seconds(), (5.0, 7.5));
        assert_eq!(sessions.copier_micros(), [25.0, 50.0]);
        assert!((sessions.interceptor_seconds() - 2.5).abs() < 1e-9);
    }
}
