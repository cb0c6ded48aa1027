//! What outlives the agent: what was applied by hand, and what was diverted, so that its connections are known as copies.

use millrace_channel::hold::HostLife;

use crate::install::{InstallError, Installer};
use crate::need::{Need, Selectors};
use crate::state::Diverted;

impl Installer {
    /// What an operator should know if what is diverted cannot be remembered.
    pub fn forgets(&self) -> Option<String> {
        let (_, why) = self.unremembered.as_ref()?;
        Some(format!(
            "after a kill copied connections would not be known as copies: {why}"
        ))
    }

    /// Remembers what was applied by hand.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn remember_by_hand(&mut self, need: Option<Need>) -> Result<(), InstallError> {
        let mut state = self.state.state().clone();
        state.by_hand = need;
        Ok(self.state.replace(state)?)
    }

    /// What was diverted in this life of the host, as far as it is remembered.
    pub(super) fn remembered(&self) -> Selectors {
        let last = &self.state.state().diverted;
        match (&self.unremembered, last.host == HostLife::now()) {
            (Some((wanted, _)), _) => wanted.clone(),
            (None, true) => last.selectors.clone(),
            (None, false) => Selectors::new(),
        }
    }

    /// From now on only connections of `kept` count as copies, besides those of what is diverted later.
    pub fn remember_only(&mut self, kept: &Selectors) {
        let mut state = self.state.state().clone();
        state.diverted = Diverted {
            host: HostLife::now(),
            selectors: kept.clone(),
        };
        let kept_before = self.unremembered.is_none();
        self.unremembered = match self.state.replace(state) {
            Ok(()) => None,
            Err(error) => Some((kept.clone(), error.to_string())),
        };
        match self.forgets() {
            Some(warning) if kept_before => tracing::warn!("{warning}"),
            None if !kept_before => tracing::info!("what is diverted is remembered again"),
            Some(_) | None => {}
        }
    }

    /// Tries again to remember what could not be.
    pub fn remember_again(&mut self) {
        if let Some((wanted, _)) = self.unremembered.clone() {
            self.remember_only(&wanted);
        }
    }
}
