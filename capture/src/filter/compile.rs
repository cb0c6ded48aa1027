//! The program for a list of services.
//!
//! X holds the offset of the IP header, so that one piece of code serves frames with no tag, one
//! tag or two. The ports go to scratch memory, because finding them needs X.

use std::collections::BTreeMap;

use millrace_wire::tunnel::UDP;
use millrace_wire::{LinkType, Tunnels};

use super::assembler::{Assembler, Label};
use super::endpoints::{Addresses, Endpoints, Family, Ipv4, Ipv6, Words};
use super::program::op;
use super::{FilterError, FilterSpec, Program, ResponseFilter};

/// Scratch memory: the offset of the IP header.
const M_NETWORK: u32 = 0;
/// Scratch memory: the source port.
const M_SOURCE_PORT: u32 = 1;
/// Scratch memory: the destination port.
const M_DESTINATION_PORT: u32 = 2;

/// Scratch memory: the flags of the TCP header, where they are asked for; 0 if they are not there.
const M_FLAGS: u32 = 3;

const TCP: u32 = 6;
/// Where the flags stand in a TCP header, and those of them that tell a SYN from a SYN-ACK.
const FLAGS: u32 = 13;
const SYN_AND_ACK: u32 = 0x12;
const SYN: u32 = 0x02;
/// IPv6 extension headers behind which TCP may stand (RFC 8200 (4)): routing, fragment,
/// destination options. Hop-by-hop options come first or not at all.
const EXTENSIONS: [u32; 3] = [43, 44, 60];
const HOP_BY_HOP: u32 = 0;
/// Length of the IPv6 header.
const IPV6_HEADER: u32 = 40;

/// Both directions of the services.
pub(super) fn services(
    spec: &FilterSpec,
    link: LinkType,
    snap_len: u32,
) -> Result<Program, FilterError> {
    let rules = Rules {
        only_syns: false,
        to_snap_len: spec.client_snap_len.min(snap_len),
        from_snap_len: spec.server_snap_len.min(snap_len),
        whole_snap_len: snap_len,
        tunnels: Bearers::of(&spec.tunnels),
        tunnel_snap_len: snap_len,
        ipv4: FamilyRules::of_services::<Ipv4>(spec),
        ipv6: FamilyRules::of_services::<Ipv6>(spec),
    };
    rules.compile(link, spec.services.len())
}

/// SYNs to the services.
pub(super) fn connects(
    spec: &FilterSpec,
    link: LinkType,
    snap_len: u32,
) -> Result<Program, FilterError> {
    let mut rules = Rules {
        only_syns: true,
        to_snap_len: snap_len,
        from_snap_len: 0,
        whole_snap_len: 0,
        tunnels: Bearers::default(),
        tunnel_snap_len: 0,
        ipv4: FamilyRules::of_services::<Ipv4>(spec),
        ipv6: FamilyRules::of_services::<Ipv6>(spec),
    };
    (rules.ipv4.from, rules.ipv6.from) = (Endpoints::nothing(), Endpoints::nothing());
    rules.compile(link, spec.services.len())
}

/// Packets from the sources, or all of TCP when there are none.
pub(super) fn responses(
    spec: &ResponseFilter,
    link: LinkType,
    snap_len: u32,
) -> Result<Program, FilterError> {
    let rules = Rules {
        only_syns: false,
        to_snap_len: 0,
        from_snap_len: spec.snap_len.min(snap_len),
        whole_snap_len: snap_len,
        tunnels: Bearers::default(),
        tunnel_snap_len: 0,
        ipv4: FamilyRules::of_responses::<Ipv4>(spec),
        ipv6: FamilyRules::of_responses::<Ipv6>(spec),
    };
    rules.compile(link, spec.sources.len())
}

/// What is matched in packets of one address family.
struct FamilyRules<const N: usize> {
    exclude_to: Endpoints<N>,
    exclude_from: Endpoints<N>,
    to: Endpoints<N>,
    from: Endpoints<N>,
    /// Of what comes from the services, what is kept whole.
    whole: Endpoints<N>,
}

