//! A target: a TCP server with knobs, written against the RFCs and apart from the engine's own
//! TCP, so that a mistake in one is not repeated in the other.

use std::collections::BTreeMap;
use std::time::Duration;

use millrace_engine::Time;
use millrace_wire::{Flags, FourTuple, Seq, TcpHeader, TcpOptions};

use super::{Behaviour, Packet};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Open,
    Fin,
    Reset,
}

/// One connection at the target.
pub struct Target {
    pub behaviour: Behaviour,
    pub tuple: FourTuple,
    pub received: Vec<u8>,
    pub ended: Ended,
    /// When the first byte of each turn arrived, by offset.
    pub arrivals: Vec<(u64, Time)>,
    /// Headers that the target saw with the most bytes it had ever allowed.
    pub window_violations: u64,
    pub largest_payload: usize,
    pub syn: Option<TcpHeader>,
    pub keepalives_answered: u64,
    /// Timestamps that were echoed, in order, without repetition.
    pub echoes: Vec<u32>,
    /// Bytes of the application that the other side has acknowledged.
    pub una: u64,
    now: Time,
    chatter_at: Option<Time>,
    /// Where the latest segment began.
    latest: u64,
    isn: Seq,
    client_isn: Seq,
    established: bool,
    scaled: bool,
    out_of_order: BTreeMap<u64, Vec<u8>>,
    client_fin: Option<u64>,
    /// Application's answer stream.
    planned: u64,
    produced: u64,
    nxt: u64,
    fin_planned: bool,
    fin_acked: bool,
    pending: Vec<(Time, u64)>,
    answered: usize,
    syn_ack_at: Option<Time>,
    rto_at: Option<Time>,
    rto: Duration,
    idle_at: Option<Time>,
    keepalive_at: Option<Time>,
    keepalive_waiting: bool,
    stalled_until: Option<Time>,
    ts_recent: u32,
    right_edge: u64,
    out: Vec<Packet>,
}

impl Target {
    pub fn new(tuple: FourTuple, behaviour: Behaviour) -> Self {
        let port = u32::from(tuple.source.port);
        Self {
            tuple,
            received: Vec::new(),
            ended: Ended::Open,
            arrivals: Vec::new(),
            window_violations: 0,
            largest_payload: 0,
            syn: None,
            keepalives_answered: 0,
            echoes: Vec::new(),
            now: Time::NEVER,
            latest: 0,
            chatter_at: None,
            // Near the wrap for many ports: wrapping must not matter.
            isn: Seq(0u32.wrapping_sub(port % 3000)),
            client_isn: Seq(0),
            established: false,
            scaled: false,
            out_of_order: BTreeMap::new(),
            client_fin: None,
            planned: behaviour.greeting,
            produced: 0,
            una: 0,
            nxt: 0,
            fin_planned: false,
            fin_acked: false,
            pending: Vec::new(),
            answered: 0,
            syn_ack_at: None,
            rto_at: None,
            rto: Duration::from_millis(300),
            idle_at: None,
            keepalive_at: None,
            keepalive_waiting: false,
            stalled_until: None,
            ts_recent: 0,
            right_edge: 0,
            out: Vec::new(),
            behaviour,
        }
    }

    /// Its initial sequence number.
    pub fn isn(&self) -> Seq {
        self.isn
    }

    /// Whether its FIN was sent and acknowledged.
    pub fn fin_acked(&self) -> bool {
        self.fin_acked
    }

    /// The application closes its side, once it has said what it is about to say.
    pub fn close(&mut self, now: Time) {
        let last = self.pending.iter().map(|(time, _)| *time).max();
        self.pending.push((last.unwrap_or(now), u64::MAX));
        self.on_time(now);
    }

    pub fn take_output(&mut self) -> Vec<Packet> {
        std::mem::take(&mut self.out)
    }

