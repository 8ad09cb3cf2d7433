//! Which location takes a request: the rules of networking.k8s.io/v1 for hosts and paths.

use super::types::{HostPattern, Routing, Server};

impl Routing {
    /// The virtual host that answers to `host`, a name in lower case without port.
    pub fn server(&self, host: &str) -> Option<&Server> {
        self.servers.iter().find(|server| server.host.fits(host))
    }
}

impl HostPattern {
    /// Whether it stands for `host`, a name in lower case without port.
    pub fn fits(&self, host: &str) -> bool {
        match self {
            HostPattern::Name(name) => name == host,
            HostPattern::Wildcard(parent) => {
                host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == parent)
            }
            HostPattern::Any => true,
        }
    }
}

impl std::fmt::Display for HostPattern {
    /// As an ingress has it; `*` for every name.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            HostPattern::Name(name) => f.write_str(name),
            HostPattern::Wildcard(parent) => write!(f, "*.{parent}"),
            HostPattern::Any => f.write_str("*"),
        }
    }
}
