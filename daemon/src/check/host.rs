//! What daemons look at of their host.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;

use rustix::fs::Access;

use super::Verdict;
use crate::listen::address_for_peers;

/// Room that a file system should have left, in bytes.
const ROOM: u64 = 64 << 20;
/// The oldest kernel on which Millrace is expected to run.
const OLDEST: (u32, u32) = (4, 19);

/// The kernel's release.
pub fn kernel() -> Verdict {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy().into_owned();
    match version(&release) {
        Some(version) if version < OLDEST => Verdict::warning(
            format!(
                "Linux {release} is older than {}.{}, where it is not tried",
                OLDEST.0, OLDEST.1
            ),
            "upgrade the kernel",
        ),
        Some(_) | None => Verdict::ok(format!("Linux {release}")),
    }
}

/// The first two numbers of a release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || parts.next()?.parse().ok();
    Some((number()?, number()?))
}

/// Whether there is so much memory for this process, in bytes: of the host, and of its control group.
pub fn memory(wanted: u64, what: &str) -> Verdict {
    let megabytes = |bytes: u64| format!("{} MB", bytes >> 20);
    let Some(free) = available() else {
        return Verdict::ok("this host does not say how much memory it has");
    };
    let found = format!(
        "{what} may take {}, {} are available",
        megabytes(wanted),
        megabytes(free)
    );
    match wanted > free {
        true => Verdict::warning(
            format!("{found}: beyond that the kernel ends processes of this host"),
            "give less (-m, -B), or run it where there is more",
        ),
        false => Verdict::ok(found),
    }
}

/// What is left of the host's memory, or of the control group's where that is less.
fn available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    let host = kilobytes << 10;
    Some(left_in_group().map_or(host, |group| group.min(host)))
}

/// What is left in this process's control group (cgroup-v2.rst, memory.max); `None` without a limit.
fn left_in_group() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let directory = Path::new("/sys/fs/cgroup").join(path);
    let number = |file: &str| -> Option<u64> {
        let text = std::fs::read_to_string(directory.join(file)).ok()?;
        text.trim().parse().ok()
    };
    let statistics = std::fs::read_to_string(directory.join("memory.stat")).unwrap_or_default();
    let cache = |line: &str| {
        line.strip_prefix("inactive_file ")?
            .trim()
            .parse::<u64>()
            .ok()
    };
    // The kernel takes back what only caches files.
    let cache = statistics.lines().find_map(cache).unwrap_or(0);
    let used = number("memory.current")?.saturating_sub(cache);
    Some(number("memory.max")?.saturating_sub(used))
}

/// Whether a file can be written, as the option of this name asks for; and whether there is room for it. Nothing is
/// touched.
pub fn file(path: &Path, option: &str) -> Verdict {
    let parent = path.parent().filter(|it| !it.as_os_str().is_empty());
    let parent = parent.unwrap_or_else(|| Path::new("."));
    let (asked, rights) = match path.exists() {
        true => (path, Access::WRITE_OK),
        false => (parent, Access::WRITE_OK | Access::EXEC_OK),
    };
    match rustix::fs::access(asked, rights) {
        // Devices and pipes take no place.
        Ok(()) if path.exists() && !path.is_file() => {
            Verdict::ok(format!("{} can be written", path.display()))
        }
        Ok(()) => room(parent, option),
        Err(error) => Verdict::failure(
            format!("{} cannot be written: {error}", path.display()),
            format!(
                "name another file ({option}), or `ls -ld {}`",
                parent.display()
            ),
        ),
    }
}

/// Whether files can be made in a directory, which is made with its parents where it is missing.
pub fn directory(path: &Path, option: &str) -> Verdict {
    let there = path.ancestors().find(|it| it.exists());
    let there = there.unwrap_or_else(|| Path::new("."));
    match rustix::fs::access(there, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => room(there, option),
        Err(error) => Verdict::failure(
            format!("{} cannot be written: {error}", there.display()),
            format!(
                "`ls -ld {}`, or name another directory ({option})",
                there.display()
            ),
        ),
    }
}

/// Whether the file system of a directory has room left.
fn room(directory: &Path, option: &str) -> Verdict {
    let name = directory.display();
    let Ok(system) = rustix::fs::statvfs(directory) else {
        return Verdict::ok(format!("{name} can be written"));
    };
    let free = system.f_bavail * system.f_frsize;
    match free < ROOM {
        true => Verdict::warning(
            format!("{} MB are free at {name}", free >> 20),
            format!("`df -h {name}`; make room, or name another place ({option})"),
        ),
        false => Verdict::ok(format!("{} MB are free at {name}", free >> 20)),
    }
}

/// Whether peers can be listened for, as [`crate::listen::bind_for_peers`] does.
pub fn listening(address: Option<IpAddr>, port: u16, insecure: bool) -> Verdict {
    let loopback = address.is_none() && insecure;
    let ip = address_for_peers(address, insecure);
    let at = SocketAddr::new(ip, port);
    if let Err(error) = TcpListener::bind(at) {
        let next = match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                format!(
                    "`ss -ltnp 'sport = :{port}'` shows who listens there; if it is this daemon, it runs already"
                )
            }
            _ => "`ip address show`; name an address of this host with -b".to_owned(),
        };
        return Verdict::warning(format!("{at} cannot be listened on: {error}"), next);
    }
    match loopback {
        true => Verdict::warning(
            format!("only copiers on this host would reach {at} (--insecure without -b)"),
            "name the address at which others are to reach it with -b",
        ),
        false => Verdict::ok(format!("{at} is free")),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::Level;
    use super::*;

    #[test]
    fn releases_of_kernels_are_read() {
        assert_eq!(version("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(version("4.18+"), Some((4, 18)));
        assert_eq!(version("unknown"), None);
        assert_eq!(kernel().level, Level::Ok);
    }

    #[test]
    fn more_memory_than_there_is_deserves_a_warning() {
        assert_eq!(memory(1, "it").level, Level::Ok);
        let verdict = memory(u64::MAX, "it");
        assert_eq!(verdict.level, Level::Warning, "{verdict:?}");
    }

    #[test]
    fn a_file_is_tried_and_leaves_nothing_behind() {
        let path = std::env::temp_dir().join(format!("millrace-check-{}", std::process::id()));
        assert_ne!(file(&path, "--report").level, Level::Failure);
        assert!(!path.exists());
        let verdict = file(Path::new("/nonexistent/directory/file"), "--report");
        assert_eq!(verdict.level, Level::Failure);
        assert!(verdict.next.unwrap().contains("/nonexistent/directory"));
    }

    #[test]
    fn a_port_that_is_taken_and_one_that_nobody_reaches_are_told() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let here = Some(Ipv4Addr::LOCALHOST.into());
        let verdict = listening(here, port, false);
        assert!(verdict.next.unwrap().starts_with("`ss -ltnp"));
        drop(taken);
        assert_eq!(listening(here, port, true).level, Level::Ok);
        let verdict = listening(None, port, true);
        assert!(verdict.found.contains("only copiers on this host"));
    }
}
