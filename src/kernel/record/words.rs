//! What a filter says, in nf_tables' words: lists, chains and the expressions of their rules. Whose tables they
//! come into, and where packets meet them, is `marking`'s.

use crate::kernel::nfnl::{attribute, nest, text};

use super::filter::{BEHIND, CARRIED, ENDS, FRAGMENT, Filter, Tunnel, UDP, WITH_PORTS};

/// `NFTA_LIST_ELEM`, an element of any list.
pub(super) const ELEMENT: u16 = 1;
/// `NFT_REG_1`, the register that values go through.
const REGISTER: u32 = 1;

/// A list that rules look values up in.
pub(super) struct Set {
    pub name: &'static str,
    pub number: u32,
    /// As `nft` numbers its types, for those who list the table.
    pub kind: u32,
    pub values: Vec<Vec<u8>>,
}

impl Set {
    /// Bytes of a value.
    pub fn length(&self) -> [u8; 4] {
        self.values.first().map_or(0, |v| u32::try_from(v.len()).unwrap_or(0)).to_be_bytes()
    }
}

/// A rule's expressions.
pub(super) type Body = Vec<Vec<u8>>;

/// A chain that is gone to.
pub(super) struct Chain {
    pub name: &'static str,
    pub rules: Vec<Body>,
}

/// Where a packet's headers begin: base and offset of the IP header's, and of what is behind it.
struct Headers {
    ip: (u32, u32),
    transport: (u32, u32),
}

/// The packet itself.
const PLAIN: Headers = Headers { ip: (1, 0), transport: (2, 0) };
/// Bytes of an IP header without options, and how such a one begins.
const USUAL: u32 = 20;
const USUAL_BEGIN: u8 = 0x45;

/// What a filter says, in nf_tables' words.
pub(super) struct Words {
    mask: u32,
    addresses: Set,
    ports: Set,
    tunnel: Option<Tunnel>,
}

impl Words {
    pub fn of(filter: &Filter) -> Words {
        let ranges = filter.ranges();
        let addresses = ranges.values.iter().map(|ip| ip.to_be_bytes().to_vec()).collect();
        let ports = filter.all_ports().iter().map(|port| port.to_be_bytes().to_vec()).collect();
        Words {
            mask: ranges.mask,
            addresses: Set { name: "addresses", number: 1, kind: 7, values: addresses },
            ports: Set { name: "ports", number: 2, kind: 13, values: ports },
            tunnel: filter.tunnel.filter(|_| !filter.is_open()),
        }
    }

    pub fn sets(&self) -> impl Iterator<Item = &Set> {
        [&self.addresses, &self.ports].into_iter().filter(|set| !set.values.is_empty())
    }

    /// What a chain has that the kernel asks: packets of interest are sent on, and arrive at the last chain.
    pub fn base(&self) -> Vec<Body> {
        let mut all = Vec::new();
        if let Some(tunnel) = self.tunnel {
            let port = payload(PLAIN.transport, 2, 2);
            all.push(vec![protocol(), is(&[UDP]), port, is(&tunnel.port.to_be_bytes()), go_to("inside")]);
        }
        all.extend(self.by_address(&PLAIN, "ports"));
        all
    }

    /// What is gone through; the last chain marks so many packets of a second.
    pub fn chains(&self, most: Option<u32>) -> Vec<Chain> {
        let mut all = Vec::new();
        if let Some(tunnel) = self.tunnel {
            let inner = Headers { ip: (2, tunnel.inner()), transport: (2, tunnel.inner() + USUAL) };
            // What is no IPv4, or has options, is not looked into.
            let mut inside = vec![vec![payload(inner.ip, 0, 1), differs(&[USUAL_BEGIN]), go_to("mark")]];
            inside.extend(self.by_address(&inner, "inside-ports"));
            all.push(Chain { name: "inside", rules: inside });
            all.push(Chain { name: "inside-ports", rules: self.by_port(&inner) });
        }
        all.push(Chain { name: "ports", rules: self.by_port(&PLAIN) });
        let most = most.map(limit).into_iter().collect();
        all.push(Chain { name: "mark", rules: vec![[most, vec![one(), set_trace()]].concat()] });
        all
    }

