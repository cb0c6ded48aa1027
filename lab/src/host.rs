//! A host: a network namespace in which programs are started and closures are run.

use std::fs::File;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::command::{check, command, ip_batch, run};
use crate::error::{Doing, Error, Result};
use crate::lab::Inner;
use crate::process::Process;
use crate::sockets;
use crate::wait::wait_for;

/// What every host has: room for tens of thousands of short connections, no filtering of foreign sources,
/// no redirects that would move traffic off the path an experiment is about, no waiting for duplicate addresses.
const SYSCTLS: &[(&str, &str)] = &[
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/default/send_redirects", "0"),
    ("net/ipv4/conf/all/accept_redirects", "0"),
    ("net/ipv4/conf/default/accept_redirects", "0"),
    ("net/ipv6/conf/all/accept_redirects", "0"),
    ("net/ipv6/conf/default/accept_redirects", "0"),
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("net/ipv4/ip_forward", "0"),
    ("net/ipv6/conf/all/forwarding", "0"),
    // Not the ports that servers of the lab listen on: a client that was given one first would keep its server out.
    ("net/ipv4/ip_local_port_range", "10240 65535"),
    ("net/ipv4/ip_local_reserved_ports", "36500-36599"),
    ("net/ipv4/tcp_max_syn_backlog", "65535"),
    ("net/core/somaxconn", "65535"),
    ("net/ipv4/tcp_tw_reuse", "1"),
];

/// A host of a [`Lab`](crate::Lab). Cheap to clone; all clones are the same host.
#[derive(Clone, Debug)]
pub struct Host {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    lab: Arc<Inner>,
    name: String,
    namespace: String,
}

impl Host {
    pub(crate) fn new(lab: Arc<Inner>, name: &str) -> Result<Self> {
        let namespace = lab.add_namespace(name)?;
        let host = Self {
            shared: Arc::new(Shared {
                lab,
                name: name.to_owned(),
                namespace,
            }),
        };
        ip_batch(Some(host.namespace()), &["link set lo up".to_owned()])?;
        host.sysctls(SYSCTLS)?;
        Ok(host)
    }

