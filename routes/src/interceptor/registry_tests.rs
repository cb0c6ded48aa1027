//! What a stream that breaks leaves behind, and what its next one, its copier's next run and other copiers make of it.

use std::net::SocketAddr;

use millrace_proto::FlowRecord;

use super::super::LEASE;
use super::super::pending::tests::header;
use super::*;

const TARGET: &str = "198.18.2.20:80";
const START: Duration = Duration::from_secs(1000);

fn peer(name: &str, run: u64, link: u32) -> Peer {
    Peer {
        copier_id: name.to_owned(),
        run,
        link,
        links: 2,
    }
}

fn record(id: FlowId, port: u16) -> (Vec<u8>, FourTuple) {
    let client = SocketAddr::new("198.18.1.1".parse().unwrap(), port);
    let target: SocketAddr = TARGET.parse().unwrap();
    let mut bytes = Vec::new();
    let record = FlowRecord {
        id,
        target,
        client,
        with_payload: false,
    };
    record.encode(&mut bytes).unwrap();
    (bytes, FourTuple::new(client.into(), target.into()))
}

fn words(registry: &mut Registry) -> Vec<(ConnId, Word)> {
    std::iter::from_fn(|| registry.poll_word()).collect()
}

/// A copier that has announced flow 4 from port 5000, and whose stream broke.
fn broken() -> (Registry, FourTuple) {
    let mut registry = Registry::new(100);
    registry.attach(ConnId(1), peer("a", 1, 0));
    let (bytes, flow) = record(4, 5000);
    registry.announce(ConnId(1), &bytes);
    registry.detach(START, ConnId(1));
    (registry, flow)
}

#[test]
fn while_a_stream_is_gone_its_flows_are_nobodys_and_no_others() {
    let (mut registry, flow) = broken();
    assert_eq!(registry.find(&flow), None, "responses wait for their owner");
    registry.attach(ConnId(2), peer("b", 1, 0));
    registry.announce(ConnId(2), &record(9, 5000).0);
    assert_eq!(words(&mut registry), [(ConnId(2), Word::Conflict(9))]);
    registry.expire(START + LEASE);
    registry.announce(ConnId(2), &record(9, 5000).0);
    assert_eq!(words(&mut registry), []);
    assert_eq!(registry.find(&flow), Some((ConnId(2), FlowKey::Id(9))));
}

#[test]
fn the_next_stream_of_the_same_run_has_all_before_it_says_anything() {
    let (mut registry, flow) = broken();
    registry.attach(ConnId(2), peer("a", 1, 0));
    assert_eq!(registry.find(&flow), Some((ConnId(2), FlowKey::Id(4))));
    registry.expire(START + LEASE);
    assert_eq!(registry.find(&flow), Some((ConnId(2), FlowKey::Id(4))));
}

#[test]
fn what_an_earlier_run_had_is_nobodys_whatever_its_link() {
    let (mut registry, flow) = broken();
    registry.attach(ConnId(2), peer("a", 2, 1));
    assert_eq!((registry.find(&flow), registry.counts().flows), (None, 0));
}

#[test]
fn headers_that_came_while_a_stream_was_gone_go_to_the_next() {
    let (mut registry, flow) = broken();
    registry.keep(START, flow, header(7));
    registry.attach(ConnId(2), peer("a", 1, 0));
    registry.announce(ConnId(2), &record(4, 5000).0);
    let key = FlowKey::Id(4);
    let late = Word::Late(vec![HeaderRecord { key, ..header(7) }]);
    assert_eq!(words(&mut registry), [(ConnId(2), late)]);
}

#[test]
fn leases_are_no_way_to_shut_others_out() {
    let mut registry = Registry::new(100);
    for conn in 0..1000 {
        registry.attach(ConnId(conn), peer(&conn.to_string(), 1, 0));
        registry.announce(ConnId(conn), &record(conn, 1000 + conn as u16).0);
        registry.detach(START, ConnId(conn));
    }
    assert!(registry.counts().flows <= 100);
    // One that fills its share, and breaks.
    let flows = |first: u64| (first..first + 75).flat_map(|id| record(id, 5000 + id as u16).0);
    registry.attach(ConnId(2000), peer("a", 1, 0));
    registry.announce(ConnId(2000), &flows(0).collect::<Vec<_>>());
    registry.detach(START, ConnId(2000));
    registry.attach(ConnId(2001), peer("b", 1, 0));
    registry.announce(ConnId(2001), &flows(100).collect::<Vec<_>>());
    assert_eq!(registry.counts().over_limit, 0);
    assert_eq!(registry.counts().flows, 75);
}

#[test]
fn one_flow_under_ever_new_names_is_one_flow() {
    let mut registry = Registry::new(1 << 20);
    registry.attach(ConnId(1), peer("a", 1, 0));
    for id in 0..100_000 {
        registry.announce(ConnId(1), &record(id, 5000).0);
    }
    let (_, flow) = record(0, 5000);
    assert_eq!(registry.find(&flow), Some((ConnId(1), FlowKey::Id(99_999))));
    registry.detach(START, ConnId(1));
    registry.expire(START + LEASE);
    assert_eq!(registry.counts().flows, 0);
}

#[test]
fn a_late_announcement_on_a_link_that_breaks_does_not_hide_the_owner() {
    let mut registry = Registry::new(100);
    registry.attach(ConnId(1), peer("a", 1, 0));
    registry.attach(ConnId(2), peer("a", 1, 1));
    let (newer, flow) = record(7, 5000);
    registry.announce(ConnId(2), &newer);
    registry.announce(ConnId(1), &record(4, 5000).0);
    assert_eq!(registry.find(&flow), Some((ConnId(1), FlowKey::Id(4))));
    registry.detach(START, ConnId(1));
    assert_eq!(registry.find(&flow), Some((ConnId(2), FlowKey::Id(7))));
}
