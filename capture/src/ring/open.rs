//! Opening a ring: the order of the steps decides which packets it sees first.

use std::os::fd::{AsFd, BorrowedFd};

use millrace_wire::LinkType;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::layout::SLOT;
use super::scope::Scope;
use super::{Ring, RingConfig, RingStatistics};
use crate::device::{link_info, link_type};
use crate::error::CaptureError;
use crate::filter::Program;
use crate::sys::address::bind_to_link;
use crate::sys::mapping::Mapping;
use crate::sys::option::{
    attach_filter, copy_long_frames, set_fanout, set_packet_version_2, set_promiscuous,
    set_receive_buffer, set_receive_ring,
};

/// The kernel allocates slots in blocks: some pages each, so that it finds them.
const BLOCK: usize = 64 << 10;

/// What a slot needs besides its frame, at most: both headers, alignment, and the room that the
/// kernel leaves so that the network header is aligned.
const HEADERS: usize = 128;
/// Stands for every device where one could be bound to (`packet(7)`).
pub(super) const EVERY_DEVICE: u32 = 0;

pub(super) fn open(config: &RingConfig) -> Result<Ring, CaptureError> {
    let names = config.names();
    let on = |action| CaptureError::on::<std::io::Error>(action, &names);
    let (scope, link_type) = scope(config)?;
    let program = config.filter.compile(link_type, config.snap_len)?;
    let (blocks, long_bytes) = geometry(config)?;

    let kind = match link_type {
        LinkType::Ethernet => SocketType::RAW,
        // The kernel takes off whatever is before the network header.
        LinkType::RawIp
        | LinkType::LinuxSll
        | LinkType::LinuxSll2
        | LinkType::Null
        | LinkType::Loop
        | LinkType::Nflog => SocketType::DGRAM,
    };
    // With protocol 0 the socket sees nothing until it is bound with one.
    let fd = socket_with(
        AddressFamily::PACKET,
        kind,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
    .map_err(CaptureError::on("open a packet socket", &names))?;

    // Between bind and joining a fan-out group the socket would see what belongs to others.
    attach_filter(fd.as_fd(), &mut Program::reject_all().to_kernel())
        .map_err(on("attach a filter"))?;
    set_packet_version_2(fd.as_fd()).map_err(on("select TPACKET_V2"))?;
    copy_long_frames(fd.as_fd()).map_err(on("ask for long frames"))?;
    let granted =
        set_receive_buffer(fd.as_fd(), long_bytes).map_err(on("size the capture buffer (-B)"))?;
    set_receive_ring(fd.as_fd(), &request(blocks)?)
        .map_err(on("allocate the capture buffer (-B)"))?;
    let slots = Mapping::new(fd.as_fd(), SLOT, blocks * (BLOCK / SLOT))
        .map_err(on("map the capture buffer"))?;
    let number = match &scope {
        Scope::Bound { device } => link_info(device)?.index,
        Scope::Several { .. } => EVERY_DEVICE,
    };
    bind_to_link(fd.as_fd(), number, libc::ETH_P_ALL as u16).map_err(on("bind"))?;
    if config.promiscuous {
        let numbers = match &scope {
            Scope::Bound { .. } => vec![number],
            Scope::Several { .. } => scope.numbers(),
        };
        for number in numbers {
            set_promiscuous(fd.as_fd(), number).map_err(on("set promiscuous mode"))?;
        }
    }
    if let Some(fanout) = config.fanout {
        let argument = u32::from(fanout.group) | (libc::PACKET_FANOUT_HASH << 16);
        set_fanout(fd.as_fd(), argument).map_err(on("join the fan-out group"))?;
    }
    attach(fd.as_fd(), &scope, &program)?;

    Ok(Ring {
        memory: (slots.slot_count() * SLOT, granted),
        slots,
        fd,
        current: 0,
        scope,
        link_type,
        program,
        snap_len: usize::try_from(config.snap_len).unwrap_or(usize::MAX),
        statistics: RingStatistics::default(),
        beheaded: 0,
        promiscuous: config.promiscuous,
        changing: config.changing,
    })
}

/// Lets the socket see what the program accepts of the devices.
pub(super) fn attach(
    fd: BorrowedFd<'_>,
    scope: &Scope,
    program: &Program,
) -> Result<(), CaptureError> {
    let program = scope.prelude().followed_by(program);
    attach_filter(fd, &mut program.to_kernel())
        .map_err(CaptureError::on("attach the filter", &scope.names()))
}

/// The devices, and how their frames begin.
fn scope(config: &RingConfig) -> Result<(Scope, LinkType), CaptureError> {
    match config.devices.as_slice() {
        [device] if !config.changing => {
            let link_type = link_type(device, &link_info(device)?)?;
            let device = device.clone();
            Ok((Scope::Bound { device }, link_type))
        }
        names => {
            // Those that come and go may be gone already.
            for name in names.iter().filter(|_| !config.changing) {
                link_type(name, &link_info(name)?)?;
            }
            // Their link layers may differ; what is above them does not.
            Ok((Scope::several(names), LinkType::RawIp))
        }
    }
}

/// Blocks of slots, and bytes for long frames.
fn geometry(config: &RingConfig) -> Result<(usize, usize), CaptureError> {
    let fits_a_slot = config.snap_len as usize <= SLOT - HEADERS;
    let part = if fits_a_slot { 1 } else { 4 };
    if config.buffer_bytes < part * BLOCK {
        return Err(CaptureError::BufferTooSmall {
            buffer_bytes: config.buffer_bytes,
            needed: part * BLOCK,
        });
    }
    let slots = (config.buffer_bytes / part).min(RingConfig::MOST_SLOTS);
    let long_bytes = match fits_a_slot {
        true => 0,
        false => config.buffer_bytes - slots,
    };
    Ok((slots / BLOCK, long_bytes))
}

fn request(blocks: usize) -> Result<libc::tpacket_req, CaptureError> {
    let number = |value: usize| {
        u32::try_from(value).map_err(|_| CaptureError::System {
            action: "use so large a capture buffer (-B)",
            source: std::io::ErrorKind::InvalidInput.into(),
        })
    };
    Ok(libc::tpacket_req {
        tp_block_size: number(BLOCK)?,
        tp_block_nr: number(blocks)?,
        tp_frame_size: number(SLOT)?,
        tp_frame_nr: number(blocks * (BLOCK / SLOT))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::{Filter, ResponseFilter};

    fn config(buffer_bytes: usize) -> RingConfig {
        RingConfig {
            buffer_bytes,
            ..RingConfig::new("lo", Filter::Responses(ResponseFilter::default()))
        }
    }

    #[test]
    fn a_quarter_of_the_buffer_is_slots_up_to_a_bound() {
        let megabytes = |slots: usize, long: usize| (slots * (1 << 20) / BLOCK, long << 20);
        assert_eq!(geometry(&config(64 << 20)).unwrap(), megabytes(16, 48));
        assert_eq!(geometry(&config(512 << 20)).unwrap(), megabytes(16, 496));
        assert_eq!(geometry(&config(1 << 20)).unwrap(), (4, 768 << 10));
        let headers = RingConfig {
            snap_len: crate::filter::HEADERS_ONLY,
            ..config(8 << 20)
        };
        assert_eq!(geometry(&headers).unwrap(), megabytes(8, 0));
    }

    #[test]
    fn a_buffer_that_is_too_small_is_refused_with_what_is_needed() {
        let error = geometry(&config(200_000)).unwrap_err().to_string();
        assert!(error.contains("262144"), "{error}");
        assert!(geometry(&config(usize::MAX)).is_ok());
    }
}
