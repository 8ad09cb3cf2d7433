use super::*;
use etherparse::PacketBuilder;

fn tcp(source: [u8; 4], ttl: u8, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(source, [10, 0, 0, 2], ttl).tcp(4000, 80, 77, 100);
    builder.ack(5).write(&mut bytes, data).expect("a packet");
    bytes
}

fn packet(bytes: &[u8]) -> Packet<'_> {
    match ethernet(bytes) {
        Some(Frame::Ip(packet)) => packet,
        other => panic!("no packet: {other:?}"),
    }
}

#[test]
fn what_routers_and_nat_change_is_no_part_of_the_essence() {
    let (here, there) = (tcp([10, 0, 0, 1], 64, b"hello"), tcp([192, 168, 0, 1], 62, b"hello"));
    let (here, there) = (packet(&here), packet(&there));
    assert_eq!(here.essence, there.essence);
    assert_ne!(here.header, there.header);
    assert_eq!(here.kind(), "data, 5 bytes");
    assert_ne!(here.essence, packet(&tcp([10, 0, 0, 1], 64, b"hello!")).essence);
}

#[test]
fn twenty_bytes_behind_the_header_are_enough() {
    let bytes = tcp([10, 0, 0, 1], 64, b"hello");
    let whole = packet(&bytes);
    let told = parts(&bytes[14..34], &bytes[34..54]).expect("a packet");
    assert_eq!(told.essence, whole.essence);
    assert_eq!(told.header, Header { macs: None, ..whole.header });
}

#[test]
fn a_packet_is_found_inside_its_tunnels() {
    let inner = tcp([10, 244, 1, 2], 63, b"hello");
    let wrap = |port: u16, data: &[u8]| {
        let mut bytes = Vec::new();
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([192, 168, 1, 1], [192, 168, 1, 2], 64);
        builder.udp(50_000, port).write(&mut bytes, data).expect("a packet");
        bytes
    };
    let vxlan = wrap(8472, &[&[8, 0, 0, 0, 0, 0, 1, 0], &inner[..]].concat());
    assert_eq!(packet(&vxlan).in_vxlan(8472).map(|p| p.essence), Some(packet(&inner).essence));
    assert_eq!(packet(&vxlan).vni(8472), Some(1));
    assert_eq!(packet(&vxlan).in_vxlan(4789), None);
    let udp = wrap(8285, &inner[14..]);
    assert_eq!(packet(&udp).in_flannel_udp(8285).map(|p| p.essence), Some(packet(&inner).essence));
}

#[test]
fn what_is_cut_short_reads_as_far_as_it_goes() {
    let bytes = tcp([10, 0, 0, 1], 64, b"hello");
    for length in 0..bytes.len() {
        let _ = ethernet(&bytes[..length]);
        let _ = ipv4(&bytes[..length]);
    }
    assert_eq!(ethernet(&bytes[..14 + 19]), None);
    let cut = packet(&bytes[..14 + 28]);
    assert!(matches!(cut.essence, Essence::Other { protocol: 6, .. }), "{cut:?}");
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_stumble(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        if let Some(Frame::Ip(packet)) = ethernet(&bytes) {
            let _ = (packet.in_vxlan(packet.header.destination_port), packet.quoted(), packet.kind());
        }
        let _ = ipv4(&bytes).map(|p| (p.in_flannel_udp(p.header.destination_port), p.quoted().is_some()));
    }
}
