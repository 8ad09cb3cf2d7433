//! Tables of our own that mark the packets to be traced (`nftrace`) and do nothing else.
//!
//! They belong to their socket (`NFT_TABLE_F_OWNER`, since 5.12) and go with it, whatever ends the
//! process. The one that there always is has the family `ip`, which sees a bridge's packets too where the
//! namespace gives those to iptables (br_netfilter). Rules of the families `netdev` and `bridge`, and those of
//! `inet` at devices, are met before that; where somebody has such, packets are marked there as well.

use std::io;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use crate::kernel::nfnl::{
    self, BRIDGE, INET, IPV4, LENGTH, NETDEV, NFTABLES, OWNED, Part, attribute, attributes, big, nest, text, word,
};
use crate::plan::deviation::NftTable;

use super::PORTS;
use super::filter::Filter;
use super::words::{ELEMENT, Words};

/// linux/netfilter/nf_tables.h.
const NEW_TABLE: u16 = NFTABLES;
const NEW_CHAIN: u16 = NFTABLES | 3;
const GET_CHAINS: u16 = NFTABLES | 4;
const NEW_RULE: u16 = NFTABLES | 6;
const NEW_SET: u16 = NFTABLES | 9;
const NEW_ELEMENTS: u16 = NFTABLES | 12;

/// `NLM_F_CREATE`, with `NLM_F_EXCL` or `NLM_F_APPEND`.
const CREATE: u16 = 0x400;
const EXCLUSIVE: u16 = 0x600;
const APPEND: u16 = 0xc00;

