//! Tables of our own that mark the packets to be traced (`nftrace`) and do nothing else.
//!
//! They belong to their socket (`NFT_TABLE_F_OWNER`, since 5.12) and go with it, whatever ends the
//! process. The one that there always is has the family `ip`, which sees a bridge's packets too where the
//! namespace gives those to iptables (br_netfilter). Rules of the families `netdev` and `bridge` are met
//! before that; where somebody has such, packets are marked there as well.

use std::io;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use crate::kernel::nfnl::{self, LENGTH, NFTABLES, Part, attribute, attributes, big, nest, text, word};
use crate::plan::deviation::NftTable;

use super::PORTS;
use super::filter::Filter;
use super::words::{ELEMENT, Words};

/// linux/netfilter/nf_tables.h.
const NEW_TABLE: u16 = NFTABLES;
const GET_TABLES: u16 = NFTABLES | 1;
const NEW_CHAIN: u16 = NFTABLES | 3;
const GET_CHAINS: u16 = NFTABLES | 4;
const NEW_RULE: u16 = NFTABLES | 6;
const NEW_SET: u16 = NFTABLES | 9;
const NEW_ELEMENTS: u16 = NFTABLES | 12;

/// `NLM_F_CREATE`, with `NLM_F_EXCL` or `NLM_F_APPEND`.
const CREATE: u16 = 0x400;
const EXCLUSIVE: u16 = 0x600;
const APPEND: u16 = 0xc00;

/// `NFPROTO_IPV4`, `NFPROTO_NETDEV` and `NFPROTO_BRIDGE`.
const IPV4: u8 = 2;
const NETDEV: u8 = 5;
const BRIDGE: u8 = 7;
/// `NFT_TABLE_F_OWNER`.
const OWNED: u32 = 2;
/// Before the table `raw` (-300), behind putting fragments together (-400), where that is done.
const PRIORITY: i32 = -350;
/// Before all others.
const FIRST: i32 = i32::MIN;
/// `NF_INET_PRE_ROUTING` and `NF_INET_LOCAL_OUT`: a packet that comes in, and one that is born here. A bridge's
/// (`NF_BR_PRE_ROUTING`, `NF_BR_LOCAL_OUT`) have the same numbers.
const HOOKS: [(&str, u32); 2] = [("prerouting", 0), ("output", 3)];
/// `NF_NETDEV_INGRESS` and `NF_NETDEV_EGRESS`.
const AT_DEVICES: [(&str, u32); 2] = [("ingress", 0), ("egress", 1)];

/// What recordings' tables are called, with a number behind it.
const NAME: &str = "labctl-trace-";

/// Whether a table is a recording's.
pub fn is_own_table(name: &str) -> bool {
    name.starts_with(NAME)
}

/// The tables of one namespace's recording, and the socket that owns them.
pub(super) struct Marking {
    pub socket: Socket,
    /// Where the kernel knows no owners: to be removed by hand.
    pub left: Vec<NftTable>,
    /// Why rules of the families `netdev` and `bridge` are not told, where there are such.
    pub failed: Option<io::Error>,
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
    let everywhere =
        Table { family: IPV4, chains: HOOKS.map(|(name, number)| Hook::of(name, number, PRIORITY)).into() };
    let (mut socket, mut port) = socket()?;
    let mut flags = OWNED;
    let mut left = Vec::new();
    match nfnl::commit(&socket, &parts((filter, most), &everywhere, (port, flags))) {
        Ok(()) => {}
        // What `nf_tables_newtable` says to a flag that it does not know.
        Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => {
            drop(socket);
            flags = 0;
            (socket, port) = self::socket()?;
            nfnl::commit(&socket, &parts((filter, most), &everywhere, (port, flags)))?;
            left.push(NftTable { family: IPV4, name: name(port) });
        }
        Err(e) => return Err(e),
    }
    let mut failed = None;
    match tables_before(&socket) {
        Ok(more) => {
            for table in more {
                match nfnl::commit(&socket, &parts((filter, most), &table, (port, flags))) {
                    Ok(()) => left.extend((flags == 0).then(|| NftTable { family: table.family, name: name(port) })),
                    Err(e) => failed = Some(e),
                }
            }
        }
        Err(e) => failed = Some(e),
    }
    Ok(Marking { socket, left, failed })
}

fn name(port: u32) -> String {
    format!("{NAME}{}", port - PORTS.start())
}

/// A table of ours: a chain for each of its hooks.
struct Table {
    family: u8,
    chains: Vec<Hook>,
}

struct Hook {
    name: String,
    number: u32,
    priority: i32,
    /// Where it is one of devices.
    devices: Vec<String>,
}

