//! kube-proxy's rules as a tree that a person can follow: from the chains that every packet passes
//! down to the pod, with a few words for each rule and the packets that it has seen.
//!
//! It reads what `iptables-save -c` printed, so it shows what the kernel holds and not what was
//! planned. What each rule is for is known from how [`super::nat`], [`super::filter`] and
//! [`super::fixed`] write it; a rule that somebody else put there is shown as it is.

mod balancers;
mod flannel;
mod host_ports;
mod rule;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::plan::portmap;

pub use rule::Rule;

use super::chain::{EXTERNAL_SERVICES, FORWARD, MARK_MASQ, NODEPORTS, POSTROUTING, PROXY_FIREWALL, SERVICES};

/// The chains that a tree begins with, in the order in which a packet meets them.
const ROOTS: &[(&str, &str, &str)] = &[
    ("nat", SERVICES, "every new connection is looked up here"),
    ("filter", SERVICES, "services without endpoints"),
    ("filter", EXTERNAL_SERVICES, "the same for traffic from outside"),
    ("filter", NODEPORTS, "ports that health checks come to"),
    ("filter", PROXY_FIREWALL, "who may not use a load balancer"),
    ("filter", FORWARD, "what is let through to another machine"),
    ("nat", POSTROUTING, "on the way out, the source address"),
    ("nat", portmap::DNAT, "ports of this host that lead to its pods"),
    ("nat", portmap::MASQ, "on the way out, the source address of what came by such a port"),
];

/// A chain with its rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    pub table: String,
    pub chain: String,
    /// What it is for.
    pub meaning: String,
    pub rules: Vec<Branch>,
}

/// One rule, and what lies behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Branch {
    pub packets: u64,
    pub bytes: u64,
    /// What it is for, in words.
    pub meaning: String,
    /// The chain or verdict that it leads to.
    pub target: Option<String>,
    /// The rule as iptables writes it, without its chain.
    pub rule: String,
    /// The rules of the chain that it leads to; nothing where they were shown before.
    pub below: Vec<Branch>,
}

/// A rule as it was saved, with what it has seen.
#[derive(Debug)]
struct Counted {
    packets: u64,
    bytes: u64,
}

/// The rules of each chain, and beside them what each has seen.
type Chains = BTreeMap<(String, String), (Vec<Rule>, Vec<Counted>)>;

/// Read what `iptables-save -c` printed.
fn parse(saved: &str) -> Chains {
    let (mut chains, mut table) = (Chains::new(), String::new());
    for line in saved.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name.trim().to_owned();
        } else if let Some((packets, bytes, rest)) = counted(line)
            && let Some((chain, text)) = rest.strip_prefix("-A ").and_then(|r| r.split_once(' ').or(Some((r, ""))))
        {
            let (rules, counters) = chains.entry((table.clone(), chain.to_owned())).or_default();
            rules.push(Rule::parse(text));
            counters.push(Counted { packets, bytes });
        }
    }
    chains
}

/// `[12:720] -A …`.
fn counted(line: &str) -> Option<(u64, u64, &str)> {
    let (counters, rest) = line.strip_prefix('[')?.split_once("] ")?;
    let (packets, bytes) = counters.split_once(':')?;
    Some((packets.parse().ok()?, bytes.parse().ok()?, rest))
}

/// The rules of a host as trees. `service`, written `namespace/name`, leaves only those that are
/// about it; `who` knows the pod or machine that has an address.
pub fn trees(saved: &str, service: Option<&str>, who: impl Fn(IpAddr) -> Option<String>) -> Vec<Tree> {
    let chains = parse(saved);
    let mut teller = Teller { chains: &chains, service, who: &who, shown: BTreeSet::new() };
    let tree = |(table, chain, meaning): &(&str, &str, &str)| {
        let rules = teller.chain(table, chain, true);
        let (table, chain, meaning) = ((*table).to_owned(), (*chain).to_owned(), (*meaning).to_owned());
        (!rules.is_empty()).then_some(Tree { table, chain, meaning, rules })
    };
    ROOTS.iter().filter_map(tree).collect()
}

struct Teller<'a> {
    chains: &'a Chains,
    service: Option<&'a str>,
    who: &'a dyn Fn(IpAddr) -> Option<String>,
    shown: BTreeSet<(String, String)>,
}

