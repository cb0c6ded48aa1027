//! What the reasons mean for which copied connections end otherwise than their clients', or never begin, and what
//! helps. Their names are those of [`millrace_engine::AbortReason`] and [`millrace_engine::RefusalReason`].

/// What a reason for the end of copied connections means; `None`: it was wanted.
pub(super) fn of_abort(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "refused" => {
            "the target refused them: does the application listen at the address and port behind -x?"
        }
        "target_reset" => {
            "the target reset them where the live server went on: its log says why, if it is not a session that it does \
             not know (login, cookie, token)"
        }
        "target_closed" => {
            "the target closed them earlier than the live server did: compare the keep-alive time-outs of both"
        }
        "timeout" => {
            "the target did not answer in time: it is down or overloaded, or its answers do not come back to an \
             interceptor"
        }
        "capture_gap" => {
            "packets of clients were not captured: give the copier more CPU time or a larger buffer (-B)"
        }
        "urgent" => "clients sent urgent data, which a copy cannot place",
        "memory" => "they took more than the memory limit allows (-m)",
        "set_aside" => {
            "this host has no room for all of them (pressure): copy less (-r), or give it more CPU time"
        }
        "unproven" => "answers to such clients were not seen at first contact",
        "misdirected" => "the way behind the target leads to the live service again",
        "mptcp" => "they are multipath TCP with several subflows",
        "protocol" => "the protocol module of their service could not go on (the log says why)",
        _ => return None,
    })
}

/// What a reason for not copying a session means; `None`: it was wanted.
pub(super) fn of_refusal(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "memory" => "the memory limit is near (-m)",
        "sources" => {
            "no source address and port is free for them, or none of the target's family: see -c, -f and --port-rest"
        }
        "loopback" => {
            "the client is on the live host's loopback address: name an address that stands for it (-H)"
        }
        "overload" => {
            "this host has no room for them (pressure): copy less (-r), or give it more CPU time"
        }
        "unproven" => "answers to such clients were not seen at first contact",
        "misdirected" => {
            "they come of a copy: the way behind the target leads to the live service again"
        }
        "mptcp" => "they join others as subflows of multipath TCP",
        "protocol" => {
            "the protocol module of their service cannot begin in the middle of a session"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use millrace_engine::{AbortReason, RefusalReason};

    use super::*;

    #[test]
    fn each_reason_that_nobody_asked_for_has_a_remedy() {
        let wanted = [
            AbortReason::Idle,
            AbortReason::Shutdown,
            AbortReason::Stopped,
        ];
        for reason in AbortReason::ALL {
            let said = of_abort(reason.name()).is_some();
            assert_eq!(said, !wanted.contains(&reason), "{}", reason.name());
        }
        let wanted = [
            RefusalReason::Draining,
            RefusalReason::MaxNewSessions,
            RefusalReason::MaxOpen,
            RefusalReason::MaxBandwidth,
        ];
        for reason in RefusalReason::ALL {
            let said = of_refusal(reason.name()).is_some();
            assert_eq!(said, !wanted.contains(&reason), "{}", reason.name());
        }
    }
}
