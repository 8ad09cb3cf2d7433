//! Any bytes as frames that taps have recorded at devices of every kind, whole or cut short, and the flows that
//! grow from them.
#![no_main]

use labctl::lab::names::{IfName, NsName};
use labctl::trace::flow;
use labctl::trace::model::Role;
use labctl::trace::packet;
use labctl::trace::sight::{self, Tapped, Tunnels};
use libfuzzer_sys::fuzz_target;

/// Both kinds of tunnel, so that one input may hold either.
const TUNNELS: Tunnels = Tunnels { vxlan: 8472, flannel_udp: 8285 };

fuzz_target!(|bytes: &[u8]| {
    let (place, dev) = (NsName::Router, IfName::new("eth0"));
    let mut tapped = Vec::new();
    // Each frame has a byte of what it is and its length before it.
    let mut rest = bytes;
    while let [what, length, behind @ ..] = rest {
        let (frame, further) = behind.split_at(behind.len().min(usize::from(*length)));
        let is = |bit: u8| what & bit != 0;
        let (outgoing, ethernet, stray) = (is(1), is(2), is(4));
        let at = tapped.len() as u64;
        tapped.push(Tapped { at, place: &place, dev: &dev, outgoing, ethernet, stray, bytes: frame });
        rest = further;
    }
    let (sights, arps) = sight::read(tapped.iter().copied(), TUNNELS, b"mark");
    assert!(sights.len() + arps.len() <= tapped.len());
    for sight in &sights {
        assert!(sight.layer <= 1);
        let found = flow::flow(Role::Request, sight.tuple(), &sights, &[]);
        let all: Vec<usize> = found.packets.iter().flat_map(|p| p.sights.iter().copied()).collect();
        let mut once = all.clone();
        once.sort_unstable();
        once.dedup();
        // A sight is of one packet.
        assert_eq!(once.len(), all.len());
    }
    // What nf_tables tells of a packet is cut wherever it likes.
    let middle = bytes.len() / 2;
    let _ = packet::parts(&bytes[..middle], &bytes[middle..]).map(|packet| (packet.kind(), packet.said()));
});
