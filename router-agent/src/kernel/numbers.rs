//! The kernel's numbers: linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h, linux/fib_rules.h,
//! linux/veth.h, linux/sock_diag.h, linux/inet_diag.h, linux/netfilter/nfnetlink.h,
//! linux/netfilter/nf_tables.h.

pub(super) const AF_UNSPEC: u8 = 0;
pub(super) const AF_INET: u8 = 2;
pub(super) const AF_INET6: u8 = 10;
pub(super) const IPPROTO_TCP: u8 = 6;

pub(super) const RTM_NEWLINK: u16 = 16;
pub(super) const RTM_DELLINK: u16 = 17;
pub(super) const RTM_GETLINK: u16 = 18;
pub(super) const RTM_SETLINK: u16 = 19;
pub(super) const RTM_NEWADDR: u16 = 20;
pub(super) const RTM_DELADDR: u16 = 21;
pub(super) const RTM_GETADDR: u16 = 22;
pub(super) const RTM_NEWROUTE: u16 = 24;
pub(super) const RTM_DELROUTE: u16 = 25;
pub(super) const RTM_GETROUTE: u16 = 26;
pub(super) const RTM_NEWRULE: u16 = 32;
pub(super) const RTM_DELRULE: u16 = 33;
pub(super) const RTM_GETRULE: u16 = 34;

/// Length of `struct ifinfomsg`.
pub(super) const IFINFOMSG: usize = 16;
pub(super) const IFF_UP: u32 = 0x1;
pub(super) const IFF_LOOPBACK: u32 = 0x8;
pub(super) const IFF_NOARP: u32 = 0x80;
pub(super) const IFLA_IFNAME: u16 = 3;
pub(super) const IFLA_MTU: u16 = 4;
pub(super) const IFLA_LINKINFO: u16 = 18;
pub(super) const IFLA_IFALIAS: u16 = 20;
pub(super) const IFLA_AF_SPEC: u16 = 26;
pub(super) const IFLA_GROUP: u16 = 27;
pub(super) const IFLA_INFO_KIND: u16 = 1;
pub(super) const IFLA_INFO_DATA: u16 = 2;
pub(super) const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
/// `IN6_ADDR_GEN_MODE_NONE`.
pub(super) const ADDR_GEN_NONE: u8 = 1;
pub(super) const VETH_INFO_PEER: u16 = 1;

/// Length of `struct ifaddrmsg`.
pub(super) const IFADDRMSG: usize = 8;
pub(super) const IFA_ADDRESS: u16 = 1;
pub(super) const IFA_LOCAL: u16 = 2;

/// Length of `struct rtmsg`, and of `struct fib_rule_hdr`, which is laid out alike.
pub(super) const RTMSG: usize = 12;
pub(super) const RTN_UNICAST: u8 = 1;
pub(super) const RTN_LOCAL: u8 = 2;
pub(super) const RTN_BLACKHOLE: u8 = 6;
pub(super) const RT_SCOPE_UNIVERSE: u8 = 0;
pub(super) const RT_SCOPE_LINK: u8 = 253;
pub(super) const RTNH_F_ONLINK: u32 = 4;
pub(super) const RTM_F_LOOKUP_TABLE: u32 = 0x1000;
pub(super) const RTA_DST: u16 = 1;
pub(super) const RTA_SRC: u16 = 2;
pub(super) const RTA_OIF: u16 = 4;
pub(super) const RTA_GATEWAY: u16 = 5;
pub(super) const RTA_PRIORITY: u16 = 6;
pub(super) const RTA_TABLE: u16 = 15;
pub(super) const RTA_VIA: u16 = 18;
pub(super) const RTA_IP_PROTO: u16 = 27;
pub(super) const RTA_SPORT: u16 = 28;
pub(super) const RTA_DPORT: u16 = 29;

pub(super) const FRA_DST: u16 = 1;
pub(super) const FRA_SRC: u16 = 2;
pub(super) const FRA_IIFNAME: u16 = 3;
pub(super) const FRA_PRIORITY: u16 = 6;
pub(super) const FRA_SUPPRESS_IFGROUP: u16 = 13;
pub(super) const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
pub(super) const FRA_TABLE: u16 = 15;
pub(super) const FRA_PROTOCOL: u16 = 21;
pub(super) const FRA_IP_PROTO: u16 = 22;
pub(super) const FRA_SPORT_RANGE: u16 = 23;
/// Since Linux 6.15 shown with every single port.
pub(super) const FRA_SPORT_MASK: u16 = 28;
/// `FR_ACT_TO_TBL`.
pub(super) const ACTION_TO_TABLE: u8 = 1;

pub(super) const SOCK_DIAG_BY_FAMILY: u16 = 20;
pub(super) const SOCK_DESTROY: u16 = 21;
/// Length of `struct inet_diag_sockid`.
pub(super) const SOCKID: usize = 48;

/// Length of `struct nfgenmsg`.
pub(super) const NFGENMSG: usize = 4;
pub(super) const NFPROTO_INET: u8 = 1;
/// `NFNL_SUBSYS_NFTABLES`, in a message's type.
pub(super) const NFTABLES: u16 = 10 << 8;
pub(super) const NFT_GETTABLE: u16 = NFTABLES | 1;
pub(super) const NFT_GETCHAIN: u16 = NFTABLES | 4;
pub(super) const NFT_GETRULE: u16 = NFTABLES | 7;
pub(super) const NFT_GETOBJ: u16 = NFTABLES | 19;
/// First attribute of tables, chains and rules alike: the table's name.
pub(super) const NFTA_TABLE_NAME: u16 = 1;
pub(super) const NFTA_CHAIN_TABLE: u16 = 1;
pub(super) const NFTA_CHAIN_NAME: u16 = 3;
pub(super) const NFTA_RULE_TABLE: u16 = 1;
pub(super) const NFTA_OBJ_TABLE: u16 = 1;
pub(super) const NFTA_OBJ_NAME: u16 = 2;
pub(super) const NFTA_OBJ_TYPE: u16 = 3;
pub(super) const NFTA_OBJ_DATA: u16 = 4;
pub(super) const NFT_OBJECT_COUNTER: u32 = 1;
pub(super) const NFTA_COUNTER_PACKETS: u16 = 2;
