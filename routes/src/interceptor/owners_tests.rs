//! Who owns which flow, as streams come and go.

use super::*;
use millrace_proto::ClientRange;
use millrace_proto::flow::{FlowRecord, encode_flow_id};

fn attached(name: &str) -> Peer {
    Peer {
        copier_id: name.to_owned(),
        run: 1,
        link: 0,
        links: 1,
    }
}

#[test]
fn a_flow_that_begins_again_on_another_link_of_its_copier_is_that_links() {
    let mut owners = Owners::new(1000);
    let one = attached("a");
    let other = Peer {
        link: 1,
        ..one.clone()
    };
    owners.attach(ConnId(1), one);
    owners.attach(ConnId(2), other);
    owners.attach(ConnId(3), attached("b"));
    let (old, tuple) = flow(4, 5000);
    let (new, _) = flow(7, 5000);
    assert_eq!(owners.announce(ConnId(1), &old).owned.len(), 1);
    assert_eq!(owners.announce(ConnId(3), &new).owned.len(), 0, "another's");
    assert_eq!(owners.announce(ConnId(2), &new).owned.len(), 1);
    assert_eq!(owners.find(&tuple), Some((ConnId(2), FlowKey::Id(7))));
    let mut ended = Vec::new();
    millrace_proto::flow::encode_flow_id(4, &mut ended);
    owners.forget(ConnId(1), &ended);
    assert_eq!(owners.find(&tuple), Some((ConnId(2), FlowKey::Id(7))));
    assert_eq!(owners.conflict_count(), 1);
}

fn flow(id: u64, port: u16) -> (Vec<u8>, FourTuple) {
    let record = FlowRecord {
        id,
        target: "198.18.2.20:80".parse().unwrap(),
        client: SocketAddr::new("198.18.1.1".parse().unwrap(), port),
        with_payload: false,
    };
    let mut bytes = Vec::new();
    record.encode(&mut bytes).unwrap();
    (
        bytes,
        FourTuple::new(record.client.into(), record.target.into()),
    )
}

fn announce(owners: &mut Owners, conn: u64, id: u64, port: u16) -> FourTuple {
    let (bytes, tuple) = flow(id, port);
    assert_eq!(owners.announce(ConnId(conn), &bytes).owned.len(), 1);
    tuple
}

#[test]
fn a_flow_belongs_to_who_announced_it_until_it_is_forgotten_or_the_stream_ends() {
    let mut owners = Owners::new(1000);
    owners.attach(ConnId(1), attached("a"));
    let one = announce(&mut owners, 1, 10, 1000);
    let two = announce(&mut owners, 1, 11, 1001);
    assert_eq!(owners.find(&one), Some((ConnId(1), FlowKey::Id(10))));
    let mut ids = Vec::new();
    encode_flow_id(10, &mut ids);
    owners.forget(ConnId(1), &ids);
    assert_eq!(owners.find(&one), None);
    owners.detach(Duration::ZERO, ConnId(1));
    assert_eq!(owners.find(&two), None);
    owners.expire(LEASE);
    assert_eq!(owners.flow_count(), 0);
}

#[test]
fn behind_address_translation_the_client_alone_names_a_flow() {
    let mut owners = Owners::new(1000);
    owners.attach(ConnId(1), attached("a"));
    let record = FlowRecord {
        id: 5,
        target: "0.0.0.0:0".parse().unwrap(),
        client: "198.18.1.1:1000".parse().unwrap(),
        with_payload: false,
    };
    let mut bytes = Vec::new();
    record.encode(&mut bytes).unwrap();
    let announced = owners.announce(ConnId(1), &bytes).owned;
    assert!(is_any_target(&announced[0]));
    let (_, seen) = flow(0, 1000);
    assert_eq!(owners.find(&seen), Some((ConnId(1), FlowKey::Id(5))));
    assert_eq!(owners.find(&flow(0, 1001).1), None);
}

#[test]
fn a_resync_forgets_what_it_does_not_name() {
    let mut owners = Owners::new(1000);
    owners.attach(ConnId(1), attached("a"));
    let old = announce(&mut owners, 1, 10, 1000);
    let kept = announce(&mut owners, 1, 11, 1001);
    owners.begin_resync(ConnId(1));
    announce(&mut owners, 1, 11, 1001);
    assert!(
        owners.find(&old).is_some(),
        "nothing is lost before the end"
    );
    owners.end_resync(ConnId(1));
    assert_eq!(owners.find(&old), None);
    assert!(owners.find(&kept).is_some());
}

