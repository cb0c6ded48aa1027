//! A cluster behind a director that translates addresses: the answers bear the real servers' own, so copiers know
//! them by the client's side alone.

use std::time::Duration;

use millrace_integration::can_run;
use millrace_integration::cluster::{ClusterScene, Mode, POOLS, join};
use millrace_lab::cluster::Forwarding;

const SETTLE: Duration = Duration::from_secs(40);

fn copied_exactly(mode: Mode, arguments: [&[&str]; 2]) {
    if !can_run() {
        return;
    }
    let mut options = ClusterScene::options();
    options.forwarding = Forwarding::AddressTranslation;
    let mut scene = ClusterScene::new(options, mode);
    scene.start_checks();
    for (live, arguments) in arguments.into_iter().enumerate() {
        scene.start_copier(live, arguments);
    }
    let loads = (0..2).flat_map(|live| scene.mixed_load(live, Duration::from_secs(4)));
    join(loads.collect());
    let outcome = scene.finish_exact(SETTLE);
    outcome.assert_shares(0.25);
}

#[test]
fn clients_keep_their_addresses() {
    copied_exactly(Mode::Sink, [&[], &[]]);
}

#[test]
fn copiers_with_a_client_pool() {
    copied_exactly(Mode::Sink, [&["-c", POOLS[0]], &["-c", POOLS[1]]]);
}