    /// Go on with packets that have one of the addresses.
    fn by_address(&self, headers: &Headers, next: &str) -> Vec<Body> {
        if self.addresses.values.is_empty() {
            return vec![vec![go_to(next)]];
        }
        let at = |end: u32| {
            let address = vec![payload(headers.ip, end, 4), masked(&self.mask.to_be_bytes())];
            [address, vec![within(&self.addresses), go_to(next)]].concat()
        };
        ENDS.map(at).into()
    }

    /// Go on with packets that have one of the ports, or none.
    fn by_port(&self, headers: &Headers) -> Vec<Body> {
        if self.ports.values.is_empty() {
            return vec![vec![go_to("mark")]];
        }
        let carries = || payload(headers.ip, CARRIED, 1);
        let others = WITH_PORTS.iter().flat_map(|protocol| [carries(), differs(&[*protocol])]);
        let behind = [payload(headers.ip, FRAGMENT, 2), masked(&BEHIND.to_be_bytes()), differs(&[0, 0])];
        let at = |end: u32| vec![payload(headers.transport, end, 2), within(&self.ports)];
        let all: [Body; 4] = [others.collect(), behind.into(), at(0), at(2)];
        all.map(|body| [body, vec![go_to("mark")]].concat()).into()
    }
}

fn expression(name: &str, values: &[Vec<u8>]) -> Vec<u8> {
    nest(ELEMENT, &[text(1, name), nest(2, values)])
}

fn value(kind: u16, number: u32) -> Vec<u8> {
    attribute(kind, &number.to_be_bytes())
}

/// Load the transport's protocol (`NFT_META_L4PROTO`).
fn protocol() -> Vec<u8> {
    expression("meta", &[value(1, REGISTER), value(2, 16)])
}

/// Load from behind a place in the network header (base 1) or the transport's (2).
fn payload((base, begin): (u32, u32), offset: u32, length: u32) -> Vec<u8> {
    expression("payload", &[value(1, REGISTER), value(2, base), value(3, begin + offset), value(4, length)])
}

/// Keep these bits alone (`NFT_BITWISE_MASK_XOR`).
fn masked(mask: &[u8]) -> Vec<u8> {
    let length = u32::try_from(mask.len()).unwrap_or(0);
    let bits = [nest(4, &[attribute(1, mask)]), nest(5, &[attribute(1, &vec![0; mask.len()])])];
    expression("bitwise", &[&[value(1, REGISTER), value(2, REGISTER), value(3, length)], &bits[..]].concat())
}

/// `NFT_CMP_EQ`.
fn is(bytes: &[u8]) -> Vec<u8> {
    expression("cmp", &[value(1, REGISTER), value(2, 0), nest(3, &[attribute(1, bytes)])])
}

/// `NFT_CMP_NEQ`.
fn differs(bytes: &[u8]) -> Vec<u8> {
    expression("cmp", &[value(1, REGISTER), value(2, 1), nest(3, &[attribute(1, bytes)])])
}

fn within(set: &Set) -> Vec<u8> {
    expression("lookup", &[text(1, set.name), value(2, REGISTER), value(4, set.number)])
}

/// Go on with so many packets of a second (`NFT_LIMIT_PKTS`).
fn limit(most: u32) -> Vec<u8> {
    let (rate, unit) = (attribute(1, &u64::from(most).to_be_bytes()), attribute(2, &1u64.to_be_bytes()));
    expression("limit", &[rate, unit, value(3, most), value(4, 0)])
}

fn one() -> Vec<u8> {
    expression("immediate", &[value(1, REGISTER), nest(2, &[attribute(1, &[1])])])
}

/// `meta nftrace set` (`NFT_META_NFTRACE`).
fn set_trace() -> Vec<u8> {
    expression("meta", &[value(2, 12), value(3, REGISTER)])
}

/// Go on in another chain, and do not come back (`NFT_GOTO`). Whoever falls out of it is let through by the
/// base chain, and others ask the packet as well.
fn go_to(chain: &str) -> Vec<u8> {
    let code = (-4_i32).to_be_bytes();
    expression("immediate", &[value(1, 0), nest(2, &[nest(2, &[attribute(1, &code), text(2, chain)])])])
}