impl<const N: usize> FamilyRules<N> {
    fn of_services<F: Family<N>>(spec: &FilterSpec) -> Self {
        let services = Endpoints::of_services::<F>(&spec.services, &spec.local_addresses);
        Self {
            exclude_to: Endpoints::of_sockets::<F>(&spec.exclude),
            exclude_from: Endpoints::nothing(),
            to: services.clone(),
            from: services,
            whole: Endpoints::of_services::<F>(&spec.whole_services, &spec.local_addresses),
        }
    }

    fn of_responses<F: Family<N>>(spec: &ResponseFilter) -> Self {
        let exclude = Endpoints::of_sockets::<F>(&spec.exclude);
        Self {
            exclude_to: exclude.clone(),
            exclude_from: exclude,
            to: Endpoints::nothing(),
            from: if spec.sources.is_empty() {
                Endpoints::Everything
            } else {
                Endpoints::of_services::<F>(&spec.sources, &[])
            },
            whole: Endpoints::of_ports(&spec.whole_ports),
        }
    }
}

/// What may bear a tunnel: IP protocols besides UDP, UDP ports, EtherTypes; each sorted.
#[derive(Default)]
struct Bearers {
    protocols: Vec<u32>,
    udp_ports: Vec<u32>,
    ethertypes: Vec<u32>,
}

impl Bearers {
    fn of(tunnels: &Tunnels) -> Self {
        let wide = |values: Vec<u16>| values.into_iter().map(u32::from).collect();
        Self {
            protocols: tunnels.protocols().into_iter().map(u32::from).collect(),
            udp_ports: wide(tunnels.udp_ports()),
            ethertypes: wide(tunnels.ethertypes()),
        }
    }

    /// The protocols, and UDP where one of its ports is among them.
    fn with_udp(&self) -> Vec<u32> {
        let udp = (!self.udp_ports.is_empty()).then_some(u32::from(UDP));
        let mut all: Vec<u32> = self.protocols.iter().copied().chain(udp).collect();
        all.sort_unstable();
        all
    }
}

struct Rules {
    /// Of packets to services only those that begin a connection.
    only_syns: bool,
    to_snap_len: u32,
    from_snap_len: u32,
    whole_snap_len: u32,
    tunnels: Bearers,
    tunnel_snap_len: u32,
    ipv4: FamilyRules<1>,
    ipv6: FamilyRules<4>,
}

/// Where a decision ends.
#[derive(Clone, Copy)]
struct Verdicts {
    to: Label,
    from: Label,
    whole: Label,
    tunnel: Label,
    reject: Label,
}

/// Where the addresses stand in an IP header.
#[derive(Clone, Copy)]
struct Offsets {
    source: u32,
    destination: u32,
}

impl Rules {
    fn compile(&self, link: LinkType, services: usize) -> Result<Program, FilterError> {
        let mut asm = Assembler::default();
        let verdicts = Verdicts {
            to: asm.label(),
            from: asm.label(),
            whole: asm.label(),
            tunnel: asm.label(),
            reject: asm.label(),
        };
        let (ipv4, ipv6) = (asm.label(), asm.label());
        let flags = self.only_syns;
        // With `only_syns`, what goes to a service is looked at once more.
        let decided = match flags {
            false => verdicts,
            true => Verdicts {
                to: asm.label(),
                ..verdicts
            },
        };
        if flags {
            asm.statement(op::LD_IMM, 0);
            asm.statement(op::ST, M_FLAGS);
        }
        let other = asm.label();
        let networks = Networks { ipv4, ipv6, other };
        find_network_header(&mut asm, link, networks, verdicts.reject);
        asm.bind(other);
        asm.search_any(&self.tunnels.ethertypes, verdicts.tunnel, verdicts.reject);
        asm.bind(ipv4);
        ipv4_packet(&mut asm, &self.ipv4, &self.tunnels, decided, flags);
        asm.bind(ipv6);
        ipv6_packet(&mut asm, &self.ipv6, &self.tunnels, decided, flags);
        if flags {
            asm.bind(decided.to);
            asm.statement(op::LD_MEM, M_FLAGS);
            asm.statement(op::AND, SYN_AND_ACK);
            asm.test(op::JEQ, SYN, verdicts.to, verdicts.reject);
        }
        for (label, snap_len) in [
            (verdicts.to, self.to_snap_len),
            (verdicts.from, self.from_snap_len),
            (verdicts.whole, self.whole_snap_len),
            (verdicts.tunnel, self.tunnel_snap_len),
            (verdicts.reject, 0),
        ] {
            asm.bind(label);
            asm.statement(op::RET, snap_len);
        }
        let instructions = asm.assemble();
        if instructions.len() > Program::MAX_INSTRUCTIONS {
            return Err(FilterError::TooLong {
                services,
                instructions: instructions.len(),
            });
        }
        Ok(Program::new(instructions))
    }
}

