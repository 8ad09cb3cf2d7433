//! What nf_tables tells of the rules that packets meet (`nftrace`): a table of our own that marks the
//! packets to be traced and does nothing else, and reading what is told of them.
//!
//! The table belongs to its socket (`NFT_TABLE_F_OWNER`, since 5.12) and goes with it, whatever ends the
//! process. It has the family `ip` alone, which sees a bridge's packets too where the namespace gives
//! those to iptables (br_netfilter).

use std::io;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use crate::kernel::nfnl::{self, LENGTH, NFTABLES, Part, attribute, attributes, big, nest, number, short, text, word};
use crate::lab::names::{IfName, NsName};
use crate::plan::deviation::NftTable;

use super::PORTS;
use super::event::{RuleBook, RuleKind, RuleSeen, Verdict};
use super::filter::{BEHIND, CARRIED, ENDS, FRAGMENT, Filter, Tunnel, UDP, WITH_PORTS};

/// linux/netfilter/nf_tables.h.
const NEW_TABLE: u16 = NFTABLES;
const NEW_CHAIN: u16 = NFTABLES | 3;
const NEW_RULE: u16 = NFTABLES | 6;
const GET_RULES: u16 = NFTABLES | 7;
const NEW_SET: u16 = NFTABLES | 9;
const NEW_ELEMENTS: u16 = NFTABLES | 12;
pub(super) const TRACE: u16 = NFTABLES | 17;

/// `NLM_F_CREATE`, with `NLM_F_EXCL` or `NLM_F_APPEND`.
const CREATE: u16 = 0x400;
const EXCLUSIVE: u16 = 0x600;
const APPEND: u16 = 0xc00;

/// `NFPROTO_IPV4`.
const IPV4: u8 = 2;
/// `NFT_TABLE_F_OWNER`.
const OWNED: u32 = 2;
/// Before the table `raw` (-300), behind putting fragments together (-400), where that is done.
const PRIORITY: i32 = -350;
/// `NF_INET_PRE_ROUTING` and `NF_INET_LOCAL_OUT`: a packet that comes in, and one that is born here.
const HOOKS: [(&str, u32); 2] = [("prerouting", 0), ("output", 3)];

/// `NFTA_LIST_ELEM`, an element of any list.
const ELEMENT: u16 = 1;
/// `NFT_REG_1`, the register that values go through.
const REGISTER: u32 = 1;

/// What recordings' tables are called, with a number behind it.
const NAME: &str = "labctl-trace-";

/// Whether a table is a recording's.
pub fn is_own_table(name: &str) -> bool {
    name.starts_with(NAME)
}

/// The table of one namespace's recording, and the socket that owns it.
pub(super) struct Marking {
    pub socket: Socket,
    /// Where the kernel knows no owners: to be removed by hand.
    pub left: Option<NftTable>,
}

/// A socket of netfilter's with a port of ours, in the calling thread's namespace.
pub(super) fn socket() -> io::Result<(Socket, u32)> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    for port in PORTS {
        match socket.bind(&SocketAddr::new(port, 0)) {
            Ok(()) => {
                socket.connect(&SocketAddr::new(0, 0))?;
                socket.set_cap_ack(true)?;
                return Ok((socket, port));
            }
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => {}
            Err(e) => return Err(e),
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "too many recordings in one namespace"))
}

/// Mark what `filter` lets through, in the calling thread's namespace, from now on; of a second no more than
/// `most` packets.
pub(super) fn mark(filter: &Filter, most: Option<u32>) -> io::Result<Marking> {
    let (first, port) = socket()?;
    let table = format!("{NAME}{}", port - PORTS.start());
    match nfnl::commit(&first, &parts((filter, most), &table, OWNED)) {
        Ok(()) => Ok(Marking { socket: first, left: None }),
        // What `nf_tables_newtable` says to a flag that it does not know.
        Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => {
            drop(first);
            let (second, port) = socket()?;
            let name = format!("{NAME}{}", port - PORTS.start());
            nfnl::commit(&second, &parts((filter, most), &name, 0))?;
            Ok(Marking { socket: second, left: Some(NftTable { family: IPV4, name }) })
        }
        Err(e) => Err(e),
    }
}

