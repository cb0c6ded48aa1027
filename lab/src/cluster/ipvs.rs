//! The kernel's own balancer, its real servers watched by keepalived: what production has.

use std::fmt::Write as _;
use std::time::Duration;

use super::director::{Forwarding, Member, Scheduler, Service};
use crate::error::{Doing, Result};
use crate::host::Host;
use crate::process::Process;
use crate::wait::wait_for;

/// How long keepalived may take to set everything up.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running keepalived and what it set up.
#[derive(Debug)]
pub(super) struct Ipvs {
    keepalived: Process,
    service: Service,
    host: Host,
}

impl Ipvs {
    /// Starts keepalived and waits until the kernel knows every service and every real server.
    pub(super) fn start(host: Host, service: Service, members: &[Member]) -> Result<Self> {
        let file = host.file("keepalived.conf");
        std::fs::write(&file, configuration(&service, members))
            .doing(|| format!("writing {}", file.display()))?;
        let [pid, checkers] = ["keepalived.pid", "checkers.pid"].map(|name| host.file(name));
        let names = [&file, &pid, &checkers].map(|file| file.display().to_string());
        let [file, pid, checkers] = &names;
        // Only health checks (-C), in the foreground, everything to the log.
        let arguments = [
            "-n", "-C", "-l", "-D", "-f", file, "-p", pid, "-c", checkers,
        ];
        let log = host.file("keepalived.log");
        let keepalived = host.spawn("keepalived", &arguments, &[], &log)?;
        let ipvs = Self {
            keepalived,
            service,
            host,
        };
        let servers = 2 * ipvs.service.ports.len() * members.len();
        wait_for("keepalived to set up its services", PATIENCE, || {
            let listed = ipvs.host.check("ipvsadm", &["-Ln"]);
            listed.is_ok_and(|list| active_servers(&list) == servers)
        })?;
        Ok(ipvs)
    }

    pub(super) fn set_weight(&self, member: &Member) -> Result<()> {
        let weight = if member.active { "1" } else { "0" };
        let forwarding = match self.service.forwarding {
            Forwarding::DirectRouting => "-g",
            Forwarding::AddressTranslation => "-m",
        };
        let real = [
            member.address.v4.to_string(),
            format!("[{}]", member.address.v6),
        ];
        self.each(|service, port, family| {
            let real = real
                .get(family)
                .map(|ip| format!("{ip}:{port}"))
                .unwrap_or_default();
            let arguments = ["-e", "-t", service, "-r", &real, forwarding, "-w", weight];
            self.host.check("ipvsadm", &arguments).map(drop)
        })
    }

    pub(super) fn set_scheduler(&mut self, scheduler: Scheduler) -> Result<()> {
        self.each(|service, _, _| {
            let arguments = ["-E", "-t", service, "-s", name(scheduler)];
            self.host.check("ipvsadm", &arguments).map(drop)
        })?;
        self.service.scheduler = scheduler;
        Ok(())
    }

    /// Does something for each service: its address as ipvsadm writes it, its port, and the place of its family.
    fn each(&self, mut work: impl FnMut(&str, u16, usize) -> Result<()>) -> Result<()> {
        let vip = [
            self.service.vip.v4.to_string(),
            format!("[{}]", self.service.vip.v6),
        ];
        for port in &self.service.ports {
            for (family, vip) in vip.iter().enumerate() {
                work(&format!("{vip}:{port}"), *port, family)?;
            }
        }
        Ok(())
    }

    pub(super) fn taken_out(&self) -> Vec<String> {
        let log = self.keepalived.log();
        let lines = log.lines().filter(|line| line.contains("Removing service"));
        lines.map(str::to_owned).collect()
    }
}

/// Lines `  -> ADDRESS:PORT FORWARD WEIGHT ...` with a weight above 0, below those of the heading.
fn active_servers(list: &str) -> usize {
    let weights = list.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == "->").then_some(())?;
        words.nth(2)?.parse::<u32>().ok()
    });
    weights.filter(|weight| *weight > 0).count()
}

fn name(scheduler: Scheduler) -> &'static str {
    match scheduler {
        Scheduler::RoundRobin => "rr",
        Scheduler::LeastConnections => "wlc",
        Scheduler::SourceHash => "sh",
    }
}

/// keepalived.conf(5): a check each second, two failures in a row take a real server out.
fn configuration(service: &Service, members: &[Member]) -> String {
    let kind = match service.forwarding {
        Forwarding::DirectRouting => "DR",
        Forwarding::AddressTranslation => "NAT",
    };
    let scheduler = name(service.scheduler);
    let mut text = String::from("global_defs {\n router_id lab\n}\n");
    for port in &service.ports {
        for (family, vip) in service.vip.both().into_iter().enumerate() {
            // Writing to memory cannot fail.
            let _ = writeln!(
                text,
                "virtual_server {vip} {port} {{\n delay_loop 1\n lb_algo {scheduler}\n lb_kind {kind}\n protocol TCP"
            );
            for member in members {
                let [v4, v6] = member.address.both();
                let real = if family == 0 { v4 } else { v6 };
                let _ = writeln!(
                    text,
                    " real_server {real} {port} {{\n  weight 1\n  TCP_CHECK {{\n   connect_timeout 3\n   retry 1\n   \
                     delay_before_retry 1\n  }}\n }}"
                );
            }
            text += "}\n";
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::Network;

    #[test]
    fn servers_with_a_weight_are_counted_in_ipvsadms_list() {
        let list = "IP Virtual Server version 1.2.1 (size=4096)\n\
            Prot LocalAddress:Port Scheduler Flags\n  \
              -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n\
            TCP  198.18.2.50:8080 rr\n  \
              -> 198.18.2.101:8080            Route   1      0          0\n  \
              -> 198.18.2.102:8080            Route   0      0          0\n";
        assert_eq!(active_servers(list), 1);
    }

    #[test]
    fn every_service_has_every_real_server_of_its_family() {
        let members = [101, 102].map(|last| Member {
            address: Network::Servers.address(last),
            mac: String::new(),
            active: true,
        });
        let service = Service {
            vip: Network::Servers.address(50),
            ports: vec![80, 81],
            forwarding: Forwarding::DirectRouting,
            scheduler: Scheduler::LeastConnections,
        };
        let text = configuration(&service, &members);
        assert_eq!(text.matches("virtual_server ").count(), 4);
        assert_eq!(text.matches("real_server 2001:db8:2::102 81 ").count(), 1);
        assert_eq!(text.matches("lb_algo wlc").count(), 4);
        assert_eq!(text.matches('{').count(), text.matches('}').count());
    }
}
