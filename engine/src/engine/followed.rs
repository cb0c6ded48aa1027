//! Services whose addresses come and go, as those of pods do.

use std::net::IpAddr;

use super::Engine;
use crate::session::Phase;
use crate::stream::EndKind;
use crate::time::Time;

impl Engine {
    /// From now on the service at this place of [`Config::services`](crate::Config::services) has these addresses, if it
    /// is one that is followed. Nothing will be captured any more of connections to an address that it had before and has
    /// no more, not even their end: each ends here, after what was captured of it, as if its client had closed it. (A
    /// RST could keep the target's program from reading what has arrived.)
    pub fn set_followed(&mut self, now: Time, service: usize, mut addresses: Vec<IpAddr>) {
        addresses.sort_unstable();
        addresses.dedup();
        let count = self.config.services.len();
        self.config.followed.resize(count, Vec::new());
        let Some(known) = self.config.followed.get_mut(service) else {
            return;
        };
        let before = std::mem::replace(known, addresses);
        let gone: Vec<IpAddr> = before
            .into_iter()
            .filter(|ip| !self.config.follows(service, ip))
            .collect();
        if !gone.is_empty() {
            self.end_sessions_at(now, service, &gone);
        }
    }

    /// Ends the sessions of a service at these addresses, in order; what its client has ended stays as that did.
    fn end_sessions_at(&mut self, now: Time, service: usize, gone: &[IpAddr]) {
        let keys: Vec<_> = self.sessions.keys().collect();
        for key in keys {
            let Some(session) = self.sessions.get_mut(key) else {
                continue;
            };
            let at_one = usize::from(session.service) == service
                && gone.binary_search(&session.tuple.destination.ip).is_ok();
            // One that is being opened is given up soon anyway.
            if at_one && !matches!(session.phase(), Phase::Opening) {
                // The live server will not answer the end any more, whoever came first.
                session.reset_after_fin = true;
                self.end_here(now, key, EndKind::Fin);
            }
        }
    }
}
