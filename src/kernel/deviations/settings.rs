//! Settings (sysctl) of which plans say nothing, as every namespace begins with the same: those that keep packets from
//! being answered or passed on where somebody has changed them (Documentation/networking/ip-sysctl.rst).

use netlink_packet_route::link::{AfSpecInet, AfSpecUnspec, LinkAttribute, LinkMessage};

use super::super::message::LOOPBACK;
use super::super::read::Names;
use super::super::sysctl;
use crate::plan::deviation::{Deviation, Setting};
use crate::plan::{NsPlan, Sysctl};

const FORWARD: &str = "net/ipv4/ip_forward";
/// With the values that they begin with.
const FIXED: [(&str, &str); 2] = [("net/ipv4/icmp_echo_ignore_all", "0"), ("net/ipv4/ip_default_ttl", "64")];

fn deviation(key: String, (is, wanted): (String, &str)) -> Option<Deviation> {
    let wanted = Sysctl { key, value: wanted.to_owned(), optional: true };
    (is != wanted.value).then_some(Deviation::Setting(Setting { wanted, is }))
}

/// Those of the calling thread's namespace.
pub fn of_namespace() -> Vec<Deviation> {
    let one = |(key, wanted): (&str, &str)| deviation(key.to_owned(), (sysctl::read(key).ok()?, wanted));
    FIXED.into_iter().filter_map(one).collect()
}

/// Devices that forward nothing in a namespace that does. Whoever turns forwarding off for all turns it off for each.
pub fn of_devices(messages: &[LinkMessage], names: &Names, observed: &NsPlan) -> Vec<Deviation> {
    if !observed.sysctls.iter().any(|s| s.key == FORWARD && s.value == "1") {
        return Vec::new();
    }
    let of = |message: &LinkMessage| {
        let dev = names.get(&message.header.index).filter(|_| message.header.index != LOOPBACK)?;
        let key = format!("net/ipv4/conf/{dev}/forwarding");
        deviation(key, (forwarding(message)?.to_string(), "1"))
    };
    messages.iter().filter_map(of).collect()
}

fn forwarding(message: &LinkMessage) -> Option<i32> {
    let families = message.attributes.iter().find_map(|a| match a {
        LinkAttribute::AfSpecUnspec(families) => Some(families),
        _ => None,
    })?;
    families.iter().find_map(|family| match family {
        AfSpecUnspec::Inet(all) => all.iter().find_map(|a| match a {
            AfSpecInet::DevConf(conf) => Some(conf.forwarding),
            _ => None,
        }),
        _ => None,
    })
}
