//! Why something did not go as it should have, and a counter for each reason.

use std::marker::PhantomData;

/// Why a replica ended before it was complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum AbortReason {
    /// The target answered the SYN with a RST.
    Refused,
    /// The target reset the connection.
    TargetReset,
    /// The target had closed its side and did not take what the client sent afterwards.
    TargetClosed,
    /// The target did not answer within the answer time-out.
    Timeout,
    /// The live server received bytes that capture did not deliver.
    CaptureGap,
    /// The client sent urgent data, which a replay cannot place exactly.
    Urgent,
    /// No memory was left for the client's bytes.
    Memory,
    /// The copier was under pressure and set the session aside; what it had captured was delivered.
    SetAside,
    /// Nothing was heard of client and live server within the idle time-out.
    Idle,
    /// The copier stopped first.
    Shutdown,
    /// All replicas were stopped, by command or by a guard.
    Stopped,
    /// It waited for first contact, and answers to such clients were not seen.
    Unproven,
    /// Copies came back as live traffic: the way behind the target leads to the live service.
    Misdirected,
    /// A second subflow of multipath TCP joined its connection.
    Mptcp,
    /// The protocol module that plays it could not go on.
    Protocol,
}

impl AbortReason {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Self; 15] = [
        Self::Refused,
        Self::TargetReset,
        Self::TargetClosed,
        Self::Timeout,
        Self::CaptureGap,
        Self::Urgent,
        Self::Memory,
        Self::SetAside,
        Self::Idle,
        Self::Shutdown,
        Self::Stopped,
        Self::Unproven,
        Self::Misdirected,
        Self::Mptcp,
        Self::Protocol,
    ];

    /// The name that reports and metrics use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::TargetReset => "target_reset",
            Self::TargetClosed => "target_closed",
            Self::Timeout => "timeout",
            Self::CaptureGap => "capture_gap",
            Self::Urgent => "urgent",
            Self::Memory => "memory",
            Self::SetAside => "set_aside",
            Self::Idle => "idle",
            Self::Shutdown => "shutdown",
            Self::Stopped => "stopped",
            Self::Unproven => "unproven",
            Self::Misdirected => "misdirected",
            Self::Mptcp => "mptcp",
            Self::Protocol => "protocol",
        }
    }
}

/// What a target owed when its time was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Owed {
    /// The handshake.
    Handshake,
    /// The acknowledgement of what was sent.
    Acknowledgement,
    /// Room in its window for what is to be sent.
    Window,
}

impl Owed {
    /// Everything that can be owed, in the order of the numbers.
    pub const ALL: [Self; 3] = [Self::Handshake, Self::Acknowledgement, Self::Window];

    /// The name that reports and metrics use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Acknowledgement => "acknowledgement",
            Self::Window => "window",
        }
    }
}

/// Why a protocol module could not play a replica on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum FailureKind {
    /// The target refused the log-in.
    Login,
    /// No password is configured for the account that the session needs.
    Account,
    /// The session is encrypted from here on.
    Encrypted,
    /// The session is compressed from here on.
    Compressed,
    /// The session does what its module cannot play.
    Unsupported,
    /// A side does not speak the protocol.
    Malformed,
    /// The target does not say what the module waits for.
    Silent,
    /// A message, or what waits for one, is larger than its module holds.
    Limit,
    /// No memory is left.
    Memory,
    /// The module itself has a fault.
    Fault,
}

impl FailureKind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::Login,
        Self::Account,
        Self::Encrypted,
        Self::Compressed,
        Self::Unsupported,
        Self::Malformed,
        Self::Silent,
        Self::Limit,
        Self::Memory,
        Self::Fault,
    ];

    /// The name that reports and metrics use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Account => "account",
            Self::Encrypted => "encrypted",
            Self::Compressed => "compressed",
            Self::Unsupported => "unsupported",
            Self::Malformed => "malformed",
            Self::Silent => "silent",
            Self::Limit => "limit",
            Self::Memory => "memory",
            Self::Fault => "fault",
        }
    }
}

/// Why a session, or one of its replicas, was not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum RefusalReason {
    /// The memory limit was near.
    Memory,
    /// No free source address and port, or none of the target's address family.
    Sources,
    /// The client is on the live host's loopback address and no address stands in for it.
    Loopback,
    /// The copier was draining.
    Draining,
    /// More sessions began in a second than was allowed.
    MaxNewSessions,
    /// As many sessions were open as was allowed.
    MaxOpen,
    /// More bytes waited to be sent than the allowed bandwidth takes in a second.
    MaxBandwidth,
    /// The copier was under pressure.
    Overload,
    /// Answers to clients of its kind were not seen at first contact.
    Unproven,
    /// It comes of a copy: see [`AbortReason::Misdirected`].
    Misdirected,
    /// It joins another connection as a subflow of multipath TCP.
    Mptcp,
    /// The protocol module of its service cannot play it from where it begins.
    Protocol,
}

impl RefusalReason {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::Memory,
        Self::Sources,
        Self::Loopback,
        Self::Draining,
        Self::MaxNewSessions,
        Self::MaxOpen,
        Self::MaxBandwidth,
        Self::Overload,
        Self::Unproven,
        Self::Misdirected,
        Self::Mptcp,
        Self::Protocol,
    ];

    /// The name that reports and metrics use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Sources => "sources",
            Self::Loopback => "loopback",
            Self::Draining => "draining",
            Self::MaxNewSessions => "max_new_sessions",
            Self::MaxOpen => "max_open",
            Self::MaxBandwidth => "max_bandwidth",
            Self::Overload => "overload",
            Self::Unproven => "unproven",
            Self::Misdirected => "misdirected",
            Self::Mptcp => "mptcp",
            Self::Protocol => "protocol",
        }
    }
}

/// Something that is counted by its kinds.
pub trait Reason: Copy {
    /// Its place among all of them.
    fn index(self) -> usize;
}

macro_rules! reasons {
    ($($reason:ident),*) => {
        $(impl Reason for $reason {
            fn index(self) -> usize {
                self as usize
            }
        })*
    };
}

reasons!(AbortReason, Owed, FailureKind, RefusalReason);

/// A counter for each of `N` reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PerReason<R, const N: usize> {
    counts: [u64; N],
    reasons: PhantomData<R>,
}

impl<R, const N: usize> Default for PerReason<R, N> {
    fn default() -> Self {
        Self {
            counts: [0; N],
            reasons: PhantomData,
        }
    }
}

impl<R: Reason, const N: usize> PerReason<R, N> {
    pub(crate) fn add(&mut self, reason: R) {
        if let Some(counter) = self.counts.get_mut(reason.index()) {
            *counter += 1;
        }
    }

    /// How many there were for this reason.
    pub fn of(&self, reason: R) -> u64 {
        self.counts.get(reason.index()).copied().unwrap_or(0)
    }

    /// The sum over all reasons.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// Aborted replicas by reason.
pub type Aborts = PerReason<AbortReason, { AbortReason::ALL.len() }>;
/// Refused sessions and replicas by reason.
pub type Refusals = PerReason<RefusalReason, { RefusalReason::ALL.len() }>;
/// Replicas aborted after a time-out ([`AbortReason::Timeout`]) by what the target owed.
pub type Timeouts = PerReason<Owed, { Owed::ALL.len() }>;
/// Replicas that their protocol module could not play on ([`AbortReason::Protocol`]) by what stopped it.
pub type Failures = PerReason<FailureKind, { FailureKind::ALL.len() }>;