/// The whole table.
fn parts((filter, most): (&Filter, Option<u32>), table: &str, flags: u32) -> Vec<Part> {
    let part =
        |kind, flags, attributes: Vec<Vec<u8>>| Part { kind, flags, family: IPV4, attributes: attributes.concat() };
    let mut all = vec![part(NEW_TABLE, EXCLUSIVE, vec![text(1, table), attribute(2, &flags.to_be_bytes())])];
    let words = Words::of(filter);
    for set in words.sets() {
        let number = set.number.to_be_bytes();
        let shape = [attribute(3, &[0; 4]), attribute(4, &set.kind.to_be_bytes()), attribute(5, &set.length())];
        let name = [text(1, table), text(2, set.name)];
        all.push(part(NEW_SET, CREATE, [&name[..], &shape, &[attribute(10, &number)]].concat()));
        // NFTA_SET_ELEM_KEY with NFTA_DATA_VALUE.
        let element = |value: &Vec<u8>| nest(ELEMENT, &[nest(1, &[attribute(1, value)])]);
        let elements = nest(3, &set.values.iter().map(element).collect::<Vec<_>>());
        all.push(part(NEW_ELEMENTS, CREATE, vec![name.concat(), elements]));
    }
    let chains = words.chains(most);
    // All of them first, as rules name them.
    for chain in &chains {
        let hook = |hook: u32| nest(4, &[attribute(1, &hook.to_be_bytes()), attribute(2, &PRIORITY.to_be_bytes())]);
        let base = chain.hook.map(|at| [hook(at), text(7, "filter")].concat()).unwrap_or_default();
        all.push(part(NEW_CHAIN, CREATE, vec![text(1, table), text(3, chain.name), base]));
    }
    for chain in &chains {
        for body in &chain.rules {
            all.push(part(NEW_RULE, APPEND, vec![text(1, table), text(2, chain.name), nest(4, body)]));
        }
    }
    all
}

/// A list that rules look values up in.
struct Set {
    name: &'static str,
    number: u32,
    /// As `nft` numbers its types, for those who list the table.
    kind: u32,
    values: Vec<Vec<u8>>,
}

impl Set {
    /// Bytes of a value.
    fn length(&self) -> [u8; 4] {
        self.values.first().map_or(0, |v| u32::try_from(v.len()).unwrap_or(0)).to_be_bytes()
    }
}

/// A rule's expressions.
type Body = Vec<Vec<u8>>;

