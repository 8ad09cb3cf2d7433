//! One service port's lines in the filter table: what is refused or dropped for want of endpoints,
//! what source ranges do not let in, and the health check's port.

use std::fmt::Write;
use std::net::IpAddr;

use super::chain::{EXTERNAL_SERVICES, NODEPORTS, PROXY_FIREWALL, SERVICES};
use super::decision::Decision;

/// The lines, in the order of kube-proxy's `syncProxyRules`.
pub fn lines(decision: &Decision) -> String {
    let mut out = String::new();
    let port = decision.port;
    if !decision.has_internal() {
        refuse(&mut out, SERVICES, decision, port.cluster_ip);
    }
    if !decision.has_external() {
        port.external_ips.iter().for_each(|ip| refuse(&mut out, EXTERNAL_SERVICES, decision, *ip));
    }
    if decision.uses_fw() {
        port.balancer_ips.iter().for_each(|ip| guard(&mut out, decision, *ip));
    }
    if !decision.has_external() {
        port.balancer_ips.iter().for_each(|ip| refuse(&mut out, EXTERNAL_SERVICES, decision, *ip));
        if let Some(node_port) = port.node_port {
            refuse_node_port(&mut out, decision, node_port);
        }
    }
    if let Some(check) = port.health_check_port {
        // Whether or not there are local endpoints: the answer tells.
        let name = &decision.name;
        let _ = writeln!(
            out,
            "-A {NODEPORTS} -m comment --comment \"{name} health check node port\" -m tcp -p tcp --dport {check} -j ACCEPT"
        );
    }
    out
}

// Writing to a String cannot fail, here and below.

fn refuse(out: &mut String, chain: &str, decision: &Decision, ip: IpAddr) {
    let ((target, why), name, port) = (decision.refusal(), &decision.name, decision.port.port);
    let proto = decision.port.name.protocol.name();
    let _ = writeln!(
        out,
        "-A {chain} -m comment --comment \"{name} {why}\" -m {proto} -p {proto} -d {ip} --dport {port} -j {target}"
    );
}

fn refuse_node_port(out: &mut String, decision: &Decision, node_port: u16) {
    let ((target, why), name) = (decision.refusal(), &decision.name);
    let proto = decision.port.name.protocol.name();
    let _ = writeln!(
        out,
        "-A {EXTERNAL_SERVICES} -m comment --comment \"{name} {why}\" -m addrtype --dst-type LOCAL \
         -m {proto} -p {proto} --dport {node_port} -j {target}"
    );
}

/// What no source range let through the FW chain still has the load balancer's address.
fn guard(out: &mut String, decision: &Decision, ip: IpAddr) {
    let (name, fw, port) = (&decision.name, &decision.fw, decision.port.port);
    let proto = decision.port.name.protocol.name();
    let _ = writeln!(
        out,
        "-A {PROXY_FIREWALL} -m comment --comment \"{name} traffic not accepted by {fw}\" \
         -m {proto} -p {proto} -d {ip} --dport {port} -j DROP"
    );
}
