//! Which services are replayed by protocol modules.

use std::sync::Arc;

use millrace_daemon::exit::ExitError;
use millrace_engine::{Engine, Service};
use millrace_protocols::{Accounts, Kind};

use crate::options::ProtocolOptions;

/// The modules of services.
#[derive(Clone, Debug, Default)]
pub struct Protocols {
    /// The place of a service in [`millrace_engine::Config::services`], and its module.
    of_services: Vec<(usize, Kind)>,
    accounts: Arc<Accounts>,
}

impl Protocols {
    /// Finds the services of the ports that are named.
    ///
    /// # Errors
    /// No service has the port, two modules want it, or the accounts cannot be read, or are for nobody.
    pub(super) fn new(options: &ProtocolOptions, services: &[Service]) -> Result<Self, ExitError> {
        if options.protocols.is_empty() && options.accounts_file.is_some() {
            return Err(ExitError::usage(
                "--accounts-file: no module uses it; name one with --protocol, or leave it out",
            ));
        }
        let mut of_services: Vec<(usize, Kind)> = Vec::new();
        for protocol in &options.protocols {
            let (port, kind) = (protocol.port, protocol.kind);
            let places = services.iter().enumerate();
            let its = places.filter(|(_, service)| service.live_port == port);
            let its: Vec<usize> = its.map(|(place, _)| place).collect();
            if its.is_empty() {
                return Err(ExitError::usage(format!(
                    "--protocol {port}={kind}: no service of -x has the live port {port}"
                )));
            }
            if of_services.iter().any(|(place, _)| its.contains(place)) {
                return Err(ExitError::usage(format!(
                    "--protocol {port}={kind}: port {port} has a module already"
                )));
            }
            of_services.extend(its.into_iter().map(|place| (place, kind)));
        }
        let accounts = Arc::new(options.accounts()?);
        if let Some((_, kind)) = of_services.first().filter(|_| accounts.is_empty()) {
            return Err(ExitError::usage(format!(
                "--protocol: {kind} needs an account at the target in --accounts-file; without one its sessions are copied as \
                 well without the module"
            )));
        }
        Ok(Self {
            of_services,
            accounts,
        })
    }

    /// Whether no service has a module.
    pub fn is_empty(&self) -> bool {
        self.of_services.is_empty()
    }

    /// The services with a module: their places, and its name.
    pub fn each(&self) -> impl Iterator<Item = (usize, Kind)> {
        self.of_services.iter().copied()
    }

    /// The ports at which the modules' targets listen, each once.
    pub(super) fn target_ports(&self, services: &[Service]) -> Vec<u16> {
        let its = self.each().filter_map(|(place, _)| services.get(place));
        let mut ports: Vec<u16> = its.map(|service| service.target.port).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// Gives the engine its modules.
    pub fn install(&self, engine: &mut Engine) {
        for (place, kind) in self.each() {
            engine.set_protocol(place, kind.module(&self.accounts));
        }
    }
}