struct Chain {
    name: &'static str,
    /// Where the kernel asks it; others are gone to.
    hook: Option<u32>,
    rules: Vec<Body>,
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
struct Words {
    mask: u32,
    addresses: Set,
    ports: Set,
    tunnel: Option<Tunnel>,
}

impl Words {
    fn of(filter: &Filter) -> Words {
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

    fn sets(&self) -> impl Iterator<Item = &Set> {
        [&self.addresses, &self.ports].into_iter().filter(|set| !set.values.is_empty())
    }

    /// What is gone through: packets of interest arrive at the last chain, which marks so many of a second.
    fn chains(&self, most: Option<u32>) -> Vec<Chain> {
        let mut base = Vec::new();
        let mut all = Vec::new();
        if let Some(tunnel) = self.tunnel {
            let inner = Headers { ip: (2, tunnel.inner()), transport: (2, tunnel.inner() + USUAL) };
            // What is no IPv4, or has options, is not looked into.
            let mut inside = vec![vec![payload(inner.ip, 0, 1), differs(&[USUAL_BEGIN]), go_to("mark")]];
            inside.extend(self.by_address(&inner, "inside-ports"));
            all.push(Chain { name: "inside", hook: None, rules: inside });
            all.push(Chain { name: "inside-ports", hook: None, rules: self.by_port(&inner) });
            let port = payload(PLAIN.transport, 2, 2);
            base.push(vec![protocol(), is(&[UDP]), port, is(&tunnel.port.to_be_bytes()), go_to("inside")]);
        }
        base.extend(self.by_address(&PLAIN, "ports"));
        all.extend(HOOKS.map(|(name, hook)| Chain { name, hook: Some(hook), rules: base.clone() }));
        all.push(Chain { name: "ports", hook: None, rules: self.by_port(&PLAIN) });
        let most = most.map(limit).into_iter().collect();
        all.push(Chain { name: "mark", hook: None, rules: vec![[most, vec![one(), set_trace()]].concat()] });
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

/// Read what is told of a packet; nothing of our own table. `device` gives devices' names.
pub(super) fn seen(message: &[u8], mut device: impl FnMut(u32) -> IfName) -> Option<RuleSeen> {
    let mut seen = RuleSeen {
        table: String::new(),
        family: *message.get(16)?,
        chain: String::new(),
        handle: None,
        kind: RuleKind::Rule,
        verdict: Verdict::Continue,
        link: Vec::new(),
        network: Vec::new(),
        transport: Vec::new(),
        iif: None,
        oif: None,
        mark: None,
        nfproto: None,
        id: 0,
        connection: None,
    };
    let mut policy = None;
    for (kind, value) in attributes(message.get(LENGTH..)?) {
        match kind {
            1 => seen.table = word(value),
            2 => seen.chain = word(value),
            3 => seen.handle = value.try_into().ok().map(u64::from_be_bytes),
            4 => seen.kind = rule_kind(big(value)?)?,
            5 => seen.verdict = verdict(value)?,
            6 => seen.id = number(value, 0),
            7 => seen.link = value.to_vec(),
            8 => seen.network = value.to_vec(),
            9 => seen.transport = value.to_vec(),
            10 => seen.iif = big(value).map(&mut device),
            12 => seen.oif = big(value).map(&mut device),
            14 => seen.mark = big(value),
            15 => seen.nfproto = big(value),
            16 => policy = big(value).map(u32::cast_signed),
            18 => seen.connection = big(value),
            _ => {}
        }
    }
    match (seen.kind, policy) {
        (RuleKind::Policy, Some(code)) => seen.verdict = of_code(code, String::new()),
        // Newer kernels call a chain's end a rule, too; it has no number.
        (RuleKind::Rule, _) if seen.handle.is_none() => seen.kind = RuleKind::Return,
        _ => {}
    }
    (!is_own_table(&seen.table)).then_some(seen)
}

/// `enum nft_trace_types`.
fn rule_kind(number: u32) -> Option<RuleKind> {
    match number {
        1 => Some(RuleKind::Policy),
        2 => Some(RuleKind::Return),
        3 => Some(RuleKind::Rule),
        _ => None,
    }
}

fn verdict(nested: &[u8]) -> Option<Verdict> {
    let (mut code, mut chain) = (None, String::new());
    for (kind, value) in attributes(nested) {
        match kind {
            1 => code = big(value).map(u32::cast_signed),
            2 => chain = word(value),
            _ => {}
        }
    }
    Some(of_code(code?, chain))
}

/// `enum nft_verdicts`, and netfilter's own below it (linux/netfilter.h).
fn of_code(code: i32, chain: String) -> Verdict {
    match code {
        0 => Verdict::Drop,
        1 => Verdict::Accept,
        -1 => Verdict::Continue,
        -3 => Verdict::Jump(chain),
        -4 => Verdict::Goto(chain),
        -5 => Verdict::Return,
        other => Verdict::Other(other),
    }
}

/// Add the rules of the calling thread's namespace, as they are now.
pub(super) fn book(place: &NsName, book: &mut RuleBook) -> io::Result<()> {
    nfnl::dump(GET_RULES, IPV4, |message| {
        if short(message, 4) != NEW_RULE {
            return;
        }
        let (mut table, mut chain, mut handle) = (String::new(), String::new(), None);
        // The rest of a rule is behind these.
        for (kind, value) in attributes(message.get(LENGTH..).unwrap_or_default()).take_while(|(kind, _)| *kind != 4) {
            match kind {
                1 => table = word(value),
                2 => chain = word(value),
                3 => handle = value.try_into().ok().map(u64::from_be_bytes),
                _ => {}
            }
        }
        if let Some(handle) = handle.filter(|_| !is_own_table(&table)) {
            book.0.entry((place.clone(), table, chain)).or_default().push(handle);
        }
    })
}