impl<'a> Teller<'a> {
    /// The rules of a chain. One that services share shows only those of the wanted service.
    fn chain(&mut self, table: &str, chain: &str, shared: bool) -> Vec<Branch> {
        if !self.shown.insert((table.to_owned(), chain.to_owned())) {
            return Vec::new();
        }
        let chains: &'a Chains = self.chains;
        let find = |table: &str, chain: &str| chains.get(&(table.to_owned(), chain.to_owned()));
        let rules = |table: &str, chain: &str| find(table, chain).map(|(rules, _)| rules.as_slice());
        let book = Book { chains: &rules, who: self.who };
        let Some((rules, counters)) = find(table, chain) else { return Vec::new() };
        let mut all = Vec::new();
        for (index, (rule, Counted { packets, bytes })) in rules.iter().zip(counters).enumerate() {
            let leads_on = rule.target() == Some(NODEPORTS);
            let wanted = !shared || leads_on || self.service.is_none_or(|s| rule.is_about(s));
            if !wanted {
                continue;
            }
            let target = rule.target().map(str::to_owned);
            let leads = |t: &String| (t.starts_with("KUBE-") && t != MARK_MASQ) || t.starts_with(portmap::OF_POD);
            let next = target.clone().filter(leads);
            let below = next.map(|t| self.chain(table, &t, t == NODEPORTS)).unwrap_or_default();
            if leads_on && below.is_empty() && self.service.is_some() {
                continue;
            }
            let meaning = book.meaning(table, chain, index).unwrap_or_else(|| rule.text().to_owned());
            let (packets, bytes, rule) = (*packets, *bytes, rule.text().to_owned());
            all.push(Branch { packets, bytes, meaning, target, rule, below });
        }
        all
    }
}

/// What rules are for, in words.
pub struct Book<'b, 'a> {
    /// The rules of a chain of a table.
    pub chains: &'b dyn Fn(&str, &str) -> Option<&'a [Rule]>,
    /// The pod or machine that has an address.
    pub who: &'b dyn Fn(IpAddr) -> Option<String>,
}

impl<'a> Book<'_, 'a> {
    fn rules(&self, table: &str, chain: &str) -> &'a [Rule] {
        (self.chains)(table, chain).unwrap_or_default()
    }

    /// What a rule is for, by its place in the chain, from 0; its comment where it is none of those that
    /// are known here, and nothing where it has none.
    pub fn meaning(&self, table: &str, chain: &str, index: usize) -> Option<String> {
        let rules = self.rules(table, chain);
        let rule = rules.get(index)?;
        let comment = rule.comment();
        let known = match chain.split('-').nth(1).unwrap_or_default() {
            _ if chain.starts_with("FLANNEL-") => flannel::meaning(rule),
            _ if chain.starts_with("LB-") => self.of_balancer(table, rule),
            _ if chain == MARK_MASQ => Some("marked to get the host's address on its way out".to_owned()),
            _ if table == "filter" => filtered(chain, rule),
            "HOSTPORT" | "DN" => self.of_host_port(chain, rule),
            "SERVICES" | "NODEPORTS" => way_in(chain, rule),
            "SVC" | "SVL" => Some(self.spread(chain, rules, index)),
            "SEP" => self.endpoint(rule),
            "EXT" => Some(external(rule)),
            "FW" => Some(firewall(rule)),
            "POSTROUTING" => posted(rule),
            _ => None,
        };
        known.or_else(|| (!comment.is_empty()).then(|| comment.to_owned()))
    }

    fn spread(&self, chain: &str, rules: &[Rule], index: usize) -> String {
        let rule = &rules[index];
        let Some(sep) = rule.target().filter(|t| *t != MARK_MASQ) else {
            return match rule.option("-s") {
                Some(range) => {
                    format!("not from the pods' range {range}: gets the host's address, so that answers come back here")
                }
                None => "gets the host's address, so that answers come back here".to_owned(),
            };
        };
        let pod = self.behind(sep);
        if rule.has("--rcheck") {
            let seconds = rule.option("--seconds").unwrap_or_default();
            return format!("a client that was sent to {pod} in the last {seconds} s stays with it");
        }
        let by_chance: Vec<usize> = (0..rules.len()).filter(|i| is_choice(&rules[*i])).collect();
        let (n, place) = (by_chance.len(), by_chance.iter().position(|i| *i == index).unwrap_or_default() + 1);
        let on = if chain.starts_with("KUBE-SVL") { " on this host" } else { "" };
        match (n, n - place) {
            (1, _) => format!("the only endpoint{on}: {pod}"),
            (_, 0) => format!("endpoint {n} of {n}{on}: {pod}, takes the rest"),
            (_, left) => format!("endpoint {place} of {n}{on}: {pod}, chosen with probability 1/{}", left + 1),
        }
    }

    /// `tea-2 10.244.1.3:8080`: where an endpoint's chain leads.
    fn behind(&self, sep: &str) -> String {
        let to = self.rules("nat", sep).iter().find_map(|r| r.option("--to-destination"));
        to.map_or_else(|| sep.to_owned(), |to| self.named(to))
    }

    fn named(&self, endpoint: &str) -> String {
        let ip = endpoint.rsplit_once(':').and_then(|(ip, _)| ip.trim_matches(['[', ']']).parse().ok());
        match ip.and_then(|ip| (self.who)(ip)) {
            Some(who) => format!("{who} {endpoint}"),
            None => endpoint.to_owned(),
        }
    }

    fn endpoint(&self, rule: &Rule) -> Option<String> {
        if let Some(to) = rule.option("--to-destination") {
            let noted = if rule.has("--set") { ", and the client is remembered" } else { "" };
            return Some(format!("goes to {}{noted}", self.named(to)));
        }
        let from: IpAddr = rule.option("-s")?.trim_end_matches("/32").trim_end_matches("/128").parse().ok()?;
        let who = (self.who)(from).unwrap_or_else(|| from.to_string());
        Some(format!("{who} asking its own service gets the host's address, or it would see itself as the client"))
    }
}

