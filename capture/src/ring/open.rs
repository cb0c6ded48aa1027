//! Opening a ring: the order of the steps decides which packets it sees first.

use std::os::fd::AsFd;

use millrace_wire::LinkType;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::layout::{BLOCK_OVERHEAD, FRAME_OVERHEAD};
use super::{Ring, RingConfig, RingStatistics};
use crate::device::{link_info, link_type};
use crate::error::CaptureError;
use crate::filter::Program;
use crate::sys::address::bind_to_link;
use crate::sys::mapping::Mapping;
use crate::sys::option::{
    attach_filter, set_fanout, set_ignore_outgoing, set_packet_version_3, set_promiscuous,
    set_receive_ring,
};

/// A page. A block reaches the reader when it is full or its time-out is over, so the smaller it is
/// the sooner under load; and a ring has many of them, which it needs, since each may be used up by
/// a time-out alone.
const MIN_BLOCK: usize = 4096;
/// One block is with the reader while the kernel fills the next.
const MIN_BLOCKS: usize = 2;
/// Of no meaning in version 3, where frames have any length, but checked by the kernel.
const NOMINAL_FRAME: u32 = 2048;

pub(super) fn open(config: &RingConfig) -> Result<Ring, CaptureError> {
    let device = config.device.as_str();
    let link = link_info(device)?;
    let link_type = link_type(device, &link)?;
    let program = config.filter.compile(link_type, config.snap_len)?;
    let (block_size, block_count) = geometry(config)?;

    let kind = match link_type {
        LinkType::Ethernet => SocketType::RAW,
        // The kernel takes off whatever is before the network header.
        LinkType::RawIp
        | LinkType::LinuxSll
        | LinkType::LinuxSll2
        | LinkType::Null
        | LinkType::Loop => SocketType::DGRAM,
    };
    // With protocol 0 the socket sees nothing until it is bound with one.
    let fd = socket_with(
        AddressFamily::PACKET,
        kind,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
    .map_err(CaptureError::on("open a packet socket", device))?;

    let on = |action| CaptureError::on::<std::io::Error>(action, device);
    // Between bind and joining a fan-out group the socket would see what belongs to others.
    attach_filter(fd.as_fd(), &mut Program::reject_all().to_kernel())
        .map_err(on("attach a filter"))?;
    set_packet_version_3(fd.as_fd()).map_err(on("select TPACKET_V3"))?;
    let request = request(config, block_size, block_count)?;
    set_receive_ring(fd.as_fd(), &request).map_err(on("allocate the capture buffer (-B)"))?;
    let blocks =
        Mapping::new(fd.as_fd(), block_size, block_count).map_err(on("map the capture buffer"))?;
    if link.hardware_type == libc::ARPHRD_LOOPBACK {
        // Every packet passes the loopback device twice: out, then in. Once is enough.
        set_ignore_outgoing(fd.as_fd()).map_err(on("ignore outgoing packets"))?;
    }
    bind_to_link(fd.as_fd(), link.index, libc::ETH_P_ALL as u16).map_err(on("bind"))?;
    if config.promiscuous {
        set_promiscuous(fd.as_fd(), link.index).map_err(on("set promiscuous mode"))?;
    }
    if let Some(fanout) = config.fanout {
        let argument = u32::from(fanout.group) | (libc::PACKET_FANOUT_HASH << 16);
        set_fanout(fd.as_fd(), argument).map_err(on("join the fan-out group"))?;
    }
    attach_filter(fd.as_fd(), &mut program.to_kernel()).map_err(on("attach the filter"))?;

    Ok(Ring {
        blocks,
        fd,
        current: 0,
        device: config.device.clone(),
        link_type,
        statistics: RingStatistics::default(),
    })
}

/// Block size and number of blocks: a block is a power of two of pages that holds a frame of the
/// full snap length.
fn geometry(config: &RingConfig) -> Result<(usize, usize), CaptureError> {
    let snap_len = usize::try_from(config.snap_len).unwrap_or(usize::MAX);
    let block_size = snap_len
        .checked_add(BLOCK_OVERHEAD + FRAME_OVERHEAD)
        .and_then(usize::checked_next_power_of_two)
        .map_or(usize::MAX, |size| size.max(MIN_BLOCK));
    let block_count = config.buffer_bytes / block_size;
    if block_count < MIN_BLOCKS {
        return Err(CaptureError::BufferTooSmall {
            buffer_bytes: config.buffer_bytes,
            snap_len: config.snap_len,
            needed: block_size.saturating_mul(MIN_BLOCKS),
        });
    }
    Ok((block_size, block_count))
}

fn request(
    config: &RingConfig,
    block_size: usize,
    block_count: usize,
) -> Result<libc::tpacket_req3, CaptureError> {
    let number = |value: usize| {
        u32::try_from(value).map_err(|_| CaptureError::System {
            action: "use so large a capture buffer (-B)",
            source: std::io::ErrorKind::InvalidInput.into(),
        })
    };
    let block_size = number(block_size)?;
    let block_count = number(block_count)?;
    Ok(libc::tpacket_req3 {
        tp_block_size: block_size,
        tp_block_nr: block_count,
        tp_frame_size: NOMINAL_FRAME,
        tp_frame_nr: (block_size / NOMINAL_FRAME).saturating_mul(block_count),
        // 0 would let the kernel choose from the link speed.
        tp_retire_blk_tov: u32::try_from(config.block_timeout.as_millis())
            .unwrap_or(u32::MAX)
            .clamp(1, 1000),
        tp_sizeof_priv: 0,
        tp_feature_req_word: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::{Filter, ResponseFilter};

    fn config(buffer_bytes: usize, snap_len: u32) -> RingConfig {
        RingConfig {
            buffer_bytes,
            snap_len,
            ..RingConfig::new("lo", Filter::Responses(ResponseFilter::default()))
        }
    }

    #[test]
    fn a_block_holds_the_longest_frame() {
        let default = config(RingConfig::DEFAULT_BUFFER, RingConfig::DEFAULT_SNAP_LEN);
        assert_eq!(geometry(&default).unwrap(), (128 * 1024, 128));
        assert_eq!(geometry(&config(1 << 20, 192)).unwrap(), (4096, 256));
        let (block, _) = geometry(&config(16 << 20, 524_280)).unwrap();
        assert_eq!(block, 1 << 20);
    }

    #[test]
    fn a_buffer_that_is_too_small_is_refused_with_what_is_needed() {
        let error = geometry(&config(200_000, 65_599)).unwrap_err().to_string();
        assert!(error.contains("262144"), "{error}");
        assert!(geometry(&config(usize::MAX, u32::MAX)).is_ok());
        assert!(geometry(&config(0, u32::MAX)).is_err());
    }
}
