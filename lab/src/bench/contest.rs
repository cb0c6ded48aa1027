//! One copier shard against the bare loop: the same traffic for each in turn, several times.

use std::time::Duration;

use millrace_lab::load::{Kind, Load};
use millrace_lab::{Error, Result, Stage};

use super::programs::{self, Copier, Reflector, Work};
use super::{Service, median};
use crate::demo::say;

/// Bytes of each upload, and how many are under way at a time.
const UPLOAD: u64 = 1_000_000;
const UPLOADS_AT_A_TIME: u64 = 4;
/// Uploads for each second that a run is meant to take.
const UPLOADS_PER_SECOND: u64 = 60;

/// How often one run of the copier is tried.
const ATTEMPTS: u32 = 3;

/// What the clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Traffic {
    /// wrk at full speed on connections that stay, against nginx.
    KeepAlive,
    /// Bodies of 1 MB in packets as long as the MTU.
    Uploads,
}

impl Traffic {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::KeepAlive => "keep-alive requests at full speed",
            Self::Uploads => "uploads of 1 MB",
        }
    }

    /// Gives the number of requests.
    fn run(self, stage: &Stage, service: &Service, lasting: Duration) -> Result<u64> {
        match self {
            Self::KeepAlive => {
                let (_, requests) = programs::wrk(stage, service, lasting)?;
                Ok(requests)
            }
            Self::Uploads => {
                let count = UPLOADS_PER_SECOND * lasting.as_secs().max(1);
                let kind = Kind::Upload {
                    size: UPLOAD,
                    count,
                };
                let load = Load::new(kind, service.live).concurrency(UPLOADS_AT_A_TIME);
                let client = &stage.client()?.host;
                let summary = client.enter_async(move || load.run())?;
                if summary.errors > 0 {
                    return Err(Error::Unsupported(format!(
                        "uploads to the live server failed: {:?}",
                        summary.examples
                    )));
                }
                Ok(count)
            }
        }
    }
}

/// One round of both.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    pub(super) reflector: Work,
    pub(super) copier: Work,
}

/// All rounds of one kind of traffic.
#[derive(Debug)]
pub(super) struct Contest {
    pub(super) traffic: Traffic,
    pub(super) rounds: Vec<Round>,
}

impl Contest {
    pub(super) fn run(
        stage: &Stage,
        service: &Service,
        traffic: Traffic,
        rounds: u32,
        lasting: Duration,
    ) -> Result<Self> {
        let round = |number: u32| {
            // Who is first changes from round to round: whatever warms up or wears out hits both.
            if number.is_multiple_of(2) {
                let reflector = reflect(stage, service, traffic, lasting)?;
                let copier = copy(stage, service, traffic, lasting)?;
                Ok(Round { reflector, copier })
            } else {
                let copier = copy(stage, service, traffic, lasting)?;
                let reflector = reflect(stage, service, traffic, lasting)?;
                Ok(Round { reflector, copier })
            }
        };
        Ok(Self {
            traffic,
            rounds: (0..rounds).map(round).collect::<Result<_>>()?,
        })
    }

    /// The median over the rounds of what one of them amounts to.
    pub(super) fn median(&self, of: impl Fn(&Round) -> f64) -> f64 {
        median(self.rounds.iter().map(of).collect())
    }
}

fn reflect(stage: &Stage, service: &Service, traffic: Traffic, lasting: Duration) -> Result<Work> {
    let reflector = Reflector::start(stage, service)?;
    let requests = traffic.run(stage, service, lasting)?;
    let work = reflector.finish()?;
    Ok(Work { requests, ..work })
}

fn copy(stage: &Stage, service: &Service, traffic: Traffic, lasting: Duration) -> Result<Work> {
    let mut attempt = 1;
    loop {
        let copier = Copier::start(stage, service, &[])?;
        let requests = traffic.run(stage, service, lasting)?;
        match copier.finish() {
            Ok((work, _)) => return Ok(Work { requests, ..work }),
            // On a machine that is busy with something else, capture may lose packets.
            Err(error) if attempt < ATTEMPTS => say(&format!("once more: {error}")),
            Err(error) => return Err(error),
        }
        attempt += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_does_not_see_one_round_that_was_disturbed() {
        let round = |sent| {
            let copier = Work {
                sent,
                ..Work::default()
            };
            let reflector = Work::default();
            Round { reflector, copier }
        };
        let contest = Contest {
            traffic: Traffic::Uploads,
            rounds: vec![round(9000), round(10), round(11)],
        };
        assert!((contest.median(|round| round.copier.packets()) - 11.0).abs() < 1e-9);
    }
}
