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
use super::filter::{Filter, UDP};

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
/// `most` packets for each of its rules.
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
    let lists = Lists::of(filter);
    for set in lists.all() {
        let number = set.number.to_be_bytes();
        let shape = [attribute(3, &[0; 4]), attribute(4, &set.kind.to_be_bytes()), attribute(5, &set.length())];
        let name = [text(1, table), text(2, set.name)];
        all.push(part(NEW_SET, CREATE, [&name[..], &shape, &[attribute(10, &number)]].concat()));
        // NFTA_SET_ELEM_KEY with NFTA_DATA_VALUE.
        let element = |value: &Vec<u8>| nest(ELEMENT, &[nest(1, &[attribute(1, value)])]);
        let elements = nest(3, &set.values.iter().map(element).collect::<Vec<_>>());
        all.push(part(NEW_ELEMENTS, CREATE, vec![name.concat(), elements]));
    }
    for (chain, hook) in HOOKS {
        let hook = nest(4, &[attribute(1, &hook.to_be_bytes()), attribute(2, &PRIORITY.to_be_bytes())]);
        all.push(part(NEW_CHAIN, CREATE, vec![text(1, table), text(3, chain), hook, text(7, "filter")]));
        for matches in lists.matches() {
            let most = most.map(limit).into_iter().collect();
            let body = [matches, most, vec![one(), set_trace(), accept()]].concat();
            all.push(part(NEW_RULE, APPEND, vec![text(1, table), text(2, chain), nest(4, &body)]));
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

struct Lists {
    protocols: Set,
    addresses: Set,
    tunnels: Set,
}

impl Lists {
    fn of(filter: &Filter) -> Lists {
        let protocols = filter.all_protocols().iter().map(|p| vec![*p]).collect();
        let addresses = filter.all_addresses().iter().map(|ip| ip.octets().to_vec()).collect();
        let tunnels = filter.all_tunnels().iter().map(|port| port.to_be_bytes().to_vec()).collect();
        Lists {
            protocols: Set { name: "protocols", number: 1, kind: 12, values: protocols },
            addresses: Set { name: "addresses", number: 2, kind: 7, values: addresses },
            tunnels: Set { name: "tunnels", number: 3, kind: 13, values: tunnels },
        }
    }

    fn all(&self) -> impl Iterator<Item = &Set> {
        [&self.protocols, &self.addresses, &self.tunnels].into_iter().filter(|set| !set.values.is_empty())
    }

    /// What each of the rules looks for.
    fn matches(&self) -> Vec<Vec<Vec<u8>>> {
        let mut all = Vec::new();
        if !self.tunnels.values.is_empty() {
            all.push(vec![protocol(), is(UDP), payload(2, 2, 2), within(&self.tunnels)]);
        }
        let protocols =
            if self.protocols.values.is_empty() { vec![] } else { vec![protocol(), within(&self.protocols)] };
        if self.addresses.values.is_empty() {
            all.push(protocols);
            return all;
        }
        for end in [12, 16] {
            all.push([protocols.clone(), vec![payload(1, end, 4), within(&self.addresses)]].concat());
        }
        all
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

/// Load from the network header (base 1) or the transport's (2).
fn payload(base: u32, offset: u32, length: u32) -> Vec<u8> {
    expression("payload", &[value(1, REGISTER), value(2, base), value(3, offset), value(4, length)])
}

fn is(byte: u8) -> Vec<u8> {
    expression("cmp", &[value(1, REGISTER), value(2, 0), nest(3, &[attribute(1, &[byte])])])
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

/// Ends this chain and no other: a base chain that accepts leaves the rest to those behind it.
fn accept() -> Vec<u8> {
    expression("immediate", &[value(1, 0), nest(2, &[nest(2, &[value(1, 1)])])])
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
