//! Routes and entries of the routing policy in the words in which `kernel::deviations` tells of them,
//! which are those of `ip`.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::lab::names::IfName;

use super::{Entry, Kind, Policy, local};

/// rt_tables.
pub(super) const LOCAL: u32 = 255;
pub(super) const MAIN: u32 = 254;
pub(super) const DEFAULT: u32 = 253;

/// The words of a route that `kernel::deviations` wrote: `[KIND] DST [via IP] [dev DEV] [src IP] …`.
pub(super) fn read_route(what: &str) -> Option<(u32, Entry)> {
    let mut words = what.split(' ').peekable();
    let kind = match *words.peek()? {
        "unreachable" | "blackhole" | "prohibit" => Kind::Refusing,
        "throw" => Kind::Throw,
        "local" => Kind::Local,
        "broadcast" | "multicast" | "anycast" | "nat" => return None,
        _ => Kind::Unicast,
    };
    if kind != Kind::Unicast {
        words.next();
    }
    let dst = range(words.next()?)?;
    let mut entry = Entry { kind, text: what.to_owned(), ..local(dst) };
    let (mut via, mut table, mut several) = (None, MAIN, false);
    while let Some(word) = words.next() {
        match word {
            "nexthop" => several = true,
            "via" => via = Some(words.next()?.parse().ok()?),
            "dev" => entry.hops.push((via.take(), IfName::new(words.next()?))),
            "src" => entry.source = Some(words.next()?.parse().ok()?),
            "metric" => entry.metric = words.next()?.parse().ok()?,
            "table" => table = table_number(words.next()?)?,
            // The kind of service of a packet is not walked.
            _ => return None,
        }
    }
    // Of several next hops the words have only the devices.
    let complete = kind != Kind::Unicast || (!entry.hops.is_empty() && !several);
    complete.then_some((table, entry))
}

/// The words of an entry of the policy: `PRIORITY: from RANGE [to RANGE] [fwmark MARK[/MASK]] lookup TABLE`.
pub(super) fn read_policy(what: &str) -> Option<Policy> {
    let (priority, rest) = what.split_once(": ")?;
    let mut policy =
        Policy { priority: priority.parse().ok()?, from: None, to: None, mark: None, input: None, table: 0 };
    let mut words = rest.split(' ').filter(|w| !w.is_empty());
    while let Some(word) = words.next() {
        match (word, words.next()?) {
            ("from", "all") => {}
            ("from", net) => policy.from = Some(range(net)?),
            ("to", net) => policy.to = Some(range(net)?),
            ("fwmark", told) => {
                let (mark, mask) = told.split_once('/').unwrap_or((told, "0xffffffff"));
                policy.mark = Some((hex(mark)?, hex(mask)?));
            }
            ("iif", dev) => policy.input = Some(dev.to_owned()),
            ("lookup", table) => policy.table = table_number(table)?,
            _ => return None,
        }
    }
    (policy.table != 0).then_some(policy)
}

fn hex(word: &str) -> Option<u32> {
    if word == "0" { Some(0) } else { u32::from_str_radix(word.strip_prefix("0x")?, 16).ok() }
}

fn range(word: &str) -> Option<IpNet> {
    match word {
        "default" => Some(ipnet::Ipv4Net::default().into()),
        word => word.parse().ok().or_else(|| word.parse::<IpAddr>().ok().map(IpNet::from)),
    }
}

fn table_number(word: &str) -> Option<u32> {
    match word {
        "local" => Some(LOCAL),
        "main" => Some(MAIN),
        "default" => Some(DEFAULT),
        number => number.parse().ok(),
    }
}
