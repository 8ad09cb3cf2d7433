//! The plan: plain data that says what each namespace of a lab must hold.
//!
//! [`plan`] makes it from a valid [`Lab`], without I/O and without root; the same lab gives the
//! same plan. One file per mechanism: [`underlay`] (switches and router), [`bridge`] (what the CNI
//! plug-ins make for pods), [`portmap`] (ports of hosts that lead to pods), [`flannel`] with one file a back end, [`machine`] (what every
//! namespace has), [`proxy`] (kube-proxy's rules, of objects instead of a lab), [`services`] (what a
//! lab's services become), [`balancers`] (what their load balancers are at the router),
//! [`ingress`] (what an ingress controller must do). [`diff`] says which steps lead from one plan to another; [`rules`] are iptables
//! rules as values; [`deviation`] has what is only ever read back. Making it true is `kernel`'s.

pub mod balancers;
pub mod bridge;
pub mod deviation;
pub mod diff;
pub mod flannel;
pub mod ingress;
pub mod machine;
pub mod portmap;
pub mod proxy;
pub mod rules;
pub mod services;
pub mod show;
pub mod types;
pub mod underlay;

use crate::lab::Lab;

pub use types::*;

/// What each namespace of `lab` must hold, but for the rules of services, which follow from what is
/// ready and are [`services::add`]ed: the router first, then hosts, clients and pods, which
/// is also the order in which they are built.
pub fn plan(lab: &Lab) -> Plan {
    let mut namespaces = vec![underlay::router(lab)];
    namespaces.extend(lab.hosts.iter().map(|host| {
        let mut ns = underlay::host(lab, host);
        // The back end's device comes before cni0, as flanneld runs before the first pod.
        flannel::add(lab, host, &mut ns);
        bridge::add(lab, host, &mut ns);
        portmap::add(lab, host, &mut ns);
        ns.sysctls.extend(services::sysctls(lab, host));
        ns
    }));
    namespaces.extend(lab.clients.iter().map(|client| underlay::client(lab, client)));
    namespaces.extend(lab.pods.iter().map(|pod| bridge::pod(lab, pod)));
    Plan { namespaces }
}
