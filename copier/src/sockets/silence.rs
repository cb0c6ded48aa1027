//! Why no packet of a service may come, in words.

use millrace_notation::address::{Live, Mapping};

use super::Listeners;

/// Ports that are named.
const NAMED: usize = 3;

/// What keeps packets of these services from coming, where this host knows it.
pub(crate) fn known_obstacle(services: &[Mapping], here: &Listeners) -> Option<String> {
    // What listens in a pod is not to be seen from here.
    let mut of_hosts = services.iter().filter(|it| it.live.pods().is_none());
    let of = |it: &Mapping| here.of(it.live.ip(), it.live_port);
    of_hosts.find_map(of).or_else(|| family(services))
}

/// Why no packet of these services may come.
pub(crate) fn nobody(services: &[Mapping], here: &Listeners) -> String {
    let capture = where_to_look(services);
    match known_obstacle(services, here) {
        Some(known) => format!("{known}; {capture}"),
        None => format!(
            "{capture}; a container has devices of its own, and a proxy speaks to it from this host (-i lo)"
        ),
    }
}

/// The command that shows where packets of the first of these services come by.
pub(crate) fn where_to_look(services: &[Mapping]) -> String {
    let port = services.first().map_or(0, |it| it.live_port);
    format!(
        "check -x and -i: `tcpdump -ni any tcp port {port}` shows where clients' packets come by"
    )
}

/// The live ports, for people.
pub(crate) fn ports(services: &[Mapping]) -> String {
    let mut ports: Vec<u16> = services.iter().map(|it| it.live_port).collect();
    ports.sort_unstable();
    ports.dedup();
    let named: Vec<String> = ports.iter().take(NAMED).map(ToString::to_string).collect();
    let more = ports.len() - named.len();
    match (named.as_slice(), more) {
        ([only], 0) => format!("port {only}"),
        (several, 0) => format!("ports {}", several.join(", ")),
        (several, more) => format!("ports {} and {more} others", several.join(", ")),
    }
}

/// A copy that bears its client's address is of the client's family.
fn family(services: &[Mapping]) -> Option<String> {
    let any = services.iter().all(|it| it.live == Live::Host);
    let v6 = services.iter().all(|it| it.target.is_ipv6());
    (any && v6).then(|| {
        "only clients of IPv6 are copied to a target of IPv6, unless copies have addresses of their own (-c)"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_of_ipv6_alone_has_clients_of_ipv6_alone() {
        let said = |services: &[&str]| {
            let services: Vec<Mapping> = services.iter().map(|it| it.parse().unwrap()).collect();
            nobody(&services, &Listeners::default())
        };
        let v6 = "80-[2001:db8:2::20]:80";
        assert!(family(&[v6.parse().unwrap()]).is_some());
        assert!(
            said(&[v6]).contains("nothing on this host listens"),
            "what is known first"
        );
        let both = [v6.parse().unwrap(), "80-198.18.2.20:80".parse().unwrap()];
        assert_eq!(family(&both), None);
    }
}
