//! Verdicts in one line each: what was seen, and the command that shows or mends it.

use std::fmt::{self, Display, Formatter};

use millrace_capture::SendErrorKind;
use millrace_engine::Misdirection;
use millrace_proto::Obstacle;

use super::{Flow, Knock, Verdict};

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Misdirected(misdirection) => f.write_str(misdirected(*misdirection)),
            Self::Open {
                answered,
                refusing,
                silent,
                absent,
                doubtful: _,
            } => open(f, *answered, refusing, silent, absent),
            Self::Partly {
                answered: (answered, probes),
                missing,
            } => write!(
                f,
                "{answered} of {probes} probes came back; the others: {missing}; a real server whose answers are not \
                 diverted would answer real clients: give it an interceptor and a router-agent, or take it out of the \
                 director"
            ),
            Self::Refused { target } => write!(
                f,
                "refused: the target's host resets the probes: nothing listens on {target}; see there `ss -ltn 'sport = \
                 :{}'`",
                target.port
            ),
            Self::NotDiverted { host, device, flow } => write!(
                f,
                "not diverted: the real server of interceptor {host} answered on {device}, towards the real client; see \
                 there {} and `millrace-router-agent show`",
                way_back(flow)
            ),
            Self::NotOwned { host } => write!(
                f,
                "not owned: interceptor {host} captured the answer and gave it to no one or to another copier; see there \
                 `curl -s http://127.0.0.1:36531/status`"
            ),
            Self::NotAnswered {
                host,
                device,
                flow,
                obstacle,
            } => {
                write!(
                    f,
                    "not answered: the probe came in on {device} of interceptor {host}'s host, "
                )?;
                stopped(f, device, flow, *obstacle)
            }
            Self::NotSent {
                kind: SendErrorKind::Unreachable,
                errno: _,
                flow: Flow { client: _, target },
            } => write!(
                f,
                "not sent: the next hop to {ip} does not answer: is the address behind -x right, and the host up? See here \
                 `ip route get {ip}` and `ip neigh`",
                ip = target.ip
            ),
            Self::NotSent {
                kind,
                errno,
                flow: Flow { client, target },
            } => write!(
                f,
                "not sent: this host could not send the probe ({}, errno {errno}); see `ip route get {} from {client} iif \
                 lo` and `nft list ruleset`, or send at the link layer with -o",
                kind.name(),
                target.ip,
            ),
            Self::AtClient { host, flow } => write!(
                f,
                "not returned: the answer came to the host of interceptor {host}, and that host is itself the client: its \
                 kernel resets the copies; run millrace-interceptor on a host that is nobody's client and let {} on the \
                 target lead there, or run it on the target with millrace-router-agent",
                way_back(flow)
            ),
            Self::SourceDropped { asked, flow } => source_dropped(f, asked, flow),
            Self::NotReceived { asked, blind, flow } => not_received(f, asked, blind, flow),
            Self::NotAtAssistant { asked, flow, knock } => not_at_assistant(f, asked, flow, *knock),
        }
    }
}

const fn misdirected(misdirection: Misdirection) -> &'static str {
    match misdirection {
        Misdirection::OwnPacket => {
            "a copied SYN came back as a client's: the target leads to the live service again (a balancer for it, DNAT, \
             another host that copies to here); mend -x or the way, then start again"
        }
        Misdirection::TargetIsClient => {
            "it is a client of the live service, too: its own connections are not copied, since that would go round and \
             round (--copy-targets copies them: where a gateway or proxy has the target's address)"
        }
    }
}

fn open(
    f: &mut Formatter<'_>,
    (answered, probes): (usize, usize),
    refusing: &[String],
    silent: &[String],
    absent: &[String],
) -> fmt::Result {
    write!(f, "first contact: {answered} of {probes} probes came back")?;
    if !refusing.is_empty() {
        write!(
            f,
            ", refused by the real servers of {}, where nothing listens",
            refusing.join(", ")
        )?;
    }
    if !silent.is_empty() {
        write!(f, ", none of them through {}", silent.join(", "))?;
    }
    match (answered < probes, absent.is_empty()) {
        (false, _) => Ok(()),
        (true, true) => f.write_str(
            "; the others went unanswered: is there a real server without an interceptor?",
        ),
        (true, false) => write!(
            f,
            "; the others went unanswered: not connected: {}",
            absent.join(", ")
        ),
    }
}

