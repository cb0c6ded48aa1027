//! The kernel of this host: what there is, what would happen to a packet, and one change at a time.
//!
//! - [`model`]: the state as plain values.
//! - `read`, `sockets`, `lookup`: questions over netlink.
//! - `change`: changes over netlink.
//! - [`firewall`]: our chain, by iptables; [`floor`]: the floor, by nftables; `tool`: their programs.
//! - `sysctl`: settings.
//! - `watch`: what others have changed.

mod change;
pub mod firewall;
pub mod floor;
mod lookup;
pub mod model;
mod numbers;
mod read;
mod sockets;
pub mod step;
mod sysctl;
mod tool;
mod watch;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::process::Stdio;

use step::Step;

pub use change::ALIAS;
pub use lookup::{Answer, Lookup};
use millrace_netlink::Netlink;
use model::{FloorState, Route, Snapshot, Socket, Stopped};
use watch::Watch;

/// Why something could not be done with the kernel: what, and its own words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {why}")]
pub struct KernelError {
    /// What was tried: a command that one can try by hand, or what was read.
    pub what: String,
    /// What the kernel said.
    pub why: String,
}

impl KernelError {
    fn new(what: impl fmt::Display, error: &io::Error) -> Self {
        let advice = match error.kind() {
            io::ErrorKind::PermissionDenied => " (run as root or give CAP_NET_ADMIN)",
            // A foreign enum without an end.
            _ => "",
        };
        Self {
            what: what.to_string(),
            why: format!("{error}{advice}"),
        }
    }
}

/// Is told of every change that was made, after it was made.
pub type Observer = Box<dyn FnMut(&Step) + Send>;

/// The kernel, in the network namespace of the thread that opened it; used on that thread.
pub struct Kernel {
    route: Netlink,
    sockets: Netlink,
    /// None where the kernel has no netfilter.
    netfilter: Option<Netlink>,
    watch: Watch,
    observer: Option<Observer>,
    changes: u64,
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernel").finish_non_exhaustive()
    }
}

impl Kernel {
    /// Opens the way to the kernel. Reading needs no privilege, changing CAP_NET_ADMIN.
    ///
    /// # Errors
    /// When the kernel has no netlink sockets to give.
    pub fn open() -> Result<Self, KernelError> {
        let failed = |error: io::Error| KernelError::new("opening a netlink socket", &error);
        Ok(Self {
            route: Netlink::route().map_err(failed)?,
            sockets: Netlink::sock_diag().map_err(failed)?,
            netfilter: Netlink::netfilter().ok(),
            watch: Watch::open().map_err(failed)?,
            observer: None,
            changes: 0,
        })
    }

    /// Whether a program of the system is there that changes the firewall.
    pub fn has_tool(program: &str) -> bool {
        let mut command = tool::command(program);
        let command = command.arg("--version");
        let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
        quiet.status().is_ok_and(|status| status.success())
    }

    /// Has every change told to `observer`.
    #[must_use]
    pub fn observed_by(mut self, observer: Observer) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Whether anything on which diverting depends may have changed since the last call, whoever
    /// changed it: policy rules, devices, addresses, the routes of `table`, the firewall tables of
    /// these names.
    pub fn has_news(&mut self, table: u32, firewall: &[&str]) -> bool {
        self.watch.has_news(table, firewall)
    }

    /// What the floor in `table` has dropped since it was put in place.
    ///
    /// # Errors
    /// The kernel's; also if there is no such floor.
    pub fn stopped(&mut self, table: &str) -> Result<Stopped, KernelError> {
        let netlink = self.netfilter.as_mut();
        let counted = match netlink {
            Some(netlink) => floor::counted(netlink, table),
            None => Err(io::ErrorKind::Unsupported.into()),
        };
        counted.map_err(|error| KernelError::new(format!("reading counters of {table}"), &error))
    }

    /// Changes made since it was opened.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Reads the state of routing and the floor in the table `floor`; our firewall chains only where
    /// `firewall` says so, since that starts programs.
    ///
    /// # Errors
    /// The kernel's.
    pub fn snapshot(&mut self, floor: &str, firewall: bool) -> Result<Snapshot, KernelError> {
        let netlink = &mut self.route;
        let failed = |what: &'static str| move |error: io::Error| KernelError::new(what, &error);
        let chain = |ipv4| {
            if firewall {
                firewall::read(ipv4).map_err(failed("reading the firewall"))
            } else {
                Ok(model::Chain::default())
            }
        };
        Ok(Snapshot {
            links: read::links(netlink).map_err(failed("reading devices"))?,
            addresses: read::addresses(netlink).map_err(failed("reading addresses"))?,
            rules: read::rules(netlink).map_err(failed("reading policy rules"))?,
            routes: read::routes(netlink).map_err(failed("reading routes"))?,
            chain_v4: chain(true)?,
            chain_v6: chain(false)?,
            floor: self.floor(floor)?,
        })
    }