/// Where it goes on by network protocol; with another one, its EtherType is loaded.
#[derive(Clone, Copy)]
struct Networks {
    ipv4: Label,
    ipv6: Label,
    other: Label,
}

/// Sets X to the offset of the IP header and goes on by network protocol.
fn find_network_header(asm: &mut Assembler, link: LinkType, networks: Networks, reject: Label) {
    match link {
        LinkType::Ethernet => by_tags(asm, networks),
        LinkType::LinuxSll => {
            asm.statement(op::LDX_IMM, 16);
            asm.statement(op::LDH_ABS, 14);
            by_ethertype(asm, networks);
        }
        LinkType::LinuxSll2 => {
            asm.statement(op::LDX_IMM, 20);
            asm.statement(op::LDH_ABS, 0);
            by_ethertype(asm, networks);
        }
        LinkType::RawIp => by_version(asm, 0, networks, reject),
        LinkType::Null | LinkType::Loop => by_version(asm, 4, networks, reject),
        // No device delivers it: it is met in files alone, which no filter of the kernel reads.
        LinkType::Nflog => asm.goto(reject),
    }
}

fn by_tags(asm: &mut Assembler, networks: Networks) {
    /// 802.1Q, 802.1ad, and what was used for QinQ before that.
    const TAGS: [u32; 3] = [0x8100, 0x88a8, 0x9100];
    let known = asm.label();
    for offset in [12, 16] {
        asm.statement(op::LDX_IMM, offset + 2);
        asm.statement(op::LDH_ABS, offset);
        let tagged = asm.label();
        for tag in TAGS {
            asm.test_or_next(op::JEQ, tag, tagged);
        }
        asm.goto(known);
        asm.bind(tagged);
    }
    asm.statement(op::LDX_IMM, 22);
    asm.statement(op::LDH_ABS, 20);
    asm.bind(known);
    by_ethertype(asm, networks);
}

fn by_ethertype(asm: &mut Assembler, networks: Networks) {
    asm.test_or_next(op::JEQ, 0x0800, networks.ipv4);
    asm.test(op::JEQ, 0x86dd, networks.ipv6, networks.other);
}

fn by_version(asm: &mut Assembler, offset: u32, networks: Networks, reject: Label) {
    asm.statement(op::LDX_IMM, offset);
    asm.statement(op::LDB_IND, 0);
    asm.statement(op::RSH, 4);
    asm.test_or_next(op::JEQ, 4, networks.ipv4);
    asm.test(op::JEQ, 6, networks.ipv6, reject);
}

fn ipv4_packet(
    asm: &mut Assembler,
    rules: &FamilyRules<1>,
    tunnels: &Bearers,
    verdicts: Verdicts,
    flags: bool,
) {
    let offsets = Offsets {
        source: 12,
        destination: 16,
    };
    let (tcp, fragment, whole) = (asm.label(), asm.label(), asm.label());
    asm.statement(op::LDB_IND, 9);
    asm.test_or_next(op::JEQ, TCP, tcp);
    not_tcp(asm, tunnels, verdicts, |asm| {
        asm.statement(op::LDH_IND, 6);
        let first = asm.label();
        // Later fragments show no port.
        asm.test(op::JSET, 0x1fff, verdicts.tunnel, first);
        asm.bind(first);
        to_transport(asm);
        0
    });
    asm.bind(tcp);
    // The fragment offset: only the first fragment, with offset 0, has ports.
    asm.statement(op::LDH_IND, 6);
    asm.test(op::JSET, 0x1fff, fragment, whole);
    asm.bind(whole);
    asm.statement(op::STX, M_NETWORK);
    to_transport(asm);
    store_ports(asm, 0, flags);
    asm.statement(op::LDX_MEM, M_NETWORK);
    by_endpoints(asm, rules, offsets, verdicts);
    asm.bind(fragment);
    by_hosts(asm, rules, offsets, verdicts);
}

