//! Order under pressure: what the copier gives up first, as a function of time and load.
//!
//! The live server comes first, then sessions that are being copied, then new ones. Pressure is how
//! long captured packets wait, how much memory is used, how full the capture ring is, and the CPU
//! time that the copier may take (`--max-cpu`). Under pressure a growing part of the new sessions is
//! refused; if that does not help, a growing part of the open ones is set aside as a whole, and taken
//! up again at a later turn. Both parts are chosen by the keyed hash that the intensity goes by.

use std::time::Duration;

use millrace_engine::{Intensity, Relief};
use serde::Serialize;

/// Captured packets that wait for longer are pressure.
const LONGEST_LAG: Duration = Duration::from_secs(30);
/// Memory above this share of the limit is pressure: the rest is for what was captured already.
const MEMORY_SHARE: f64 = 0.85;
/// So many eighths of the ring's memory are pressure.
const RING_EIGHTHS: f64 = 6.0;
/// Frames that the ring drops are pressure for this long.
const DROPS_LAST: Duration = Duration::from_millis(500);
/// Below this part of every limit there is no pressure.
const CALM: f64 = 0.75;
/// Pressure that lasts for less is a burst, which queues are for.
const BURST: Duration = Duration::from_millis(300);
/// A step has this long to show its effect before the next one.
const STEP_INTERVAL: Duration = Duration::from_millis(300);
/// So long must it be calm before more is taken again, and between the steps of that.
const CALM_INTERVAL: Duration = Duration::from_secs(1);
/// Where no larger share of the new sessions is admitted, open ones are set aside.
const REFUSED_ENOUGH: f64 = 0.3;
/// Below the limits but not calm, more is taken again after so many times as long.
const UNEASY: u32 = 5;
/// CPU time is an average over about this long.
const CPU_WINDOW: Duration = Duration::from_secs(1);
/// Some sessions are kept whatever happens, so that it shows when the pressure is gone.
const LEAST: f64 = 0.01;
/// What comes back with each step: this share of all, and this share of what is taken.
const BACK: (f64, f64) = (0.05, 0.25);

/// What was measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// How long the last captured packet had waited.
    pub(crate) lag: Duration,
    /// Memory in use, in bytes.
    pub(crate) memory: u64,
    /// Eighths of the ring's memory that were full.
    pub(crate) ring_eighths: usize,
    /// Frames that the ring has dropped since the start.
    pub(crate) dropped: u64,
    /// CPU time of the process since its start.
    pub(crate) cpu: Duration,
}

/// What a governor is told.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Memory that may be used, in bytes.
    pub memory: u64,
    /// CPU time that may be used, in percent of one core.
    pub cpu_percent: Option<f64>,
}

/// What presses most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Captured packets wait.
    Lag,
    /// Memory is used up.
    Memory,
    /// The capture ring fills up.
    Ring,
    /// More CPU time is used than allowed.
    Cpu,
}

/// What is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Nothing.
    #[default]
    None,
    /// New sessions are refused, a part of them or all.
    Refusing,
    /// Open sessions are set aside, too.
    SettingAside,
}

/// For the report.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct PressureStatus {
    /// What is given up at the moment.
    pub stage: Stage,
    /// What presses most, while something does.
    pub cause: Option<Cause>,
    /// The share of new sessions that is admitted.
    pub admitted: f64,
    /// The share of open sessions that is kept.
    pub kept: f64,
    /// How long captured packets wait, in milliseconds.
    pub lag_ms: f64,
    /// CPU time, in percent of one core.
    pub cpu_percent: f64,
    /// Memory in use, in bytes.
    pub memory: u64,
    /// How often more was given up.
    pub steps: u64,
}

/// Decides what is given up.
#[derive(Debug)]
pub struct Governor {
    limits: Limits,
    admit: f64,
    keep: f64,
    step_at: Duration,
    pressed_since: Option<Duration>,
    calm_since: Option<Duration>,
    /// When, and with which CPU time, it was asked last.
    last: Option<(Duration, Duration)>,
    cpu_percent: f64,
    lag: Duration,
    memory: u64,
    dropped: u64,
    drops_until: Duration,
    stage: Stage,
    cause: Option<Cause>,
    steps: u64,
}

impl Governor {
    /// A governor that has seen no pressure.
    pub const fn new(limits: Limits) -> Self {
        Self {
            limits,
            admit: 1.0,
            keep: 1.0,
            step_at: Duration::ZERO,
            pressed_since: None,
            calm_since: None,
            last: None,
            cpu_percent: 0.0,
            lag: Duration::ZERO,
            memory: 0,
            dropped: 0,
            drops_until: Duration::ZERO,
            stage: Stage::None,
            cause: None,
            steps: 0,
        }
    }

