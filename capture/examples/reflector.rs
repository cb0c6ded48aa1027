//! What capturing and sending cost by themselves: every packet to a service is sent on to another
//! address, on one thread, with nothing in between. The copier is measured against this.
//!
//! `reflector --device DEV --from IP:PORT --to IP:PORT --seconds N [--quiet MS]`
//!
//! Ends after N seconds, or once no packet has come for MS milliseconds after the first one. Prints one line then.
//! Rates are of the time from the first packet to the last; CPU seconds are those of the loop, user and system.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use millrace_capture::{
    Filter, FilterSpec, Ring, RingConfig, SendErrorKind, Sender, SenderConfig, ServiceFilter, wait,
};
use millrace_wire::checksum::Sum;
use millrace_wire::link::network_layer;
use millrace_wire::{LinkType, Tunnels};

type Failure = Box<dyn std::error::Error>;

/// Offset of the checksum in a TCP header.
const TCP_CHECKSUM: usize = 16;
/// Frames taken before what they gave is sent.
const FRAMES_IN_A_ROW: usize = 64;
/// As the copier's default.
const BUFFER: usize = 64 << 20;

struct Arguments {
    device: String,
    from: SocketAddr,
    to: SocketAddr,
    duration: Duration,
    quiet: Option<Duration>,
}

fn main() -> ExitCode {
    let mut output = std::io::stderr();
    let result = arguments().and_then(|arguments| {
        let line = reflect(&arguments)?;
        writeln!(std::io::stdout(), "{line}")?;
        Ok(())
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(output, "reflector: {error}");
            ExitCode::FAILURE
        }
    }
}

fn arguments() -> Result<Arguments, Failure> {
    let (mut device, mut from, mut to, mut seconds, mut quiet) = (None, None, None, None, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments
            .next()
            .ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--device" => device = Some(value),
            "--from" => from = Some(value.parse()?),
            "--to" => to = Some(value.parse()?),
            "--seconds" => seconds = Some(value.parse()?),
            "--quiet" => quiet = Some(Duration::from_millis(value.parse()?)),
            _ => return Err(format!("unknown option {name}").into()),
        }
    }
    let missing = |name: &str| format!("{name} is missing");
    let arguments = Arguments {
        device: device.ok_or_else(|| missing("--device"))?,
        from: from.ok_or_else(|| missing("--from"))?,
        to: to.ok_or_else(|| missing("--to"))?,
        duration: Duration::from_secs(seconds.ok_or_else(|| missing("--seconds"))?),
        quiet,
    };
    if arguments.from.is_ipv4() != arguments.to.is_ipv4() {
        return Err("--from and --to have to be of one address family".into());
    }
    Ok(arguments)
}

