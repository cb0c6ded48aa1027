//! Switches, and the cables (veth pairs) that connect hosts with them or with each other.

use std::net::IpAddr;
use std::sync::Arc;

use crate::command::ip_batch;
use crate::error::{Error, Result};
use crate::fault::{Counts, Fault, Hop};
use crate::host::{Host, address_command};
use parking_lot::Mutex;

/// The bridge device inside a switch's namespace.
const BRIDGE: &str = "bridge";
/// The devices of a hop: to the host, and to the switch.
const HOP_HOST: &str = "host";
const HOP_SWITCH: &str = "switch";
/// What AF_PACKET cannot carry without its own header: packets larger than the MTU, checksums left to the device.
const OFFLOADS: &[&str] = &["tx", "tso", "gso", "gro"];

/// An Ethernet switch: a bridge in a namespace of its own.
#[derive(Clone, Debug)]
pub struct Switch {
    host: Host,
    ports: Arc<Mutex<u32>>,
}

impl Switch {
    pub(crate) fn new(host: Host) -> Result<Self> {
        host.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
        host.ip(&[
            // Without snooping: it would hold back IPv6 neighbour discovery while it learns.
            format!("link add {BRIDGE} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"),
            format!("link set {BRIDGE} up"),
        ])?;
        Ok(Self {
            host,
            ports: Arc::default(),
        })
    }

    /// Plugs a host in: `device` appears on it with the addresses (each with its prefix length), up and usable.
    ///
    /// # Errors
    /// When the host has such a device already.
    pub fn attach(&self, host: &Host, device: &str, addresses: &[(IpAddr, u8)]) -> Result<Link> {
        let port = {
            let mut ports = self.ports.lock();
            *ports += 1;
            format!("port{ports}")
        };
        let namespace = self.host.namespace();
        let mut commands = vec![format!(
            "link add {device} type veth peer name {port} netns {namespace}"
        )];
        commands.extend(bring_up(device, addresses));
        self.host_port_up(host, &commands, &port)?;
        Ok(Link {
            host: host.clone(),
            device: device.to_owned(),
            switch: Some(SwitchPort {
                switch: self.host.clone(),
                port,
            }),
            faulted: None,
        })
    }

    fn host_port_up(&self, host: &Host, commands: &[String], port: &str) -> Result<()> {
        host.ip(commands)?;
        self.host
            .ip(&[format!("link set {port} master {BRIDGE} up")])
    }
}

/// A cable, seen from the host at its one end.
#[derive(Debug)]
pub struct Link {
    host: Host,
    device: String,
    switch: Option<SwitchPort>,
    faulted: Option<Faulted>,
}

#[derive(Debug)]
struct SwitchPort {
    switch: Host,
    port: String,
}

/// The namespace put into a cable, with the hop that runs in it. The hop ends before its namespace does.
#[derive(Debug)]
struct Faulted {
    hop: Hop,
    namespace: String,
}

/// Connects two hosts directly: a device on each, with its addresses. Such a cable takes no faults.
///
/// # Errors
/// When one of them has such a device already.
pub fn connect(
    (a, a_device, a_addresses): (&Host, &str, &[(IpAddr, u8)]),
    (b, b_device, b_addresses): (&Host, &str, &[(IpAddr, u8)]),
) -> Result<Link> {
    let peer = b.namespace();
    let mut commands = vec![format!(
        "link add {a_device} type veth peer name {b_device} netns {peer}"
    )];
    commands.extend(bring_up(a_device, a_addresses));
    a.ip(&commands)?;
    b.ip(&bring_up(b_device, b_addresses))?;
    Ok(Link {
        host: a.clone(),
        device: a_device.to_owned(),
        switch: None,
        faulted: None,
    })
}

fn bring_up(device: &str, addresses: &[(IpAddr, u8)]) -> Vec<String> {
    let up = std::iter::once(format!("link set {device} up"));
    up.chain(
        addresses
            .iter()
            .map(|(address, prefix)| address_command(device, *address, *prefix)),
    )
    .collect()
}

impl Link {
    /// The host at its end.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Lets a thread of the kernel's own receive at the switch's end what the host sends. Without this a sender
    /// takes each packet all the way to the receiving stack itself, in the processor time of its system call.
    ///
    /// # Errors
    /// When the cable ends at no switch, or the kernel cannot do it.
    pub fn receive_in_thread(&self) -> Result<()> {
        let Some(SwitchPort { switch, port }) = &self.switch else {
            return Err(Error::Unsupported(
                "only the end of a cable at a switch receives in a thread".to_owned(),
            ));
        };
        // A veth device has a NAPI of its own, which can be threaded, only with GRO; and only packets of a device
        // that cuts its segments itself take that way.
        self.host
            .check("ethtool", &["-K", &self.device, "tso", "off"])?;
        switch.check("ethtool", &["-K", port, "gro", "on"])?;
        let threaded = format!("echo 1 > /sys/class/net/{port}/threaded");
        switch.check("sh", &["-c", &threaded]).map(drop)
    }

