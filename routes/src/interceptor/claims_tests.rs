use std::collections::BTreeMap;

use std::time::Duration;

use super::*;

fn range(first: u8, last: u8) -> ClientRange {
    let ip = |n| std::net::Ipv4Addr::new(198, 18, 1, n).into();
    ClientRange::new(ip(first), ip(last), 1, 65_535).unwrap()
}

fn peer(name: &str) -> Peer {
    Peer {
        copier_id: name.to_owned(),
        run: 1,
        link: 0,
        links: 1,
    }
}

fn share(first: u8, last: u8) -> ClaimSet {
    ClaimSet {
        ranges: vec![range(first, last)],
        targets: vec!["198.18.2.20:80".parse().unwrap()],
        ..ClaimSet::default()
    }
}

fn all(without: &[ClientRange]) -> ClaimSet {
    ClaimSet {
        yields: true,
        without: without.to_vec(),
        ..share(1, 99)
    }
}

fn owner(claims: &Claims, client: u8) -> Option<u64> {
    let client = SocketAddr::new(std::net::Ipv4Addr::new(198, 18, 1, client).into(), 4000);
    let found = claims.find("198.18.2.20:80".parse().unwrap(), client, |_| true);
    found.map(|conn| conn.0)
}

#[test]
fn overlapping_shares_are_refused_with_the_owners_name() {
    let mut claims = Claims::default();
    let granted = claims.claim(ConnId(1), &peer("a"), share(1, 9)).unwrap();
    assert_eq!(granted, [Change::Granted(ConnId(1))]);
    let refused = claims
        .claim(ConnId(2), &peer("b"), share(9, 20))
        .unwrap_err();
    assert_eq!(refused.owner, "a");
    claims.claim(ConnId(2), &peer("b"), share(10, 20)).unwrap();
    assert_eq!((owner(&claims, 5), owner(&claims, 10)), (Some(1), Some(2)));
    // Another link of the same copier shares its claim.
    claims.claim(ConnId(3), &peer("a"), share(1, 9)).unwrap();
}

#[test]
fn two_copiers_cannot_both_have_what_is_left() {
    let mut claims = Claims::default();
    claims.claim(ConnId(1), &peer("a"), all(&[])).unwrap();
    let refused = claims.claim(ConnId(2), &peer("b"), all(&[])).unwrap_err();
    assert_eq!(refused.owner, "a");
}

#[test]
fn a_share_that_is_given_up_is_free_for_others() {
    let mut claims = Claims::default();
    claims.claim(ConnId(1), &peer("a"), share(1, 9)).unwrap();
    claims
        .claim(ConnId(2), &peer("b"), share(1, 9))
        .unwrap_err();
    let said = claims
        .claim(ConnId(1), &peer("a"), ClaimSet::default())
        .unwrap();
    assert_eq!((said, owner(&claims, 5)), (Vec::new(), None));
    claims.claim(ConnId(2), &peer("b"), share(1, 9)).unwrap();
    assert_eq!(owner(&claims, 5), Some(2));
}

#[test]
fn a_share_is_granted_when_what_was_left_is_yielded_or_its_holder_is_gone() {
    for goes in [false, true] {
        let mut claims = Claims::default();
        claims.claim(ConnId(1), &peer("a"), all(&[])).unwrap();
        let said = claims.claim(ConnId(2), &peer("b"), share(5, 9)).unwrap();
        assert_eq!(said, [Change::Others(ConnId(1), vec![range(5, 9)])]);
        assert_eq!(owner(&claims, 5), Some(1), "until it is yielded");
        let said = match goes {
            true => claims.remove(ConnId(1)),
            false => claims
                .claim(ConnId(1), &peer("a"), all(&[range(5, 9)]))
                .unwrap(),
        };
        assert!(said.contains(&Change::Granted(ConnId(2))), "{said:?}");
        assert_eq!(owner(&claims, 5), Some(2));
        assert_eq!(owner(&claims, 4), (!goes).then_some(1));
        let said = claims.remove(ConnId(2));
        assert_eq!(said.is_empty(), goes);
        assert_eq!(owner(&claims, 5), None, "until it is claimed again");
    }
}

#[test]
fn one_that_comes_later_is_told_what_others_have() {
    let mut claims = Claims::default();
    claims.claim(ConnId(2), &peer("b"), share(5, 9)).unwrap();
    let said = claims.claim(ConnId(1), &peer("a"), all(&[])).unwrap();
    let others = Change::Others(ConnId(1), vec![range(5, 9)]);
    assert_eq!((said, owner(&claims, 4)), (vec![others], None));
    let said = claims
        .claim(ConnId(1), &peer("a"), all(&[range(5, 9)]))
        .unwrap();
    assert_eq!(said, [Change::Granted(ConnId(1))]);
}

