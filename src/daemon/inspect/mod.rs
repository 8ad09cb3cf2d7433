//! Answers that are read from the kernel for people: a network stack, a bridge, flannel's ways,
//! and one pod or machine with all that is known of it.
//!
//! The kernel tells devices and addresses; whose they are is looked up in the plan, which gave
//! them out. Reading is done on threads that may wait, so that the lab goes on meanwhile.

pub mod bridge;
pub mod describe;
pub mod flannel;
mod watch;

pub use watch::Told;

use std::collections::HashMap;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use crate::diag::{Problem, codes};
use crate::kernel::iptables::Iptables;
use crate::kernel::stack::{self, Interface, Stack, StackNeighbour, StackRoute};
use crate::lab::names::NsName;
use crate::plan::proxy::explain::{self, Tree};
use crate::plan::rules::Rules;
use crate::plan::{LinkKind, Plan};

use super::server::{Outcome, ok, parameter, target};
use super::state::Daemon;

/// What all paths of this module begin with.
pub const PATH: &str = "/labctl/v1/inspect/";

/// Whose device something is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// `pod`, `host`, `client` or `router`.
    pub kind: String,
    pub name: String,
    pub device: String,
}

impl Owner {
    fn new(ns: &NsName, device: &str) -> Owner {
        Owner { kind: ns.kind().to_owned(), name: ns.to_string(), device: device.to_owned() }
    }
}

/// An interface with the other end of its cable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    #[serde(flatten)]
    pub interface: Interface,
    /// A veth pair's other end, where the lab knows it.
    pub other_end: Option<Owner>,
}

/// The four parts of a network stack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackAnswer {
    pub kind: String,
    pub name: String,
    /// Among them the loopback device.
    pub interfaces: Vec<Seen>,
    pub routes: Vec<StackRoute>,
    pub neighbours: Vec<StackNeighbour>,
    /// Tables that hold anything.
    pub rules: Rules,
}

/// Answer a path that begins with [`PATH`].
pub async fn answer(daemon: &Rc<Daemon>, path: &str, query: &str) -> Outcome {
    match path.strip_prefix(PATH).unwrap_or_default() {
        "stack" => ok(&four_parts(daemon, &target(daemon, query)?).await?),
        "bridge" => ok(&bridge::table(daemon, parameter(query, "bridge").unwrap_or_default()).await?),
        "watch" => watch::stream(daemon, parameter(query, "bridge").unwrap_or_default()).await,
        "flannel" => ok(&flannel::hosts(daemon, parameter(query, "host")).await?),
        "rules" => ok(&rules(daemon, &target(daemon, query)?, parameter(query, "service")).await?),
        "describe" => ok(&describe::one(daemon, &target(daemon, query)?).await?),
        other => Err(unreadable(other, "there is no such thing to inspect; is labctl newer than the lab?")),
    }
}

fn unreadable(what: impl std::fmt::Display, why: impl std::fmt::Display) -> Box<Problem> {
    Box::new(
        Problem::error(codes::COMMAND_FAILED, format!("{what} cannot be read: {why}"))
            .help("`labctl status` tells how the lab is"),
    )
}

/// What the kernel says of a namespace.
async fn read(daemon: &Daemon, ns: &NsName) -> Result<Stack, Box<Problem>> {
    let netns = daemon.netns(ns).ok_or_else(|| unreadable(ns, "it is being changed"))?;
    let read = tokio::task::spawn_blocking(move || stack::read(&netns)).await;
    read.map_err(|e| unreadable(ns, e))?.map_err(|e| unreadable(ns, e))
}

/// kube-proxy's rules of a host as trees, with what they have counted.
async fn rules(daemon: &Daemon, ns: &NsName, service: Option<&str>) -> Result<Vec<Tree>, Box<Problem>> {
    if !matches!(ns, NsName::Host(_)) {
        let message = format!("`{ns}` is a {}, and kube-proxy is on hosts", ns.kind());
        return Err(Box::new(Problem::error(codes::TARGET_UNKNOWN, message).help("`labctl get hosts` shows them")));
    }
    let netns = daemon.netns(ns).ok_or_else(|| unreadable(ns, "it is being changed"))?;
    let known = daemon.iptables();
    let saved = tokio::task::spawn_blocking(move || match known.or_else(|| Iptables::candidates().next()) {
        Some(iptables) => iptables.save_counted(&netns).map_err(|e| e.to_string()),
        None => Ok(String::new()),
    });
    let saved = saved.await.map_err(|e| unreadable(ns, e))?.map_err(|e| unreadable(ns, e))?;
    let lab = daemon.lab();
    Ok(explain::trees(&saved, service, |ip| lab.owner_of(ip).map(|ns| ns.to_string())))
}

async fn four_parts(daemon: &Daemon, ns: &NsName) -> Result<StackAnswer, Box<Problem>> {
    let stack = read(daemon, ns).await?;
    let netns = daemon.netns(ns).ok_or_else(|| unreadable(ns, "it is being changed"))?;
    // A lab in which nothing needs rules has not chosen an iptables yet.
    let known = daemon.iptables();
    let rules = tokio::task::spawn_blocking(move || match known.or_else(|| Iptables::candidates().next()) {
        Some(iptables) => iptables.save(&netns).map_err(|e| e.to_string()),
        None => Ok(Rules::default()),
    });
    let rules = rules.await.map_err(|e| unreadable(ns, e))?.map_err(|e| unreadable(ns, e))?;
    let plan = daemon.plan();
    Ok(StackAnswer {
        kind: ns.kind().to_owned(),
        name: ns.to_string(),
        interfaces: stack.interfaces.into_iter().map(|i| seen(&plan, ns, i)).collect(),
        routes: stack.routes,
        neighbours: stack.neighbours,
        rules,
    })
}

fn seen(plan: &Plan, ns: &NsName, interface: Interface) -> Seen {
    Seen { other_end: other_end(plan, ns, &interface), interface }
}

/// Where a veth leads. The kernel tells the other end's index; the plan says in which namespace
/// the device of that index is.
fn other_end(plan: &Plan, ns: &NsName, interface: &Interface) -> Option<Owner> {
    let far = interface.far_index?;
    let planned = plan.get(ns)?.links.iter().find(|l| l.name.as_str() == interface.name)?;
    let LinkKind::Veth { peer_ns, peer } = &planned.kind else { return None };
    let there = plan.get(peer_ns)?.link(peer)?;
    (there.index == far).then(|| Owner::new(peer_ns, peer.as_str()))
}

/// Whose each MAC address is.
fn owners(plan: &Plan) -> HashMap<String, Owner> {
    let links = plan.namespaces.iter().flat_map(|n| n.links.iter().map(move |l| (&n.ns, l)));
    links.filter_map(|(ns, link)| Some((link.mac?.to_string(), Owner::new(ns, link.name.as_str())))).collect()
}
