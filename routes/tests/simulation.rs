//! Copiers and interceptors in every order of faults: links that break with messages on their way, queues that are
//! full, either side started again, notices that come late.
//!
//! Each world comes from a seed, which a failure names: `MILLRACE_SEED=17 cargo test -p millrace-routes` runs that one
//! alone.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    unused_crate_dependencies
)]

mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use world::{Rng, Sources, World};

/// Worlds of each kind: 10,000 in all.
const CLIENTS: u64 = 4000;
const ONE_POOL: u64 = 3000;
const SHARES: u64 = 3000;

/// Longer than what is left to others is left alone.
const ROUNDS: usize = 45;

fn run(seed: u64, sources: Sources) {
    let mut world = World::new(seed, sources);
    let mut rng = Rng::new(!seed);
    let steps = rng.below(600);
    for _ in 0..steps {
        world.step();
    }
    world.calm(ROUNDS);
    world.assert_settled();
    // Nothing happens any more, so nothing is said, but by those who are refused and ask again.
    let (sent, connects, flows) = (world.sent(), world.connects, world.flows() as u64);
    world.calm(5);
    let (more, asked) = (world.sent() - sent, world.connects - connects);
    assert!(more <= 4 * asked, "{more} messages on {asked} connections");
    assert!(
        asked == 0 || sources == Sources::OnePool,
        "links that do not stay up"
    );
    let bound = 8 * connects + 20 * (steps as u64 + flows);
    assert!(sent <= bound, "{sent} messages");
    world.close_all();
    world.calm(2);
    world.assert_nothing_left();
}

fn run_all(worlds: u64, sources: Sources) {
    let chosen = std::env::var("MILLRACE_SEED").ok();
    let chosen = chosen.map(|seed| seed.parse().unwrap());
    for seed in chosen.map_or(0..worlds, |seed| seed..seed + 1) {
        let outcome = catch_unwind(AssertUnwindSafe(|| run(seed, sources)));
        assert!(outcome.is_ok(), "{sources:?}: the world of seed {seed}");
    }
}

#[test]
fn flows_that_are_announced_find_their_copier_after_every_fault() {
    run_all(CLIENTS, Sources::Clients);
}

#[test]
fn of_copiers_that_want_one_pool_one_sends_at_a_time() {
    run_all(ONE_POOL, Sources::OnePool);
}

#[test]
fn shares_are_taken_and_given_back_without_two_owners() {
    run_all(SHARES, Sources::Shares);
}