fn is_choice(rule: &Rule) -> bool {
    rule.target().is_some_and(|t| t != MARK_MASQ) && !rule.has("--rcheck")
}

fn way_in(chain: &str, rule: &Rule) -> Option<String> {
    if rule.target() == Some(NODEPORTS) {
        return Some("what else comes to an address of this host may be for a NodePort".to_owned());
    }
    let to = rule.destination();
    let (name, what) = rule.comment().split_once(' ').unwrap_or((rule.comment(), ""));
    Some(match what {
        "cluster IP" => format!("{name}: to its cluster IP {to}"),
        "external IP" => format!("{name}: to its external IP {to}"),
        "loadbalancer IP" => format!("{name}: to its load balancer's address {to}"),
        _ if chain == NODEPORTS && rule.has("--nfacct-name") => format!("{name}: to its NodePort on loopback, {to}"),
        _ if chain == NODEPORTS => format!("{name}: to its NodePort, {to} of this host"),
        _ => return None,
    })
}

fn external(rule: &Rule) -> String {
    let comment = rule.comment();
    let words = if comment.starts_with("pod traffic") {
        "from a pod: spread over all endpoints"
    } else if comment.starts_with("masquerade LOCAL") {
        "from this host itself: gets the host's address"
    } else if comment.starts_with("route LOCAL") {
        "from this host itself: spread over all endpoints"
    } else if comment.starts_with("masquerade traffic") {
        "from outside: gets the host's address, so that answers come back here"
    } else if rule.target().is_some_and(|t| t.starts_with("KUBE-SVL")) {
        "the others: only to endpoints on this host, and their address stays"
    } else {
        "then spread over the endpoints"
    };
    words.to_owned()
}

fn firewall(rule: &Rule) -> String {
    match (rule.option("-s"), rule.target()) {
        (Some(range), Some(_)) => format!("from {range}, which the service lets in"),
        _ => format!("from anywhere else: dropped later, in {PROXY_FIREWALL}"),
    }
}

fn posted(rule: &Rule) -> Option<String> {
    Some(match rule.target()? {
        "RETURN" => "not marked for it: the source stays".to_owned(),
        "MARK" => "marked: the mark is taken off".to_owned(),
        "MASQUERADE" => "marked: the source becomes the host's address".to_owned(),
        _ => return None,
    })
}

