//! Real servers that answer ARP for the virtual address, in place of their director.

use std::time::Duration;

use millrace_integration::can_run;
use millrace_integration::cluster::{ClusterScene, Mode, join};
use millrace_lab::wait_for;
use serde_json::Value;

use super::PATIENCE;

/// The copier's sentence, and what it says beside.
fn said(scene: &ClusterScene) -> (String, Vec<String>) {
    let headline = &scene.status(0)["headline"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let also = headline["also"].as_array().unwrap().iter();
    let also = also.map(|it| text(&it["text"]));
    // Not every service of the scene has clients.
    let also = also.filter(|it| !it.starts_with("no connection to"));
    let also = also.collect();
    (text(&headline["sentence"]), also)
}

#[test]
fn real_servers_that_answer_arp_in_place_of_the_director() {
    if !can_run() {
        return;
    }
    let mut scene = ClusterScene::new(ClusterScene::options(), Mode::Sink);
    let wrong: Vec<_> = scene.cluster.real_servers[..2].iter().collect();
    let wrong: Vec<_> = wrong.iter().map(|real| real.host.clone()).collect();
    for host in &wrong {
        for key in ["all", "eth0"] {
            host.sysctl(&format!("net/ipv4/conf/{key}/arp_ignore"), "0")
                .unwrap();
        }
    }
    scene.start_copier(0, &[]);
    let load = scene.faint_load(0, Duration::from_secs(8));
    let cure = "sysctl -w net/ipv4/conf/eth0/arp_ignore=1";
    let names = |text: &String| {
        let words = ["arp_ignore is 0", "in place of the director", cure];
        words.iter().all(|word| text.contains(word))
    };
    wait_for("the cause", PATIENCE, || {
        let (sentence, also) = said(&scene);
        sentence.starts_with("copying 100%") && also.iter().filter(|it| names(it)).count() == 2
    })
    .unwrap_or_else(|error| panic!("{error}: {:?}", said(&scene)));
    let (_, also) = said(&scene);
    assert!(also.iter().all(names), "{also:?}");
    for host in &wrong {
        host.check("sh", &["-c", cure]).unwrap();
    }
    join(load);
    // Agents say what is to be mended whenever a copier comes.
    scene.kill_copier_for(0, Duration::ZERO, &[]);
    let load = scene.faint_load(0, Duration::from_secs(2));
    wait_for("copying", PATIENCE, || {
        said(&scene).0.starts_with("copying 100%")
    })
    .unwrap_or_else(|error| panic!("{error}: {:?}", said(&scene)));
    assert_eq!(said(&scene).1, [""; 0]);
    join(load);
    scene.settle(PATIENCE);
    scene.finish().assert_no_leak();
}
