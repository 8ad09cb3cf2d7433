//! A bridge's forwarding table, with the pod or machine behind each address.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::diag::{Problem, codes, did_you_mean};
use crate::kernel::stack::{FdbRow, Interface, Origin, Stack};
use crate::lab::Lab;
use crate::lab::names::NsName;
use crate::plan::{Plan, underlay};

use super::super::state::Daemon;
use super::{Owner, other_end, owners, read};

/// A bridge with its table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BridgeAnswer {
    /// The machine that it is on.
    pub machine: String,
    pub bridge: String,
    pub ports: usize,
    /// After how many milliseconds it forgets what it learnt.
    pub ageing: Option<u64>,
    pub entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    pub mac: String,
    /// The port that frames for it leave by; the bridge itself for its own address.
    pub port: String,
    /// Whose address it is.
    pub owner: Option<Owner>,
    /// Whom the port's cable leads to.
    pub leads_to: Option<Owner>,
    pub origin: Origin,
    /// Milliseconds since a frame confirmed it.
    pub age: u64,
}

/// A bridge that was found, and what it takes to name what is in its table.
pub struct Found {
    pub ns: NsName,
    pub bridge: Interface,
    owners: HashMap<String, Owner>,
    leads: HashMap<String, Owner>,
}

impl Found {
    pub fn entry(&self, row: &FdbRow) -> Entry {
        Entry {
            mac: row.mac.clone(),
            port: row.dev.clone(),
            owner: self.owners.get(&row.mac).cloned(),
            leads_to: self.leads.get(&row.dev).cloned(),
            origin: row.origin,
            age: row.age,
        }
    }

    pub fn answer(&self, stack: &Stack) -> BridgeAnswer {
        let rows = stack.fdb.iter().filter(|r| r.bridge == Some(self.bridge.index));
        let mut entries: Vec<Entry> = rows.map(|r| self.entry(r)).collect();
        // What was learnt is what people look for; the bridge's own addresses come last.
        entries.sort_by(|a, b| {
            (a.origin == Origin::Local, &a.port, &a.mac).cmp(&(b.origin == Origin::Local, &b.port, &b.mac))
        });
        BridgeAnswer {
            machine: self.ns.to_string(),
            bridge: self.bridge.name.clone(),
            ports: stack.interfaces.iter().filter(|i| i.master.as_ref() == Some(&self.bridge.name)).count(),
            ageing: self.bridge.ageing,
            entries,
        }
    }
}

pub async fn table(daemon: &Daemon, word: &str) -> Result<BridgeAnswer, Box<Problem>> {
    let (ns, bridge) = place(&daemon.lab(), word)?;
    let stack = read(daemon, &ns).await?;
    Ok(found(&daemon.plan(), ns, bridge.as_deref(), &stack)?.answer(&stack))
}

/// The machine and, where it is said, the bridge that `word` means: `node1`, `node1:cni0`,
/// `router:br-rack1`, or a network's name.
pub fn place(lab: &Lab, word: &str) -> Result<(NsName, Option<String>), Box<Problem>> {
    let (machine, bridge) = match word.split_once(':') {
        Some((machine, bridge)) => (machine, Some(bridge.to_owned())),
        None => (word, None),
    };
    if let Some(ns) = lab.find(machine) {
        return Ok((ns, bridge));
    }
    let network = lab.networks.iter().find(|n| n.name.as_str() == machine && bridge.is_none());
    if let Some(network) = network {
        return Ok((NsName::Router, Some(underlay::bridge_name(network).to_string())));
    }
    let names: Vec<String> =
        lab.hosts.iter().map(|h| h.name.to_string()).chain(lab.networks.iter().map(|n| n.name.to_string())).collect();
    let help = match did_you_mean(machine, names.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("hosts and networks have bridges: {}", names.join(", ")),
    };
    Err(unknown(format!("nothing in the lab {} is called `{machine}`", lab.name), help))
}

fn unknown(message: String, help: impl Into<String>) -> Box<Problem> {
    Box::new(Problem::error(codes::TARGET_UNKNOWN, message).help(help))
}

/// Find the bridge in what was read of its machine.
pub fn found(plan: &Plan, ns: NsName, wanted: Option<&str>, stack: &Stack) -> Result<Found, Box<Problem>> {
    let bridges: Vec<&Interface> = stack.interfaces.iter().filter(|i| i.kind == "bridge").collect();
    let names: Vec<&str> = bridges.iter().map(|b| b.name.as_str()).collect();
    let wanted = wanted.or(if names.contains(&"cni0") { Some("cni0") } else { None });
    let bridge = match (wanted, bridges.as_slice()) {
        (_, []) => {
            let help = match ns {
                NsName::Host(_) => "a host's cni0 comes with its first pod",
                _ => "hosts have one for their pods, the router one for each network",
            };
            return Err(unknown(format!("{ns} has no bridge"), help));
        }
        (Some(name), all) => all.iter().find(|b| b.name == name).copied(),
        (None, [only]) => Some(*only),
        (None, _) => None,
    };
    let Some(bridge) = bridge.cloned() else {
        let message = match wanted {
            Some(name) => format!("{ns} has no bridge `{name}`"),
            None => format!("{ns} has several bridges"),
        };
        return Err(unknown(message, format!("name one as `{ns}:BRIDGE`: {}", names.join(", "))));
    };
    let leads = stack.interfaces.iter().filter_map(|i| Some((i.name.clone(), other_end(plan, &ns, i)?))).collect();
    Ok(Found { ns, bridge, owners: owners(plan), leads })
}