/// Before the table `raw` (-300), behind putting fragments together (-400), where that is done; and before the first
/// chain of others, where that comes earlier.
const PRIORITY: i32 = -350;
/// Before all others.
const FIRST: i32 = i32::MIN;
/// `NF_INET_PRE_ROUTING` and `NF_INET_LOCAL_OUT`: a packet that comes in, and one that is born here. A bridge's
/// (`NF_BR_PRE_ROUTING`, `NF_BR_LOCAL_OUT`) have the same numbers.
const HOOKS: [(&str, u32); 2] = [("prerouting", 0), ("output", 3)];
/// `NF_NETDEV_INGRESS` and `NF_NETDEV_EGRESS`.
const AT_DEVICES: [(&str, u32); 2] = [("ingress", 0), ("egress", 1)];
/// `NF_INET_INGRESS`.
const INET_INGRESS: u32 = 5;

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
    let (mut socket, mut port) = socket()?;
    let mut theirs = Theirs::default();
    let mut failed = nfnl::dump_by(&socket, GET_CHAINS, 0, |message| theirs.add(message)).err();
    let everywhere = Table { family: IPV4, chains: theirs.first.into() };
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
    for table in before(theirs.bridge, theirs.devices) {
        match nfnl::commit(&socket, &parts((filter, most), &table, (port, flags))) {
            Ok(()) => left.extend((flags == 0).then(|| NftTable { family: table.family, name: name(port) })),
            Err(e) => failed = Some(e),
        }
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

/// What of ours the chains of others need.
struct Theirs {
    /// Ours for packets of IP.
    first: [Hook; 2],
    /// Whether a bridge has any.
    bridge: bool,
    /// Ours at devices, with those at which others have some.
    devices: [Hook; 2],
}

impl Default for Theirs {
    fn default() -> Theirs {
        let of = |all: [(&str, u32); 2], priority| all.map(|(name, number)| Hook::of(name, number, priority));
        Theirs { first: of(HOOKS, PRIORITY), bridge: false, devices: of(AT_DEVICES, FIRST) }
    }
}

impl Theirs {
    /// Take in a chain from the kernel's list; those of recordings and those that no packet comes to by itself are
    /// nothing to us.
    fn add(&mut self, message: &[u8]) {
        let all = || attributes(message.get(LENGTH..).unwrap_or_default());
        let table = all().find(|(kind, _)| *kind == 1).map(|(_, value)| word(value));
        let (Some(family), Some((_, hook))) = (message.get(16), all().find(|(kind, _)| *kind == 4)) else { return };
        let number = |wanted| attributes(hook).find(|(kind, _)| *kind == wanted).and_then(|(_, value)| big(value));
        let (Some(at), Some(priority)) = (number(1), number(2)) else { return };
        if table.is_some_and(|name| is_own_table(&name)) {
            return;
        }
        match *family {
            BRIDGE => self.bridge = true,
            NETDEV => hooked(hook, at, &mut self.devices),
            INET if at == INET_INGRESS => hooked(hook, AT_DEVICES[0].1, &mut self.devices),
            INET | IPV4 => {
                let before = priority.cast_signed().saturating_sub(1);
                let ours = self.first.iter_mut().filter(|ours| ours.number == at);
                ours.for_each(|ours| ours.priority = ours.priority.min(before));
            }
            _ => {}
        }
    }
}

/// The tables of ours that the ones of others need which packets meet before those of IP.
fn before(bridge: bool, devices: [Hook; 2]) -> Vec<Table> {
    let at_bridges = HOOKS.map(|(name, number)| Hook::of(name, number, FIRST));
    let at_devices: Vec<Hook> = devices.into_iter().filter(|hook| !hook.devices.is_empty()).collect();
    let bridges = bridge.then(|| Table { family: BRIDGE, chains: at_bridges.into() });
    let devices = (!at_devices.is_empty()).then_some(Table { family: NETDEV, chains: at_devices });
    bridges.into_iter().chain(devices).collect()
}

/// Add the devices of a chain of others to ours of that hook.
fn hooked(hook: &[u8], number: u32, ours: &mut [Hook]) {
    let Some(chain) = ours.iter_mut().find(|chain| chain.number == number) else { return };
    let find = |wanted: u16| attributes(hook).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    // One device, or a list of them.
    let list = find(4).unwrap_or_default();
    for dev in attributes(list).map(|(_, value)| value).chain(find(3)).map(word) {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A chain in the kernel's list.
    fn chain(family: u8, table: &str, (number, priority): (u32, i32), devices: &[&str]) -> Vec<u8> {
        let mut hook = Hook::of("theirs", number, priority);
        hook.devices = devices.iter().map(|dev| (*dev).to_owned()).collect();
        let mut message = vec![0; LENGTH];
        message[16] = family;
        [message, text(1, table), text(3, "theirs"), hook.attribute()].concat()
    }

    fn priorities(theirs: &Theirs) -> [i32; 2] {
        theirs.first.each_ref().map(|hook| hook.priority)
    }

    #[test]
    fn packets_are_marked_just_before_the_first_chain_of_others() {
        let mut theirs = Theirs::default();
        theirs.add(&chain(IPV4, "raw", (0, -300), &[]));
        theirs.add(&chain(INET, "labctl-trace-3", (0, -900), &[]));
        theirs.add(&chain(INET, "t", (1, -900), &[]));
        assert_eq!(priorities(&theirs), [PRIORITY, PRIORITY]);
        theirs.add(&chain(INET, "t", (0, -500), &[]));
        theirs.add(&chain(IPV4, "t", (3, i32::MIN), &[]));
        assert_eq!(priorities(&theirs), [-501, i32::MIN]);
        assert!(before(theirs.bridge, theirs.devices).is_empty());
    }

    #[test]
    fn chains_at_devices_are_met_before_whether_their_family_is_netdev_or_inet() {
        let mut theirs = Theirs::default();
        theirs.add(&chain(NETDEV, "t", (0, 0), &["eth0", "eth1"]));
        theirs.add(&chain(INET, "t", (INET_INGRESS, 0), &["eth1", "eth2"]));
        let tables = before(theirs.bridge, theirs.devices);
        let [Table { family: NETDEV, chains }] = &tables[..] else { panic!("{} tables", tables.len()) };
        let all: Vec<_> = chains.iter().map(|hook| (hook.name.as_str(), hook.devices.join(" "))).collect();
        assert_eq!(all, [("ingress", "eth0 eth1 eth2".to_owned())]);
    }
}
