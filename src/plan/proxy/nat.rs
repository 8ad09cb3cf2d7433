//! One service port's lines in the nat table: the ways in, in chains that all services share, and
//! its own chains EXT, FW, SVC, SVL and one SEP for each endpoint.

use std::fmt::Write;

use super::chain::{self, MARK_MASQ, NODEPORTS, SERVICES};
use super::config::ProxyConfig;
use super::decision::Decision;
use super::endpoint::Endpoint;

/// The lines in KUBE-SERVICES and KUBE-NODEPORTS. Writing to a String cannot fail, here and below.
pub fn shared(decision: &Decision, config: &ProxyConfig) -> String {
    let mut out = String::new();
    let (port, name) = (decision.port, &decision.name);
    let proto = port.name.protocol.name();
    let mut way_in = |what: &str, ip, target: &str| {
        let _ = writeln!(
            out,
            "-A {SERVICES} -m comment --comment \"{name} {what}\" -m {proto} -p {proto} -d {ip} --dport {} -j {target}",
            port.port
        );
    };
    if decision.has_internal() {
        way_in("cluster IP", port.cluster_ip, decision.internal_chain());
    }
    if !decision.usable.any {
        return out;
    }
    port.external_ips.iter().for_each(|ip| way_in("external IP", *ip, &decision.ext));
    let guarded = if decision.uses_fw() { &decision.fw } else { &decision.ext };
    port.balancer_ips.iter().for_each(|ip| way_in("loadbalancer IP", *ip, guarded));
    let Some(node_port) = port.node_port else { return out };
    let (start, ext) = (format!("-A {NODEPORTS} -m comment --comment {name} -m {proto} -p {proto}"), &decision.ext);
    if config.on_localhost() && config.nfacct {
        let counter = "-m nfacct --nfacct-name localhost_nps_accepted_pkts";
        let _ = writeln!(out, "{start} -d 127.0.0.0/8 --dport {node_port} {counter} -j {ext}");
    }
    let _ = writeln!(out, "{start} --dport {node_port} -j {ext}");
    out
}

/// The service port's own chains and their lines. Without `comments`, endpoints' rules have none.
pub fn own(decision: &Decision, config: &ProxyConfig, comments: bool) -> (Vec<String>, String) {
    let mut writer = Writer { decision, config, comments, chains: Vec::new(), out: String::with_capacity(1024) };
    if decision.has_internal() {
        writer.masquerade();
    }
    if decision.uses_ext() {
        writer.ext();
    }
    if decision.uses_fw() {
        writer.fw();
    }
    let usable = &decision.usable;
    // A SEP's name is a hash; it is made once and used in both kinds of chains.
    let seps: Vec<(&Endpoint, String)> = usable.reachable.iter().map(|e| (*e, writer.sep_name(e))).collect();
    if decision.uses_svc() {
        writer.spread(&decision.svc, &usable.cluster, &seps);
    }
    if decision.uses_svl() {
        writer.spread(&decision.svl, &usable.local, &seps);
    }
    for (endpoint, chain) in seps {
        writer.sep(endpoint, chain);
    }
    (writer.chains, writer.out)
}

struct Writer<'d> {
    decision: &'d Decision<'d>,
    config: &'d ProxyConfig,
    comments: bool,
    chains: Vec<String>,
    out: String,
}

