//! Plans and steps in words, in the language of `ip` and `bridge`, which is what a reader would
//! type to do the same.

use std::collections::HashSet;
use std::fmt;

use super::diff::{Op, Step};
use super::rules::Rules;
use super::types::{Address, FdbEntry, Flanneld, Link, LinkKind, Listener, Neighbour, Program, Role, Route};

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.ns, self.op)
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::AddNs => f.write_str("netns add"),
            Op::RemoveNs => f.write_str("netns delete"),
            Op::SetSysctl(s) => write!(f, "sysctl {}={}", s.dotted(), s.value),
            Op::AddLink { link, .. } => write!(f, "link add {link}"),
            Op::ChangeLink { from, to } => write!(f, "link set {}{}", to.name, Changes(from, to)),
            Op::RemoveLink(link) => write!(f, "link delete {}", link.name),
            Op::AddAddress(a) => write!(f, "address add {a}"),
            Op::RemoveAddress(a) => write!(f, "address delete {a}"),
            Op::AddRoute(r) => write!(f, "route add {r}"),
            Op::RemoveRoute(r) => write!(f, "route delete {r}"),
            Op::AddNeighbour(n) => write!(f, "neigh add {n}"),
            Op::RemoveNeighbour(n) => write!(f, "neigh delete {n}"),
            Op::AddFdb(e) => write!(f, "fdb add {e}"),
            Op::RemoveFdb(e) => write!(f, "fdb delete {e}"),
            Op::Mend(deviation) => write!(f, "{deviation}"),
            Op::SetRules { from, to } => {
                write!(f, "iptables-restore of {} rules", to.lines().len())?;
                // Of a first build every rule is new; of a change it is the difference that counts.
                let changes = if from.is_empty() { Vec::new() } else { rule_changes(from, to) };
                changes.iter().try_for_each(|change| write!(f, "\n    {change}"))
            }
            Op::SetFiles(files) => {
                let paths: Vec<_> = files.iter().map(|f| f.path.as_str()).collect();
                write!(f, "write {}", paths.join(", "))
            }
            Op::StartFlanneld(d) => write!(f, "start {d}"),
            Op::StopFlanneld => f.write_str("stop flanneld"),
            Op::SetPeers(peers) => write!(f, "tell flanneld its {} peers", peers.len()),
            Op::StartDns(d) => write!(f, "start coredns for {}", d.domain),
            Op::StopDns => f.write_str("stop coredns"),
            Op::StartListener(l) => write!(f, "listen on {l}"),
            Op::StopListener(l) => write!(f, "stop listening on {l}"),
            Op::StartProgram(p) => write!(f, "start {p}"),
            Op::StopProgram(p) => write!(f, "stop {p}"),
        }
    }
}

/// Rules and policies that go (`-`) and come (`+`), as `iptables -t TABLE` would say them.
fn rule_changes(from: &Rules, to: &Rules) -> Vec<String> {
    let (old, new) = (from.lines(), to.lines());
    // Services make tens of thousands of rules.
    let (before, after): (HashSet<&String>, HashSet<&String>) = (old.iter().collect(), new.iter().collect());
    let gone = old.iter().filter(|l| !after.contains(l)).map(|l| format!("- {l}"));
    let come = new.iter().filter(|l| !before.contains(l)).map(|l| format!("+ {l}"));
    let all: Vec<String> = gone.chain(come).collect();
    if all.is_empty() { vec!["the same rules in another order".to_owned()] } else { all }
}

/// What differs between two states of one link.
struct Changes<'a>(&'a Link, &'a Link);

impl fmt::Display for Changes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Changes(from, to) = self;
        if from.mtu != to.mtu {
            write!(f, " mtu {} (was {})", to.mtu, from.mtu)?;
        }
        if let (Some(was), Some(mac)) = (from.mac, to.mac)
            && was != mac
        {
            write!(f, " address {mac} (was {was})")?;
        }
        if from.master != to.master {
            match &to.master {
                Some(master) => write!(f, " master {master}")?,
                None => f.write_str(" nomaster")?,
            }
        }
        if from.up != to.up {
            f.write_str(if to.up { " up" } else { " down" })?;
        }
        if from.hairpin != to.hairpin {
            write!(f, " hairpin {}", if to.hairpin { "on" } else { "off" })?;
        }
        Ok(())
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} mtu {}", self.name, self.mtu)?;
        if let Some(master) = &self.master {
            write!(f, " master {master}")?;
        }
        match &self.kind {
            LinkKind::Bridge => f.write_str(" type bridge"),
            LinkKind::Veth { peer_ns, peer } => write!(f, " type veth peer {peer} in {peer_ns}"),
            LinkKind::Vxlan { vni, port, local, dev } => {
                write!(f, " type vxlan id {vni} local {local} dev {dev} dstport {port} nolearning")
            }
            LinkKind::Tun => f.write_str(" type tun"),
            LinkKind::Other { what } => write!(f, " type {what}"),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lost = if self.connected { "" } else { ", which lacks a route of its own" };
        write!(f, "{} dev {}{lost}", self.net, self.dev)
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.dst.prefix_len() == 0 {
            f.write_str("default")?;
        } else {
            write!(f, "{}", self.dst)?;
        }
        if !self.also.is_empty() {
            f.write_str(" nexthop")?;
        }
        if let Some(via) = self.via {
            write!(f, " via {via}")?;
        }
        write!(f, " dev {}{}", self.dev, if self.onlink { " onlink" } else { "" })?;
        self.also.iter().try_for_each(|hop| write!(f, " nexthop via {} dev {}", hop.via, hop.dev))
    }
}

impl fmt::Display for Neighbour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} dev {} lladdr {} PERMANENT", self.ip, self.dev, self.mac)
    }
}

impl fmt::Display for FdbEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} dev {} dst {} self permanent", self.mac, self.dev, self.dst)
    }
}

impl fmt::Display for Flanneld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "flanneld on {} and UDP {}:{}", self.tun, self.listen, self.port)
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.port, self.protocol)
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.role {
            // Its command is labctl's own affair.
            Some(Role::Ingress(driver)) => write!(f, "{}: the ingress controller ({driver})", self.name),
            None => write!(f, "{}: {}", self.name, self.command.join(" ")),
        }
    }
}