#[test]
fn a_flow_stays_with_its_first_owner_and_the_second_moves() {
    let mut owners = Owners::new(1000);
    owners.attach(ConnId(1), attached("a"));
    owners.attach(ConnId(2), attached("b"));
    let tuple = announce(&mut owners, 1, 10, 1000);
    let (bytes, _) = flow(77, 1000);
    assert_eq!(owners.announce(ConnId(2), &bytes).owned.len(), 0);
    assert_eq!(owners.conflict_count(), 1);
    assert_eq!(owners.find(&tuple), Some((ConnId(1), FlowKey::Id(10))));
    let moved = announce(&mut owners, 2, 77, 1001);
    assert_eq!(owners.find(&moved), Some((ConnId(2), FlowKey::Id(77))));
    let again = announce(&mut owners, 2, 77, 1002);
    assert_eq!(
        owners.find(&moved),
        None,
        "the old place of a moved replica is free"
    );
    assert_eq!(owners.find(&again), Some((ConnId(2), FlowKey::Id(77))));
    owners.detach(Duration::ZERO, ConnId(1));
    assert_eq!(owners.find(&tuple), None);
}

#[test]
fn what_a_copier_still_has_within_anothers_share_is_its_own_and_is_named() {
    let mut owners = Owners::new(1000);
    owners.attach(ConnId(1), attached("all"));
    owners.attach(ConnId(2), attached("share"));
    let range = |first: &str, last: &str| {
        ClientRange::new(first.parse().unwrap(), last.parse().unwrap(), 1, 65_535).unwrap()
    };
    let share = range("198.18.1.1", "198.18.1.1");
    let all = |without: &[ClientRange]| ClaimSet {
        ranges: vec![range("198.18.1.1", "198.18.1.9")],
        yields: true,
        without: without.to_vec(),
        ..ClaimSet::default()
    };
    let (_, tuple) = flow(0, 5000);
    let (_, other) = flow(0, 5001);
    owners.claim(ConnId(1), all(&[])).unwrap();
    let claim = ClaimSet {
        ranges: vec![share],
        ..ClaimSet::default()
    };
    let said = owners.claim(ConnId(2), claim).unwrap();
    assert_eq!(said, [Change::Others(ConnId(1), vec![share])]);
    // Until it is yielded all is the first one's.
    assert_eq!(owners.find(&other).unwrap().0, ConnId(1));
    announce(&mut owners, 1, 4, 5000);
    let said = owners.claim(ConnId(1), all(&[share])).unwrap();
    assert_eq!(
        said,
        [Change::Granted(ConnId(1)), Change::Granted(ConnId(2))]
    );
    assert_eq!(owners.find(&tuple), Some((ConnId(1), FlowKey::Id(4))));
    assert_eq!(owners.find(&other).unwrap().0, ConnId(2));
    let taken = owners.taken_within(ConnId(2)).concat();
    let taken: Vec<_> = FlowRecords::new(&taken).flatten().collect();
    assert_eq!(taken.len(), 1);
    assert_eq!(Endpoint::from(taken[0].client), tuple.source);
    assert!(owners.taken_within(ConnId(1)).is_empty(), "its own");
    // One that is named later is told of at once.
    let late = announce(&mut owners, 1, 5, 5002);
    let (share, _) = owners.intruded_by(ConnId(1), &late).unwrap();
    assert_eq!(share, ConnId(2));
    assert_eq!(owners.intruded_by(ConnId(2), &late), None);
    assert_eq!(owners.detach(Duration::ZERO, ConnId(2)), []);
    let (_, said) = owners.expire(LEASE);
    assert_eq!(said, [Change::Others(ConnId(1), vec![])]);
    assert_eq!(owners.find(&other), None, "until it is claimed again");
}

#[test]
fn flows_beyond_the_limit_are_counted_and_leave_room_for_other_streams() {
    let mut owners = Owners::new(8);
    owners.attach(ConnId(1), attached("greedy"));
    owners.attach(ConnId(2), attached("modest"));
    for id in 0..100 {
        let (bytes, _) = flow(id, 1000 + id as u16);
        owners.announce(ConnId(1), &bytes).owned.len();
    }
    assert_eq!((owners.flow_count(), owners.over_limit_count()), (6, 94));
    announce(&mut owners, 2, 1, 5000);
    announce(&mut owners, 2, 2, 5001);
    let (bytes, _) = flow(3, 5002);
    assert_eq!(owners.announce(ConnId(2), &bytes).owned.len(), 0);
    // What is known may be announced again, and room that is given back is used.
    announce(&mut owners, 1, 0, 1000);
    let mut ids = Vec::new();
    millrace_proto::flow::encode_flow_id(0, &mut ids);
    owners.forget(ConnId(1), &ids);
    announce(&mut owners, 2, 3, 5002);
    assert_eq!(owners.over_limit_count(), 95);
}

#[test]
fn one_flow_under_ever_new_ids_is_bounded_too() {
    let mut owners = Owners::new(8);
    owners.attach(ConnId(1), attached("a"));
    for id in 0..100 {
        let (bytes, _) = flow(id, 1000);
        assert_eq!(owners.announce(ConnId(1), &bytes).owned.len(), 1);
    }
    assert_eq!(owners.streams[&ConnId(1)].flows.len(), 1);
    assert_eq!((owners.over_limit_count(), owners.shadowed.len()), (0, 0));
}
