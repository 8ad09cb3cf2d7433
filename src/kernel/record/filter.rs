//! Which packets a recording is about, as taps know it (a program for the kernel's socket filters,
//! linux/filter.h). `words` says the same in nf_tables' words.

use std::net::Ipv4Addr;

use socket2::SockFilter;

/// More addresses than this are taken for the ranges that they lie in, and more ports count as none: the kernel
/// takes no filter of more than 4,096 instructions, and each of them takes its time.
const MOST: usize = 256;

/// Which frames are recorded, of IPv4 and ARP; other ones never are. An empty list excludes nothing, and
/// ARP is always recorded. What a tunnel carries is asked, not who carries it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only packets with one of these addresses at either end. Give all that translation may put there.
    pub addresses: Vec<Ipv4Addr>,
    /// Of TCP and UDP only packets with one of these ports at either end, and fragments without any. Give all
    /// that translation may put there.
    pub ports: Vec<u16>,
    pub tunnel: Option<Tunnel>,
}

/// How a tunnel over UDP is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tunnel {
    /// The destination port.
    pub port: u16,
    /// Bytes between the UDP header and the packet that is carried.
    pub head: u8,
}

impl Tunnel {
    /// Its own header and an Ethernet header lie between (RFC 7348).
    pub fn vxlan(port: u16) -> Tunnel {
        Tunnel { port, head: 8 + ETHERNET as u8 }
    }

    /// Nothing lies between.
    pub fn flannel_udp(port: u16) -> Tunnel {
        Tunnel { port, head: 0 }
    }

    /// From the outer UDP header to the packet that is carried.
    pub(super) fn inner(self) -> u32 {
        8 + u32::from(self.head)
    }
}

/// Addresses of which so many leading bits count.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Ranges {
    pub mask: u32,
    /// Sorted; without the bits that do not count.
    pub values: Vec<u32>,
}

impl Ranges {
    /// The narrowest ranges of one size that are no more than [`MOST`].
    fn of(addresses: &[Ipv4Addr]) -> Ranges {
        let all: Vec<u32> = addresses.iter().map(|ip| u32::from(*ip)).collect();
        let of_mask = |mask: u32| {
            let mut values: Vec<u32> = all.iter().map(|ip| ip & mask).collect();
            values.sort_unstable();
            values.dedup();
            Ranges { mask, values }
        };
        let masks = (1..=32).rev().map(|bits| u32::MAX << (32 - bits));
        masks.map(of_mask).find(|ranges| ranges.values.len() <= MOST).unwrap_or_default()
    }
}

impl Filter {
    pub(super) fn ranges(&self) -> Ranges {
        Ranges::of(&self.addresses)
    }

    /// The ports that count; none where all do.
    pub(super) fn all_ports(&self) -> &[u16] {
        if self.ports.len() <= MOST { &self.ports } else { &[] }
    }

    /// Whether every packet is recorded.
    pub(super) fn is_open(&self) -> bool {
        self.addresses.is_empty() && self.all_ports().is_empty()
    }

    /// The program that lets through `snap` bytes of the frames that are recorded.
    pub(super) fn program(&self, snap: u32) -> Vec<SockFilter> {
        let mut code = Code::default();
        code.load(LOAD_WORD, PROTOCOL);
        code.jump_if(u32::from(ARP), Label::Keep);
        code.jump_unless(u32::from(IP), Label::Drop);
        if self.is_open() {
            code.jump(Label::Keep);
        } else {
            code.begin_at_the_packet();
            if let Some(tunnel) = self.tunnel {
                code.enter_the_tunnel(tunnel);
            }
            code.addresses(&self.ranges());
            code.ports(self.all_ports());
        }
        code.finish(snap)
    }
}

/// Of linux/filter.h: load from a place, or from so far behind X; reckon with A; move between both and the
/// one word of memory; jump, return.
const LOAD_WORD: u16 = 0x20;
const LOAD_WORD_AT_X: u16 = 0x40;
const LOAD_HALF_AT_X: u16 = 0x48;
const LOAD_BYTE_AT_X: u16 = 0x50;
const AND: u16 = 0x54;
const SHIFT_LEFT: u16 = 0x64;
const ADD: u16 = 0x04;
const ADD_X: u16 = 0x0c;
const TO_X: u16 = 0x07;
const FROM_X: u16 = 0x87;
const SET_X: u16 = 0x01;
const STORE_X: u16 = 0x03;
const RECALL_X: u16 = 0x61;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

