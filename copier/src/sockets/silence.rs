//! Why no packet of a service may come, in words.

use millrace_notation::address::Mapping;

use super::Listeners;

/// Ports that are named.
const NAMED: usize = 3;

/// Why no packet of these services may come.
pub(crate) fn nobody(services: &[Mapping], here: &Listeners) -> String {
    let known = services
        .iter()
        .find_map(|it| here.of(it.live_ip, it.live_port));
    let port = services.first().map_or(0, |it| it.live_port);
    let capture = format!(
        "check -x and -i: `tcpdump -ni any tcp port {port}` shows where clients' packets come by"
    );
    match known {
        Some(known) => format!("{known}; {capture}"),
        None => format!(
            "{capture}; a container has devices of its own, and a proxy speaks to it from this host (-i lo)"
        ),
    }
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
