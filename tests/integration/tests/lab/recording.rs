//! A recorder ends in order, and says what it recorded, whatever stops it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use millrace_integration::replay::Recording;
use millrace_integration::{Scene, binary, can_run};
use millrace_lab::StageOptions;

/// Records on the live host until that ends by itself; gives what was said.
fn record(scene: &Scene, file: &Path, more: &[&str]) -> Output {
    let host = &scene.stage.live().unwrap().host;
    let file = file.display().to_string();
    let arguments = [&["record", "-x", "80", "-i", "lo", "-w", &file], more].concat();
    host.run(binary("millrace-copier"), &arguments).unwrap()
}

#[test]
fn a_recorder_without_room_ends_in_order_and_says_so() {
    if !can_run() {
        return;
    }
    let scene = Scene::new(StageOptions::default());
    let host = scene.stage.live().unwrap().host.clone();

    // Nothing can be written there.
    let output = record(&scene, Path::new("/dev/full"), &["--min-free", "0"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("0 packets recorded, "), "{output:?}");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("cannot write /dev/full (-w)"), "{error}");

    // A small disk, which somebody else fills while it records.
    let disk = host.file("disk").display().to_string();
    std::fs::create_dir(&disk).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=16m none {disk} && cd {disk} || exit 9; \
         (for try in $(seq 300); do test -e w.pcapng && break; sleep 0.1; done; \
         head -c 12000000 /dev/zero > fill) & \
         exec timeout 60 {} record -x 80 -i lo -w {disk}/w.pcapng --min-free 50%",
        binary("millrace-copier").display()
    );
    let output = host
        .run("unshare", &["--mount", "sh", "-c", &script])
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("0 packets recorded, "), "{output:?}");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("less than 50% is free at"), "{error}");
    assert!(error.contains("the recording has ended"), "{error}");

    // More is to stay free than there is: to remove older files would not help, so they stay.
    for number in 1..=3 {
        std::fs::write(host.file(&format!("w-00000{number}.pcapng")), "").unwrap();
    }
    let much = ["--min-free", "1000000000000"];
    let more = [&much[..], &["--rotate-size", "1", "--keep", "3"]].concat();
    let output = record(&scene, &host.file("w.pcapng"), &more);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    let last = error.lines().last().unwrap();
    assert!(
        last.starts_with("millrace-copier: less than 1000000000000 MB is free at "),
        "{error}"
    );
    let left = [1, 2, 3].map(|number| host.file(&format!("w-00000{number}.pcapng")).exists());
    assert_eq!(left, [true; 3]);
}

#[test]
fn only_its_owner_can_read_a_recording() {
    if !can_run() {
        return;
    }
    let scene = Scene::new(StageOptions::default());
    let recording = Recording::by_copier(&scene, "private.pcapng", &[]);
    let (file, said) = recording.end();
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{said}");
}

#[test]
fn what_is_for_other_hosts_is_recorded_at_a_bridge_unless_its_device_is_to_be_left_alone() {
    if !can_run() {
        return;
    }
    let lab = millrace_lab::Lab::new().unwrap();
    let [bridge, client, server] =
        ["bridge", "client", "server"].map(|name| lab.host(name).unwrap());
    bridge
        .ip(&["link add br0 type bridge", "link set br0 up"].map(str::to_owned))
        .unwrap();
    for (host, port, address) in [
        (&client, "p1", "198.18.2.20/24"),
        (&server, "p2", "198.18.2.10/24"),
    ] {
        let pair = format!(
            "ip link add {port} type veth peer name eth0 netns {}",
            host.namespace()
        );
        bridge.check("sh", &["-c", &pair]).unwrap();
        bridge
            .ip(&[
                format!("link set {port} master br0"),
                format!("link set {port} up"),
            ])
            .unwrap();
        host.ip(&[
            format!("address add {address} dev eth0"),
            "link set eth0 up".to_owned(),
        ])
        .unwrap();
    }
    let address: std::net::SocketAddr = "198.18.2.10:8080".parse().unwrap();
    let listener = server
        .enter(move || std::net::TcpListener::bind(address))
        .unwrap()
        .unwrap();
    let accepting = std::thread::spawn(move || {
        // One before, and one in each recording.
        for _ in 0..3 {
            let (mut stream, _) = listener.accept().unwrap();
            std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
        }
    });
    let talk = || {
        let sent = client.enter(move || {
            let mut stream = std::net::TcpStream::connect(address)?;
            std::io::Write::write_all(&mut stream, b"over the bridge")
        });
        sent.unwrap().unwrap();
    };
    // The bridge learns where both are: no frame of the others goes to all of its ports.
    talk();
    for (more, packets) in [(&[][..], true), (&["-p"], false)] {
        let file = bridge.file("bridge.pcapng");
        let name = file.display().to_string();
        let services = ["record", "-x", "198.18.2.10:8080", "-i", "br0", "-w", &name];
        let log = bridge.file("record.log");
        let arguments = [&services[..], more].concat();
        let mut recorder = bridge
            .spawn(binary("millrace-copier"), &arguments, &[], &log)
            .unwrap();
        let limit = std::time::Duration::from_secs(10);
        millrace_lab::wait_for("the recorder", limit, || {
            recorder.log().contains("recording br0")
        })
        .unwrap();
        talk();
        std::thread::sleep(std::time::Duration::from_millis(500));
        assert!(
            recorder.terminate(limit).unwrap().success(),
            "{}",
            recorder.log()
        );
        let found = bridge
            .check(
                binary("millrace-copier").to_str().unwrap(),
                &["inspect", &name],
            )
            .unwrap();
        let whole = found.contains("clients  15 bytes in");
        assert_eq!(whole, packets, "{more:?}: {found}");
    }
    accepting.join().unwrap();
}