fn filtered(chain: &str, rule: &Rule) -> Option<String> {
    let (name, to) = (rule.comment().split(' ').next().unwrap_or_default(), rule.destination());
    Some(match (chain, rule.target()?) {
        (SERVICES | EXTERNAL_SERVICES, "REJECT") => format!("{name} has no endpoints: {to} is refused at once"),
        (SERVICES | EXTERNAL_SERVICES, "DROP") => {
            format!("{name} has no endpoint on this host: {to} is dropped, another host may have one")
        }
        (PROXY_FIREWALL, "DROP") => format!("{name}: {to} from where the service lets nobody in, dropped"),
        (NODEPORTS, "ACCEPT") => format!("health checks on {to} are let in"),
        (FORWARD, "DROP") => "belongs to no connection: dropped".to_owned(),
        (FORWARD, "ACCEPT") if rule.has("--mark") => "on its way to an endpoint: let through".to_owned(),
        (FORWARD, "ACCEPT") => "belongs to a connection that was let through".to_owned(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAVED: &str = r#"*filter
:KUBE-SERVICES - [0:0]
[4:240] -A KUBE-SERVICES -d 10.96.1.9/32 -p tcp -m comment --comment "default/none has no endpoints" -m tcp --dport 80 -j REJECT --reject-with icmp-port-unreachable
COMMIT
*nat
[7:420] -A KUBE-SERVICES -d 10.96.1.1/32 -p tcp -m comment --comment "default/tea cluster IP" -m tcp --dport 80 -j KUBE-SVC-TEA
[0:0] -A KUBE-SERVICES -d 10.96.1.2/32 -p tcp -m comment --comment "default/tea-2 cluster IP" -m tcp --dport 80 -j KUBE-SVC-TWO
[1:60] -A KUBE-SERVICES -m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
[1:60] -A KUBE-NODEPORTS -p tcp -m comment --comment "default/tea" -m tcp --dport 30080 -j KUBE-EXT-TEA
[1:60] -A KUBE-EXT-TEA -m comment --comment "masquerade traffic for default/tea external destinations" -j KUBE-MARK-MASQ
[1:60] -A KUBE-EXT-TEA -j KUBE-SVC-TEA
[2:120] -A KUBE-SVC-TEA ! -s 10.244.0.0/16 -d 10.96.1.1/32 -p tcp -m comment --comment "default/tea cluster IP" -m tcp --dport 80 -j KUBE-MARK-MASQ
[3:180] -A KUBE-SVC-TEA -m comment --comment "default/tea -> 10.244.1.2:8080" -m statistic --mode random --probability 0.50000000000 -j KUBE-SEP-ONE
[4:240] -A KUBE-SVC-TEA -m comment --comment "default/tea -> 10.244.2.2:8080" -j KUBE-SEP-TWO
[0:0] -A KUBE-SEP-ONE -s 10.244.1.2/32 -m comment --comment "default/tea" -j KUBE-MARK-MASQ
[3:180] -A KUBE-SEP-ONE -p tcp -m comment --comment "default/tea" -m tcp -j DNAT --to-destination 10.244.1.2:8080
[4:240] -A KUBE-SEP-TWO -p tcp -m comment --comment "default/tea" -m tcp -j DNAT --to-destination 10.244.2.2:8080
COMMIT
"#;

    fn who(ip: IpAddr) -> Option<String> {
        (ip.to_string() == "10.244.1.2").then(|| "tea-1".to_owned())
    }

    fn lines(branches: &[Branch], depth: usize, out: &mut Vec<String>) {
        for branch in branches {
            out.push(format!("{}{} {}", " ".repeat(depth), branch.packets, branch.meaning));
            lines(&branch.below, depth + 1, out);
        }
    }

    #[test]
    fn a_service_is_followed_down_to_its_pods() {
        let all = trees(SAVED, Some("default/tea"), who);
        assert_eq!(all.len(), 1, "the filter table says nothing of it: {all:?}");
        let mut found = Vec::new();
        lines(&all[0].rules, 0, &mut found);
        assert_eq!(
            found,
            [
                "7 default/tea: to its cluster IP 10.96.1.1 port 80/tcp",
                " 2 not from the pods' range 10.244.0.0/16: gets the host's address, so that answers come back here",
                " 3 endpoint 1 of 2: tea-1 10.244.1.2:8080, chosen with probability 1/2",
                "  0 tea-1 asking its own service gets the host's address, or it would see itself as the client",
                "  3 goes to tea-1 10.244.1.2:8080",
                " 4 endpoint 2 of 2: 10.244.2.2:8080, takes the rest",
                "  4 goes to 10.244.2.2:8080",
                "1 what else comes to an address of this host may be for a NodePort",
                " 1 default/tea: to its NodePort, port 30080/tcp of this host",
                "  1 from outside: gets the host's address, so that answers come back here",
                "  1 then spread over the endpoints",
            ]
        );
    }

    #[test]
    fn without_a_service_all_is_shown_and_names_are_not_prefixes() {
        let all = trees(SAVED, None, who);
        let chains: Vec<(&str, &str)> = all.iter().map(|t| (t.table.as_str(), t.chain.as_str())).collect();
        assert_eq!(chains, [("nat", SERVICES), ("filter", SERVICES)]);
        assert_eq!(all[0].rules.len(), 3);
        assert_eq!(all[1].rules[0].meaning, "default/none has no endpoints: 10.96.1.9 port 80/tcp is refused at once");
        assert_eq!(trees(SAVED, Some("default/te"), who), []);
    }
}
