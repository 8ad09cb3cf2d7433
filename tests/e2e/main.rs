//! Labs from the outside: the real program, real namespaces, as root and as an ordinary user. Each
//! test has a bench of its own, so all can run side by side.

#[path = "../harness/mod.rs"]
mod harness;

mod ask;
mod backends;
mod connection;
mod drift;
mod drift_filters;
mod ending;
mod enter;
mod faults;
mod follow;
mod host_ports;
mod ingress;
mod ingress_front;
mod ingress_labs;
mod kubernetes;
mod live;
mod programs;
mod readiness;
mod rooms;
mod sample;
#[path = "../conformance_kube_proxy/sctp.rs"]
mod sctp;
mod services_affinity;
mod services_balancer;
mod services_balancer_clients;
mod services_connections;
mod services_dns;
mod services_endpoints;
mod services_manifests;
mod services_rules;
mod services_terminating;
mod services_traffic;
mod services_types;
mod services_udp;
mod services_verbs;
mod services_words;
mod testing;
mod together;
mod trace_limits;
mod trace_parting;
mod trace_programs;
mod trace_proxied;
mod trace_words;
mod untouched;

fn main() {
    harness::tests::main();
}
