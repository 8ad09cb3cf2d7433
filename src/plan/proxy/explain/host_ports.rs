//! What the rules of the CNI plug-in portmap are for, in words. How it writes them is in
//! [`crate::plan::portmap`].

use std::net::SocketAddr;

use super::{Book, Rule};
use crate::plan::portmap::{DNAT, MASQ, SETMARK};

impl Book<'_, '_> {
    /// What a rule of a chain of portmap's is for; nothing where it is none that portmap writes.
    pub(super) fn of_host_port(&self, chain: &str, rule: &Rule) -> Option<String> {
        let target = rule.target()?;
        match chain {
            DNAT => {
                let to = self.rules("nat", target).iter().find_map(|r| r.option("--to-destination"))?;
                let (ports, protocol) = (rule.option("--dports")?, rule.option("-p")?);
                let word = if ports.contains(',') { "ports" } else { "port" };
                Some(format!("{word} {ports}/{protocol} of this host: {}", self.pod_at(to)))
            }
            MASQ => Some("what is marked so gets the host's address, so that answers come back here".to_owned()),
            SETMARK => None,
            _ if target == SETMARK => Some(match rule.option("-s")? {
                "127.0.0.1/32" => {
                    "from this host by 127.0.0.1: gets the host's address, to which the pod can answer".to_owned()
                }
                _ => "from a pod of this host: gets the host's address, or the answer would not come back here"
                    .to_owned(),
            }),
            _ => {
                let to = rule.option("--to-destination")?;
                let pod = self.pod_at(to);
                let name = if pod == to { String::new() } else { format!("{pod} ") };
                Some(format!("{}: goes to {name}{to}", rule.destination()))
            }
        }
    }

    /// The pod at an address, or the address where there is none.
    fn pod_at(&self, to: &str) -> String {
        let who = to.parse::<SocketAddr>().ok().and_then(|to| (self.who)(to.ip()));
        who.unwrap_or_else(|| to.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use crate::plan::proxy::explain::{Branch, trees};

    const SAVED: &str = r#"*nat
[3:180] -A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \"cbr0\" id: \"abc\"" -m multiport --dports 8080,8081 -j CNI-DN-0123
[1:60] -A CNI-DN-0123 -s 10.244.1.0/24 -d 192.168.1.11/32 -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK
[1:60] -A CNI-DN-0123 -s 127.0.0.1/32 -d 192.168.1.11/32 -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK
[3:180] -A CNI-DN-0123 -d 192.168.1.11/32 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.244.1.2:80
[2:120] -A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE
COMMIT
"#;

    fn words(branches: &[Branch]) -> Vec<String> {
        branches.iter().flat_map(|b| [vec![b.meaning.clone()], words(&b.below)].concat()).collect()
    }

    #[test]
    fn a_port_of_a_host_is_followed_to_its_pod() {
        let who = |ip: std::net::IpAddr| (ip.to_string() == "10.244.1.2").then(|| "web".to_owned());
        let all: Vec<String> = trees(SAVED, None, who).iter().flat_map(|t| words(&t.rules)).collect();
        assert_eq!(
            all,
            [
                "ports 8080,8081/tcp of this host: web",
                "from a pod of this host: gets the host's address, or the answer would not come back here",
                "from this host by 127.0.0.1: gets the host's address, to which the pod can answer",
                "192.168.1.11 port 8080/tcp: goes to web 10.244.1.2:80",
                "what is marked so gets the host's address, so that answers come back here",
            ]
        );
        assert_eq!(trees(SAVED, Some("default/web"), who), [], "it is no service's");
    }
}
