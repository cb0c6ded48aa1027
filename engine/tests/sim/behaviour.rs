//! The knobs of a simulated target.

use std::time::Duration;

use millrace_wire::Seq;

/// When the application answers, and how it and its TCP behave.
#[derive(Clone, Debug)]
pub struct Behaviour {
    pub mss: Option<u16>,
    pub window_scale: Option<u8>,
    pub timestamps: bool,
    pub sack: bool,
    /// Receive buffer: the window that is advertised while the application reads.
    pub window: u32,
    /// The application stops reading for this long once it has this many bytes.
    pub stall: Option<(u64, Duration)>,
    /// What arrives while the application does not read is thrown away.
    pub drops_while_stalled: bool,
    /// Bytes sent before the client has said anything.
    pub greeting: u64,
    /// (client bytes received, bytes of answer), ascending.
    pub answers: Vec<(u64, u64)>,
    /// From receiving the last byte of a turn to the first of the answer.
    pub answer_delay: Duration,
    /// Pause in the middle of every answer.
    pub answer_pause: Duration,
    /// SYN-ACKs are sent this late.
    pub accept_delay: Duration,
    /// Every connection is refused.
    pub refuse: bool,
    /// The target closes its side after this many client bytes were answered.
    pub fin_after: Option<u64>,
    /// The target closes its side after being idle this long.
    pub close_idle: Option<Duration>,
    /// The target resets the connection once it has this many client bytes.
    pub reset_after: Option<u64>,
    /// Whether it closes when the client has.
    pub closes_after_client: bool,
    /// A stale connection with this next sequence number stands in the way.
    pub stale: Option<Seq>,
    /// A connection that the target has closed, and its client has not, stands in the way: the first SYN ends it.
    pub half_closed: bool,
    /// A keepalive probe is sent after this much idle time.
    pub keepalive: Option<Duration>,
    /// Segments with a larger payload than this vanish on the way.
    pub path_payload: Option<usize>,
    /// What the target's timestamp clock adds to the milliseconds of simulated time.
    pub timestamp_base: u32,
    /// Data for a side that the application has closed altogether is answered with RST.
    pub reset_when_closed: bool,
    /// The window shrinks to the second number once so many bytes were received.
    pub shrink: Option<(u64, u32)>,
    /// Of this many segments only the first half is taken.
    pub halve: u32,
    /// The application says so many bytes after every such time, so often, asked or not.
    pub chatter: Option<(Duration, u64, u32)>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            mss: Some(1460),
            window_scale: Some(7),
            timestamps: true,
            sack: true,
            window: 1 << 20,
            stall: None,
            drops_while_stalled: false,
            greeting: 0,
            answers: Vec::new(),
            answer_delay: Duration::from_micros(200),
            answer_pause: Duration::ZERO,
            accept_delay: Duration::ZERO,
            refuse: false,
            fin_after: None,
            close_idle: None,
            reset_after: None,
            closes_after_client: true,
            stale: None,
            half_closed: false,
            keepalive: None,
            path_payload: None,
            timestamp_base: 12_345,
            reset_when_closed: false,
            shrink: None,
            halve: 0,
            chatter: None,
        }
    }
}