impl Hook {
    fn of(name: &str, number: u32, priority: i32) -> Hook {
        Hook { name: name.to_owned(), number, priority, devices: Vec::new() }
    }

    fn attribute(&self) -> Vec<u8> {
        let mut all = vec![attribute(1, &self.number.to_be_bytes()), attribute(2, &self.priority.to_be_bytes())];
        if !self.devices.is_empty() {
            all.push(nest(4, &self.devices.iter().map(|dev| text(1, dev)).collect::<Vec<_>>()));
        }
        nest(4, &all)
    }
}

/// The tables of ours that the ones of others need which packets meet before those of IP.
fn tables_before(socket: &Socket) -> io::Result<Vec<Table>> {
    let mut families = Vec::new();
    nfnl::dump_by(socket, GET_TABLES, 0, |message| families.extend(message.get(16).copied()))?;
    let mut all = Vec::new();
    if families.contains(&BRIDGE) {
        all.push(Table { family: BRIDGE, chains: HOOKS.map(|(name, number)| Hook::of(name, number, FIRST)).into() });
    }
    if families.contains(&NETDEV) {
        let mut chains = AT_DEVICES.map(|(name, number)| Hook::of(name, number, FIRST));
        nfnl::dump_by(socket, GET_CHAINS, NETDEV, |message| hooked(message, &mut chains))?;
        all.push(Table { family: NETDEV, chains: chains.into_iter().filter(|c| !c.devices.is_empty()).collect() });
    }
    Ok(all)
}

/// Add the devices of a chain of others to ours of that hook.
fn hooked(message: &[u8], ours: &mut [Hook]) {
    let find =
        |of: &[u8], wanted: u16| attributes(of).find(|(kind, _)| *kind == wanted).map(|(_, value)| value.to_vec());
    let Some(hook) = find(message.get(LENGTH..).unwrap_or_default(), 4) else { return };
    let number = find(&hook, 1).and_then(|value| big(&value));
    let Some(chain) = ours.iter_mut().find(|chain| Some(chain.number) == number) else { return };
    // One device, or a list of them.
    let list = find(&hook, 4).unwrap_or_default();
    let one = find(&hook, 3).map(|value| word(&value));
    for dev in attributes(&list).map(|(_, value)| word(value)).chain(one) {
        if !chain.devices.contains(&dev) {
            chain.devices.push(dev);
        }
    }
}

/// A whole table, which bears the number of its socket's `port`.
fn parts((filter, most): (&Filter, Option<u32>), table: &Table, (port, flags): (u32, u32)) -> Vec<Part> {
    let part = |kind, flags, attributes: Vec<Vec<u8>>| Part {
        kind,
        flags,
        family: table.family,
        attributes: attributes.concat(),
    };
    let name = &name(port);
    let mut all = vec![part(NEW_TABLE, EXCLUSIVE, vec![text(1, name), attribute(2, &flags.to_be_bytes())])];
    let words = Words::of(filter);
    for set in words.sets() {
        let number = set.number.to_be_bytes();
        let shape = [attribute(3, &[0; 4]), attribute(4, &set.kind.to_be_bytes()), attribute(5, &set.length())];
        let names = [text(1, name), text(2, set.name)];
        all.push(part(NEW_SET, CREATE, [&names[..], &shape, &[attribute(10, &number)]].concat()));
        // NFTA_SET_ELEM_KEY with NFTA_DATA_VALUE.
        let element = |value: &Vec<u8>| nest(ELEMENT, &[nest(1, &[attribute(1, value)])]);
        let elements = nest(3, &set.values.iter().map(element).collect::<Vec<_>>());
        all.push(part(NEW_ELEMENTS, CREATE, vec![names.concat(), elements]));
    }
    let (base, gone_to) = (words.base(), words.chains(most));
    // All chains first, as rules name them.
    for chain in &gone_to {
        all.push(part(NEW_CHAIN, CREATE, vec![text(1, name), text(3, chain.name)]));
    }
    for hook in &table.chains {
        let called = [text(1, name), text(3, &hook.name), hook.attribute(), text(7, "filter")];
        all.push(part(NEW_CHAIN, CREATE, called.into()));
    }
    let others = gone_to.iter().map(|chain| (chain.name, &chain.rules));
    for (chain, rules) in others.chain(table.chains.iter().map(|hook| (hook.name.as_str(), &base))) {
        for body in rules {
            all.push(part(NEW_RULE, APPEND, vec![text(1, name), text(2, chain), nest(4, body)]));
        }
    }
    all
}
