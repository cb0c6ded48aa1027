//! How the real servers' responses are diverted, by hand.

use millrace_lab::cluster::Cluster;
use millrace_lab::{Addresses, Host, Place};

/// Where responses are diverted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A sink device of the real server itself.
    Sink,
    /// The assistant, which has the only interceptor.
    Link,
    /// A firewall queue of the real server itself.
    Nfqueue,
}

const SINK: &str = "millrace0";
const TABLE: u32 = 4242;

/// Diverts the responses of a real server, except those to the director and to the tester.
pub(super) fn install(cluster: &Cluster, place: &Place, mode: Mode) {
    let source = cluster.response_source(place);
    let passed = [cluster.director.place().address, cluster.tester.address];
    match mode {
        Mode::Sink => {
            sink(&place.host);
            routes(&place.host, &format!("dev {SINK}"), &format!("dev {SINK}"));
            rules(&place.host, cluster.ports(), source, &passed);
        }
        Mode::Link => {
            let assistant = cluster.assistant.address;
            let (v4, v6) = (assistant.v4.to_string(), assistant.v6.to_string());
            routes(&place.host, &format!("via {v4}"), &format!("via {v6}"));
            rules(&place.host, cluster.ports(), source, &passed);
        }
        Mode::Nfqueue => queue(&place.host, cluster.ports(), source, &passed),
    }
}

/// A device that outlives every reader and carries nothing anywhere.
fn sink(host: &Host) {
    host.ip(&[
        format!("link add {SINK} type veth peer name {SINK}p"),
        format!("link set {SINK} arp off addrgenmode none up"),
        format!("link set {SINK}p arp off addrgenmode none up"),
    ])
    .unwrap();
}

fn routes(host: &Host, v4: &str, v6: &str) {
    host.ip(&[
        format!("route add blackhole 0.0.0.0/0 metric 9000 table {TABLE}"),
        format!("route add blackhole ::/0 metric 9000 table {TABLE}"),
        format!("route add 0.0.0.0/0 {v4} table {TABLE}"),
        format!("route add ::/0 {v6} table {TABLE}"),
    ])
    .unwrap();
}

fn rules(host: &Host, ports: &[u16], source: Addresses, passed: &[Addresses]) {
    let mut rules = Vec::new();
    for passed in passed {
        rules.push(format!("-4 rule add pref 900 to {} lookup main", passed.v4));
        rules.push(format!("-6 rule add pref 900 to {} lookup main", passed.v6));
    }
    for port in ports {
        let what = format!("ipproto tcp sport {port} lookup {TABLE}");
        rules.push(format!("-4 rule add pref 1000 from {} {what}", source.v4));
        rules.push(format!("-6 rule add pref 1000 from {} {what}", source.v6));
    }
    for rule in rules {
        let words: Vec<&str> = rule.split(' ').collect();
        host.check("ip", &words).unwrap();
    }
}

fn queue(host: &Host, ports: &[u16], source: Addresses, passed: &[Addresses]) {
    let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
    let ports = ports.join(",");
    for (program, source, passed) in [
        (
            "iptables",
            source.v4.to_string(),
            passed.iter().map(|p| p.v4.to_string()).collect::<Vec<_>>(),
        ),
        (
            "ip6tables",
            source.v6.to_string(),
            passed.iter().map(|p| p.v6.to_string()).collect(),
        ),
    ] {
        let mut rules = vec!["-N MILLRACE".to_owned()];
        rules.extend(
            passed
                .iter()
                .map(|to| format!("-A MILLRACE -d {to} -j RETURN")),
        );
        rules.push(format!(
            "-A MILLRACE -p tcp -s {source} -m multiport --sports {ports} -j NFQUEUE --queue-num {}",
            crate::INTERCEPTOR_PORT
        ));
        rules.push("-I OUTPUT -j MILLRACE".to_owned());
        for rule in rules {
            let words: Vec<&str> = rule.split(' ').collect();
            host.check(program, &words).unwrap();
        }
    }
}