/// `SKF_AD_OFF + SKF_AD_PROTOCOL` and `+ SKF_AD_HATYPE`: the frame's protocol, wherever it stands, if at
/// all, and the kind of its device.
const PROTOCOL: u32 = 0xffff_f000;
const DEVICE: u32 = 0xffff_f01c;
const ETHERNET: u32 = 14;
const IP: u16 = libc::ETH_P_IP as u16;
const ARP: u16 = libc::ETH_P_ARP as u16;
const TCP: u8 = libc::IPPROTO_TCP as u8;
pub(super) const UDP: u8 = libc::IPPROTO_UDP as u8;
/// The protocols that have ports.
pub(super) const WITH_PORTS: [u8; 2] = [TCP, UDP];
/// In an IP header: where the place of a fragment stands, the protocol and both addresses.
pub(super) const FRAGMENT: u32 = 6;
/// The bits of the former that are not zero in all fragments but the first.
pub(super) const BEHIND: u16 = 0x1fff;
pub(super) const CARRIED: u32 = 9;
pub(super) const ENDS: [u32; 2] = [12, 16];

/// A program of its own, which lets nothing through.
pub(super) const NOTHING: SockFilter = SockFilter::new(RETURN, 0, 0, 0);

/// A place in a program, further down than where it is named.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Label {
    Framed,
    Packet,
    Carried,
    Plain,
    Fits,
    Ported,
    Keep,
    Drop,
}

/// A program that is being written. While it runs X is where the IP header begins that is looked at.
#[derive(Default)]
struct Code {
    all: Vec<SockFilter>,
    places: Vec<(Label, usize)>,
    /// Jumps whose distance is not known yet.
    open: Vec<(usize, Label)>,
}

impl Code {
    fn load(&mut self, how: u16, at: u32) {
        self.all.push(SockFilter::new(how, 0, 0, at));
    }

    fn do_all<const N: usize>(&mut self, steps: [(u16, u32); N]) {
        steps.into_iter().for_each(|(how, by)| self.load(how, by));
    }

    /// Go on at a label. A jump that asks for nothing reaches every one.
    fn jump(&mut self, to: Label) {
        self.open.push((self.all.len(), to));
        self.load(JUMP, 0);
    }

    fn jump_if(&mut self, value: u32, to: Label) {
        self.all.push(SockFilter::new(JUMP_IF_EQUAL, 0, 1, value));
        self.jump(to);
    }

    fn jump_unless(&mut self, value: u32, to: Label) {
        self.all.push(SockFilter::new(JUMP_IF_EQUAL, 1, 0, value));
        self.jump(to);
    }

    fn place(&mut self, label: Label) {
        self.places.push((label, self.all.len()));
    }

    /// X becomes the beginning of the frame's IP header.
    fn begin_at_the_packet(&mut self) {
        self.load(LOAD_WORD, DEVICE);
        for framed in [libc::ARPHRD_ETHER, libc::ARPHRD_LOOPBACK] {
            self.jump_if(u32::from(framed), Label::Framed);
        }
        self.load(SET_X, 0);
        self.jump(Label::Packet);
        self.place(Label::Framed);
        self.load(SET_X, ETHERNET);
        self.place(Label::Packet);
    }

    /// X becomes the beginning of the header behind the IP header, whose length counts in four bytes.
    fn over_the_header(&mut self) {
        self.load(LOAD_BYTE_AT_X, 0);
        self.do_all([(AND, 0xf), (SHIFT_LEFT, 2), (ADD_X, 0), (TO_X, 0)]);
    }

    /// Go on at a label where a packet has no header behind the IP header, being a fragment.
    fn jump_if_behind(&mut self, to: Label) {
        self.load(LOAD_HALF_AT_X, FRAGMENT);
        self.load(AND, u32::from(BEHIND));
        self.jump_unless(0, to);
    }