fn reflect(arguments: &Arguments) -> Result<String, Failure> {
    let filter = Filter::Services(FilterSpec {
        services: vec![ServiceFilter {
            address: Some(arguments.from.ip()),
            port: arguments.from.port(),
        }],
        local_addresses: Vec::new(),
        exclude: vec![arguments.to],
        client_snap_len: u32::MAX,
        // As the copier: it needs the headers of the live server's packets.
        server_snap_len: millrace_capture::filter::HEADERS_ONLY,
        whole_services: Vec::new(),
        tunnels: Tunnels::none(),
    });
    let mut ring = Ring::open(&RingConfig {
        buffer_bytes: BUFFER,
        ..RingConfig::new(&arguments.device, filter)
    })?;
    let mut sender = Sender::raw(&SenderConfig {
        max_packet: 65_535,
        ..SenderConfig::default()
    })?;
    let link = ring.link_type();
    let start = Instant::now();
    let used = cpu_time();
    let mut active: Option<(Instant, Instant)> = None;
    let mut seen = 0u64;
    loop {
        let mut left = arguments.duration.saturating_sub(start.elapsed());
        if let (Some(quiet), Some((_, last))) = (arguments.quiet, active) {
            left = left.min(quiet.saturating_sub(last.elapsed()));
        }
        if left.is_zero() {
            break;
        }
        let mut any = false;
        loop {
            let taken = ring.read(FRAMES_IN_A_ROW, |frame| {
                seen += 1;
                reflect_frame(link, frame.data, arguments, &mut sender);
            });
            if taken == 0 {
                break;
            }
            sender.flush(|_| {});
            any = true;
            if start.elapsed() >= arguments.duration {
                break;
            }
        }
        let now = Instant::now();
        if any {
            active = Some((active.map_or(now, |(first, _)| first), now));
        }
        if wait(&[ring.as_fd()], Some(left))?.is_failed(0)
            && let Some(error) = ring.take_error()
        {
            return Err(error.into());
        }
    }
    let used = cpu_time().saturating_sub(used);
    let statistics = ring.statistics()?;
    let sent = sender.counters();
    let seconds = active.map_or(0.0, |(first, last)| (last - first).as_secs_f64());
    let full = sent.failures(SendErrorKind::NoBuffers);
    let failed: u64 = SendErrorKind::ALL
        .iter()
        .map(|kind| sent.failures(*kind))
        .sum();
    let failed = failed - full;
    Ok(format!(
        "captured={seen} dropped={} packets={} bytes={} full={full} failed={failed} seconds={seconds:.3} cpu={:.3} \
         packets_per_second={:.0}",
        statistics.dropped,
        sent.packets,
        sent.bytes,
        used.as_secs_f64(),
        if seconds > 0.0 {
            sent.packets as f64 / seconds
        } else {
            0.0
        },
    ))
}

/// Processor time of this process, user and system.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

fn reflect_frame(link: LinkType, frame: &[u8], arguments: &Arguments, sender: &mut Sender) {
    let Ok((_, packet)) = network_layer(link, frame, &Tunnels::none()) else {
        return;
    };
    sender.push(0, arguments.to.ip(), |slot| {
        rewrite(packet, arguments, slot).unwrap_or(0)
    });
}

/// Copies a packet to the service, with another destination; `None` for all other packets.
fn rewrite(packet: &[u8], arguments: &Arguments, slot: &mut [u8]) -> Option<usize> {
    let (start, length, destination): (usize, usize, usize) = match arguments.to.ip() {
        IpAddr::V4(_) => {
            let header = usize::from(packet.first()? & 0x0f) * 4;
            let [high, low] = packet.get(2..)?.first_chunk()?;
            (header, usize::from(u16::from_be_bytes([*high, *low])), 16)
        }
        IpAddr::V6(_) => {
            let [high, low] = packet.get(4..)?.first_chunk()?;
            (40, 40 + usize::from(u16::from_be_bytes([*high, *low])), 24)
        }
    };
    let packet = packet.get(..length)?;
    let port = packet.get(start + 2..)?.first_chunk()?;
    if u16::from_be_bytes(*port) != arguments.from.port() {
        return None;
    }
    let slot = slot.get_mut(..length)?;
    slot.copy_from_slice(packet);
    match arguments.to.ip() {
        IpAddr::V4(ip) => put(slot, destination, &ip.octets())?,
        IpAddr::V6(ip) => put(slot, destination, &ip.octets())?,
    }
    put(slot, start + 2, &arguments.to.port().to_be_bytes())?;
    put(slot, start + TCP_CHECKSUM, &[0, 0])?;
    let segment = slot.get(start..)?;
    // Source and destination stand side by side, in front of the end of `destination`.
    let width = if arguments.to.is_ipv4() { 4 } else { 16 };
    let addresses = slot.get(destination - width..destination + width)?;
    let [a, b, c, d] = u32::try_from(segment.len()).ok()?.to_be_bytes();
    let sum = Sum::default()
        .with(addresses)
        .with(&[a, b, c, d, 0, 0, 0, 6])
        .with(segment);
    put(slot, start + TCP_CHECKSUM, &sum.finish().to_be_bytes())?;
    // The kernel fills in the checksum of the IPv4 header.
    Some(length)
}

fn put(slot: &mut [u8], offset: usize, bytes: &[u8]) -> Option<()> {
    slot.get_mut(offset..offset + bytes.len())?
        .copy_from_slice(bytes);
    Some(())
}
