//! Sets up what `--local` needs. Everything ends with the process.

use std::net::IpAddr;
use std::process::Command;
use std::sync::Arc;

use millrace_capture::{Tap, Tun};
use millrace_daemon::exit::ExitError;
use millrace_engine::Config;
use parking_lot::Mutex;

use super::answers::Answers;
use super::plan::{CatchBy, LocalPlan};
use super::shield::{Rule, Shield};

/// Name of the tun device; the number is the first that is free.
const DEVICE: &str = "millrace-l%d";

/// What was set up. Dropping the last clone takes it down.
#[derive(Clone, Debug)]
pub struct Local(Arc<Kept>);

#[derive(Debug, Default)]
struct Kept {
    _tun: Option<Tun>,
    shield: Option<Mutex<Shield>>,
}

impl Local {
    /// Sets it up, and gives what captures the answers.
    ///
    /// # Errors
    /// What this host lacks, and what to do about it.
    pub fn set_up(plan: &LocalPlan, engine: &Config) -> Result<(Self, Answers), ExitError> {
        let (kept, taps) = match &plan.way {
            CatchBy::Tun => {
                let tun = Tun::create(DEVICE).map_err(|error| failed(&error))?;
                route(&tun, plan)?;
                let taps = taps(plan, std::slice::from_ref(&tun.name().to_owned()))?;
                tracing::info!("the target's answers end in device {}", tun.name());
                let kept = Kept {
                    _tun: Some(tun),
                    shield: None,
                };
                (kept, taps)
            }
            CatchBy::Shield(devices) => {
                let taps = taps(plan, devices)?;
                let rules = rules(plan, engine);
                warn_of_own_connections(&rules);
                let shield = Shield::raise(rules)?;
                tracing::info!(
                    "the target's answers end in nftables table {}",
                    shield.tables()
                );
                let kept = Kept {
                    _tun: None,
                    shield: Some(Mutex::new(shield)),
                };
                (kept, taps)
            }
            CatchBy::Pool(devices) => (Kept::default(), taps(plan, devices)?),
        };
        let local = Self(Arc::new(kept));
        Ok((local.clone(), Answers::new(taps, local)))
    }

    /// Sees that what was set up is still there.
    ///
    /// # Errors
    /// The shield's nft has ended, and its tables with it: this host resets copied connections.
    pub fn check(&self) -> Result<(), ExitError> {
        let Some(shield) = &self.0.shield else {
            return Ok(());
        };
        let mut shield = shield.lock();
        match shield.ended() {
            None => Ok(()),
            Some(status) => Err(ExitError::start(format!(
                "--local: nft, which kept this host from resetting copied connections, has ended \
                 ({status}), and nftables table {} with it: the replay was broken off; see who ended \
                 nft, and replay again",
                shield.tables()
            ))),
        }
    }
}

fn failed(error: &dyn std::error::Error) -> ExitError {
    ExitError::caused("--local", error)
}

fn taps(plan: &LocalPlan, devices: &[String]) -> Result<Vec<Tap>, ExitError> {
    devices
        .iter()
        .map(|device| Tap::open(plan.ring(device)))
        .collect::<Result<_, _>>()
        .map_err(|error| failed(&error))
}

/// Sets the device up and routes the replicas' addresses into it.
fn route(tun: &Tun, plan: &LocalPlan) -> Result<(), ExitError> {
    let device = tun.name();
    // A target on 127.0.0.1 answers from there, which only a device that may carry such packets
    // takes. The device is ours, so is the setting.
    set(&format!("net/ipv4/conf/{device}/route_localnet"), "1")?;
    // The kernel sends nothing of its own through it.
    let _ = set(&format!("net/ipv6/conf/{device}/addr_gen_mode"), "1");
    ip(&["link", "set", device, "up"])?;
    for (first, last) in &plan.sources {
        for net in networks(*first, *last) {
            ip(&["route", "add", &net, "dev", device]).map_err(|error| {
                ExitError::start(format!(
                    "{error}; name a network that is not in use with --local-net"
                ))
            })?;
        }
    }
    Ok(())
}

