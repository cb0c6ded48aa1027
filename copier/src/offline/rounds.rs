//! Fresh ports for every repetition of a recording.

use millrace_engine::Direction;
use millrace_wire::FourTuple;

/// Ports below this stay as they are: a service may treat them in another way.
const FIRST: u16 = 1024;
/// How many others there are.
const COUNT: u32 = 65_536 - FIRST as u32;
/// Distance between the ports of two rounds: without a common divisor with [`COUNT`], so that a
/// client gets another port in each of as many rounds as there are ports.
const STEP: u32 = 39_871;

/// The connection of `tuple` as it is in this round (0: as recorded). Different clients of one
/// recording stay different.
pub fn renumber(mut tuple: FourTuple, direction: Direction, round: u32) -> FourTuple {
    match direction {
        Direction::ToLive => tuple.source.port = port(tuple.source.port, round),
        Direction::FromLive => tuple.destination.port = port(tuple.destination.port, round),
        Direction::Other => {}
    }
    tuple
}

fn port(port: u16, round: u32) -> u16 {
    if port < FIRST {
        return port;
    }
    let shift = round % COUNT * u32::from(STEP as u16) % COUNT;
    let moved = (u32::from(port - FIRST) + shift) % COUNT;
    // Less than COUNT, so the sum is a port.
    FIRST + moved as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_round_gives_each_client_another_port_and_no_two_the_same() {
        let rounds = [1, 2, 3, 1000, 999_999];
        for round in rounds {
            let ports: HashSet<u16> = (0..=u16::MAX).map(|p| port(p, round)).collect();
            assert_eq!(ports.len(), 65_536, "round {round}");
        }
        let ports: HashSet<u16> = (0..COUNT).map(|round| port(40_000, round)).collect();
        assert_eq!(ports.len(), COUNT as usize);
        assert_eq!(port(40_000, 0), 40_000);
        assert_eq!(port(80, 7), 80);
    }
}
