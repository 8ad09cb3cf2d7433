//! flannel on each host: subnet, lease, file, device, daemon, and the way to every peer. What the
//! way should be is the plan's; what is there is read from the kernel; where they part, a word
//! says how.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::diag::{Problem, codes, did_you_mean};
use crate::kernel::stack::{Interface, Stack, StackRoute};
use crate::lab::{Backend, Host, Lab};
use crate::plan::flannel::{device, lease};
use crate::plan::{NsPlan, Route};

use super::super::state::Daemon;
use super::read;

/// The file that flanneld leaves for the CNI plug-in.
const SUBNET_ENV: &str = "/run/flannel/subnet.env";

/// flannel on one host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlannelHost {
    pub host: String,
    pub network: String,
    pub public_ip: IpAddr,
    pub backend: String,
    pub subnet: String,
    pub pod_network: String,
    /// As flannel keeps it.
    pub lease: Value,
    /// The lines of subnet.env.
    pub subnet_env: Vec<String>,
    /// The name that the device should have; host-gw has none.
    pub device_name: Option<String>,
    /// The device as the kernel has it; nothing where it is missing.
    pub device: Option<Interface>,
    /// The udp back end's daemon.
    pub flanneld: Option<Flanneld>,
    pub peers: Vec<Way>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flanneld {
    pub listen: String,
    /// Its process as the lab counts; nothing where it does not run.
    pub pid: Option<u32>,
}

/// How a host reaches a peer's pods.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Way {
    pub peer: String,
    pub subnet: String,
    /// In words: `through the tunnel to 192.168.1.12`.
    pub way: String,
    /// Whether everything that the way needs is there.
    pub complete: bool,
    pub parts: Vec<Part>,
}

/// One entry that a way needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// `route`, `neighbour`, `fdb` or `flanneld`.
    pub part: String,
    pub there: Option<String>,
    /// What should be there, where that is something else.
    pub wanted: Option<String>,
}

impl Part {
    fn compare(part: &str, there: Option<String>, wanted: String) -> Part {
        let wanted = (there.as_ref() != Some(&wanted)).then_some(wanted);
        Part { part: part.to_owned(), there, wanted }
    }
}

pub async fn hosts(daemon: &Daemon, only: Option<&str>) -> Result<Vec<FlannelHost>, Box<Problem>> {
    let lab = daemon.lab();
    if let Some(name) = only
        && !lab.hosts.iter().any(|h| h.name.as_str() == name)
    {
        let help = match did_you_mean(name, lab.hosts.iter().map(|h| h.name.as_str())) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "`labctl get hosts` shows the names".to_owned(),
        };
        let message = format!("the lab {} has no host `{name}`", lab.name);
        return Err(Box::new(Problem::error(codes::TARGET_UNKNOWN, message).help(help)));
    }
    let mut all = Vec::new();
    for host in lab.hosts.iter().filter(|h| only.is_none_or(|name| h.name.as_str() == name)) {
        let stack = read(daemon, &host.ns()).await?;
        let plan = daemon.plan();
        let Some(planned) = plan.get(&host.ns()) else { continue };
        all.push(Reader { daemon, lab: &lab, host, planned, stack: &stack }.host());
    }
    Ok(all)
}

struct Reader<'a> {
    daemon: &'a Daemon,
    lab: &'a Lab,
    host: &'a Host,
    planned: &'a NsPlan,
    stack: &'a Stack,
}

