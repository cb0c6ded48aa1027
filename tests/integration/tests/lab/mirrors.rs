//! Traffic of another host, as mirror ports, clouds and balancers deliver it.

use std::time::Duration;

use millrace_integration::{Family, HTTP, Outcome, Scene, can_run};
use millrace_lab::load::{Kind, Load};
use millrace_lab::{DEVICE, Mirror, StageOptions};

/// The cable between the mirror and the host that copies: its device at either end.
const MIRROR: &str = "mirror0";

/// A stage with a server whose traffic is mirrored to the host of the copier, wrapped, and copied with these options.
/// Gives what came of some load.
fn copy(
    options: &[&str],
    device: impl FnOnce(&Scene),
    wrap: impl FnMut(&[u8]) -> Vec<Vec<u8>> + Send + 'static,
) -> Outcome {
    let mut scene = Scene::new(StageOptions {
        live_servers: 2,
        ..StageOptions::default()
    });
    let [copier, server] = [0, 1].map(|live: usize| scene.stage.live[live].host.clone());
    let client = scene.stage.client().unwrap().host.clone();
    // What is mirrored must be as it is on a wire.
    for host in [&client, &server] {
        let off = ["-K", DEVICE, "tx", "off", "tso", "off", "gso", "off"];
        host.check("ethtool", &off).unwrap();
    }
    let cable = millrace_lab::connect((&server, MIRROR, &[]), (&copier, MIRROR, &[])).unwrap();
    for host in [&server, &copier] {
        host.ip(&[format!("link set {MIRROR} mtu 9000")]).unwrap();
    }
    device(&scene);
    let mirror = Mirror::start(&server, DEVICE, MIRROR, wrap).unwrap();
    scene.start_interceptor();
    scene.start_copier_of(1, options);
    for family in Family::BOTH {
        for kind in [
            Kind::KeepAlive {
                lasting: Duration::from_secs(2),
                pause: Duration::from_millis(5),
                path: "/bytes/1000".to_owned(),
            },
            Kind::Upload {
                size: 100_000,
                count: 20,
            },
        ] {
            let to = scene.live_service(1, family, HTTP);
            let from = scene.client_addresses(family);
            let load = Load::new(kind, to).from(&from).concurrency(10);
            assert_eq!(scene.load(load).errors, 0);
        }
    }
    assert_eq!(mirror.refused(), 0);
    let outcome = scene.finish_exact(Duration::from_secs(10));
    drop((mirror, cable));
    outcome
}

#[test]
fn the_traffic_of_another_host_is_copied_at_a_bridge_with_a_mirror_port() {
    if !can_run() {
        return;
    }
    let bridge = |scene: &Scene| {
        let host = &scene.stage.live().unwrap().host;
        let commands = [
            "link add br0 type bridge".to_owned(),
            format!("link set {MIRROR} master br0"),
            "link set br0 up".to_owned(),
        ];
        host.ip(&commands).unwrap();
    };
    copy(&["-i", "br0"], bridge, |frame| vec![frame.to_vec()]);
}

#[test]
fn the_traffic_of_another_host_is_copied_out_of_every_kind_of_tunnel() {
    if !can_run() {
        return;
    }
    let mut turn = 0;
    let wrap = move |frame: &[u8]| {
        turn += 1;
        wrapped(frame, turn)
    };
    let options = [
        "-i",
        MIRROR,
        "--tunnels",
        "all",
        "--vxlan-ports",
        "4789,4790",
    ];
    copy(&options, |_| {}, wrap);
}

