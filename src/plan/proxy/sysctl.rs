//! The sysctls that kube-proxy sets on its node.

use crate::plan::types::Sysctl;

use super::config::{Family, ProxyConfig};

/// `--conntrack-max-per-core` and `--conntrack-min`.
const PER_CORE: u64 = 32768;
const AT_LEAST: u64 = 131_072;

/// The sysctls for a node with this many processors. The number of connections is the whole
/// machine's and cannot be set in a namespace, so it is optional.
pub fn sysctls(config: &ProxyConfig, processors: u64) -> Vec<Sysctl> {
    let set = |key: &str, value: String, optional| Sysctl { key: key.to_owned(), value, optional };
    let mut all = vec![
        set("net/netfilter/nf_conntrack_max", (PER_CORE * processors).max(AT_LEAST).to_string(), true),
        // 24 hours and 1 hour; the kernel's own are 5 days and 1 minute.
        set("net/netfilter/nf_conntrack_tcp_timeout_established", "86400".to_owned(), false),
        set("net/netfilter/nf_conntrack_tcp_timeout_close_wait", "3600".to_owned(), false),
    ];
    if config.conntrack_tcp_liberal {
        all.push(set("net/netfilter/nf_conntrack_tcp_be_liberal", "1".to_owned(), false));
    }
    if config.family == Family::V4 && config.on_localhost() {
        all.push(set("net/ipv4/conf/all/route_localnet", "1".to_owned(), false));
    }
    all
}