/// Moves X from the IPv4 header to what follows it.
fn to_transport(asm: &mut Assembler) {
    asm.statement(op::LDB_IND, 0);
    asm.statement(op::AND, 0x0f);
    asm.statement(op::LSH, 2);
    asm.statement(op::ADD_X, 0);
    asm.statement(op::TAX, 0);
}

/// Decides by the protocol that is loaded, which is not TCP, and with UDP by the destination port; `find` finds the UDP
/// header, and gives its offset from X.
fn not_tcp(
    asm: &mut Assembler,
    tunnels: &Bearers,
    verdicts: Verdicts,
    find: impl FnOnce(&mut Assembler) -> u32,
) {
    let udp = asm.label();
    if !tunnels.udp_ports.is_empty() {
        asm.test_or_next(op::JEQ, u32::from(UDP), udp);
    }
    asm.search_any(&tunnels.protocols, verdicts.tunnel, verdicts.reject);
    if !tunnels.udp_ports.is_empty() {
        asm.bind(udp);
        let offset = find(asm);
        asm.statement(op::LDH_IND, offset + 2);
        asm.search_any(&tunnels.udp_ports, verdicts.tunnel, verdicts.reject);
    }
}

fn ipv6_packet(
    asm: &mut Assembler,
    rules: &FamilyRules<4>,
    tunnels: &Bearers,
    verdicts: Verdicts,
    flags: bool,
) {
    let offsets = Offsets {
        source: 8,
        destination: 24,
    };
    let (plain, extension, hop_by_hop) = (asm.label(), asm.label(), asm.label());
    let (ports, hosts) = (asm.label(), asm.label());
    asm.statement(op::LDB_IND, 6);
    asm.test_or_next(op::JEQ, TCP, plain);
    asm.test_or_next(op::JEQ, HOP_BY_HOP, hop_by_hop);
    let [first, second, third] = EXTENSIONS;
    asm.test_or_next(op::JEQ, first, extension);
    asm.test_or_next(op::JEQ, second, extension);
    asm.test_or_next(op::JEQ, third, extension);
    not_tcp(asm, tunnels, verdicts, |_| IPV6_HEADER);

    // BIG TCP: hop-by-hop options of 8 bytes with the jumbo payload option (RFC 2675), then TCP.
    asm.bind(hop_by_hop);
    asm.statement(op::LDB_IND, IPV6_HEADER);
    let (then_tcp, short) = (asm.label(), asm.label());
    asm.test(op::JEQ, TCP, then_tcp, extension);
    asm.bind(then_tcp);
    asm.statement(op::LDB_IND, IPV6_HEADER + 1);
    asm.test(op::JEQ, 0, short, hosts);
    asm.bind(short);
    store_ports(asm, IPV6_HEADER + 8, flags);
    asm.goto(ports);

    // Following the chain takes a loop, which BPF does not have: by address, if TCP is possible.
    asm.bind(extension);
    asm.statement(op::LDB_IND, IPV6_HEADER);
    for next in [TCP, first, second] {
        asm.test_or_next(op::JEQ, next, hosts);
    }
    asm.test_or_next(op::JEQ, third, hosts);
    asm.search_any(&tunnels.with_udp(), verdicts.tunnel, verdicts.reject);

    asm.bind(plain);
    store_ports(asm, IPV6_HEADER, flags);
    asm.bind(ports);
    by_endpoints(asm, rules, offsets, verdicts);
    asm.bind(hosts);
    by_hosts(asm, rules, offsets, verdicts);
}

/// Puts the ports of the TCP header at X + `offset` into scratch memory, and its flags if they are
/// asked for.
fn store_ports(asm: &mut Assembler, offset: u32, flags: bool) {
    if flags {
        asm.statement(op::LDB_IND, offset + FLAGS);
        asm.statement(op::ST, M_FLAGS);
    }
    asm.statement(op::LDH_IND, offset);
    asm.statement(op::ST, M_SOURCE_PORT);
    asm.statement(op::LDH_IND, offset + 2);
    asm.statement(op::ST, M_DESTINATION_PORT);
}

