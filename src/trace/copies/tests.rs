use super::*;
use crate::trace::flow;
use crate::trace::model::Role;
use crate::trace::sample::sight;

/// So many packets are copies, and so many are none.
fn parted(sights: &[Sight]) -> (usize, usize) {
    let found = flow::flow(Role::Request, sights[0].tuple(), sights, &[]);
    let parted = apart(found, sights, &Plan { namespaces: Vec::new() });
    let copies = parted.packets.iter().filter(|p| p.copy).count();
    (copies, parted.packets.len() - copies)
}

fn stray(at: u64, place: &str) -> Sight {
    Sight { stray: true, ..sight(at, place, "eth0", false) }
}

#[test]
fn a_frame_that_also_comes_to_a_machine_that_is_not_meant_is_a_copy_there() {
    assert_eq!(parted(&[sight(1, "a", "eth0", true), stray(2, "c"), sight(3, "b", "eth0", false)]), (1, 1));
}

#[test]
fn a_frame_that_comes_to_nobody_else_is_the_packet_itself() {
    assert_eq!(parted(&[sight(1, "a", "eth0", true), stray(2, "c")]), (0, 1));
}
