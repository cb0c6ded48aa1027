//! What any host can lack: rights, a kernel that is new enough, memory, tools, room on its disks.

use millrace_integration::can_run;
use millrace_integration::target_host::{TargetHost, service};
use millrace_integration::{Family, HTTP};
use millrace_lab::Host;

use super::copier::{Live, POOL};
use super::{Named, assert_named, named_by};

/// A host of each daemon, all well.
struct Hosts {
    live: Live,
    target: TargetHost,
}

const DAEMONS: [&str; 3] = [
    "millrace-copier",
    "millrace-interceptor",
    "millrace-router-agent",
];

impl Hosts {
    fn new() -> Self {
        let hosts = Self {
            live: Live::new(),
            target: TargetHost::new(),
        };
        for key in ["arp_ignore=1", "arp_announce=2"] {
            let setting = format!("net/ipv4/conf/eth0/{key}");
            let set = ["-qw", setting.as_str()];
            hosts.target.target.check("sysctl", &set).unwrap();
        }
        hosts
    }

    /// What is not well with a daemon that is started by another program, with more arguments.
    fn check(&self, daemon: &str, by: &[&str], more: &[&str]) -> Vec<Named> {
        let live = &self.live;
        let (host, arguments): (&Host, Vec<String>) = match daemon {
            "millrace-copier" => {
                let services = format!("{HTTP}-{}:{HTTP}", live.target);
                let usual = [
                    "check",
                    "--json",
                    "--insecure",
                    "-x",
                    &services,
                    "-s",
                    &live.interceptor,
                ];
                (
                    live.host(),
                    [&usual[..], &POOL, more]
                        .concat()
                        .iter()
                        .map(|it| (*it).to_owned())
                        .collect(),
                )
            }
            "millrace-interceptor" => {
                let at = live.scene.stage.target.address.v4.to_string();
                let usual = ["check", "--json", "--insecure", "-b", &at];
                let target = &live.scene.stage.target.host;
                (
                    target,
                    [&usual[..], more]
                        .concat()
                        .iter()
                        .map(|it| (*it).to_owned())
                        .collect(),
                )
            }
            _ => {
                let state = self.target.state_dir().display().to_string();
                let own = ["--insecure", "-b", "198.18.2.20", "--state-dir", &state];
                let own = if more.contains(&"--state-dir") {
                    &own[..3]
                } else {
                    &own[..]
                };
                let wanted = service(Family::V4).to_string();
                let command = ["check", "--json", "-s", &wanted];
                (
                    &self.target.target,
                    [own, more, &command]
                        .concat()
                        .iter()
                        .map(|it| (*it).to_owned())
                        .collect(),
                )
            }
        };
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        named_by(host, by, daemon, &arguments)
    }

    /// The same with files of its own, made by these commands.
    fn check_after(&self, daemon: &str, commands: &str, more: &[&str]) -> Vec<Named> {
        let script = format!("{commands} && exec \"$@\"");
        let by = ["unshare", "--mount", "sh", "-c", &script, "sh"];
        self.check(daemon, &by, more)
    }
}

#[test]
fn a_daemon_without_its_rights_or_on_an_old_kernel_names_that_alone() {
    if !can_run() {
        return;
    }
    let hosts = Hosts::new();
    let _server = hosts.target.serve();
    for daemon in DAEMONS {
        // The mending command is to run it as root.
        assert_eq!(hosts.check(daemon, &["setpriv"], &[]), [], "{daemon}");
        let without = [
            "setpriv",
            "--bounding-set",
            "-net_raw,-net_admin",
            "--inh-caps",
            "-net_raw,-net_admin",
        ];
        let found = hosts.check(daemon, &without, &[]);
        assert_named(&found, &[("failure", "privileges")], "root");
        // A lab has the kernel of its host: this one says another release. The cure is out of reach of a test.
        let old = ["setarch", "--uname-2.6"];
        let found = hosts.check(daemon, &old, &[]);
        assert_named(&found, &[("warning", "kernel")], "upgrade the kernel");
    }
}

#[test]
fn a_host_without_memory_names_that_alone() {
    if !can_run() {
        return;
    }
    let hosts = Hosts::new();
    let meminfo = hosts.live.host().file("meminfo");
    std::fs::write(&meminfo, "MemTotal: 400000 kB\nMemAvailable: 300000 kB\n").unwrap();
    let little = format!("mount --bind {} /proc/meminfo", meminfo.display());
    for (daemon, much, less) in [
        ("millrace-copier", &["-m", "1024"][..], &["-m", "128"][..]),
        ("millrace-interceptor", &["-B", "512"], &["-B", "4"]),
    ] {
        let found = hosts.check_after(daemon, &little, much);
        assert_named(&found, &[("warning", "memory")], "give less (-m, -B)");
        assert_eq!(hosts.check_after(daemon, &little, less), [], "{daemon}");
    }
}

#[test]
fn a_disk_that_is_full_or_cannot_be_written_names_that_alone() {
    if !can_run() {
        return;
    }
    let hosts = Hosts::new();
    let _server = hosts.target.serve();
    let disk = hosts.live.host().file("disk").display().to_string();
    std::fs::create_dir(&disk).unwrap();
    let report = format!("{disk}/report.json");
    for (daemon, option, file, check) in [
        ("millrace-copier", "--report", report.as_str(), "report"),
        ("millrace-router-agent", "--state-dir", &disk, "state-dir"),
    ] {
        let more = [option, file];
        let mount = |options: &str| format!("mount -t tmpfs -o {options} none {disk}");
        let fill = format!(
            "{} && head -c 60000000 /dev/zero >{disk}/fill",
            mount("size=100m")
        );
        let found = hosts.check_after(daemon, &fill, &more);
        assert_named(
            &found,
            &[("warning", check)],
            &format!("`df -h {disk}`; make room"),
        );
        let mended = format!("{fill} && rm {disk}/fill");
        assert_eq!(hosts.check_after(daemon, &mended, &more), [], "{daemon}");

        let found = hosts.check_after(daemon, &mount("ro"), &more);
        assert_named(&found, &[("failure", check)], &format!("`ls -ld {disk}`"));
        assert!(found[0].2.contains(option), "{found:?}");
        let another = ["--report", "/tmp/millrace-checked.json"];
        let another = if daemon == DAEMONS[0] {
            &another[..]
        } else {
            &[]
        };
        assert_eq!(
            hosts.check_after(daemon, &mount("ro"), another),
            [],
            "{daemon}"
        );
    }
}

#[test]
fn a_target_without_the_tools_of_its_agent_names_that_alone() {
    if !can_run() {
        return;
    }
    let hosts = Hosts::new();
    let _server = hosts.target.serve();
    let agent = DAEMONS[2];
    // The cure installs a package: they are there again once nothing hides them.
    for (tool, more, level, package) in [
        ("nft", &[][..], "warning", "apt-get install nftables"),
        (
            "iptables",
            &["--mode", "nfqueue"],
            "failure",
            "apt-get install iptables",
        ),
    ] {
        let hide = format!("mount --bind /dev/null $(readlink -f $(command -v {tool}))");
        let found = hosts.check_after(agent, &hide, more);
        assert_named(&found, &[(level, "tools")], package);
        assert_eq!(hosts.check_after(agent, ":", more), [], "{tool}");
    }
}
