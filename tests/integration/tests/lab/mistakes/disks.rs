//! Disks without room.

use millrace_integration::can_run;

use super::{GUARDED, USUAL, World};

/// A directory that is a full disk for whoever runs these commands.
fn full(world: &World, kilobytes: u32) -> (String, String) {
    let disk = world.live().file("disk").display().to_string();
    std::fs::create_dir_all(&disk).unwrap();
    let commands = format!("mount -t tmpfs -o size={kilobytes}k none {disk}");
    (disk, commands)
}

#[test]
fn a_disk_without_room_for_the_report() {
    if !can_run() {
        return;
    }
    let mut world = World::new();
    world.guarded_target();
    let (disk, mount) = full(&world, 64);
    let commands =
        format!("{mount} && {{ head -c 100000 /dev/zero >{disk}/fill 2>/dev/null; :; }}");
    let live = world.live().clone();
    let report = format!("{disk}/report.json");
    let arguments = [
        &["-x", USUAL, "--grace", "0", "--report", &report][..],
        &GUARDED,
    ]
    .concat();
    let own = (&live, "millrace-copier");
    world.start_after(&commands, &[], own, &arguments, super::ADMIN);
    let (show, words) = (format!("`df -h {disk}`"), "are free");
    world.warns(
        &|| world.clients(),
        &["the report may find no place", words, &show],
    );
    let log = world.daemons.last().unwrap().log();
    assert!(log.contains(&show), "{log}");
}

#[test]
fn a_disk_without_room_for_what_a_router_agent_must_remember() {
    if !can_run() {
        return;
    }
    let mut world = World::new();
    // Room for its lock, and no more.
    let (disk, mount) = full(&world, 4);
    let target = world.target().clone();
    let agent = ["-b", "::", "--state-dir", &disk];
    let own = (&target, "millrace-router-agent");
    world.start_after(&mount, &[], own, &agent, 36_532);
    world.start(&target, "millrace-interceptor", &["-b", "::"], 36_531);
    world.copier(USUAL, &GUARDED);
    let show = format!("`df -h {disk}`");
    let words = [
        "router-agent 198.18.2.20:36526",
        "after a kill copied connections would not be known as copies",
        "No space left on device",
        &show,
    ];
    world.warns(&|| world.clients(), &words);
}