impl Writer<'_> {
    fn sep_name(&self, endpoint: &Endpoint) -> String {
        let proto = self.decision.port.name.protocol.name();
        format!("KUBE-SEP-{}", chain::hash(&[&self.decision.name, proto, &endpoint.text]))
    }

    /// Traffic to the cluster IP from outside the cluster may leave this node again, so it gets
    /// this node's address. Who is outside is not known without a detector.
    fn masquerade(&mut self) {
        let (port, name, chain) = (self.decision.port, &self.decision.name, self.decision.internal_chain());
        let proto = port.name.protocol.name();
        let from = match &self.config.local {
            _ if self.config.masquerade_all => String::new(),
            Some(local) => format!(" ! {local}"),
            None => return,
        };
        let _ = writeln!(
            self.out,
            "-A {chain} -m comment --comment \"{name} cluster IP\" -m {proto} -p {proto} -d {} --dport {}{from} -j {MARK_MASQ}",
            port.cluster_ip, port.port
        );
    }

    /// Traffic from outside. Under policy Local it keeps its source, but for the node's own, and
    /// pods' traffic goes to all endpoints as if it had come in from a load balancer elsewhere.
    fn ext(&mut self) {
        let Decision { name, ext, svc, .. } = self.decision;
        self.chains.push(ext.clone());
        let start = format!("-A {ext} -m comment --comment");
        if self.decision.port.policy.external_local {
            if let Some(local) = &self.config.local {
                let _ = writeln!(self.out, "{start} \"pod traffic for {name} external destinations\" {local} -j {svc}");
            }
            let own = "-m addrtype --src-type LOCAL";
            let what = format!("LOCAL traffic for {name} external destinations");
            let _ = writeln!(self.out, "{start} \"masquerade {what}\" {own} -j {MARK_MASQ}");
            let _ = writeln!(self.out, "{start} \"route {what}\" {own} -j {svc}");
        } else {
            let _ =
                writeln!(self.out, "{start} \"masquerade traffic for {name} external destinations\" -j {MARK_MASQ}");
        }
        if self.decision.has_external() {
            let _ = writeln!(self.out, "-A {ext} -j {}", self.decision.external_chain());
        }
    }

    /// Source ranges. What none of them lets through is dropped later by KUBE-PROXY-FIREWALL.
    fn fw(&mut self) {
        let Decision { port, name, ext, fw, .. } = self.decision;
        self.chains.push(fw.clone());
        let start = format!("-A {fw} -m comment --comment");
        for range in &port.source_ranges {
            let _ = writeln!(self.out, "{start} \"{name} loadbalancer IP\" -s {range} -j {ext}");
        }
        // The address may be a local one of the node, and then it is the source of the node's own
        // packets to it.
        if port.source_ranges.iter().any(|r| r.contains(&self.config.node_ip)) {
            for ip in &port.balancer_ips {
                let _ = writeln!(self.out, "{start} \"{name} loadbalancer IP\" -s {ip} -j {ext}");
            }
        }
        let _ = writeln!(self.out, "{start} \"other traffic to {name} will be dropped by KUBE-PROXY-FIREWALL\"");
    }

    /// A chain that spreads connections over these endpoints: first the clients that have one,
    /// then by chance, the i-th of n with one in n - i, which is one in n for each.
    fn spread(&mut self, chain: &str, endpoints: &[&Endpoint], seps: &[(&Endpoint, String)]) {
        self.chains.push(chain.to_owned());
        let name = &self.decision.name;
        // Both lists are sorted, and this one is a part of the other.
        let mut rest = seps.iter();
        let chosen: Vec<&(&Endpoint, String)> =
            endpoints.iter().filter_map(|e| rest.find(|(other, _)| other.text == e.text)).collect();
        let start = |out: &mut String, endpoint: &Endpoint| {
            let _ = write!(out, "-A {chain}");
            if self.comments {
                let _ = write!(out, " -m comment --comment \"{name} -> {}\"", endpoint.text);
            }
        };
        if let Some(seconds) = self.decision.port.affinity {
            for (endpoint, sep) in &chosen {
                start(&mut self.out, endpoint);
                let _ = writeln!(self.out, " -m recent --name {sep} --rcheck --seconds {seconds} --reap -j {sep}");
            }
        }
        for (left, (endpoint, sep)) in (1..=chosen.len()).rev().zip(&chosen) {
            start(&mut self.out, endpoint);
            if left > 1 {
                let odds = 1.0 / left as f64;
                let _ = write!(self.out, " -m statistic --mode random --probability {odds:.10}");
            }
            let _ = writeln!(self.out, " -j {sep}");
        }
    }

    /// An endpoint's chain. A packet that the endpoint sent to its own service comes back to it, so
    /// it must not come from itself.
    fn sep(&mut self, endpoint: &Endpoint, sep: String) {
        let (port, name) = (self.decision.port, &self.decision.name);
        let proto = port.name.protocol.name();
        let mut start = format!("-A {sep}");
        if self.comments {
            let _ = write!(start, " -m comment --comment {name}");
        }
        let _ = writeln!(self.out, "{start} -s {} -j {MARK_MASQ}", endpoint.address.ip());
        let remember = if port.affinity.is_some() { format!(" -m recent --name {sep} --set") } else { String::new() };
        let _ =
            writeln!(self.out, "{start}{remember} -m {proto} -p {proto} -j DNAT --to-destination {}", endpoint.text);
        self.chains.push(sep);
    }
}
