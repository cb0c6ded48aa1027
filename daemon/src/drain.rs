//! Ending in order: the first request drains, the second ends at once.

use tokio::sync::watch;

/// How far the end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Normal work.
    Running,
    /// Nothing new; what is open finishes, within the grace time.
    Draining,
    /// Stop now, whatever is open.
    Exit,
}

/// Starts the drain and the end. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DrainTrigger(watch::Sender<Stage>);

/// Sees the drain and the end. Cheap to clone, usable from threads and tasks.
#[derive(Debug, Clone)]
pub struct DrainWatch(watch::Receiver<Stage>);

/// A trigger and its first watch.
pub fn channel() -> (DrainTrigger, DrainWatch) {
    let (sender, receiver) = watch::channel(Stage::Running);
    (DrainTrigger(sender), DrainWatch(receiver))
}

impl DrainTrigger {
    /// One step on: from running to draining, from draining to exit. Returns the new stage.
    pub fn advance(&self) -> Stage {
        let mut now = Stage::Exit;
        self.0.send_modify(|stage| {
            *stage = match stage {
                Stage::Running => Stage::Draining,
                Stage::Draining | Stage::Exit => Stage::Exit,
            };
            now = *stage;
        });
        now
    }

    /// From running to draining; what drains or ends already goes on as it does. Says whether it was
    /// running: for a wish that may be repeated and must not end anything at once.
    pub fn begin(&self) -> bool {
        self.0.send_if_modified(|stage| {
            let running = *stage == Stage::Running;
            if running {
                *stage = Stage::Draining;
            }
            running
        })
    }

    /// Straight to the end.
    pub fn exit(&self) {
        self.0.send_replace(Stage::Exit);
    }
}

impl DrainWatch {
    /// The stage now. For threads that look at it in every round.
    pub fn stage(&self) -> Stage {
        *self.0.borrow()
    }

    /// Returns once the daemon drains or ends.
    pub async fn draining(&self) {
        self.reach(Stage::Draining).await;
    }

    /// Returns once the daemon must end.
    pub async fn exit(&self) {
        self.reach(Stage::Exit).await;
    }

    async fn reach(&self, stage: Stage) {
        let mut receiver = self.0.clone();
        if receiver.wait_for(|now| *now >= stage).await.is_err() {
            // The trigger is gone: nobody can end the daemon in order any more, and nobody asked.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_step_drains_the_second_exits() {
        let (trigger, watch) = channel();
        assert_eq!(watch.stage(), Stage::Running);
        assert_eq!(trigger.advance(), Stage::Draining);
        watch.draining().await;
        assert_eq!(watch.stage(), Stage::Draining);
        assert_eq!(trigger.advance(), Stage::Exit);
        watch.exit().await;
        assert_eq!(trigger.advance(), Stage::Exit);
    }

    #[test]
    fn a_drain_that_was_begun_is_not_hastened_by_beginning_it_again() {
        let (trigger, watch) = channel();
        assert!(trigger.begin());
        assert!(!trigger.begin());
        assert_eq!(watch.stage(), Stage::Draining);
        assert_eq!(trigger.advance(), Stage::Exit);
        assert!(!trigger.begin());
        assert_eq!(watch.stage(), Stage::Exit);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_trigger_does_not_look_like_a_drain() {
        let (trigger, watch) = channel();
        drop(trigger);
        let wait = std::time::Duration::from_secs(60);
        assert!(tokio::time::timeout(wait, watch.draining()).await.is_err());
    }
}
