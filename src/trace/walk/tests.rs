//! Walks through planned labs: what they say, as people read it, and that each fault is found where
//! it is.

mod broken;
mod ends;
mod faults;
mod labs;
mod told;

use std::net::IpAddr;

use crate::lab::Lab;
use crate::lab::names::NsName;
use crate::plan::{NsPlan, Plan};
use crate::trace::model::{Protocol, What};
pub use crate::trace::sample::lab;

use super::{Choices, Exchange, Path, Probe, State, exchange, prediction};

/// Three hosts on two networks, pods on all of them, services of every type.
pub fn sample(flannel: &str) -> Lab {
    lab(&format!(
        "cluster: {{ flannel: {{ {flannel} }} }}
networks: {{ rack1: {{ cidr: 192.168.1.0/24 }}, rack2: {{ cidr: 192.168.2.0/24 }} }}
hosts:
  node1: {{ network: rack1, address: 192.168.1.11, podCIDR: 10.244.1.0/24, ports: [9000] }}
  node2: {{ network: rack1, address: 192.168.1.12, podCIDR: 10.244.2.0/24 }}
  node3: {{ network: rack2, address: 192.168.2.11, podCIDR: 10.244.3.0/24 }}
clients: {{ laptop: {{ network: rack1, address: 192.168.1.101, ports: [8080] }} }}
pods:
  a1: {{ host: node1, address: 10.244.1.2, labels: {{ app: a1 }} }}
  a2: {{ host: node1, address: 10.244.1.3, labels: {{ app: a2 }} }}
  b1: {{ host: node2, address: 10.244.2.2, labels: {{ app: web }} }}
  c1: {{ host: node3, address: 10.244.3.2, labels: {{ app: web }} }}
services:
  web: {{ type: LoadBalancer, clusterIP: 10.96.0.100, loadBalancerIP: 198.51.100.10, selector: {{ app: web }}, ports: [{{ port: 80, targetPort: 8080, nodePort: 30080 }}] }}
  near: {{ clusterIP: 10.96.0.101, selector: {{ app: a2 }}, ports: [{{ port: 80, targetPort: 8080 }}] }}
  self: {{ clusterIP: 10.96.0.102, selector: {{ app: a1 }}, ports: [{{ port: 80, targetPort: 8080 }}] }}
  local: {{ type: NodePort, clusterIP: 10.96.0.103, externalTrafficPolicy: Local, selector: {{ app: a2 }}, ports: [{{ port: 80, targetPort: 8080, nodePort: 30081 }}] }}
  empty: {{ clusterIP: 10.96.0.104, selector: {{ app: nobody }}, ports: [{{ port: 80 }}] }}
"
    ))
}

pub const VXLAN: &str = "backend: vxlan";

pub fn plan(flannel: &str) -> Plan {
    prediction(&sample(flannel))
}

pub fn ns(word: &str) -> NsName {
    NsName::try_from(word.to_owned()).expect("a name")
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub fn of<'p>(plan: &'p mut Plan, word: &str) -> &'p mut NsPlan {
    let name = ns(word);
    plan.namespaces.iter_mut().find(|n| n.ns == name).expect("a namespace")
}

pub fn ping(to: &str) -> Probe {
    Probe::to(Protocol::Icmp, ip(to), 7)
}

pub fn tcp(to: &str, port: u16) -> Probe {
    Probe::to(Protocol::Tcp, ip(to), port)
}

/// Ask, in a lab as it is planned.
pub fn ask(plan: &Plan, from: &str, probe: &Probe) -> Exchange {
    exchange(&State::planned(plan), &ns(from), probe, &Choices::First).expect("a namespace")
}

/// A way as lines: the place, the device, and what happened.
pub fn lines(path: &Path) -> String {
    let mut out = String::new();
    let mut place = String::new();
    for step in &path.steps {
        let here = step.place.to_string();
        let shown = if here == place { "" } else { here.as_str() };
        let layer = if step.layer > 0 { "| " } else { "" };
        out.push_str(format!("{shown:<9} {layer}{}", step.says).trim_end());
        out.push('\n');
        if let (What::Sent { .. }, Some(header)) = (&step.what, &step.header) {
            out.push_str(&format!("{:<9} {layer}{header}\n", ""));
        }
        place = here;
    }
    for note in &path.notes {
        out.push_str(&format!("note: {note}\n"));
    }
    out
}

/// There and back.
pub fn told(exchange: &Exchange) -> String {
    let mut out = format!("{} of {}\n{}", exchange.there.kind, exchange.there.from, lines(&exchange.there));
    if let Some(back) = &exchange.back {
        out.push_str(&format!("\n{} of {}\n{}", back.kind, back.from, lines(back)));
    }
    out.push_str(&format!("\nseen: {:?}\n", exchange.seen));
    for t in &exchange.translations {
        let end = |e: &crate::trace::model::End| format!("{}:{}", e.ip, e.port);
        let (there, back) = (&t.original, &t.reply);
        out.push_str(&format!(
            "{} remembers {} > {}, answered as {} > {}\n",
            t.place,
            end(&there.0),
            end(&there.1),
            end(&back.0),
            end(&back.1)
        ));
    }
    if let Some(fault) = &exchange.fault {
        out.push_str(&format!(
            "fault: {:?} at {}: {}\n       {}\n",
            fault.cause, fault.place, fault.object, fault.says
        ));
    }
    out
}