    /// X becomes the beginning of the packet that a tunnel carries, where it is one's; what it carries beside
    /// IPv4 is recorded.
    fn enter_the_tunnel(&mut self, tunnel: Tunnel) {
        self.load(LOAD_BYTE_AT_X, CARRIED);
        self.jump_unless(u32::from(UDP), Label::Plain);
        self.jump_if_behind(Label::Plain);
        self.load(STORE_X, 0);
        self.over_the_header();
        self.load(LOAD_HALF_AT_X, 2);
        self.jump_if(u32::from(tunnel.port), Label::Carried);
        self.load(RECALL_X, 0);
        self.jump(Label::Plain);
        self.place(Label::Carried);
        self.load(LOAD_BYTE_AT_X, tunnel.inner());
        self.load(AND, 0xf0);
        self.jump_unless(0x40, Label::Keep);
        self.do_all([(FROM_X, 0), (ADD, tunnel.inner()), (TO_X, 0)]);
        self.place(Label::Plain);
    }

    fn addresses(&mut self, ranges: &Ranges) {
        if ranges.values.is_empty() {
            return;
        }
        for end in ENDS {
            self.load(LOAD_WORD_AT_X, end);
            self.load(AND, ranges.mask);
            ranges.values.iter().for_each(|value| self.jump_if(*value, Label::Fits));
        }
        self.jump(Label::Drop);
        self.place(Label::Fits);
    }

    fn ports(&mut self, ports: &[u16]) {
        if ports.is_empty() {
            self.jump(Label::Keep);
            return;
        }
        self.load(LOAD_BYTE_AT_X, CARRIED);
        WITH_PORTS.iter().for_each(|protocol| self.jump_if(u32::from(*protocol), Label::Ported));
        self.jump(Label::Keep);
        self.place(Label::Ported);
        self.jump_if_behind(Label::Keep);
        self.over_the_header();
        for end in [0, 2] {
            self.load(LOAD_HALF_AT_X, end);
            ports.iter().for_each(|port| self.jump_if(u32::from(*port), Label::Keep));
        }
        self.jump(Label::Drop);
    }

    fn finish(mut self, snap: u32) -> Vec<SockFilter> {
        self.place(Label::Keep);
        self.load(RETURN, snap);
        self.place(Label::Drop);
        self.load(RETURN, 0);
        for (from, label) in self.open {
            let place = self.places.iter().find(|(l, _)| *l == label).map_or(0, |(_, at)| *at);
            let over = u32::try_from(place.saturating_sub(from + 1)).unwrap_or(u32::MAX);
            self.all[from] = SockFilter::new(JUMP, 0, 0, over);
        }
        self.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_addresses_than_a_filter_has_room_for_are_told_by_the_ranges_that_they_lie_in() {
        let net = |n: u32| (0..2).map(move |last| Ipv4Addr::from(0x0af4_0000 + (n << 8) + last));
        let few: Vec<_> = (0..100).flat_map(net).collect();
        assert_eq!((Ranges::of(&few).mask, Ranges::of(&few).values.len()), (u32::MAX, 200));
        let many: Vec<_> = (0..250).flat_map(net).collect();
        let ranges = Ranges::of(&many);
        assert_eq!((ranges.mask, ranges.values.len()), (0xffff_fffe, 250));
        assert!(many.iter().all(|ip| ranges.values.contains(&(u32::from(*ip) & ranges.mask))));
        let all: Vec<_> = (0..70_000).map(|n| Ipv4Addr::from(n * 61_357)).collect();
        assert!(Ranges::of(&all).values.len() <= MOST && !Ranges::of(&all).values.is_empty());
    }

    #[test]
    fn the_longest_program_is_one_that_the_kernel_takes() {
        let addresses = (0..MOST as u32).map(|n| Ipv4Addr::from(n * 7)).collect();
        let ports = (0..MOST as u16).collect();
        let filter = Filter { addresses, ports, tunnel: Some(Tunnel::vxlan(8472)) };
        assert!(filter.program(64).len() <= 4096, "{}", filter.program(64).len());
    }
}
