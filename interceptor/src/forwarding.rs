//! Whether this host would send on what is diverted to it: an assistant has to drop it, else it
//! reaches the real clients after all.

use std::os::fd::AsFd;
use std::time::Duration;

use millrace_capture::Rest;
use millrace_channel::server::ServerHandle;
use millrace_daemon::readiness::Task;
use millrace_netlink::News;
use millrace_netlink::news::bit;
use tokio::time::sleep;

/// How often it is looked where the kernel does not tell of changes: what comes in between goes on to real clients.
const INTERVAL: Duration = Duration::from_millis(10);
/// How often it is looked where it does.
const TOLD_INTERVAL: Duration = Duration::from_secs(1);
/// `RTNLGRP_IPV4_NETCONF` and `RTNLGRP_IPV6_NETCONF`: the kernel tells when forwarding is switched on or off. Of settings that
/// are made by a message about a device (`IFLA_INET_CONF`) only `RTNLGRP_LINK` tells.
const GROUPS: u32 = bit(1) | bit(24) | bit(25);

/// The settings that let a host forward what comes in on `device` (ip-sysctl.rst): IPv4 has one for
/// each device; IPv6 one for all, and since Linux 6.17 one for each device besides.
fn settings(device: &str) -> [String; 3] {
    // A dot in a device's name (eth0.7) is no separator in the file's name.
    [
        format!("net/ipv4/conf/{device}/forwarding"),
        "net/ipv6/conf/all/forwarding".to_owned(),
        format!("net/ipv6/conf/{device}/force_forwarding"),
    ]
}

/// Why a host does not drop what comes in on `devices`, if it does not.
pub fn forwards(devices: &[String]) -> Option<String> {
    let on = |key: &String| {
        let value = std::fs::read_to_string(format!("/proc/sys/{key}"));
        // A kernel without IPv6, or a device that is gone, forwards nothing.
        value.is_ok_and(|value| value.trim() != "0")
    };
    let key = devices
        .iter()
        .flat_map(|device| settings(device))
        .find(on)?;
    Some(format!(
        "this host forwards packets, so that what is diverted to it goes on to the real clients: \
         sysctl -w {key}=0; or, if its firewall drops what it is to forward, start the interceptor \
         with --allow-forwarding"
    ))
}

/// Serves nobody, and is not ready, while this host forwards. Ends with the server.
pub async fn watch(devices: Vec<String>, server: ServerHandle, ready: Task) {
    let mut changes = Changes::open();
    let mut forwarded = false;
    loop {
        let why = forwards(&devices);
        match &why {
            Some(why) if !forwarded => tracing::error!("no copier is served: {why}"),
            None if forwarded => tracing::info!("this host forwards nothing any more: serving"),
            Some(_) | None => {}
        }
        forwarded = why.is_some();
        ready.set(!forwarded);
        server.set_unsafe(why);
        changes.wait().await;
    }
}

/// What tells that a host begins to forward, or ends.
struct Changes(Option<(News, Rest)>);

impl Changes {
    /// To be opened before the first look.
    fn open() -> Self {
        let opened = News::of_routing(GROUPS).and_then(|news| Ok((news, Rest::new()?)));
        if let Err(error) = &opened {
            tracing::debug!("the kernel does not tell of forwarding: {error}");
        }
        Self(opened.ok())
    }

    /// Waits until it is time to look again.
    async fn wait(&mut self) {
        let Some((news, rest)) = &mut self.0 else {
            return sleep(INTERVAL).await;
        };
        match rest.until(&[(news.as_fd(), true)], TOLD_INTERVAL).await {
            Ok(_) => {
                news.any(|_| true);
            }
            Err(error) => {
                tracing::debug!("the kernel does not tell of forwarding any more: {error}");
                self.0 = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_that_are_not_there_forward_nothing() {
        let on = std::fs::read_to_string("/proc/sys/net/ipv6/conf/all/forwarding");
        let v6 = on.is_ok_and(|value| value.trim() != "0");
        assert_eq!(forwards(&["mr-none".to_owned()]).is_some(), v6);
        assert_eq!(forwards(&[]), None);
    }
}
