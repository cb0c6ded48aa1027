//! The link types of packet files, <https://www.tcpdump.org/linktypes.html>.

use millrace_wire::LinkType;

/// How packets of a file with this link type begin; `None`: in no way that is understood.
///
/// Numbers that the systems' own libpcap used inside (12, 14) stand in old files for RAW.
pub const fn link_type(number: u32) -> Option<LinkType> {
    match number {
        0 => Some(LinkType::Null),
        1 => Some(LinkType::Ethernet),
        12 | 14 | 101 | 228 | 229 => Some(LinkType::RawIp),
        108 => Some(LinkType::Loop),
        239 => Some(LinkType::Nflog),
        113 => Some(LinkType::LinuxSll),
        276 => Some(LinkType::LinuxSll2),
        _ => None,
    }
}

/// The number under which a file names a link type.
pub const fn number(link: LinkType) -> u16 {
    match link {
        LinkType::Null => 0,
        LinkType::Ethernet => 1,
        LinkType::RawIp => 101,
        LinkType::Loop => 108,
        LinkType::Nflog => 239,
        LinkType::LinuxSll => 113,
        LinkType::LinuxSll2 => 276,
    }
}

/// A link type as people know it.
pub fn name(number: u32) -> String {
    let known = match number {
        0 => "NULL",
        1 => "EN10MB",
        9 => "PPP",
        12 | 14 | 101 => "RAW",
        105 => "IEEE802_11",
        108 => "LOOP",
        113 => "LINUX_SLL",
        127 => "IEEE802_11_RADIO",
        228 => "IPV4",
        229 => "IPV6",
        239 => "NFLOG",
        276 => "LINUX_SLL2",
        other => return format!("link type {other}"),
    };
    known.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_as_the_same() {
        for link in [
            LinkType::Null,
            LinkType::Ethernet,
            LinkType::RawIp,
            LinkType::Loop,
            LinkType::Nflog,
            LinkType::LinuxSll,
            LinkType::LinuxSll2,
        ] {
            assert_eq!(link_type(number(link).into()), Some(link));
        }
        assert_eq!(link_type(105), None);
    }
}
