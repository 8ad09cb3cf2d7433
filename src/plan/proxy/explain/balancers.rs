//! What the rules of load balancers at the router are for, in words. How they are written is in
//! [`crate::plan::balancers`].

use super::{Book, Rule};

impl Book<'_, '_> {
    /// What a rule of a chain of the load balancers' is for.
    pub(super) fn of_balancer(&self, table: &str, rule: &Rule) -> Option<String> {
        let target = rule.target()?;
        Some(match (table, target) {
            ("mangle", "ACCEPT") => format!("from {}, which the service lets in", rule.option("-s")?),
            ("mangle", _) => format!("to {} from where the service lets nobody in, dropped", rule.destination()),
            ("filter", _) => format!("to the load balancer's address {}: let through to a host", rule.destination()),
            (_, "MASQUERADE") => {
                "through a load balancer: gets the router's address, so that answers come back here".to_owned()
            }
            (_, "DNAT") => format!("goes to {}", self.named(rule.option("--to-destination")?)),
            _ if rule.has("--rcheck") => "a client that was sent to a host stays with it".to_owned(),
            _ if rule.option("-d").is_some() => {
                let name = Some(rule.comment()).filter(|c| !c.is_empty()).unwrap_or("a load balancer");
                format!("{name}: to its address {}", rule.destination())
            }
            _ => "one of its hosts".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_balancers_rules_have_their_meaning() {
        let who = |ip: std::net::IpAddr| (ip.to_string() == "192.168.1.11").then(|| "node1".to_owned());
        let book = Book { chains: &|_, _| None, who: &who };
        let words = |table, rule: &str| book.of_balancer(table, &Rule::parse(rule)).unwrap_or_default();
        let to = "-d 198.51.100.10/32 -p tcp -m comment --comment \"default/web load balancer\" -m tcp --dport 80";
        let (enters, drops) = (format!("{to} -j LB-AAAA"), format!("{to} -j DROP"));
        assert_eq!(words("nat", &enters), "default/web load balancer: to its address 198.51.100.10 port 80/tcp");
        let leads = "-p tcp -j DNAT --to-destination 192.168.1.11:30080";
        assert_eq!(words("nat", leads), "goes to node1 192.168.1.11:30080");
        let refused = "to 198.51.100.10 port 80/tcp from where the service lets nobody in, dropped";
        assert_eq!(words("mangle", &drops), refused);
    }
}