    /// What stands of the floor in `table`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn floor(&mut self, table: &str) -> Result<FloorState, KernelError> {
        match &mut self.netfilter {
            Some(netlink) => floor::read(netlink, table)
                .map_err(|error| KernelError::new("reading nftables", &error)),
            None => Ok(FloorState::default()),
        }
    }

    /// The addresses of this host.
    ///
    /// # Errors
    /// The kernel's.
    pub fn addresses(&mut self) -> Result<Vec<IpAddr>, KernelError> {
        read::addresses(&mut self.route)
            .map(|all| all.into_iter().map(|address| address.ip).collect())
            .map_err(|error| KernelError::new("reading addresses", &error))
    }

    /// All TCP sockets.
    ///
    /// # Errors
    /// The kernel's.
    pub fn sockets(&mut self) -> Result<Vec<Socket>, KernelError> {
        sockets::list(&mut self.sockets)
            .map_err(|error| KernelError::new("listing TCP sockets", &error))
    }

    /// Ends a TCP connection: its application sees an error, a reset leaves by the rules in place.
    ///
    /// # Errors
    /// When the kernel cannot (CONFIG_INET_DIAG_DESTROY); a connection that is gone is none.
    pub fn end_connection(&mut self, socket: &Socket) -> Result<(), KernelError> {
        match sockets::destroy(&mut self.sockets, socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let what = format!("ending the connection {}-{}", socket.local, socket.remote);
                Err(KernelError::new(what, &error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Where a packet of this host would go.
    ///
    /// # Errors
    /// The kernel's, other than that there is no way.
    pub fn lookup(&mut self, what: &Lookup) -> Result<Answer, KernelError> {
        lookup::lookup(&mut self.route, what).map_err(|error| KernelError::new(what, &error))
    }

    /// A kernel setting; none if this kernel or this device has no such thing.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn setting(&self, key: &str) -> Result<Option<String>, KernelError> {
        match sysctl::read(key) {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(KernelError::new(format!("sysctl {key}"), &error)),
        }
    }

    /// Makes a change.
    ///
    /// # Errors
    /// The kernel's; then nothing was changed.
    pub fn apply(&mut self, step: &Step) -> Result<(), KernelError> {
        tracing::debug!("{step}");
        self.make(step)
            .map_err(|error| KernelError::new(step, &error))?;
        self.changes += 1;
        if let Some(observer) = &mut self.observer {
            observer(step);
        }
        Ok(())
    }

    fn make(&mut self, step: &Step) -> io::Result<()> {
        match step {
            Step::Sysctl { key, value } => sysctl::write(key, value),
            Step::MakeSink {
                name,
                peer,
                group,
                mtu,
            } => change::make_sink(&mut self.route, name, peer, *group, *mtu),
            // A dummy device has no other end.
            Step::Prepare { name } => match self.index(name)? {
                Some(index) => change::prepare(&mut self.route, index),
                None => Ok(()),
            },
            Step::SetUp { name } => match self.index(name)? {
                Some(index) => change::set_up(&mut self.route, index),
                None => Ok(()),
            },
            Step::AddRoute { route, device } => {
                let route = self.with_device(route, device.as_deref())?;
                change::add_route(&mut self.route, &route)
            }
            Step::DeleteRoute { route, .. } => {
                gone_is_fine(change::delete_route(&mut self.route, route))
            }
            Step::AddRule(rule) => change::add_rule(&mut self.route, rule),
            Step::DeleteRule(rule) => gone_is_fine(change::delete_rule(&mut self.route, rule)),
            Step::DeleteLink { name } => match self.index(name)? {
                Some(index) => change::delete_link(&mut self.route, index),
                None => Ok(()),
            },
            Step::Firewall { ipv4, lines } => firewall::restore(*ipv4, lines),
            Step::Floor { lines } | Step::RemoveFloor { lines } => floor::put(lines),
        }
    }

    fn index(&mut self, name: &str) -> io::Result<Option<u32>> {
        let links = read::links(&mut self.route)?;
        let found = links.into_iter().find(|link| link.name == name);
        Ok(found.map(|link| link.index))
    }

    fn with_device(&mut self, route: &Route, device: Option<&str>) -> io::Result<Route> {
        let mut route = route.clone();
        if let Some(name) = device {
            let index = self.index(name)?;
            route.link = Some(index.ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::NotFound,
                    format!("there is no device {name}"),
                )
            })?);
        }
        Ok(route)
    }
}

/// What was to be removed is gone: somebody else, or the kernel with a device, has removed it.
fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error)
            if matches!(
                rustix::io::Errno::from_io_error(&error),
                Some(rustix::io::Errno::NOENT | rustix::io::Errno::SRCH)
            ) =>
        {
            Ok(())
        }
        other => other,
    }
}