impl Reader<'_> {
    fn host(&self) -> FlannelHost {
        let device_name = device(&self.lab.cluster.backend).map(|d| d.to_string());
        let is_device = |i: &&Interface| Some(&i.name) == device_name.as_ref();
        let pid = || self.daemon.workloads.flannelds.pid(&self.host.ns());
        let env = self.planned.files.iter().find(|f| f.path == SUBNET_ENV);
        FlannelHost {
            host: self.host.name.to_string(),
            network: self.lab.network_of(&self.host.attachment).name.to_string(),
            public_ip: self.host.ip(),
            backend: self.lab.cluster.backend.name().to_owned(),
            subnet: self.host.pod_cidr.to_string(),
            pod_network: self.lab.cluster.pod_cidr.to_string(),
            lease: json!(lease(self.lab, self.host)),
            subnet_env: env.map(|f| f.content.lines().map(str::to_owned).collect()).unwrap_or_default(),
            device: self.stack.interfaces.iter().find(is_device).cloned(),
            device_name,
            flanneld: self
                .planned
                .flanneld
                .as_ref()
                .map(|f| Flanneld { listen: format!("{}:{}", f.listen, f.port), pid: pid() }),
            peers: self.lab.hosts.iter().filter(|h| h.name != self.host.name).map(|p| self.way(p)).collect(),
        }
    }

    fn way(&self, peer: &Host) -> Way {
        let (way, parts) = match (self.lab.cluster.backend, self.planned_route(peer)) {
            (Backend::Udp { port }, Some(route)) => {
                let mut parts = vec![self.route(route)];
                parts.push(self.flanneld(peer));
                (format!("by flanneld to {}:{port}", peer.ip()), parts)
            }
            (_, Some(route)) if route.via == Some(peer.ip()) => {
                (format!("direct by {}", peer.ip()), vec![self.route(route)])
            }
            (_, Some(route)) => {
                let mut parts = vec![self.route(route)];
                parts.extend(self.tunnel(route));
                (format!("through the tunnel to {}", peer.ip()), parts)
            }
            // host-gw between networks: there is nothing that could be there.
            (_, None) => {
                let there = self.found_route(&peer.pod_cidr.to_string()).map(route_text);
                let way = "no way: host-gw reaches only hosts of its own network".to_owned();
                (way, vec![Part { part: "route".to_owned(), there, wanted: None }])
            }
        };
        let complete = self.planned_route(peer).is_some() && parts.iter().all(|p| p.wanted.is_none());
        Way { peer: peer.name.to_string(), subnet: peer.pod_cidr.to_string(), way, complete, parts }
    }

    fn planned_route(&self, peer: &Host) -> Option<&Route> {
        let to = |r: &&Route| r.dst == peer.pod_cidr;
        // The udp back end has one route for all peers.
        let all = |r: &&Route| r.dst == self.lab.cluster.pod_cidr && r.via.is_none();
        self.planned.routes.iter().find(to).or_else(|| self.planned.routes.iter().find(all))
    }

    fn found_route(&self, dst: &str) -> Option<&StackRoute> {
        self.stack.routes.iter().find(|r| r.dst == dst)
    }

    fn route(&self, wanted: &Route) -> Part {
        let dst = wanted.dst.to_string();
        let via = wanted.via.map(|v| format!(" via {v}")).unwrap_or_default();
        let onlink = if wanted.onlink { " onlink" } else { "" };
        let text = format!("{dst}{via} dev {}{onlink}", wanted.dev);
        Part::compare("route", self.found_route(&dst).map(route_text), text)
    }

    /// The neighbour and forwarding entries behind a tunnel's route.
    fn tunnel(&self, route: &Route) -> Vec<Part> {
        let mut parts = Vec::new();
        let dev = route.dev.as_str();
        for wanted in self.planned.neighbours.iter().filter(|n| Some(n.ip) == route.via && n.dev == route.dev) {
            let text = |mac: &str| format!("{} is at {mac}", wanted.ip);
            let found = self.stack.neighbours.iter().find(|n| n.ip == wanted.ip && n.dev == dev);
            let found = found.and_then(|n| n.mac.as_deref()).map(text);
            parts.push(Part::compare("neighbour", found, text(&wanted.mac.to_string())));
            for entry in self.planned.fdb.iter().filter(|f| f.mac == wanted.mac && f.dev == route.dev) {
                let mac = entry.mac.to_string();
                let text = |dst: IpAddr| format!("{mac} is behind {dst}");
                let mut found = self.stack.fdb.iter().filter(|f| f.mac == mac && f.dev == dev).filter_map(|f| f.dst);
                // There may be more than one; then any that is right will do.
                let first = found.next();
                let there = if found.any(|dst| dst == entry.dst) { Some(entry.dst) } else { first };
                parts.push(Part::compare("fdb", there.map(text), text(entry.dst)));
            }
        }
        parts
    }

    /// The daemon that must look the peer up.
    fn flanneld(&self, peer: &Host) -> Part {
        let text = format!("{} is behind {}", peer.pod_cidr, peer.ip());
        let runs = self.daemon.workloads.flannelds.pid(&self.host.ns()).is_some();
        Part::compare("flanneld", runs.then(|| text.clone()), text)
    }
}

fn route_text(route: &StackRoute) -> String {
    let via = route.via.map(|v| format!(" via {v}")).unwrap_or_default();
    let dev = route.dev.as_ref().map(|d| format!(" dev {d}")).unwrap_or_default();
    let onlink = if route.onlink { " onlink" } else { "" };
    format!("{}{via}{dev}{onlink}", route.dst)
}