    /// What is taken from `now` on, by what was measured.
    pub(crate) fn tick(&mut self, now: Duration, load: &Load) -> Relief {
        self.measure_cpu(now, load.cpu);
        let (lag_falls, memory_falls) = (load.lag < self.lag, load.memory < self.memory);
        (self.lag, self.memory) = (load.lag, load.memory);
        if load.dropped > self.dropped {
            self.dropped = load.dropped;
            self.drops_until = now + DROPS_LAST;
        }
        let (pressure, cause) = self.pressure(now, load);
        if pressure >= 1.0 {
            self.calm_since = None;
            let since = *self.pressed_since.get_or_insert(now);
            // What goes down by itself is left to go down.
            let waits = match cause {
                Cause::Lag => lag_falls,
                Cause::Memory => memory_falls,
                Cause::Ring | Cause::Cpu => false,
            };
            if now >= (since + BURST).max(self.step_at) && !waits {
                self.step_at = now + STEP_INTERVAL;
                self.tighten(pressure, cause);
            }
            return self.relief();
        }
        self.pressed_since = None;
        let times = if pressure < CALM { 1 } else { UNEASY };
        let since = *self.calm_since.get_or_insert(now);
        if self.stage != Stage::None && now >= since + CALM_INTERVAL * times {
            self.calm_since = Some(now);
            self.relax();
        }
        self.relief()
    }

    /// For the report.
    pub(crate) fn status(&self) -> PressureStatus {
        PressureStatus {
            stage: self.stage,
            cause: self.cause,
            admitted: self.admit.min(self.keep),
            kept: self.keep,
            lag_ms: self.lag.as_secs_f64() * 1e3,
            cpu_percent: self.cpu_percent,
            memory: self.memory,
            steps: self.steps,
        }
    }

    fn relief(&self) -> Relief {
        Relief {
            admit: Intensity::from_ratio(self.admit),
            keep: Intensity::from_ratio(self.keep),
        }
    }

    fn measure_cpu(&mut self, now: Duration, cpu: Duration) {
        let Some((then, before)) = self.last.replace((now, cpu)) else {
            return;
        };
        let elapsed = now.saturating_sub(then);
        if elapsed.is_zero() {
            return;
        }
        let used = cpu.saturating_sub(before).as_secs_f64() / elapsed.as_secs_f64();
        let weight = (elapsed.as_secs_f64() / CPU_WINDOW.as_secs_f64()).min(1.0);
        self.cpu_percent += (used * 100.0 - self.cpu_percent) * weight;
    }

    /// The largest share of a limit that is used, and of which.
    fn pressure(&self, now: Duration, load: &Load) -> (f64, Cause) {
        let memory = self.limits.memory as f64 * MEMORY_SHARE;
        let cpu = self.limits.cpu_percent;
        let ring = match now < self.drops_until {
            true => RING_EIGHTHS.max(load.ring_eighths as f64),
            false => load.ring_eighths as f64,
        };
        let shares = [
            (
                load.lag.as_secs_f64() / LONGEST_LAG.as_secs_f64(),
                Cause::Lag,
            ),
            (load.memory as f64 / memory.max(1.0), Cause::Memory),
            (ring / RING_EIGHTHS, Cause::Ring),
            (cpu.map_or(0.0, |most| self.cpu_percent / most), Cause::Cpu),
        ];
        let most = shares.into_iter().max_by(|a, b| a.0.total_cmp(&b.0));
        most.unwrap_or((0.0, Cause::Lag))
    }

    fn tighten(&mut self, pressure: f64, cause: Cause) {
        let left = (0.9 / pressure).clamp(0.3, 0.9);
        self.steps += 1;
        self.cause = Some(cause);
        if self.admit > REFUSED_ENOUGH {
            self.admit = (self.admit * left).max(LEAST);
        } else {
            self.keep = (self.keep * left).max(LEAST);
        }
        self.tell(if self.keep < 1.0 {
            Stage::SettingAside
        } else {
            Stage::Refusing
        });
    }

    fn relax(&mut self) {
        let more = |share: f64| (share + BACK.0 + share * BACK.1).min(1.0);
        if self.keep < 1.0 {
            self.keep = more(self.keep);
        } else {
            self.admit = more(self.admit);
        }
        if self.keep >= 1.0 && self.admit >= 1.0 {
            self.cause = None;
            self.tell(Stage::None);
        } else if self.keep >= 1.0 {
            self.tell(Stage::Refusing);
        }
    }

    /// A stage is said once; what changes within it is shown in /status and metrics.
    fn tell(&mut self, stage: Stage) {
        if std::mem::replace(&mut self.stage, stage) == stage {
            return;
        }
        let figures = self.figures();
        match stage {
            Stage::None => tracing::info!("the pressure is gone: all sessions are copied again"),
            Stage::Refusing => tracing::warn!(
                "under pressure ({figures}): new sessions are refused, {:.0}% are still admitted",
                self.admit * 100.0
            ),
            Stage::SettingAside => tracing::warn!(
                "under pressure ({figures}), and refusing new sessions was not enough: {:.0}% of \
                 the open sessions are kept, the others are set aside and taken up again later",
                self.keep * 100.0
            ),
        }
    }