    /// Its name in the lab.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Its namespace, as `ip netns` lists it.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.shared.namespace
    }

    /// The line with which an operator enters it.
    #[must_use]
    pub fn nsenter(&self) -> String {
        format!("nsenter --net=/run/netns/{}", self.namespace())
    }

    /// A file name in the lab's directory that belongs to this host.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.shared
            .lab
            .directory()
            .join(format!("{}-{name}", self.name()))
    }

    /// Starts a program here. `log` (see [`Host::file`]) gets all that it writes; it is ended when dropped.
    ///
    /// # Errors
    /// When the program is not installed or cannot be started.
    pub fn spawn(
        &self,
        program: impl AsRef<Path>,
        arguments: &[&str],
        environment: &[(&str, &str)],
        log: &Path,
    ) -> Result<Process> {
        let mut command = self.command(program.as_ref())?;
        command.args(arguments).envs(environment.iter().copied());
        let program = program.as_ref();
        let label = format!(
            "{} on {}",
            program
                .file_name()
                .unwrap_or(program.as_os_str())
                .to_string_lossy(),
            self.name()
        );
        self.enter(|| Process::start(command, label, log))?
    }

    /// Runs a program here to its end.
    ///
    /// # Errors
    /// When it is not installed or cannot be started; a failing exit status is no error.
    pub fn run(&self, program: impl AsRef<Path>, arguments: &[&str]) -> Result<Output> {
        let mut command = self.command(program.as_ref())?;
        self.enter(|| run(command.args(arguments)))?
    }

    /// As [`Host::run`], but failing is an error; returns what it wrote to standard output.
    ///
    /// # Errors
    /// When it cannot be started or fails.
    pub fn check(&self, program: impl AsRef<Path>, arguments: &[&str]) -> Result<String> {
        let mut command = self.command(program.as_ref())?;
        self.enter(|| check(command.args(arguments)))?
    }

    /// A command that sees this host's `/sys`, too. It is to be started inside ([`Host::enter`]): a process that
    /// enters by itself is missed when its lab goes at that moment.
    fn command(&self, program: &Path) -> Result<std::process::Command> {
        let mut command = command("ip")?;
        command
            .args(["netns", "exec", self.namespace()])
            .arg(resolve(program)?);
        Ok(command)
    }

    /// Gives the `ip` commands, each as one string without the leading `ip`, in this namespace.
    ///
    /// # Errors
    /// At the first command that is refused.
    pub fn ip(&self, commands: &[String]) -> Result<()> {
        ip_batch(Some(self.namespace()), commands)
    }

    /// Sets `/proc/sys/KEY`; the key has slashes: `net/ipv4/ip_forward`.
    ///
    /// # Errors
    /// When there is no such key here or the value is refused.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.sysctls(&[(key, value)])
    }

    fn sysctls(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.enter(|| {
            for (key, value) in settings {
                std::fs::write(Path::new("/proc/sys").join(key), value)
                    .doing(|| format!("setting {key} to {value} on {}", self.name()))?;
            }
            Ok(())
        })?
    }

    /// Runs `work` on a thread inside this host and returns what it returned. Sockets made there stay there,
    /// whichever thread uses them later.
    ///
    /// # Errors
    /// When the namespace cannot be entered. A panic of `work` goes on in the caller.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let inside = || {
            move_this_thread(self.namespace())?;
            Ok(work())
        };
        std::thread::scope(|scope| scope.spawn(inside).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Runs a future on a single-threaded runtime inside this host and returns its result.
    /// The future is made there too, by `work`, and so need not be `Send`.
    ///
    /// # Errors
    /// When the namespace cannot be entered or there is no runtime to be had.
    pub fn enter_async<F: Future>(&self, work: impl FnOnce() -> F + Send) -> Result<F::Output>
    where
        F::Output: Send,
    {
        self.enter(|| Ok(runtime()?.block_on(work())))?
    }

    /// As [`Host::enter_async`], on a thread that goes on by itself until the future is done.
    pub fn start<F: Future>(
        &self,
        work: impl FnOnce() -> F + Send + 'static,
    ) -> JoinHandle<Result<F::Output>>
    where
        F::Output: Send + 'static,
    {
        let namespace = self.namespace().to_owned();
        std::thread::spawn(move || {
            move_this_thread(&namespace)?;
            Ok(runtime()?.block_on(work()))
        })
    }

    /// Waits until something listens on each of the TCP ports, without connecting to them.
    ///
    /// # Errors
    /// [`Error::TimedOut`] when not all of them do within `limit`.
    pub fn wait_listening(&self, ports: &[u16], limit: Duration) -> Result<()> {
        let what = format!("{} to listen on ports {ports:?}", self.name());
        wait_for(&what, limit, || {
            self.enter(sockets::listening_ports).is_ok_and(|listening| {
                listening.is_ok_and(|listening| ports.iter().all(|port| listening.contains(port)))
            })
        })
    }

    /// Gives a device of this host one more address, ready to use at once.
    ///
    /// # Errors
    /// When there is no such device or the address is there already.
    pub fn add_address(&self, device: &str, address: IpAddr, prefix: u8) -> Result<()> {
        self.ip(&[address_command(device, address, prefix)])
    }

    /// The link-layer address of a device of this host, as `ip` writes it.
    ///
    /// # Errors
    /// When there is no such device.
    pub fn mac(&self, device: &str) -> Result<String> {
        let text = self.check("ip", &["-j", "link", "show", "dev", device])?;
        let links: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let address = links.pointer("/0/address").and_then(|mac| mac.as_str());
        address.map(str::to_owned).ok_or_else(|| Error::Malformed {
            what: format!("device {device} of {}", self.name()),
            detail: text,
        })
    }

    /// What `GET path` at one of this host's own addresses answers, as JSON: for a daemon's admin port.
    ///
    /// # Errors
    /// When the connection fails, the status is not 200 or the body is not JSON.
    pub fn get_json(&self, address: SocketAddr, path: &str) -> Result<serde_json::Value> {
        let (status, body) = self.get(address, path)?;
        if status != 200 {
            return Err(Error::Malformed {
                what: format!("http://{address}{path} on {}", self.name()),
                detail: format!("status {status}, not 200"),
            });
        }
        serde_json::from_str(&body).map_err(|error| Error::Malformed {
            what: format!("http://{address}{path} on {}", self.name()),
            detail: error.to_string(),
        })
    }

    /// Status and body of `GET path` at one of this host's own addresses.
    ///
    /// # Errors
    /// When the connection fails or what answers is not HTTP.
    pub fn get(&self, address: SocketAddr, path: &str) -> Result<(u16, String)> {
        self.enter(|| crate::admin::get(address, path))?
    }

    pub(crate) fn lab(&self) -> &Arc<Inner> {
        &self.shared.lab
    }
}

/// The `ip` command that gives a device an address. IPv6 without the second of duplicate address detection.
pub(crate) fn address_command(device: &str, address: IpAddr, prefix: u8) -> String {
    let nodad = if address.is_ipv6() { " nodad" } else { "" };
    format!("address add {address}/{prefix} dev {device}{nodad}")
}

/// Moves the calling thread, and only it, into a namespace.
pub(crate) fn move_this_thread(namespace: &str) -> Result<()> {
    let file = Path::new("/run/netns").join(namespace);
    let file = File::open(&file).doing(|| format!("opening {}", file.display()))?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .doing(|| format!("entering namespace {namespace}"))
}

fn resolve(program: &Path) -> Result<PathBuf> {
    let name = program.to_string_lossy();
    if name.contains('/') {
        return Ok(program.to_owned());
    }
    crate::command::find(&name).ok_or_else(|| Error::NoProgram {
        program: name.into_owned(),
    })
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .doing(|| "starting a runtime".to_owned())
}
