//! Loss, reordering and duplication on each way between copier, target and interceptor: every
//! byte still arrives.

use std::time::Duration;

use millrace_integration::traffic::some_of_everything;
use millrace_integration::{Path, Scene, can_run};
use millrace_lab::fault::Fault;

fn survives(path: Path, fault: Fault) {
    if !can_run() {
        return;
    }
    let mut scene = Scene::usual();
    scene.set_faults(path, fault, 42);
    some_of_everything(&scene);
    scene.finish_exact(Duration::from_secs(150));
}

#[test]
fn one_percent_loss_towards_the_target() {
    survives(Path::CopierToTarget, Fault::loss(0.01));
}

#[test]
fn five_percent_loss_towards_the_target() {
    survives(Path::CopierToTarget, Fault::loss(0.05));
}

#[test]
fn one_percent_loss_of_responses() {
    survives(Path::TargetToAssistant, Fault::loss(0.01));
}

#[test]
fn five_percent_loss_of_responses() {
    survives(Path::TargetToAssistant, Fault::loss(0.05));
}

#[test]
fn one_percent_loss_to_and_from_the_interceptor() {
    survives(Path::Interceptor, Fault::loss(0.01));
}

#[test]
fn five_percent_loss_to_and_from_the_interceptor() {
    survives(Path::Interceptor, Fault::loss(0.05));
}

#[test]
fn reordering_and_duplication_towards_the_target() {
    survives(Path::CopierToTarget, Fault::disorder(0.05, 0.05));
}

#[test]
fn reordering_and_duplication_of_responses() {
    survives(Path::TargetToAssistant, Fault::disorder(0.05, 0.05));
}

#[test]
fn reordering_and_duplication_to_and_from_the_interceptor() {
    survives(Path::Interceptor, Fault::disorder(0.05, 0.05));
}