    fn figures(&self) -> String {
        match self.cause {
            Some(Cause::Lag) => format!("captured packets wait {} ms", self.lag.as_millis()),
            Some(Cause::Memory) => format!(
                "{} of {} MB are used, see -m",
                self.memory >> 20,
                self.limits.memory >> 20
            ),
            Some(Cause::Ring) => {
                "the capture ring is nearly full or drops frames, see -B".to_owned()
            }
            Some(Cause::Cpu) => format!(
                "{:.0}% of a core are used, --max-cpu allows {:.0}%",
                self.cpu_percent,
                self.limits.cpu_percent.unwrap_or_default()
            ),
            None => "none".to_owned(),
        }
    }
}

/// CPU time of all threads of this process so far.
pub(crate) fn process_cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(100);

    fn governor() -> Governor {
        Governor::new(Limits {
            memory: 1000,
            cpu_percent: Some(30.0),
        })
    }

    /// Ticks for so long under a load that may depend on what is taken.
    fn run(
        governor: &mut Governor,
        from: u32,
        ticks: u32,
        load: impl Fn(&Governor) -> Load,
    ) -> u32 {
        for tick in from..from + ticks {
            let load = load(governor);
            governor.tick(TICK * tick, &load);
        }
        from + ticks
    }

    fn lag(millis: u64) -> Load {
        Load {
            lag: Duration::from_millis(millis),
            memory: 0,
            ring_eighths: 0,
            dropped: 0,
            cpu: Duration::ZERO,
        }
    }

    #[test]
    fn new_sessions_go_first_then_open_ones_and_all_come_back() {
        let mut governor = governor();
        let mut at = run(&mut governor, 0, 10, |_| lag(10));
        assert_eq!(governor.relief(), Relief::default());
        at = run(&mut governor, at, 4, |_| lag(45_000));
        assert_eq!(governor.status().stage, Stage::Refusing);
        assert!(governor.admit < 1.0 && governor.keep == 1.0);
        at = run(&mut governor, at, 30, |_| lag(45_000));
        assert_eq!(governor.status().stage, Stage::SettingAside);
        assert!(governor.keep < 0.5, "{}", governor.keep);
        assert_eq!(governor.status().cause, Some(Cause::Lag));
        run(&mut governor, at, 500, |_| lag(0));
        assert_eq!(governor.relief(), Relief::default());
        assert_eq!(governor.status().stage, Stage::None);
    }

    #[test]
    fn what_goes_down_by_itself_is_left_to_go_down() {
        let mut governor = governor();
        let at = run(&mut governor, 0, 6, |_| lag(90_000));
        let (admit, keep) = (governor.admit, governor.keep);
        for tick in 0..40 {
            governor.tick(TICK * (at + tick), &lag(89_000 - u64::from(tick) * 900));
        }
        assert_eq!((governor.admit, governor.keep), (admit, keep));
    }

    #[test]
    fn open_sessions_that_cost_three_times_the_cpu_are_set_aside_to_a_third() {
        let mut governor = governor();
        let used = std::cell::Cell::new(Duration::ZERO);
        run(&mut governor, 0, 3000, |governor| {
            // All sessions are open ones, and would use 90% of a core.
            used.set(used.get() + TICK.mul_f64(0.9 * governor.keep));
            Load {
                cpu: used.get(),
                ..lag(0)
            }
        });
        assert!((0.2..0.4).contains(&governor.keep), "{}", governor.keep);
        assert!(governor.cpu_percent < 33.0, "{}", governor.cpu_percent);
    }

    #[test]
    fn new_sessions_alone_are_refused_without_touching_open_ones() {
        let mut governor = governor();
        let used = std::cell::Cell::new(Duration::ZERO);
        run(&mut governor, 0, 3000, |governor| {
            used.set(used.get() + TICK.mul_f64(0.6 * governor.admit));
            Load {
                cpu: used.get(),
                ..lag(0)
            }
        });
        assert_eq!(governor.keep, 1.0);
        assert!((0.3..0.7).contains(&governor.admit), "{}", governor.admit);
    }

    #[test]
    fn a_burst_is_no_pressure() {
        let mut governor = governor();
        let at = run(&mut governor, 0, 3, |_| lag(90_000));
        let at = run(&mut governor, at, 1, |_| lag(100));
        run(&mut governor, at, 3, |_| lag(90_000));
        assert_eq!(governor.status().steps, 0);
    }

    #[test]
    fn frames_that_are_dropped_again_and_again_are_pressure_though_the_slots_are_empty() {
        let mut governor = governor();
        let dropped = std::cell::Cell::new(0);
        run(&mut governor, 0, 10, |_| {
            dropped.set(dropped.get() + 3);
            Load {
                dropped: dropped.get(),
                ..lag(0)
            }
        });
        assert_eq!(governor.status().cause, Some(Cause::Ring));
        run(&mut governor, 10, 100, |_| Load {
            dropped: dropped.get(),
            ..lag(0)
        });
        assert_eq!(governor.status().stage, Stage::None);
    }

    #[test]
    fn memory_and_ring_press_too() {
        for (memory, ring_eighths, cause) in [(900, 0, Cause::Memory), (0, 7, Cause::Ring)] {
            let mut governor = governor();
            run(&mut governor, 0, 5, |_| Load {
                memory,
                ring_eighths,
                ..lag(0)
            });
            assert_eq!(governor.status().cause, Some(cause));
        }
    }
}
