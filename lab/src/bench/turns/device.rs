//! What the target's own device sees of each turn: the time from a request that comes in to the first byte that goes out.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use millrace_lab::{DEVICE, Process, Result, Stage, wait_for};

use crate::bench::Service;

/// How long tcpdump may take to begin and to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of each packet that are kept: its headers.
const HEADERS: &str = "128";

/// A tcpdump on the target's device.
pub(super) struct Device<'a> {
    stage: &'a Stage,
    target: SocketAddr,
    process: Process,
    file: PathBuf,
}

impl<'a> Device<'a> {
    pub(super) fn watch(stage: &'a Stage, service: &Service) -> Result<Self> {
        let host = &stage.target.host;
        let file = host.file("device.pcap");
        let (name, port) = (
            file.display().to_string(),
            service.target.port().to_string(),
        );
        let what = ["tcp", "port", &port];
        let how = ["-i", DEVICE, "-s", HEADERS, "-w", &name];
        let precisely = ["--time-stamp-precision=nano", "-Z", "root"];
        let arguments = [&how[..], &precisely, &what].concat();
        let log = host.file("tcpdump.log");
        let process = host.spawn("tcpdump", &arguments, &[], &log)?;
        wait_for("tcpdump to begin", PATIENCE, || {
            process.log().contains("listening on")
        })?;
        Ok(Self {
            stage,
            target: service.target,
            process,
            file,
        })
    }

    /// The median and the 99th percentile of the target's own time, in microseconds.
    pub(super) fn finish(mut self) -> Result<[f64; 2]> {
        self.process.terminate(PATIENCE)?;
        let name = self.file.display().to_string();
        let arguments = ["-r", &name, "-n", "-q", "-tt"];
        let precisely = ["--time-stamp-precision=nano"];
        let arguments = [&arguments[..], &precisely].concat();
        let text = self.stage.target.host.check("tcpdump", &arguments)?;
        Ok(percentiles(&text, self.target))
    }
}

fn percentiles(text: &str, target: SocketAddr) -> [f64; 2] {
    let target = format!("{}.{}", target.ip(), target.port());
    let mut asked = HashMap::new();
    let mut times = Vec::new();
    for packet in text.lines().filter_map(Packet::parse) {
        if packet.bytes == 0 {
            continue;
        }
        if packet.to == target {
            asked.insert(packet.from, packet.at);
        } else if packet.from == target
            && let Some(since) = asked.remove(packet.to)
        {
            times.push(packet.at.saturating_sub(since) as f64 / 1e3);
        }
    }
    times.sort_by(f64::total_cmp);
    [50, 99].map(|percent| {
        let place = times.len() * percent / 100;
        times.get(place).copied().unwrap_or_default()
    })
}

/// A line of tcpdump: `1700000000.123456789 IP 198.18.1.1.5000 > 198.18.2.20.80: tcp 28`.
struct Packet<'a> {
    /// Nanoseconds.
    at: u64,
    from: &'a str,
    to: &'a str,
    bytes: u64,
}

impl<'a> Packet<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let (seconds, nanos) = words.next()?.split_once('.')?;
        let from = words.nth(1)?;
        let to = words.nth(1)?.strip_suffix(':')?;
        Some(Self {
            at: seconds.parse::<u64>().ok()? * 1_000_000_000 + nanos.parse::<u64>().ok()?,
            from,
            to,
            bytes: words.nth(1)?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_lasts_from_its_request_to_the_first_byte_of_its_answer() {
        let text = "\
            1700000000.000000000 IP 198.18.1.1.5000 > 198.18.2.20.80: tcp 0\n\
            1700000000.000001000 IP 198.18.1.1.5000 > 198.18.2.20.80: tcp 28\n\
            1700000000.000004000 IP 198.18.2.20.80 > 198.18.1.1.5000: tcp 0\n\
            1700000000.000021500 IP 198.18.2.20.80 > 198.18.1.1.5000: tcp 850\n\
            1700000000.000030000 IP 198.18.2.20.80 > 198.18.1.1.5000: tcp 850\n\
            1700000000.999999000 IP 198.18.1.1.5000 > 198.18.2.20.80: tcp 28\n\
            what tcpdump says besides\n\
            1700000001.000039000 IP 198.18.2.20.80 > 198.18.1.1.5000: tcp 850\n";
        let target = "198.18.2.20:80".parse().unwrap();
        assert_eq!(percentiles(text, target), [40.0, 40.0]);
        let first = text.lines().take(5).collect::<Vec<_>>().join("\n");
        assert_eq!(percentiles(&first, target), [20.5, 20.5]);
        assert_eq!(percentiles("", target), [0.0, 0.0]);
    }
}
