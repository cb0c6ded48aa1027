//! The name of a copier that was given none.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

use millrace_channel::transport::Security;
use millrace_engine::{Config, LiveAddress};

/// Longest name that interceptors take, in bytes.
const MAX_ID: usize = 128;

/// The same at every start and different from every other copier's. Namespaces and containers may
/// share the host's name, so an address goes with it; copiers on one host copy different ports.
pub(super) fn default_id(engine: &Config, security: &Security) -> String {
    let name = rustix::system::uname();
    // A certificate with a name allows only copier names that begin with it.
    let host = match security.identity().and_then(|it| it.name) {
        Some(name) => name.into(),
        None => name.nodename().to_string_lossy(),
    };
    let mut ports: Vec<u16> = engine
        .services
        .iter()
        .map(|service| service.live_port)
        .collect();
    ports.sort_unstable();
    ports.dedup();
    let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
    let services = engine.services.iter();
    let named = services.filter_map(|service| match service.live {
        LiveAddress::At(ip) => Some(ip),
        LiveAddress::Host | LiveAddress::Followed => None,
    });
    let others = engine.local_addresses.iter().copied();
    let is_own = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local(),
    };
    let address = named
        .filter(is_own)
        .min()
        .or_else(|| others.filter(is_own).min());
    let address = address.map(|ip| format!("/{ip}")).unwrap_or_default();
    let share = engine
        .share
        .map(|share| format!("/share{}of{}", share.index(), share.of()));
    let id = format!("{host}{address}:{}", ports.join("+"));
    shortened(&id, &share.unwrap_or_default())
}

/// `id` and `share`, in as many bytes as interceptors take. What tells copiers apart is not just
/// cut off: a hash of it stands for the rest.
pub(super) fn shortened(id: &str, share: &str) -> String {
    let room = MAX_ID.saturating_sub(share.len());
    if id.len() <= room {
        return format!("{id}{share}");
    }
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    let hash = format!("~{:016x}", hasher.finish());
    let mut end = room.saturating_sub(hash.len());
    while !id.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{hash}{share}", id.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_still_tells_copiers_and_their_shares_apart() {
        assert_eq!(shortened("live/198.18.2.10:80", ""), "live/198.18.2.10:80");
        let long = |end: &str| format!("live:{}{end}", "8080+".repeat(40));
        let (one, two) = (long("1"), long("2"));
        let names = [
            (&one, "/share0of2"),
            (&one, "/share1of2"),
            (&two, "/share0of2"),
        ];
        let names = names.map(|(id, share)| shortened(id, share));
        assert!(names.iter().all(|name| name.len() == MAX_ID));
        assert!(names[0] != names[1] && names[0] != names[2]);
        assert!(names[1].ends_with("/share1of2"));
        assert!(shortened(&"\u{fffd}".repeat(60), "").len() <= MAX_ID);
    }
}