/// What stopped a probe that came in.
fn stopped(
    f: &mut Formatter<'_>,
    device: &str,
    Flow { client, target }: &Flow,
    obstacle: Obstacle,
) -> fmt::Result {
    let (ip, port) = (target.ip, target.port);
    match obstacle {
        Obstacle::NoAddress => write!(
            f,
            "which does not have the address {ip}; if it is a real server, there `sysctl -w net/ipv4/conf/all/arp_ignore=1 \
             net/ipv4/conf/all/arp_announce=2`, then `ip address add {ip}/{} dev lo`",
            if ip.is_ipv4() { 32 } else { 128 }
        ),
        Obstacle::ReversePath => write!(
            f,
            "whose reverse-path filter dropped it; there `sysctl -w net/ipv4/conf/{device}/rp_filter=2`, or 0 if it has no \
             route to clients (`ip route get {client}`), and the same for `all`"
        ),
        Obstacle::Backlog => write!(
            f,
            "where the backlog of {target} is full: the application does not take its connections; there `ss -ltn 'sport \
             = :{port}'`"
        ),
        Obstacle::NoRoute => write!(
            f,
            "which dropped it, since it knows no way back to the client, as it seems; there `ip route get {client} from \
             {ip}`"
        ),
        Obstacle::Firewall => f.write_str(
            "and nothing went out: a firewall there dropped it, or its answer, as it seems; there `nft list ruleset` and \
             `iptables-save -c`",
        ),
        Obstacle::Unknown | Obstacle::ClientHere => write!(
            f,
            "and nothing went out; see there `ss -ltn 'sport = :{port}'`, `ip route get {ip}` (is the VIP local?) and \
             `sysctl net/ipv4/conf/{device}/rp_filter`"
        ),
    }
}

fn source_dropped(
    f: &mut Formatter<'_>,
    asked: &[String],
    Flow { client, target }: &Flow,
) -> fmt::Result {
    write!(
        f,
        "sources dropped: probes that bear this host's own address came back, and no host of {} saw one that bears a \
         client's: something on the way drops sources that are not of this host (anti-spoofing, source/destination check, \
         uRPF); `tcpdump -ni any 'host {client} and tcp port {}'` on each hop shows where; let this host's port pass \
         them, on a router of Linux by `sysctl -w net/ipv4/conf/all/rp_filter=2`, or copy with addresses that may come \
         from here (-c). A director may also lead this client to a real server without an interceptor (`ipvsadm -Ln`)",
        asked.join(", "),
        target.port
    )
}

fn not_received(
    f: &mut Formatter<'_>,
    asked: &[String],
    blind: &[String],
    Flow { client, target }: &Flow,
) -> fmt::Result {
    write!(
        f,
        "not received: no host of {} saw the probe come in; see here `ip route get {}`, on the director `ipvsadm -Ln`, on \
         a real server `tcpdump -ni any 'host {client} and tcp port {}'`: rp_filter, firewalls and anti-spoofing drop \
         foreign sources",
        asked.join(", "),
        target.ip,
        target.port
    )?;
    if !blind.is_empty() {
        write!(f, " (could not look: {})", blind.join("; "))?;
    }
    Ok(())
}

fn not_at_assistant(
    f: &mut Formatter<'_>,
    asked: &[String],
    flow: &Flow,
    knock: Option<Knock>,
) -> fmt::Result {
    let Flow { client, target } = flow;
    let assistants = asked.join(", ");
    let port = target.port;
    match knock {
        Some(Knock::Taken) => write!(
            f,
            "not diverted: {target} takes connections of this host, and no answer to a client came to the assistant \
             {assistants}; on the target {} must lead to {assistants}; if it does, rp_filter of `all` or of its device \
             there is 1 (`sysctl -a -r rp_filter`), or something on the way drops foreign sources",
            way_back(flow)
        ),
        Some(Knock::Refused) => write!(
            f,
            "refused: {target} refuses connections of this host, and no answer to a client came to the assistant \
             {assistants}; see on the target `ss -ltn 'sport = :{port}'`"
        ),
        Some(Knock::Silent) => write!(
            f,
            "not answered: no answer to a client came to the assistant {assistants}, and {target} does not answer this \
             host either, unless its answers to this host are routed away, too; see on the target `ss -ltn 'sport = \
             :{port}'`, `nft list ruleset` and {}",
            way_back(flow)
        ),
        None => write!(
            f,
            "not diverted or not received: no answer came to the assistant {assistants}; see on the target `tcpdump -ni \
             any 'host {client} and tcp port {port}'` and {}",
            way_back(flow)
        ),
    }
}

/// The command that shows where the target's answer to a client goes.
fn way_back(Flow { client, target }: &Flow) -> String {
    format!(
        "`ip route get {client} from {} ipproto tcp sport {}`",
        target.ip, target.port
    )
}
