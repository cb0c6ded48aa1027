//! Response headers from targets, and what is known of the way to them.

use millrace_wire::TcpHeader;

use super::{Engine, FlowRef};
use crate::key::ReplicaKey;
use crate::time::Time;

/// Packet sizes that are tried one after the other when a size proves too large: the plateaus of
/// RFC 1191 7.1 and the minimum MTU of IPv6 (RFC 8200 5), without those below 576.
const PLATEAUS: [u16; 11] = [
    32_000, 17_914, 9000, 8166, 4352, 2002, 1500, 1492, 1400, 1280, 576,
];
/// IPv6 links take at least this (RFC 8200 5).
const LEAST_IPV6: u16 = 1280;
/// Retries after an outage are spread over this time, in microseconds.
const RETRY_SPREAD: u64 = 200_000;

impl Engine {
    pub(super) fn on_target_segment(
        &mut self,
        now: Time,
        flow: FlowRef,
        header: &TcpHeader,
        payload: &[u8],
        payload_len: u32,
    ) {
        let key = match flow {
            FlowRef::Id(id) => Some(ReplicaKey::from_flow_id(id)),
            FlowRef::Tuple(tuple) => self.replicas.find(&tuple),
        };
        match key.filter(|key| self.note_heard(now, *key)) {
            Some(key) if self.replicas.has_talks() && self.is_scripted(key) => {
                self.take_answer(now, key, header, payload, payload_len);
            }
            Some(key) => {
                self.with_replica(now, key, |replica, cx| {
                    replica.on_header(cx, header, payload_len);
                });
            }
            None => self.stats.target_headers_unknown += 1,
        }
    }

    /// Answers that went unseen can be seen again: what these replicas have outstanding is tried
    /// again within a fraction of a second.
    pub fn path_restored(&mut self, now: Time, affected: impl Fn(ReplicaKey) -> bool) {
        let keys = self.replicas.all.iter().map(|(key, _)| key);
        let keys = keys.filter(|key| affected(*key)).collect();
        self.forget_silence(now);
        self.retry(now, keys);
    }

    /// Tries again what these replicas have outstanding.
    pub(super) fn retry(&mut self, now: Time, keys: Vec<ReplicaKey>) {
        let count = keys.len().max(1) as u64;
        for (i, key) in keys.into_iter().enumerate() {
            let at = now.plus_micros((i as u64 * RETRY_SPREAD / count) as u32);
            self.with_replica(now, key, |replica, _| replica.on_path_restored(at));
        }
    }

    /// A packet of `packet_len` bytes was too long for the way to a replica's target.
    pub(super) fn lower_path(&mut self, key: ReplicaKey, packet_len: usize) {
        let Some(replica) = self.replicas.get(key) else {
            return;
        };
        let way = replica.way();
        let v6 = replica.source().ip.is_ipv6();
        let Some(target) = self.ways.get_mut(way) else {
            return;
        };
        let smaller = PLATEAUS
            .iter()
            .copied()
            .find(|size| usize::from(*size) < packet_len);
        let size = smaller.unwrap_or(576).max(if v6 { LEAST_IPV6 } else { 0 });
        target.path.max_packet = target.path.max_packet.min(size);
        let max_packet = target.path.max_packet;
        for key in self.replicas.keys_where(|replica| replica.way() == way) {
            if let Some(mut replica) = self.replicas.change(key) {
                replica.on_smaller_path(max_packet);
            }
        }
        if let Some(mut replica) = self.replicas.change(key) {
            replica.on_too_long();
        }
        self.replicas.queue(key);
        // The owner may be about to sleep: the packets are there already.
        self.replicas.arm(key, Time::ORIGIN);
    }
}