    /// The device on that host.
    #[must_use]
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Makes the cable bad, or differently bad: `to_host` and `from_host` say how, in each direction.
    ///
    /// The first call puts a user-space hop into the cable, which interrupts it for some milliseconds, and
    /// turns the device's segmentation and checksum offloads off. `seed` decides all that is random.
    ///
    /// # Errors
    /// For a cable without a switch, and when the hop cannot be made.
    pub fn set_faults(&mut self, to_host: Fault, from_host: Fault, seed: u64) -> Result<()> {
        to_host.check()?;
        from_host.check()?;
        if let Some(faulted) = &self.faulted {
            faulted.hop.set(from_host, to_host);
            return Ok(());
        }
        let Some(SwitchPort { switch, port }) = &self.switch else {
            return Err(Error::Unsupported(
                "faults need a link to a switch: put a switch between the two hosts".to_owned(),
            ));
        };
        let lab = self.host.lab();
        let namespace = lab.add_namespace(&format!("hop-{}-{}", self.host.name(), self.device))?;
        let hop = self.insert_hop(switch, port, &namespace).inspect_err(|_| {
            lab.forget_namespace(&namespace);
        })?;
        let hop = Hop::start(&hop, HOP_HOST, HOP_SWITCH, seed).inspect_err(|_| {
            lab.forget_namespace(&namespace);
        })?;
        hop.set(from_host, to_host);
        self.faulted = Some(Faulted { hop, namespace });
        Ok(())
    }

    /// `host --veth-- port(moved to the hop, renamed) [hop] HOP_SWITCH --veth-- port(new)`.
    fn insert_hop(&self, switch: &Host, port: &str, namespace: &str) -> Result<String> {
        self.offloads("off")?;
        let switch_namespace = switch.namespace();
        // The hop's devices must say nothing of their own, or it would be carried along.
        let quiet = namespace.to_owned();
        std::thread::scope(|scope| {
            scope
                .spawn(|| crate::host::move_this_thread(&quiet).and_then(|()| silence()))
                .join()
        })
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        switch.ip(&[
            format!("link set {port} nomaster"),
            format!("link set {port} netns {namespace} name {HOP_HOST}"),
        ])?;
        ip_batch(
            Some(namespace),
            &[
                format!(
                    "link add {HOP_SWITCH} type veth peer name {port} netns {switch_namespace}"
                ),
                format!("link set {HOP_HOST} up"),
                format!("link set {HOP_SWITCH} up"),
            ],
        )?;
        switch.ip(&[format!("link set {port} master {BRIDGE} up")])?;
        ethtool_offloads(switch, port, "off")?;
        Ok(namespace.to_owned())
    }

    /// Takes the hop out: the cable is as it was made, offloads on. Returns what the hop counted.
    ///
    /// # Errors
    /// When the devices cannot be put back.
    pub fn clear_faults(&mut self) -> Result<Counts> {
        let (Some(faulted), Some(SwitchPort { switch, port })) =
            (self.faulted.take(), &self.switch)
        else {
            return Ok(Counts::default());
        };
        let counts = faulted.hop.stop();
        ip_batch(
            Some(&faulted.namespace),
            &[
                format!("link del {HOP_SWITCH}"),
                format!(
                    "link set {HOP_HOST} netns {} name {port}",
                    switch.namespace()
                ),
            ],
        )?;
        self.host.lab().forget_namespace(&faulted.namespace);
        switch.ip(&[format!("link set {port} master {BRIDGE} up")])?;
        self.offloads("on")?;
        Ok(counts)
    }

    /// What the hop has counted so far; zeros for a cable without faults.
    #[must_use]
    pub fn fault_counts(&self) -> Counts {
        self.faulted
            .as_ref()
            .map(|faulted| faulted.hop.counts())
            .unwrap_or_default()
    }

    fn offloads(&self, state: &str) -> Result<()> {
        ethtool_offloads(&self.host, &self.device, state)
    }
}

fn ethtool_offloads(host: &Host, device: &str, state: &str) -> Result<()> {
    let mut arguments = vec!["-K", device];
    for offload in OFFLOADS {
        // veth has GRO off by default and switches it on only on request.
        let state = if *offload == "gro" { "off" } else { state };
        arguments.extend([offload, state]);
    }
    host.check("ethtool", &arguments).map(drop)
}

fn silence() -> Result<()> {
    let file = "/proc/sys/net/ipv6/conf/default/disable_ipv6";
    std::fs::write(file, "1").map_err(|source| Error::Io {
        what: format!("writing {file}"),
        source,
    })
}
