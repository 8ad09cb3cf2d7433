//! Which packets a recording is about, as taps know it (a program for the kernel's socket filters,
//! linux/filter.h). `rules` says the same in nf_tables' words.

use std::net::Ipv4Addr;

use socket2::SockFilter;

/// More addresses than this count as none, as do more protocols or ports: the kernel takes no filter of
/// more than 4,096 instructions.
const MOST: usize = 256;

/// Which frames are recorded, of IPv4 and ARP; other ones never are. An empty list excludes nothing, and
/// ARP and what the tunnels carry is always recorded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// IP protocol numbers. ICMP is recorded beside them, as it tells of their errors.
    pub protocols: Vec<u8>,
    /// Only packets with one of these addresses at either end. Give all that translation may put there.
    pub addresses: Vec<Ipv4Addr>,
    /// UDP destination ports of tunnels (VXLAN's, flannel's), whose packets may carry anything.
    pub tunnels: Vec<u16>,
}

/// Of linux/filter.h: load a word, half or byte from where `ABSOLUTE` says, jump, return.
const LOAD_WORD: u16 = 0x20;
const LOAD_BYTE: u16 = 0x30;
const LOAD_HALF_AT_X: u16 = 0x48;
const AND: u16 = 0x54;
const SHIFT_LEFT: u16 = 0x64;
const TO_X: u16 = 0x07;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

/// `SKF_AD_OFF + SKF_AD_PROTOCOL`: the frame's protocol, wherever it stands, if at all.
const PROTOCOL: u32 = 0xffff_f000;
/// `SKF_NET_OFF`: from here the IP header is counted, with or without an Ethernet header before it.
const NETWORK: u32 = 0xfff0_0000;
const IP: u32 = libc::ETH_P_IP as u32;
const ARP: u32 = libc::ETH_P_ARP as u32;
pub(super) const UDP: u8 = libc::IPPROTO_UDP as u8;
const ICMP: u8 = libc::IPPROTO_ICMP as u8;

impl Filter {
    /// The protocols that are recorded; none where all are.
    pub(super) fn all_protocols(&self) -> Vec<u8> {
        let mut all = bounded(&self.protocols);
        if !all.is_empty() {
            all.push(ICMP);
            all.sort_unstable();
            all.dedup();
        }
        all
    }

    pub(super) fn all_addresses(&self) -> Vec<Ipv4Addr> {
        bounded(&self.addresses)
    }

    /// Ports to be recorded whatever else is asked for; none where everything is recorded anyway.
    pub(super) fn all_tunnels(&self) -> Vec<u16> {
        if self.all_protocols().is_empty() && self.all_addresses().is_empty() {
            return Vec::new();
        }
        bounded(&self.tunnels)
    }

    /// The program that lets through `snap` bytes of the frames that are recorded.
    pub(super) fn program(&self, snap: u32) -> Vec<SockFilter> {
        let keep = || SockFilter::new(RETURN, 0, 0, snap);
        let drop = || SockFilter::new(RETURN, 0, 0, 0);
        let load = |how, at: u32| SockFilter::new(how, 0, 0, at);
        let keep_if = |value: u32| [SockFilter::new(JUMP_IF_EQUAL, 0, 1, value), keep()];
        let mut all = vec![load(LOAD_WORD, PROTOCOL)];
        all.extend(keep_if(ARP));
        all.extend([SockFilter::new(JUMP_IF_EQUAL, 1, 0, IP), drop()]);
        let ports: Vec<_> = self.all_tunnels().iter().flat_map(|port| keep_if(u32::from(*port))).collect();
        if !ports.is_empty() {
            all.extend([load(LOAD_BYTE, NETWORK + 9), SockFilter::new(JUMP_IF_EQUAL, 1, 0, u32::from(UDP))]);
            all.push(jump(5 + ports.len()));
            // The UDP header is behind the IP header's length, which counts in four bytes.
            all.extend([load(LOAD_BYTE, NETWORK), load(AND, 0xf), load(SHIFT_LEFT, 2), load(TO_X, 0)]);
            all.push(load(LOAD_HALF_AT_X, NETWORK + 2));
            all.extend(ports);
        }
        let protocols = self.all_protocols();
        if !protocols.is_empty() {
            all.push(load(LOAD_BYTE, NETWORK + 9));
            for (i, protocol) in protocols.iter().enumerate() {
                let rest = 2 * (protocols.len() - i - 1);
                all.extend([SockFilter::new(JUMP_IF_EQUAL, 0, 1, u32::from(*protocol)), jump(rest + 1)]);
            }
            all.push(drop());
        }
        let addresses = self.all_addresses();
        for end in [12, 16].into_iter().filter(|_| !addresses.is_empty()) {
            all.push(load(LOAD_WORD, NETWORK + end));
            all.extend(addresses.iter().flat_map(|ip| keep_if(u32::from(*ip))));
        }
        all.push(if addresses.is_empty() { keep() } else { drop() });
        all
    }
}

/// Go on behind so many instructions.
fn jump(over: usize) -> SockFilter {
    SockFilter::new(JUMP, 0, 0, u32::try_from(over).unwrap_or(u32::MAX))
}

fn bounded<T: Clone>(list: &[T]) -> Vec<T> {
    if list.len() <= MOST { list.to_vec() } else { Vec::new() }
}
