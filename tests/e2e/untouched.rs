//! The machine's own network is the same before, during and after a lab, however it ends.

use nix::sys::signal::Signal;

use crate::as_root_and_ordinary_user;
use crate::harness::Bench;
use crate::harness::machine::Machine;
use crate::harness::process::{Tree, signal};
use crate::sample::two_networks;

as_root_and_ordinary_user![
    a_lab_that_is_taken_down_leaves_the_machine_as_it_was,
    a_lab_that_is_killed_leaves_the_machine_as_it_was,
];

fn build(bench: &Bench, before: &Machine) {
    let backend = if bench.is_root() { "{ backend: udp }" } else { "{ backend: vxlan }" };
    let file = bench.write(&two_networks(backend, 62, 1450));
    bench.up(&file);
    before.is_still("while the lab runs");
}

fn a_lab_that_is_taken_down_leaves_the_machine_as_it_was(bench: &Bench) {
    let before = Machine::look();
    build(bench, &before);
    bench.ok(&["down"]);
    before.is_still("after `down`");
}

fn a_lab_that_is_killed_leaves_the_machine_as_it_was(bench: &Bench) {
    let before = Machine::look();
    build(bench, &before);
    let tree = Tree::of(bench.daemon());
    signal(bench.daemon(), Signal::SIGKILL);
    tree.must_end();
    before.is_still("after `kill -9`");
}