/// Decides by addresses and ports.
fn by_endpoints<const N: usize>(
    asm: &mut Assembler,
    rules: &FamilyRules<N>,
    offsets: Offsets,
    verdicts: Verdicts,
) {
    let (wanted, to, from) = (asm.label(), asm.label(), asm.label());
    let destination = (M_DESTINATION_PORT, offsets.destination);
    let source = (M_SOURCE_PORT, offsets.source);
    endpoints(asm, &rules.exclude_to, destination, verdicts.reject, wanted);
    asm.bind(wanted);
    endpoints(asm, &rules.exclude_from, source, verdicts.reject, to);
    asm.bind(to);
    endpoints(asm, &rules.to, destination, verdicts.to, from);
    asm.bind(from);
    if rules.whole.is_nothing() {
        return endpoints(asm, &rules.from, source, verdicts.from, verdicts.reject);
    }
    let (ours, part) = (asm.label(), asm.label());
    endpoints(asm, &rules.from, source, ours, verdicts.reject);
    asm.bind(ours);
    endpoints(asm, &rules.whole, source, verdicts.whole, part);
    asm.bind(part);
    asm.goto(verdicts.from);
}

/// Decides by addresses alone.
fn by_hosts<const N: usize>(
    asm: &mut Assembler,
    rules: &FamilyRules<N>,
    offsets: Offsets,
    verdicts: Verdicts,
) {
    let from = asm.label();
    let (to_hosts, from_hosts) = (rules.to.hosts(), rules.from.hosts());
    addresses(asm, &to_hosts, offsets.destination, verdicts.to, from);
    asm.bind(from);
    // Its port may be one of those.
    let ours = match rules.whole.is_nothing() {
        true => verdicts.from,
        false => verdicts.whole,
    };
    addresses(asm, &from_hosts, offsets.source, ours, verdicts.reject);
}

/// Goes to `yes` when the port in scratch memory and the address in the header are a pair of the
/// set.
fn endpoints<const N: usize>(
    asm: &mut Assembler,
    set: &Endpoints<N>,
    (port_slot, address_offset): (u32, u32),
    yes: Label,
    no: Label,
) {
    let ports = match set {
        Endpoints::Everything => return asm.goto(yes),
        Endpoints::Ports(ports) if ports.is_empty() => return asm.goto(no),
        Endpoints::Ports(ports) => ports,
    };
    // Services that listen on the same addresses share the code that compares these.
    let mut targets: BTreeMap<&Addresses<N>, Label> = BTreeMap::new();
    let mut arms = Vec::with_capacity(ports.len());
    for (port, set) in ports {
        let label = *targets.entry(set).or_insert_with(|| asm.label());
        arms.push((u32::from(*port), label));
    }
    asm.statement(op::LD_MEM, port_slot);
    asm.search(&arms, no);
    for (set, label) in targets {
        asm.bind(label);
        addresses(asm, set, address_offset, yes, no);
    }
}

/// Goes to `yes` when the address in the header is in the set.
fn addresses<const N: usize>(
    asm: &mut Assembler,
    set: &Addresses<N>,
    offset: u32,
    yes: Label,
    no: Label,
) {
    match set {
        Addresses::Any => asm.goto(yes),
        Addresses::Only(set) => {
            let sorted: Vec<_> = set.iter().copied().collect();
            words(asm, &sorted, 0, offset, yes, no);
        }
    }
}

/// Compares word by word, in a tree: addresses (sorted) that begin alike share their tests.
fn words<const N: usize>(
    asm: &mut Assembler,
    sorted: &[Words<N>],
    position: usize,
    offset: u32,
    yes: Label,
    no: Label,
) {
    let word = |address: &Words<N>| address.get(position).copied().unwrap_or(0);
    asm.statement(op::LD_IND, offset);
    if position + 1 == N {
        let values: Vec<u32> = sorted.iter().map(word).collect();
        return asm.search_any(&values, yes, no);
    }
    let subtrees: Vec<_> = sorted
        .chunk_by(|a, b| word(a) == word(b))
        .map(|group| (group, asm.label()))
        .collect();
    let arms: Vec<_> = subtrees
        .iter()
        .map(|(group, label)| (group.first().map_or(0, word), *label))
        .collect();
    asm.search(&arms, no);
    for (group, label) in subtrees {
        asm.bind(label);
        words(asm, group, position + 1, offset + 4, yes, no);
    }
}
