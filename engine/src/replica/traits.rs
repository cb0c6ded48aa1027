//! What is true or not of a replica.

/// What is true of a replica, in a byte: a second one would cost eight.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traits(u8);

impl Traits {
    /// Nothing is.
    pub(crate) const NONE: Self = Self(0);
    const QUEUED: u8 = 1 << 0;
    const SCRIPTED: u8 = 1 << 1;
    const SAMPLED: u8 = 1 << 2;

    const fn set(&mut self, bit: u8, is: bool) {
        self.0 = match is {
            true => self.0 | bit,
            false => self.0 & !bit,
        };
    }

    /// It stands in the queue of replicas that may have something to send.
    pub(crate) const fn is_queued(self) -> bool {
        self.0 & Self::QUEUED != 0
    }

    pub(crate) const fn set_queued(&mut self, is: bool) {
        self.set(Self::QUEUED, is);
    }

    /// It plays a script of its own, which a conversation writes: see [`crate::protocol`].
    pub(crate) const fn is_scripted(self) -> bool {
        self.0 & Self::SCRIPTED != 0
    }

    pub(crate) const fn set_scripted(&mut self, is: bool) {
        self.set(Self::SCRIPTED, is);
    }

    /// Its session is sampled: see [`crate::sampled`].
    pub(crate) const fn is_sampled(self) -> bool {
        self.0 & Self::SAMPLED != 0
    }

    pub(crate) const fn set_sampled(&mut self, is: bool) {
        self.set(Self::SAMPLED, is);
    }
}
