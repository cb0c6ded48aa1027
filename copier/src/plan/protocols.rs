//! Which services are replayed by protocol modules.

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_daemon::exit::ExitError;
use millrace_engine::{Engine, Service};
use millrace_protocols::writes::{Ledger, Rules, WriteGuard};
use millrace_protocols::{Accounts, Kind, Midway, Settings, http};

use crate::options::ProtocolOptions;

/// The modules of services.
#[derive(Clone, Debug, Default)]
pub struct Protocols {
    /// The place of a service in [`millrace_engine::Config::services`], and its module.
    of_services: Vec<(usize, Kind)>,
    accounts: Arc<Accounts>,
    http: http::Settings,
    midway: Midway,
    rules: BTreeMap<Kind, Arc<Rules>>,
    ledgers: BTreeMap<Kind, Arc<Ledger>>,
}

impl Protocols {
    /// Finds the services of the ports that are named.
    ///
    /// # Errors
    /// No service has the port, two modules want it, or the accounts cannot be read, or are for nobody.
    pub(super) fn new(options: &ProtocolOptions, services: &[Service]) -> Result<Self, ExitError> {
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
        let http = options.http_rules()?;
        check_use(options, &of_services)?;
        let midway = options.midway_user.as_deref();
        if let Some(user) = midway.filter(|user| accounts.password(user).is_none()) {
            return Err(ExitError::usage(format!(
                "--midway-user {user}: there is no such account (-u, --accounts-file)"
            )));
        }
        check_rules(options, &of_services)?;
        let kinds = || of_services.iter().map(|(_, kind)| *kind);
        Ok(Self {
            rules: kinds()
                .map(|kind| (kind, Arc::new(options.rules(kind))))
                .collect(),
            ledgers: kinds().map(|kind| (kind, Arc::default())).collect(),
            of_services,
            accounts,
            http,
            midway: Midway {
                user: options.midway_user.clone(),
                database: options.midway_database.clone(),
            },
        })
    }

    /// Whether the module of a live port hears what the live server sends.
    pub(crate) fn hears_live(&self, services: &[Service], port: u16) -> bool {
        self.each().any(|(place, kind)| {
            let its = services.get(place).map(|service| service.live_port);
            its == Some(port) && kind.module(&self.settings(kind)).hears_live()
        })
    }

    /// What is noted of requests, by protocol.
    pub fn ledgers(&self) -> impl Iterator<Item = (Kind, &Ledger)> {
        self.ledgers.iter().map(|(kind, ledger)| (*kind, &**ledger))
    }

    fn settings(&self, kind: Kind) -> Settings {
        let rules = self.rules.get(&kind).cloned().unwrap_or_default();
        let ledger = self.ledgers.get(&kind).cloned().unwrap_or_default();
        Settings {
            accounts: self.accounts.clone(),
            http: self.http.clone(),
            midway: self.midway.clone(),
            guard: WriteGuard::new(rules, ledger),
        }
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
            engine.set_protocol(place, kind.module(&self.settings(kind)));
        }
    }
}

/// Each module must have something to do, and what is given must be for one.
fn check_use(options: &ProtocolOptions, of_services: &[(usize, Kind)]) -> Result<(), ExitError> {
    let is_used = |kind: Kind| of_services.iter().any(|(_, it)| *it == kind);
    if options.http_rules.is_some() && !is_used(Kind::Http) {
        return Err(ExitError::usage(
            "--http-rules: no service has the module http; name one with --protocol PORT=http",
        ));
    }
    if options.has_accounts() && !is_used(Kind::MySql) && !is_used(Kind::Redis) {
        return Err(ExitError::usage(
            "-u, --accounts-file: no module uses accounts; name one with --protocol, or leave them out",
        ));
    }
    let of_mysql = options.midway_user.is_some() || options.midway_database.is_some();
    if of_mysql && !is_used(Kind::MySql) {
        return Err(ExitError::usage(
            "--midway-user, --midway-database: no service has the module mysql; name one with --protocol PORT=mysql",
        ));
    }
    for (_, kind) in of_services {
        let (is_told, wants) = match kind {
            Kind::Http => (options.http_rules.is_some(), "rules (--http-rules)"),
            Kind::MySql | Kind::Redis => (
                options.has_accounts(),
                "an account at the target (-u, --accounts-file)",
            ),
        };
        // A log-in to MySQL proves a password to one server alone: without one of the target nothing can be played.
        let does_something = *kind != Kind::MySql && options.has_rules();
        if !is_told && !does_something {
            return Err(ExitError::usage(format!(
                "--protocol: {kind} has nothing to do: it needs {wants}, or a rule of what may be sent (--read-only, \
                 --deny-requests)"
            )));
        }
    }
    Ok(())
}

/// Rules of what may be sent need somebody who knows requests.
fn check_rules(options: &ProtocolOptions, of_services: &[(usize, Kind)]) -> Result<(), ExitError> {
    if of_services.is_empty() && options.has_rules() {
        return Err(ExitError::usage(
            "--read-only, --allow-writes and --deny-requests are for modules: name one with --protocol, else everything is sent",
        ));
    }
    if !options.read_only && !options.allow_writes.is_empty() {
        return Err(ExitError::usage(
            "--allow-writes: without --read-only everything is allowed; --deny-requests leaves requests out",
        ));
    }
    let both = [
        ("--allow-writes", &options.allow_writes),
        ("--deny-requests", &options.deny_requests),
    ];
    for (option, patterns) in both {
        let is_used = |kind: Kind| of_services.iter().any(|(_, it)| *it == kind);
        if let Some(unused) = patterns.iter().find(|it| !is_used(it.kind)) {
            return Err(ExitError::usage(format!(
                "{option} {}:{}: no service has this module; name one with --protocol",
                unused.kind, unused.pattern
            )));
        }
    }
    Ok(())
}
