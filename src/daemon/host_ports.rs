//! What follows a change of ports of hosts that lead to pods: flows of UDP that lead elsewhere now are
//! forgotten. Which ones these are is [`crate::plan::portmap`]'s; the rules come with the host's plan.

use crate::kernel::conntrack;
use crate::kernel::ns::NetNs;
use crate::lab::Lab;
use crate::plan::portmap::UdpPorts;

use super::state::Daemon;

impl Daemon {
    /// Forget what went by ports of hosts as they were in `old` and are not any more. Where that cannot be
    /// done flows end by their own time; the rules are right.
    pub(super) async fn forget_host_ports(&self, old: &Lab) {
        let new = self.lab();
        let mut work: Vec<(NetNs, UdpPorts, UdpPorts)> = Vec::new();
        for host in &new.hosts {
            let before = old.host(&host.name).map(|was| UdpPorts::of(old, was)).unwrap_or_default();
            let now = UdpPorts::of(&new, host);
            if let Some(netns) = self.netns(&host.ns()).filter(|_| before.leads_elsewhere(&now)) {
                work.push((netns, before, now));
            }
        }
        let forget = move || {
            for (netns, before, now) in &work {
                let stale = |flow: &conntrack::Flow| before.is_stale(now, flow.destination(), flow.answers_from());
                let _ = conntrack::forget_udp(netns, stale);
            }
        };
        let _ = tokio::task::spawn_blocking(forget).await;
    }
}
