//! Why something did not go as it should have, and a counter for each reason.

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
    /// A message, or what waits for one, is larger than its module holds.
    Limit,
    /// No memory is left.
    Memory,
    /// The module itself has a fault.
    Fault,
}

impl FailureKind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Login,
        Self::Account,
        Self::Encrypted,
        Self::Compressed,
        Self::Unsupported,
        Self::Malformed,
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

/// A counter for each of `N` reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PerReason<const N: usize>([u64; N]);

impl<const N: usize> Default for PerReason<N> {
    fn default() -> Self {
        Self([0; N])
    }
}

impl<const N: usize> PerReason<N> {
    fn count(&mut self, index: usize) {
        if let Some(counter) = self.0.get_mut(index) {
            *counter += 1;
        }
    }

    fn at(&self, index: usize) -> u64 {
        self.0.get(index).copied().unwrap_or(0)
    }

    /// The sum over all reasons.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

/// Aborted replicas by reason.
pub type Aborts = PerReason<{ AbortReason::ALL.len() }>;
/// Refused sessions and replicas by reason.
pub type Refusals = PerReason<{ RefusalReason::ALL.len() }>;
/// Replicas aborted after a time-out ([`AbortReason::Timeout`]) by what the target owed.
pub type Timeouts = PerReason<{ Owed::ALL.len() }>;

/// Replicas that their protocol module could not play on ([`AbortReason::Protocol`]) by what stopped it.
pub type Failures = PerReason<{ FailureKind::ALL.len() }>;

impl Failures {
    /// How many there were of this kind.
    pub fn of(&self, kind: FailureKind) -> u64 {
        self.at(kind as usize)
    }

    pub(crate) fn add(&mut self, kind: FailureKind) {
        self.count(kind as usize);
    }
}

impl Aborts {
    /// How many there were for `reason`.
    pub fn of(&self, reason: AbortReason) -> u64 {
        self.at(reason as usize)
    }

    pub(crate) fn add(&mut self, reason: AbortReason) {
        self.count(reason as usize);
    }
}

impl Timeouts {
    /// How many there were for what was owed.
    pub fn of(&self, owed: Owed) -> u64 {
        self.at(owed as usize)
    }

    pub(crate) fn add(&mut self, owed: Owed) {
        self.count(owed as usize);
    }
}

impl Refusals {
    /// How many there were for `reason`.
    pub fn of(&self, reason: RefusalReason) -> u64 {
        self.at(reason as usize)
    }

    pub(crate) fn add(&mut self, reason: RefusalReason) {
        self.count(reason as usize);
    }
}