/// Copiers come, go and claim in any order; one takes what is left and yields as it is told, sooner
/// or later. No address has two owners that may send from it, and all who wait get theirs.
#[test]
fn whoever_comes_and_goes_no_address_has_two_owners() {
    for seed in 1..2000u64 {
        let mut random = seed;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005) + 1;
            (random >> 33) % below
        };
        let mut claims = Claims::default();
        // What the yielding copier has been told and not yet followed, and what it leaves out.
        let (mut told, mut without): (Option<Vec<ClientRange>>, Vec<ClientRange>) = (None, vec![]);
        // Of each share, whether it is granted.
        let mut shares: BTreeMap<u64, bool> = BTreeMap::new();
        // Whether it has a stream, and whether its claim on that is granted.
        let (mut is_there, mut has_all) = (false, false);
        for step in 0..60 {
            let conn = 1 + next(5);
            let bounds = |conn: u64| (10 * conn as u8, 10 * conn as u8 + 9);
            let words = match (conn, step < 50 && next(3) > 0) {
                (_, false) if told.is_some() => {
                    without = told.take().unwrap();
                    claims
                        .claim(ConnId(1), &peer("all"), all(&without))
                        .unwrap()
                }
                (1, _) if is_there => {
                    (is_there, has_all) = (false, false);
                    told = None;
                    claims.remove(ConnId(1))
                }
                (1, _) => {
                    is_there = true;
                    // It may remember what it left to others, or be another run.
                    if next(2) == 0 {
                        without.clear();
                    }
                    claims
                        .claim(ConnId(1), &peer("all"), all(&without))
                        .unwrap()
                }
                (conn, _) if shares.remove(&conn).is_some() => claims.remove(ConnId(conn)),
                (conn, _) => {
                    shares.insert(conn, false);
                    let (first, last) = bounds(conn);
                    let claim = share(first, last);
                    claims
                        .claim(ConnId(conn), &peer(&conn.to_string()), claim)
                        .unwrap()
                }
            };
            for word in words {
                match word {
                    Change::Granted(ConnId(1)) => has_all = true,
                    Change::Granted(conn) => *shares.get_mut(&conn.0).unwrap() = true,
                    Change::Others(conn, ranges) => {
                        assert_eq!(conn, ConnId(1));
                        told = Some(ranges);
                    }
                }
            }
            for (conn, granted) in &shares {
                let (first, last) = bounds(*conn);
                let left = without.contains(&range(first, last));
                assert!(!granted || !has_all || left, "{seed}: {conn} and all");
                assert_eq!(owner(&claims, first) == Some(*conn), *granted);
            }
        }
        if let Some(others) = told.filter(|_| is_there) {
            let words = claims.claim(ConnId(1), &peer("all"), all(&others)).unwrap();
            for word in words {
                match word {
                    Change::Granted(ConnId(1)) => has_all = true,
                    Change::Granted(conn) => *shares.get_mut(&conn.0).unwrap() = true,
                    Change::Others(..) => panic!("{seed}: nothing has changed"),
                }
            }
        }
        assert!(shares.values().all(|granted| *granted), "{seed}: one waits");
        assert_eq!(has_all, is_there, "{seed}");
    }
}

#[test]
fn a_claim_outlives_a_stream_that_broke_until_its_copier_must_know() {
    let at = Duration::from_secs;
    let mut claims = Claims::default();
    claims.claim(ConnId(1), &peer("a"), share(1, 9)).unwrap();
    assert_eq!(claims.detach(at(10), ConnId(1)), []);
    assert_eq!(owner(&claims, 5), None, "nobody hears of its responses");
    let refused = claims
        .claim(ConnId(2), &peer("b"), share(1, 9))
        .unwrap_err();
    assert_eq!(refused.owner, "a");
    claims.expire(at(10) + LEASE - at(1));
    claims
        .claim(ConnId(2), &peer("b"), share(1, 9))
        .unwrap_err();
    claims.expire(at(10) + LEASE);
    claims.claim(ConnId(2), &peer("b"), share(1, 9)).unwrap();
    assert_eq!(owner(&claims, 5), Some(2));
}

#[test]
fn a_copier_that_is_back_has_its_own_claim_at_once() {
    let mut claims = Claims::default();
    claims.claim(ConnId(1), &peer("a"), all(&[])).unwrap();
    claims.claim(ConnId(2), &peer("b"), share(1, 9)).unwrap();
    claims
        .claim(ConnId(1), &peer("a"), all(&[range(1, 9)]))
        .unwrap();
    claims.detach(Duration::ZERO, ConnId(2));
    let said = claims.claim(ConnId(3), &peer("b"), share(1, 9)).unwrap();
    assert!(said.contains(&Change::Granted(ConnId(3))), "{said:?}");
    assert_eq!(owner(&claims, 5), Some(3));
    assert_eq!(claims.expire(LEASE), []);
    // And what it had is free when it says so.
    claims
        .claim(ConnId(3), &peer("b"), ClaimSet::default())
        .unwrap();
    assert_eq!(owner(&claims, 5), None);
}
