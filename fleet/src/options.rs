//! The options with which a daemon uses Consul.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use millrace_channel::tls::Role;
use millrace_daemon::exit::ExitError;
use millrace_daemon::status::Headline;
use tokio::runtime::Handle;

use crate::consul::{Client, Registrar, Registration, Settings};
use crate::peers::Cluster;

/// Consul takes no longer values of metadata, in bytes; ours are ASCII.
const DETAIL: usize = 512;

/// Where Consul is. `#[command(flatten)]` it. Everything else comes from the environment that Consul's own programs
/// read: `CONSUL_HTTP_TOKEN_FILE`, `CONSUL_CACERT` and so on ([`Settings`]).
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Consul")]
pub struct ConsulOptions {
    /// Consul's HTTP API: `http[s]://HOST[:PORT]`; by default CONSUL_HTTP_ADDR, or http://127.0.0.1:8500. Tokens and
    /// certificates come from Consul's own environment variables.
    #[arg(long, value_name = "URL")]
    pub consul: Option<String>,
}

impl ConsulOptions {
    /// A client of the Consul that is meant. Nothing is sent yet.
    ///
    /// # Errors
    /// What is wrong with option or environment, with exit code 64.
    pub fn client(&self) -> Result<Client, ExitError> {
        let variable = |name: &str| std::env::var(name).ok();
        let settings = Settings::new(self.consul.as_deref(), &variable)
            .map_err(|error| ExitError::usage(error.to_string()))?;
        Client::new(settings).map_err(|error| ExitError::usage(error.to_string()))
    }
}

/// How a daemon lets itself be found. `#[command(flatten)]` it.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Consul")]
pub struct RegisterOptions {
    /// Where Consul is.
    #[command(flatten)]
    pub consul: ConsulOptions,

    /// Register in Consul as a part of this cluster, for copiers that look for `consul:NAME`.
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<Cluster>,

    /// The address to register; by default that of -b, or of the Consul agent's node.
    #[arg(long, value_name = "ADDR", requires = "cluster")]
    pub advertise: Option<IpAddr>,
}

/// Where to register, once it is known that this can be done.
#[derive(Clone, Debug)]
pub struct Membership {
    client: Client,
    cluster: Cluster,
    advertise: Option<IpAddr>,
    details: Vec<(&'static str, String)>,
}

impl RegisterOptions {
    /// Where to register; nowhere without `--cluster`.
    ///
    /// # Errors
    /// As [`ConsulOptions::client`]; `--consul` without `--cluster`.
    pub fn membership(&self) -> Result<Option<Membership>, ExitError> {
        match &self.cluster {
            Some(cluster) => Ok(Some(Membership {
                client: self.consul.client()?,
                cluster: cluster.clone(),
                advertise: self.advertise,
                details: Vec::new(),
            })),
            None if self.consul.consul.is_some() => Err(ExitError::usage(
                "--consul: name the cluster to register in with --cluster, or leave --consul out",
            )),
            None => Ok(None),
        }
    }
}

impl Membership {
    /// With something more to register, for people and other tools to read.
    #[must_use]
    pub fn detail(mut self, name: &'static str, value: impl ToString) -> Self {
        let value: String = value.to_string().chars().take(DETAIL).collect();
        self.details.push((name, value));
        self
    }

    /// The files that are read while a daemon is registered.
    pub fn files(&self) -> Vec<PathBuf> {
        self.client.settings().files()
    }

    /// Registers a daemon of this role and name whose peers connect to `bound`, for as long as the registrar lives.
    /// `told` says how it stands.
    pub fn register(
        self,
        role: Role,
        id: String,
        bound: SocketAddr,
        told: impl Fn() -> Headline + Send + Sync + 'static,
        runtime: &Handle,
    ) -> Registrar {
        let registration = Registration {
            role,
            cluster: self.cluster,
            id,
            bound,
            advertise: self.advertise,
            details: self.details,
        };
        Registrar::start(self.client, &registration, told, runtime)
    }
}
