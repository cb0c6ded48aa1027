//! The floor in the kernel (nftables): read over netlink, put in place by nft, which makes all of
//! one input true at once or nothing of it. What the floor is for: [`crate::plan::floor`].

use std::io;

use super::model::{FloorState, Stopped};
use super::numbers::{
    NFGENMSG, NFPROTO_INET, NFT_GETCHAIN, NFT_GETOBJ, NFT_GETRULE, NFT_GETTABLE,
    NFT_OBJECT_COUNTER, NFTA_CHAIN_NAME, NFTA_CHAIN_TABLE, NFTA_COUNTER_PACKETS, NFTA_OBJ_DATA,
    NFTA_OBJ_NAME, NFTA_OBJ_TABLE, NFTA_OBJ_TYPE, NFTA_RULE_TABLE, NFTA_TABLE_NAME,
};
use super::tool;
use millrace_netlink::Netlink;
use millrace_netlink::message::{Attributes, attributes, text};

/// Counts what would have reached a client.
pub const STOPPED: &str = "stopped";
/// Counts ICMP errors about copied packets.
pub const ERRORS: &str = "errors";
/// `struct nfgenmsg`.
const FIXED: [u8; NFGENMSG] = [NFPROTO_INET, 0, 0, 0];

/// Reads what stands of the floor in `table`. A kernel that has no nftables, or does not show them to
/// this user, has none.
pub(super) fn read(netlink: &mut Netlink, table: &str) -> io::Result<FloorState> {
    let named = Attributes::new().with_text(NFTA_TABLE_NAME, table);
    if netlink.ask(NFT_GETTABLE, &FIXED, &named).is_err() {
        return Ok(FloorState::default());
    }
    let chains = netlink.dump(NFT_GETCHAIN, &FIXED, &Attributes::new(), |body| {
        let of = |wanted: u16| {
            let mut found = attributes(body, NFGENMSG).filter(|(kind, _)| *kind == wanted);
            found.next().map(|(_, value)| text(value))
        };
        (of(NFTA_CHAIN_TABLE)? == table)
            .then(|| of(NFTA_CHAIN_NAME))
            .flatten()
    })?;
    let narrowed = Attributes::new().with_text(NFTA_RULE_TABLE, table);
    let rules = netlink.dump(NFT_GETRULE, &FIXED, &narrowed, |body| {
        let mut named = attributes(body, NFGENMSG).filter(|(kind, _)| *kind == NFTA_RULE_TABLE);
        named.any(|(_, name)| text(name) == table).then_some(())
    })?;
    Ok(FloorState {
        exists: true,
        chains,
        rules: rules.len(),
    })
}

/// What the floor in `table` has counted.
pub(super) fn counted(netlink: &mut Netlink, table: &str) -> io::Result<Stopped> {
    let mut packets = |counter: &str| -> io::Result<u64> {
        let named = Attributes::new()
            .with_text(NFTA_OBJ_TABLE, table)
            .with_text(NFTA_OBJ_NAME, counter)
            .with(NFTA_OBJ_TYPE, &NFT_OBJECT_COUNTER.to_be_bytes());
        let body = netlink.ask(NFT_GETOBJ, &FIXED, &named)?;
        let found = attributes(&body, NFGENMSG)
            .filter(|(kind, _)| *kind == NFTA_OBJ_DATA)
            .flat_map(|(_, data)| attributes(data, 0))
            .find(|(kind, _)| *kind == NFTA_COUNTER_PACKETS);
        let bytes = found.and_then(|(_, value)| value.first_chunk().copied());
        bytes
            .map(u64::from_be_bytes)
            .ok_or_else(|| io::ErrorKind::InvalidData.into())
    };
    Ok(Stopped {
        packets: packets(STOPPED)?,
        errors: packets(ERRORS)?,
    })
}

/// Gives `lines` to nft.
pub(super) fn put(lines: &str) -> io::Result<()> {
    tool::feed("nft", &["-f", "-"], lines, "nftables")
}
