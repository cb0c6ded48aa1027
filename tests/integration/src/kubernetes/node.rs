//! Pods on the live host: namespaces behind it, connected as network plugins do it.

use std::net::{IpAddr, SocketAddr};

use millrace_lab::recorder::{Manners, Recorder};
use millrace_lab::{Host, Network};

use crate::{Family, Scene, recorder};

/// The node's own address on its pods' bridge, and where their default route leads.
const GATEWAY: [&str; 2] = ["198.18.7.1", "2001:db8:7::1"];
/// The network of the pods.
const NETWORK: [&str; 2] = ["198.18.7.0/24", "2001:db8:7::/64"];

/// How pods are connected to their node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wiring {
    /// A device of the node for each, with a route to its address: kindnet, Calico and others.
    PointToPoint,
    /// All on one bridge: flannel and others.
    Bridge,
}

/// A pod: a namespace with recording servers.
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub host: Host,
    addresses: [IpAddr; 2],
    recorder: Option<Recorder>,
}

impl Pod {
    /// A pod that runs, number 2 to 250 of the node. Nobody has told the API of it.
    pub fn start(scene: &Scene, name: &str, number: u8, wiring: Wiring) -> Self {
        let node = &scene.stage.live[0].host;
        let host = scene.stage.lab.host(name).unwrap();
        let addresses: [IpAddr; 2] = [
            [198, 18, 7, number].into(),
            format!("2001:db8:7::{number:x}").parse().unwrap(),
        ];
        let device = format!("pod{number}");
        let pair = format!(
            "ip link add {device} type veth peer name eth0 netns {}",
            host.namespace()
        );
        node.check("sh", &["-c", &pair]).unwrap();
        let [v4, v6] = addresses;
        let [gateway4, gateway6] = GATEWAY;
        let (of_node, of_pod) = match wiring {
            Wiring::PointToPoint => (
                vec![
                    format!("link set {device} up"),
                    format!("route add {v4}/32 dev {device}"),
                    format!("route add {v6}/128 dev {device}"),
                ],
                [format!("{v4}/32"), format!("{v6}/128")],
            ),
            Wiring::Bridge => (
                vec![
                    format!("link set {device} master cni0"),
                    format!("link set {device} up"),
                ],
                [format!("{v4}/24"), format!("{v6}/64")],
            ),
        };
        node.ip(&of_node).unwrap();
        let [own4, own6] = of_pod;
        let onlink = match wiring {
            Wiring::PointToPoint => " onlink",
            Wiring::Bridge => "",
        };
        host.ip(&[
            format!("address add {own4} dev eth0"),
            format!("address add {own6} dev eth0 nodad"),
            "link set eth0 up".to_owned(),
            format!("route add default via {gateway4} dev eth0{onlink}"),
            format!("route add default via {gateway6} dev eth0{onlink}"),
        ])
        .unwrap();
        let recorder = Some(recorder(&host, Manners::default()));
        Self {
            name: name.to_owned(),
            host,
            addresses,
            recorder,
        }
    }

    /// Its addresses, as the API shows them.
    pub fn addresses(&self) -> Vec<String> {
        self.addresses.iter().map(ToString::to_string).collect()
    }

    /// One of its services.
    pub fn service(&self, family: Family, port: u16) -> SocketAddr {
        let [v4, v6] = self.addresses;
        let ip = match family {
            Family::V4 => v4,
            Family::V6 => v6,
        };
        SocketAddr::new(ip, port)
    }

    /// What it recorded counts among the scene's live servers; it goes on running.
    pub fn count_as_live(&mut self, scene: &mut Scene) {
        scene.live_recorders.extend(self.recorder.take());
    }
}

/// Has the live host forward between its network and its pods', and gives pods a bridge, if they need one.
pub fn open_forwarding(scene: &Scene, wiring: Wiring) {
    let node = &scene.stage.live[0].host;
    node.sysctl("net/ipv4/ip_forward", "1").unwrap();
    node.sysctl("net/ipv6/conf/all/forwarding", "1").unwrap();
    let [gateway4, gateway6] = GATEWAY;
    let made = match wiring {
        // Any device will do for the gateway's address: pods ask for it on theirs.
        Wiring::PointToPoint => vec![
            "link add gw0 type veth peer name gw1".to_owned(),
            "link set gw0 up".to_owned(),
            "link set gw1 up".to_owned(),
            format!("address add {gateway4}/32 dev gw0"),
            format!("address add {gateway6}/128 dev gw0 nodad"),
        ],
        Wiring::Bridge => vec![
            "link add cni0 type bridge".to_owned(),
            "link set cni0 up".to_owned(),
            format!("address add {gateway4}/24 dev cni0"),
            format!("address add {gateway6}/64 dev cni0 nodad"),
        ],
    };
    node.ip(&made).unwrap();
}

/// Has clients and their router send what is for pods to the live host.
pub fn clients_reach_pods(scene: &Scene) {
    let stage = &scene.stage;
    let by = |gateways: [IpAddr; 2]| {
        let of = |(network, gateway): (&str, IpAddr)| format!("route add {network} via {gateway}");
        NETWORK
            .into_iter()
            .zip(gateways)
            .map(of)
            .collect::<Vec<_>>()
    };
    stage
        .router
        .host
        .ip(&by(stage.live[0].address.both()))
        .unwrap();
    for client in &stage.clients {
        // The router is the first host of each network.
        let router = Network::Clients.address(1);
        client.host.ip(&by(router.both())).unwrap();
    }
}