    pub fn deadline(&self) -> Option<Time> {
        let pending = self.pending.iter().map(|(time, _)| *time).min();
        [
            self.syn_ack_at,
            self.rto_at,
            self.idle_at,
            self.keepalive_at,
            self.stalled_until,
            self.chatter_at,
            pending,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    pub const fn is_established(&self) -> bool {
        self.established
    }

    pub fn on_packet(&mut self, now: Time, header: &TcpHeader, payload: &[u8]) {
        self.now = now;
        if self
            .behaviour
            .path_payload
            .is_some_and(|most| payload.len() > most)
        {
            return;
        }
        let flags = header.flags;
        if let Some(stale) = self.behaviour.stale {
            // An old connection lives on this flow: a SYN gets a challenge ACK, and only a RST
            // with the exact number ends it (RFC 5961).
            if flags.has(Flags::RST) {
                if header.seq == stale {
                    self.behaviour.stale = None;
                }
            } else {
                self.push(Flags::ACK, Seq(99), stale, 0, TcpOptions::default());
            }
            return;
        }
        if flags.has(Flags::RST) {
            // RFC 9293 3.10.7.4, third: one that fits ends a handshake, too.
            let fits = self.established || header.seq == self.client_isn.add(1);
            if fits && self.syn.is_some() && self.ended == Ended::Open {
                self.ended = Ended::Reset;
                self.quiesce();
            }
            return;
        }
        if flags.has(Flags::SYN) {
            self.on_syn(now, header);
            return;
        }
        if self.ended == Ended::Reset {
            let (seq, ack) = (header.ack, header.seq.add(payload.len() as u32));
            self.push(Flags::RST, seq, ack, 0, TcpOptions::default());
            return;
        }
        if self.syn.is_none() {
            return;
        }
        self.on_segment(now, header, payload);
    }

    fn on_syn(&mut self, now: Time, header: &TcpHeader) {
        if self.behaviour.refuse || std::mem::take(&mut self.behaviour.half_closed) {
            let ack = header.seq.add(1);
            self.push(
                Flags::RST | Flags::ACK,
                Seq(0),
                ack,
                0,
                TcpOptions::default(),
            );
            return;
        }
        if self.syn.is_none() {
            self.syn = Some(*header);
            self.client_isn = header.seq;
            self.scaled =
                self.behaviour.window_scale.is_some() && header.options.window_scale.is_some();
            self.ts_recent = header.options.timestamps.map_or(0, |(value, _)| value);
            self.right_edge = u64::from(self.syn_window());
            self.syn_ack_at = Some(now + self.behaviour.accept_delay);
        } else if self.established {
            self.ack(now);
        } else {
            self.syn_ack_at = Some(now + self.behaviour.accept_delay);
        }
        self.on_time(now);
    }

    fn on_segment(&mut self, now: Time, header: &TcpHeader, mut payload: &[u8]) {
        let closed = self.fin_planned && self.behaviour.reset_when_closed;
        if closed && self.ended == Ended::Open && !payload.is_empty() {
            self.ended = Ended::Reset;
            self.push(Flags::RST, header.ack, Seq(0), 0, TcpOptions::default());
            self.quiesce();
            return;
        }
        if self.behaviour.drops_while_stalled && self.stalled_until.is_some() && !payload.is_empty()
        {
            self.on_ack(now, header);
            self.ack(now);
            return;
        }
        if self.behaviour.halve > 0 && payload.len() > 1 {
            self.behaviour.halve -= 1;
            payload = &payload[..payload.len() / 2];
        }
        if self.keepalive_waiting {
            self.keepalive_waiting = false;
            self.keepalives_answered += 1;
        }
        if let Some((value, echo)) = header.options.timestamps {
            self.ts_recent = value;
            if self.echoes.last() != Some(&echo) {
                self.echoes.push(echo);
            }
        }
        if !self.established {
            self.established = true;
            self.syn_ack_at = None;
            self.idle_at = self.behaviour.close_idle.map(|idle| now + idle);
            self.keepalive_at = self.behaviour.keepalive.map(|idle| now + idle);
            self.chatter_at = self.behaviour.chatter.map(|(period, _, _)| now + period);
        }
        self.on_ack(now, header);
        let next = self.next_expected();
        let first = self.client_isn.add(1);
        let Some(start) = header.seq.offset_near(first.add(next as u32), next) else {
            self.ack(now);
            return;
        };
        self.largest_payload = self.largest_payload.max(payload.len());
        let end = start + payload.len() as u64;
        // A window probe's or keepalive's old number, or data from beyond the window.
        if end > self.right_edge && !payload.is_empty() {
            self.window_violations += 1;
        }
        if header.flags.has(Flags::FIN) {
            self.client_fin.get_or_insert(end);
        }
        if let Some((after, window)) = self.behaviour.shrink
            && self.received.len() as u64 >= after
        {
            self.behaviour.window = window;
            self.behaviour.shrink = None;
        }
        let had = self.received.len() as u64;
        if !payload.is_empty() {
            self.idle_at = self.behaviour.close_idle.map(|idle| now + idle);
            self.keepalive_at = self.behaviour.keepalive.map(|idle| now + idle);
            self.latest = start;
            self.out_of_order
                .entry(start)
                .or_insert_with(|| payload.to_vec());
            self.take_in_order(now);
        }
        let acceptable = start >= had || end > had;
        let carries = !payload.is_empty() || header.flags.has(Flags::FIN);
        if self.received.len() as u64 > had {
            self.run_application(now);
        }
        if self.client_fin == Some(self.received.len() as u64) && self.ended == Ended::Open {
            self.ended = Ended::Fin;
            self.idle_at = None;
            if self.behaviour.closes_after_client {
                self.keepalive_at = None;
                self.fin_planned = true;
            }
        }
        self.send(now);
        if carries || !acceptable || start < had {
            self.ack(now);
        }
    }

    fn take_in_order(&mut self, now: Time) {
        while let Some((start, data)) = self.out_of_order.pop_first() {
            let have = self.received.len() as u64;
            if start > have {
                self.out_of_order.insert(start, data);
                return;
            }
            let skip = ((have - start) as usize).min(data.len());
            if skip < data.len() {
                self.arrivals.push((have, now));
                self.received.extend_from_slice(&data[skip..]);
            }
        }
    }

    fn run_application(&mut self, now: Time) {
        let have = self.received.len() as u64;
        if self
            .behaviour
            .reset_after
            .is_some_and(|after| have >= after)
        {
            self.ended = Ended::Reset;
            let seq = self.isn.add(1).add(self.nxt as u32);
            let ack = self.ack_number();
            self.push(Flags::RST | Flags::ACK, seq, ack, 0, TcpOptions::default());
            self.quiesce();
            return;
        }
        if let Some((after, pause)) = self.behaviour.stall
            && have >= after
        {
            self.behaviour.stall = None;
            self.stalled_until = Some(now + pause);
        }
        while let Some((needed, len)) = self.behaviour.answers.get(self.answered).copied() {
            if have < needed {
                break;
            }
            self.answered += 1;
            let when = now + self.behaviour.answer_delay;
            if self.behaviour.answer_pause > Duration::ZERO {
                self.pending.push((when, len / 2));
                self.pending
                    .push((when + self.behaviour.answer_pause, len - len / 2));
            } else {
                self.pending.push((when, len));
            }
        }
        if self.behaviour.fin_after.is_some_and(|after| have >= after) {
            self.pending
                .push((now + self.behaviour.answer_delay, u64::MAX));
        }
    }

    pub fn on_time(&mut self, now: Time) {
        self.now = now;
        let due = |at: Option<Time>| at.is_some_and(|at| at <= now);
        if due(self.syn_ack_at) {
            self.syn_ack_at = Some(now + Duration::from_secs(1));
            self.send_syn_ack();
        }
        if due(self.stalled_until) {
            self.stalled_until = None;
            self.ack(now);
        }
        let mut i = 0;
        while i < self.pending.len() {
            if self.pending[i].0 <= now {
                match self.pending.remove(i).1 {
                    u64::MAX => self.fin_planned = true,
                    len => self.planned += len,
                }
            } else {
                i += 1;
            }
        }
        if due(self.chatter_at) {
            self.chatter_at = None;
            if let Some((period, len, times)) = &mut self.behaviour.chatter {
                self.planned += *len;
                *times -= 1;
                self.chatter_at = (*times > 0).then(|| now + *period);
            }
        }
        if due(self.idle_at) {
            self.idle_at = None;
            self.fin_planned = true;
        }
        if due(self.keepalive_at) {
            self.keepalive_at = self.behaviour.keepalive.map(|idle| now + idle);
            self.keepalive_waiting = true;
            let seq = self.isn.add(self.una as u32);
            let ack = self.ack_number();
            let options = self.options();
            self.push(Flags::ACK, seq, ack, 0, options);
        }
        if due(self.rto_at) {
            self.rto_at = None;
            self.rto = (self.rto * 2).min(Duration::from_secs(60));
            self.nxt = self.una;
        }
        self.send(now);
    }

    fn on_ack(&mut self, now: Time, header: &TcpHeader) {
        let near = self.isn.add(1).add(self.una as u32);
        let Some(ack) = header.ack.offset_near(near, self.una) else {
            return;
        };
        let most = self.produced + u64::from(self.fin_planned);
        if ack > self.una && ack <= most {
            self.una = ack;
            self.nxt = self.nxt.max(ack);
            self.rto = Duration::from_millis(300);
            self.fin_acked |= self.fin_planned && ack == most;
            self.rto_at = (self.una < self.nxt).then_some(now + self.rto);
        }
    }

    /// Sends whatever the application has produced; the flight is bounded, congestion is not
    /// modelled.
    fn send(&mut self, now: Time) {
        if !self.established || self.ended == Ended::Reset {
            return;
        }
        self.produced = self.planned;
        let mss = u64::from(self.client_mss());
        while self.nxt < self.produced && self.nxt - self.una < 64 * mss {
            let len = (self.produced - self.nxt).min(mss);
            self.segment(Flags::ACK, self.nxt, len as usize);
            self.nxt += len;
            self.rto_at.get_or_insert(now + self.rto);
        }
        if self.fin_planned && self.nxt == self.produced && !self.fin_acked {
            self.segment(Flags::FIN | Flags::ACK, self.nxt, 0);
            self.nxt += 1;
            self.rto_at.get_or_insert(now + self.rto);
        }
    }

    fn client_mss(&self) -> u16 {
        let options = self.syn.map(|syn| syn.options).unwrap_or_default();
        options.mss.unwrap_or(536) - if self.behaviour.timestamps { 12 } else { 0 }
    }

    fn segment(&mut self, flags: Flags, offset: u64, len: usize) {
        let seq = self.isn.add(1).add(offset as u32);
        let ack = self.ack_number();
        let options = self.options();
        self.push(flags, seq, ack, len, options);
    }

    fn ack(&mut self, now: Time) {
        let _ = now;
        let seq = self.isn.add(1).add(self.nxt as u32);
        let ack = self.ack_number();
        let mut options = self.options();
        if self.behaviour.sack {
            let first = self.client_isn.add(1);
            for (start, end) in self.sack_blocks() {
                options
                    .sack
                    .push(first.add(start as u32), first.add(end as u32));
            }
        }
        self.push(Flags::ACK, seq, ack, 0, options);
    }

    /// What came out of order, in whole runs: the latest first, the others as they lie, three in
    /// all (RFC 2018 4).
    fn sack_blocks(&self) -> Vec<(u64, u64)> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for (start, data) in &self.out_of_order {
            let end = start + data.len() as u64;
            match runs.last_mut() {
                Some(last) if last.1 >= *start => last.1 = last.1.max(end),
                _ => runs.push((*start, end)),
            }
        }
        runs.sort_by_key(|(start, end)| !(*start..*end).contains(&self.latest));
        runs.truncate(3);
        runs
    }

    fn send_syn_ack(&mut self) {
        let syn = self.syn.unwrap();
        let options = TcpOptions {
            mss: self.behaviour.mss,
            window_scale: self.scaled.then_some(self.behaviour.window_scale).flatten(),
            sack_permitted: self.behaviour.sack,
            timestamps: self.timestamps(),
            ..TcpOptions::default()
        };
        let header = TcpHeader {
            seq: self.isn,
            ack: syn.seq.add(1),
            flags: Flags::SYN | Flags::ACK,
            window: self.syn_window(),
            urgent: 0,
            options,
        };
        self.out.push(Packet {
            tuple: self.tuple.reversed(),
            header,
            payload: Vec::new(),
            payload_len: 0,
        });
    }

    fn syn_window(&self) -> u16 {
        self.behaviour.window.min(65_535) as u16
    }

    fn timestamps(&self) -> Option<(u32, u32)> {
        self.behaviour
            .timestamps
            .then(|| (self.timestamp_clock(), self.ts_recent))
    }

    fn timestamp_clock(&self) -> u32 {
        let millis = (self.now.as_micros() / 1000) as u32;
        self.behaviour.timestamp_base.wrapping_add(millis)
    }

    fn options(&self) -> TcpOptions {
        TcpOptions {
            timestamps: self.timestamps(),
            ..TcpOptions::default()
        }
    }

    fn next_expected(&self) -> u64 {
        self.received.len() as u64 + u64::from(self.ended == Ended::Fin)
    }

    fn ack_number(&self) -> Seq {
        self.client_isn.add(1).add(self.next_expected() as u32)
    }

    fn push(&mut self, flags: Flags, seq: Seq, ack: Seq, len: usize, options: TcpOptions) {
        let window = if self.stalled_until.is_some() {
            0
        } else {
            self.behaviour.window
        };
        let shift = if self.scaled {
            self.behaviour.window_scale.unwrap_or(0)
        } else {
            0
        };
        let window = (window >> shift).min(65_535) as u16;
        let granted = u64::from(window) << shift;
        self.right_edge = self.right_edge.max(self.received.len() as u64 + granted);
        let header = TcpHeader {
            seq,
            ack,
            flags,
            window,
            urgent: 0,
            options,
        };
        self.out.push(Packet {
            tuple: self.tuple.reversed(),
            header,
            payload: Vec::new(),
            payload_len: len,
        });
    }

    fn quiesce(&mut self) {
        self.pending.clear();
        self.syn_ack_at = None;
        self.rto_at = None;
        self.idle_at = None;
        self.keepalive_at = None;
        self.stalled_until = None;
        self.chatter_at = None;
    }
}
