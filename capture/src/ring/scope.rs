//! Which devices a ring sees.
//!
//! A socket can be bound to one device, or see all of them. Several devices share one socket, and
//! so its memory: its filter asks first on which device a packet is.

use std::collections::BTreeMap;

use rustix::net::netdevice::name_to_index;

use crate::filter::{Program, prelude};

/// The devices of a ring.
#[derive(Debug)]
pub(super) enum Scope {
    /// The socket is bound to this one.
    Bound {
        /// Its name.
        device: String,
    },
    /// The socket sees every device, the filter these.
    Several {
        /// Names, with the numbers that they have now, if they exist.
        devices: BTreeMap<String, Option<u32>>,
    },
}

impl Scope {
    /// The devices of these names.
    pub(super) fn several(names: &[String]) -> Self {
        let mut scope = Self::Several {
            devices: names.iter().map(|name| (name.clone(), None)).collect(),
        };
        scope.look();
        scope
    }

    pub(super) const fn is_bound(&self) -> bool {
        matches!(self, Self::Bound { .. })
    }

    /// Their names, for people.
    pub(super) fn names(&self) -> String {
        match self {
            Self::Bound { device } => device.clone(),
            Self::Several { devices } => devices.keys().cloned().collect::<Vec<_>>().join(", "),
        }
    }

    /// The numbers that these devices have now.
    pub(super) fn numbers_of(&self, names: &[String]) -> Vec<u32> {
        match self {
            Self::Bound { .. } => Vec::new(),
            Self::Several { devices } => {
                let of = |name: &String| devices.get(name).copied().flatten();
                names.iter().filter_map(of).collect()
            }
        }
    }

    /// The numbers that its devices have now.
    pub(super) fn numbers(&self) -> Vec<u32> {
        match self {
            Self::Bound { .. } => Vec::new(),
            Self::Several { devices } => devices.values().flatten().copied().collect(),
        }
    }

    /// What stands before the filter's own program. On loopback every packet passes twice, out and
    /// in; once is enough.
    pub(super) fn prelude(&self) -> Program {
        match self {
            Self::Bound { .. } => prelude(None),
            Self::Several { .. } => {
                let mut numbers = self.numbers();
                numbers.sort_unstable();
                prelude(Some(&numbers))
            }
        }
    }

    /// Sees these devices from now on, where it is one that sees several; their numbers are to be looked up.
    pub(super) fn set_devices(&mut self, names: &[String]) {
        if let Self::Several { devices } = self {
            let known = std::mem::take(devices);
            let number = |name: &String| known.get(name).copied().flatten();
            *devices = (names.iter())
                .map(|name| (name.clone(), number(name)))
                .collect();
        }
    }

    /// Looks up the devices' numbers; gives the names of those that came, or came anew, and of
    /// those that went.
    pub(super) fn look(&mut self) -> (Vec<String>, Vec<String>) {
        let (mut came, mut went) = (Vec::new(), Vec::new());
        let Self::Several { devices } = self else {
            return (came, went);
        };
        // Any socket will do to ask with.
        let Ok(socket) = rustix::net::socket(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::DGRAM,
            None,
        ) else {
            return (came, went);
        };
        for (name, number) in devices {
            let now = name_to_index(&socket, name).ok();
            if now == *number {
                continue;
            }
            match now {
                Some(_) => came.push(name.clone()),
                None => went.push(name.clone()),
            }
            *number = now;
        }
        (came, went)
    }
}
