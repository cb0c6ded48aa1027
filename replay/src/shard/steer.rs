//! What the pilot sees of the shard, and what it decides.

use std::time::{Duration, Instant};

use millrace_engine::{Intensity, SourcePool};
use millrace_pilot::guard::Sample;
use millrace_pilot::{LinkSight, Observed};

use super::Shard;

/// How often it is decided how much is copied: a ramp of an hour rises in thousands of steps.
const STEER_INTERVAL: Duration = Duration::from_millis(100);

impl Shard {
    /// Does what the pilot decides. Says whether it was given commands: then there may be more to do at once.
    pub(super) fn steer(&mut self) -> bool {
        let time = Instant::now();
        let is_due = time >= self.steer_at;
        let commanded = !self.commands.is_empty();
        if !is_due && !commanded {
            return false;
        }
        while let Some(command) = self.commands.pop() {
            self.pilot.command(command);
        }
        if is_due {
            self.steer_at = time + STEER_INTERVAL;
            self.relieve();
        }
        let now = self.clock.elapsed();
        let open = self.engine.is_open();
        let begun = self.engine.stats().packets_sent > 0;
        let sample = self.pilot.is_guarded();
        let links = self.routes.links().map(|link| LinkSight {
            id: link.id(),
            epoch: link.epoch().filter(|_| link.is_up()),
            messages: link.uplink().messages_in(),
        });
        let observed = Observed {
            flowing: self.is_flowing(),
            open: self.engine.gauges().replicas > 0,
            view: self.sight.look(now, open, begun, links),
            sample: sample.then(|| Sample::of(self.engine.stats())),
            plan: self.cluster.plan(),
        };
        let tick = self.pilot.tick(now, observed);
        if let Some(note) = tick.note {
            self.cluster.note(note);
        }
        self.engine.set_intensity(tick.intensity);
        if tick.stop {
            self.engine.stop_replicas(self.clock.now());
        }
        commanded
    }

    /// Keeps order under pressure.
    fn relieve(&mut self) {
        let Some(load) = self.input.load(self.engine.gauges().memory) else {
            return;
        };
        let relief = self.governor.tick(self.clock.elapsed(), &load);
        self.engine.set_relief(self.clock.now(), relief);
    }

    /// Whether anything can be sent.
    fn is_flowing(&self) -> bool {
        let engine = &self.engine;
        // A probe may have to bear a client's address: a ramp that begins with nothing must rise
        // until some client is chosen, or it would never begin.
        let wants_client = matches!(engine.config().sources, SourcePool::Clients)
            && engine.intensity() < Intensity::ONE
            && engine.gauges().replicas_waiting == 0;
        engine.is_open() && (engine.is_any_target_open() || wants_client)
    }
}