fn set(key: &str, value: &str) -> Result<(), ExitError> {
    std::fs::write(format!("/proc/sys/{key}"), value)
        .map_err(|error| ExitError::caused(format!("--local: cannot set {key}"), &error))
}

fn ip(arguments: &[&str]) -> Result<(), ExitError> {
    let shown = || format!("--local: `ip {}`", arguments.join(" "));
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .map_err(|error| ExitError::caused(format!("{} (install iproute2)", shown()), &error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(ExitError::start(format!("{} failed: {said}", shown())))
}

/// What the shield drops: answers of targets to the ports that replicas bear.
fn rules(plan: &LocalPlan, engine: &Config) -> Vec<Rule> {
    let mut rules = Vec::new();
    for target in &plan.targets {
        for (first, last, ports) in engine.space(target.is_ipv4()).blocks() {
            rules.push(Rule {
                target: *target,
                sources: (first, last),
                ports: (ports.first, ports.last),
            });
        }
    }
    rules
}

/// Where the kernel was told to take ports that replicas have, connections of this host's own
/// programs to the target may lose their answers.
fn warn_of_own_connections(rules: &[Rule]) {
    const RANGE: &str = "net/ipv4/ip_local_port_range";
    // Without it nothing is known, and nothing can be said.
    let range = std::fs::read_to_string(format!("/proc/sys/{RANGE}")).unwrap_or_default();
    let mut bounds = range.split_whitespace().map(str::parse::<u16>);
    let (Some(Ok(low)), Some(Ok(high))) = (bounds.next(), bounds.next()) else {
        return;
    };
    let meets = |rule: &&Rule| low <= rule.ports.1 && rule.ports.0 <= high;
    if let Some(rule) = rules.iter().find(meets) {
        tracing::warn!(
            "this host's own programs may get ports {low} to {high} ({RANGE}), and connections of \
             theirs to {} from ports {} to {} are cut off while the replay lasts: keep that range above \
             32767, or replay from another host",
            rule.target,
            rule.ports.0,
            rule.ports.1
        );
    }
}

/// A range of addresses as networks: `FIRST/LENGTH`, as few as possible.
fn networks(first: IpAddr, last: IpAddr) -> Vec<String> {
    let (bits, mut at, end) = match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => (
            32,
            u128::from(u32::from(first)),
            u128::from(u32::from(last)),
        ),
        (IpAddr::V6(first), IpAddr::V6(last)) => (128, u128::from(first), u128::from(last)),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return Vec::new(),
    };
    let mut found = Vec::new();
    while at <= end {
        let mut host_bits = at.trailing_zeros().min(bits);
        while host_bits > 0 && (host_bits >= 128 || at + ((1u128 << host_bits) - 1) > end) {
            host_bits -= 1;
        }
        let ip: IpAddr = match bits {
            // It came from an IPv4 address.
            32 => IpAddr::V4((at as u32).into()),
            _ => IpAddr::V6(at.into()),
        };
        found.push(format!("{ip}/{}", bits - host_bits));
        match at.checked_add(1u128 << host_bits) {
            Some(next) => at = next,
            None => break,
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_become_networks() {
        let networks = |first: &str, last: &str| {
            networks(first.parse().unwrap(), last.parse().unwrap()).join(" ")
        };
        assert_eq!(
            networks("198.19.240.0", "198.19.255.255"),
            "198.19.240.0/20"
        );
        assert_eq!(
            networks("198.19.0.1", "198.19.0.6"),
            "198.19.0.1/32 198.19.0.2/31 198.19.0.4/31 198.19.0.6/32"
        );
        assert_eq!(networks("0.0.0.0", "255.255.255.255"), "0.0.0.0/0");
        assert_eq!(networks("2001:db8::", "2001:db8::ffff"), "2001:db8::/112");
        assert_eq!(
            networks(
                "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
            ),
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"
        );
    }
}
