//! What Consul lists for a service, taken as data from outside.

use std::str::FromStr;

use millrace_channel::tls::Role;
use millrace_notation::address::{DefaultPort, HostPort};

use super::health::{Entry, entries};
use crate::peers::Cluster;

/// More members of one cluster are not taken.
const MOST: usize = 1024;

/// The name of the service that daemons of a role register as. One for each cluster, so that a token can be given for
/// one cluster alone.
pub(super) fn service_name(role: Role, cluster: &Cluster) -> String {
    format!("millrace-{role}-{cluster}")
}

/// One daemon of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Where it is reached.
    pub address: HostPort,
    /// Whether none of its checks is critical.
    pub up: bool,
}

/// The members that an answer lists, each address once, and what is wrong with the others.
///
/// # Errors
/// It is not such a list.
pub(super) fn members(body: &[u8]) -> Result<(Vec<Member>, Vec<String>), String> {
    let mut members: Vec<Member> = Vec::new();
    let mut wrong = Vec::new();
    for entry in entries(body)? {
        match member(&entry) {
            Ok(member) => {
                let full = members.len() >= MOST;
                match members.iter_mut().find(|it| it.address == member.address) {
                    // Registered by two agents: one that is well is enough.
                    Some(known) => known.up |= member.up,
                    None if full => {
                        wrong.push(format!("{}: more than {MOST} are listed", member.address))
                    }
                    None => members.push(member),
                }
            }
            Err(why) => wrong.push(why),
        }
    }
    Ok((members, wrong))
}

fn member(entry: &Entry) -> Result<Member, String> {
    let host = match entry.service.address.as_str() {
        "" => entry.node.address.as_str(),
        address => address,
    };
    let port = u16::try_from(entry.service.port).unwrap_or(0);
    let text = match std::net::Ipv6Addr::from_str(host) {
        Ok(v6) => format!("[{v6}]:{port}"),
        Err(_) => format!("{host}:{port}"),
    };
    Ok(Member {
        address: DefaultPort(0)
            .parse(&text)
            .map_err(|error| error.to_string())?,
        up: entry.checks.iter().all(|check| check.status != "critical"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(node: &str, service: &str, port: i64, status: &str) -> String {
        format!(
            r#"{{"Node":{{"Node":"n","Address":"{node}"}},
                "Service":{{"ID":"i","Address":"{service}","Port":{port},"Meta":null}},
                "Checks":[{{"Status":"passing"}},{{"Status":"{status}"}}],"New":[1]}}"#
        )
    }

    fn read(entries: &[String]) -> (Vec<(String, bool)>, usize) {
        let (members, wrong) = members(format!("[{}]", entries.join(",")).as_bytes()).unwrap();
        let shown = members.iter().map(|it| (it.address.to_string(), it.up));
        (shown.collect(), wrong.len())
    }

    #[test]
    fn the_services_address_counts_or_else_its_nodes() {
        let listed = [
            entry("198.18.0.1", "198.18.0.2", 36_524, "warning"),
            entry("198.18.0.1", "", 1, "critical"),
            entry("n", "2001:db8::1", 2, "passing"),
        ];
        let expected = [
            ("198.18.0.2:36524".to_owned(), true),
            ("198.18.0.1:1".to_owned(), false),
            ("[2001:db8::1]:2".to_owned(), true),
        ];
        assert_eq!(read(&listed), (expected.to_vec(), 0));
    }

    #[test]
    fn what_is_no_address_is_left_out_and_the_rest_stays() {
        let listed = [
            entry("", "", 1, "passing"),
            entry("h", "a b", 1, "passing"),
            entry("h", "h", 0, "passing"),
            entry("h", "h", -1, "passing"),
            entry("h", "h", 70_000, "passing"),
            entry("h", "good", 7, "passing"),
            entry("h", "good", 7, "critical"),
        ];
        assert_eq!(read(&listed), (vec![("good:7".to_owned(), true)], 5));
        for text in ["", "{}", "null", "[1]", "<html>", r#"[{"Node":{}}]"#] {
            assert!(members(text.as_bytes()).is_err(), "{text}");
        }
        assert_eq!(members(b"[]").unwrap().0, []);
    }

    #[test]
    fn a_list_without_end_is_cut() {
        let many: Vec<String> = (0..MOST + 5)
            .map(|it| entry("h", &format!("h{it}"), 1, "passing"))
            .collect();
        let (taken, wrong) = read(&many);
        assert_eq!((taken.len(), wrong), (MOST, 5));
    }

    #[test]
    fn a_service_has_a_name_of_its_own_in_each_cluster() {
        let cluster = "web-2".parse().unwrap();
        assert_eq!(
            service_name(Role::Interceptor, &cluster),
            "millrace-interceptor-web-2"
        );
        assert_eq!(
            service_name(Role::RouterAgent, &cluster),
            "millrace-router-agent-web-2"
        );
    }
}