/// The frame as the kind of tunnel whose turn it is bears it.
fn wrapped(frame: &[u8], turn: usize) -> Vec<Vec<u8>> {
    let (kind, packet) = (&frame[12..14], &frame[14..]);
    let v6 = match kind {
        [0x08, 0x00] => false,
        [0x86, 0xdd] => true,
        // ARP and the like.
        _ => return vec![frame.to_vec()],
    };
    let (of_ip, of_ppp) = if v6 { (41, 0x57) } else { (4, 0x21) };
    let in_ip = |protocol: u8, head: &[u8], inner: &[u8]| {
        vec![ethernet([8, 0], &ip(protocol, &[head, inner].concat()))]
    };
    let in_udp = |port: u16, head: &[u8], inner: &[u8]| {
        let length = u16::try_from(8 + head.len() + inner.len()).unwrap();
        let [high, low] = port.to_be_bytes();
        let [long, short] = length.to_be_bytes();
        let header = [0xc0, 0, high, low, long, short, 0, 0];
        in_ip(17, &[&header, head].concat(), inner)
    };
    let erspan_3 = [
        0x10, 0, 0x22, 0xeb, 0, 0, 0, 1, 0x20, 0, 0, 100, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let vxlan = [8, 0, 0, 0, 0, 0, 7, 0];
    match turn % 14 {
        0 => vec![frame.to_vec()],
        1 => in_udp(4789, &vxlan, frame),
        2 => in_udp(4790, &vxlan, frame),
        // As a cloud's mirror: with an option.
        3 => in_udp(6081, &[1, 0, 0x65, 0x58, 0, 0, 7, 0, 1, 8, 1, 0], frame),
        4 => in_udp(6080, &[1, of_ip, 0, 0, 9, 9, 9, 9], packet),
        5 => in_udp(2152, &[0x30, 255, 0, 0, 0, 0, 0, 5], packet),
        6 => in_ip(47, &[0, 0, kind[0], kind[1]], packet),
        7 => in_ip(47, &[0x20, 0, 0x65, 0x58, 0, 0, 0, 7], frame),
        8 => in_ip(47, &[0, 0, 0x88, 0xbe], frame),
        9 => in_ip(
            47,
            &[
                &[0x10, 0, 0x88, 0xbe, 0, 0, 0, 1][..],
                &[0x10, 0, 0, 100, 0, 0, 0, 0],
            ]
            .concat(),
            frame,
        ),
        10 => in_ip(47, &erspan_3, frame),
        11 => in_ip(of_ip, &[], packet),
        12 => vec![ethernet([0x88, 0x47], &[&[0, 1, 1, 64], packet].concat())],
        _ => {
            let length = u16::try_from(2 + packet.len()).unwrap().to_be_bytes();
            let head = [0x11, 0, 0, 5, length[0], length[1], 0, of_ppp];
            vec![ethernet([0x88, 0x64], &[&head, packet].concat())]
        }
    }
    .into_iter()
    .flat_map(|outer| fragments(outer, turn))
    .collect()
}

fn ethernet(kind: [u8; 2], payload: &[u8]) -> Vec<u8> {
    let to_another = [2, 0, 0, 0, 9, 9];
    [&to_another[..], &[2, 0, 0, 0, 9, 8], &kind, payload].concat()
}

/// A packet of one switch to another.
fn ip(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let [long, short] = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let mut header = vec![0x45, 0, long, short, 0, 0, 0, 0, 64, protocol, 0, 0];
    header.extend([198, 18, 200, 1, 198, 18, 200, 2]);
    [header, payload.to_vec()].concat()
}

/// Every third of those outer packets that are larger than an Ethernet carries comes in fragments.
fn fragments(frame: Vec<u8>, turn: usize) -> Vec<Vec<u8>> {
    const MOST: usize = 1480;
    let is_ip = frame[12..14] == [8, 0] && frame[26..30] == [198, 18, 200, 1];
    if !is_ip || !turn.is_multiple_of(3) || frame.len() <= 34 + MOST {
        return vec![frame];
    }
    let (head, body) = frame.split_at(34);
    let pieces: Vec<&[u8]> = body.chunks(MOST).collect();
    let last = pieces.len() - 1;
    let fragment = |(index, piece): (usize, &&[u8])| {
        let mut head = head.to_vec();
        let length = u16::try_from(20 + piece.len()).unwrap();
        head[16..18].copy_from_slice(&length.to_be_bytes());
        head[18..20].copy_from_slice(&(turn as u16).to_be_bytes());
        let more = if index < last { 0x2000 } else { 0 };
        let offset = u16::try_from(index * MOST / 8).unwrap() | more;
        head[20..22].copy_from_slice(&offset.to_be_bytes());
        [&head[..], piece].concat()
    };
    pieces.iter().enumerate().map(fragment).collect()
}
