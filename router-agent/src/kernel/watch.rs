//! News of the kernel: somebody has changed policy rules, devices, addresses, routes of our table or
//! firewall tables that concern us (`rtnetlink(7)`'s groups, and nftables').
//!
//! Without a rule of ours the next answer goes to a real client, so a look every few seconds would
//! be late.

use std::io;

use millrace_netlink::News;
use millrace_netlink::message::{Message, attributes, text, u8_at, u32_at};
use millrace_netlink::news::bit;

use super::numbers::{
    NFGENMSG, NFTA_TABLE_NAME, NFTABLES, RTA_TABLE, RTM_DELADDR, RTM_DELLINK, RTM_DELROUTE,
    RTM_DELRULE, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWROUTE, RTM_NEWRULE, RTMSG,
};

/// `RTNLGRP_LINK`, and for IPv4 and IPv6 `RTNLGRP_*_IFADDR`, `_ROUTE` and `_RULE`, as bits.
const GROUPS: u32 = bit(1) | bit(5) | bit(7) | bit(8) | bit(9) | bit(11) | bit(19);
/// `NFNLGRP_NFTABLES`, as a bit.
const FIREWALL_GROUPS: u32 = bit(7);
/// Sockets on which the kernel tells of changes.
#[derive(Debug)]
pub(super) struct Watch {
    routing: News,
    /// None where the kernel has no nftables, or does not tell this user.
    firewall: Option<News>,
}

impl Watch {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self {
            routing: News::of_routing(GROUPS)?,
            firewall: News::of_firewall(FIREWALL_GROUPS).ok(),
        })
    }

    /// Whether anything has happened since the last call to rules, devices, addresses, routes of
    /// `table`, or the firewall tables of these names.
    pub(super) fn has_news(&mut self, table: u32, firewall: &[&str]) -> bool {
        let mut any = self.routing.any(|message| of_routing(message, table));
        if let Some(news) = &mut self.firewall {
            any |= news.any(|message| of_firewall(message, firewall));
        }
        any
    }
}

fn of_routing(message: &Message<'_>, table: u32) -> bool {
    match message.kind {
        RTM_NEWRULE | RTM_DELRULE | RTM_NEWLINK | RTM_DELLINK | RTM_NEWADDR | RTM_DELADDR => true,
        RTM_NEWROUTE | RTM_DELROUTE => {
            let named = attributes(message.body, RTMSG).find(|(kind, _)| *kind == RTA_TABLE);
            let named = named.and_then(|(_, value)| u32_at(value, 0));
            named.or(u8_at(message.body, 4).map(u32::from)) == Some(table)
        }
        _ => false,
    }
}

fn of_firewall(message: &Message<'_>, tables: &[&str]) -> bool {
    let named = attributes(message.body, NFGENMSG).find(|(kind, _)| *kind == NFTA_TABLE_NAME);
    let of_nftables = message.kind & 0xff00 == NFTABLES;
    of_nftables && named.is_some_and(|(_, name)| tables.contains(&text(name).as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_netlink::message::{Attributes, messages, request};

    fn any(bytes: &[u8], matters: impl Fn(&Message<'_>) -> bool) -> bool {
        messages(bytes).any(|message| matters(&message))
    }

    #[test]
    fn routes_of_other_tables_are_no_news() {
        let route = |table: u32| {
            let attributes = Attributes::new().with_u32(RTA_TABLE, table);
            request(RTM_DELROUTE, 0, 0, &[0; RTMSG], &attributes)
        };
        assert!(any(&route(36_524), |it| of_routing(it, 36_524)));
        assert!(!any(&route(254), |it| of_routing(it, 36_524)));
    }

    #[test]
    fn firewall_tables_of_others_are_no_news() {
        let table = |name: &str| {
            let attributes = Attributes::new().with_text(NFTA_TABLE_NAME, name);
            request(NFTABLES | 2, 0, 0, &[0; NFGENMSG], &attributes)
        };
        let ours = ["millrace_36524", "mangle"];
        assert!(any(&table("millrace_36524"), |it| of_firewall(it, &ours)));
        assert!(any(&table("mangle"), |it| of_firewall(it, &ours)));
        assert!(!any(&table("nat"), |it| of_firewall(it, &ours)));
    }
}
