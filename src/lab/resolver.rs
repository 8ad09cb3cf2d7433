//! How a pod resolves names: `dnsPolicy` and `dnsConfig`, checked as the API server checks them and
//! put together as kubelet does (`GetPodDNS`, `appendDNSConfig`). The file made of it is `plan`'s.

use std::fmt::Write;
use std::net::IpAddr;

use serde::Serialize;

use crate::diag::{Problem, Problems, codes};
use crate::objects::validate::is_dns_subdomain;
use crate::objects::{ObjectKey, Service};
use crate::spec::at::At;
use crate::spec::resolver::{DnsConfig, DnsOption, DnsPolicy};

use super::Lab;
use super::names::NsName;

/// The API server's `MaxDNSNameservers`, `MaxDNSSearchPaths` and `MaxDNSSearchListChars`.
const MOST_NAMESERVERS: usize = 3;
const MOST_SEARCHES: usize = 32;
const MOST_SEARCH_CHARACTERS: usize = 2048;

/// What a pod's resolver does otherwise than asking the cluster's DNS.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Resolver {
    pub policy: DnsPolicy,
    pub nameservers: Vec<IpAddr>,
    pub searches: Vec<String>,
    pub options: Vec<DnsOption>,
}

/// How every machine's /etc/hosts begins, as kubelet writes it for pods.
pub const LOCALHOST: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";

/// The address that a name of [`LOCALHOST`] has, by its first line: no DNS server is asked for one.
pub fn loopback(name: &str) -> Option<IpAddr> {
    LOCALHOST.lines().find_map(|line| {
        let (ip, mut names) = line.split_once('\t').map(|(ip, names)| (ip, names.split(' ')))?;
        names.any(|known| known.eq_ignore_ascii_case(name)).then(|| ip.parse().ok())?
    })
}

impl Lab {
    /// The service that `name`, `name.namespace` and so on up to its full name mean to `from`.
    pub fn service_called(&self, from: &NsName, name: &str) -> Option<&Service> {
        // A name with a dot at its end is whole: nothing is put behind it.
        let whole = name.strip_suffix('.');
        let is_one = whole.is_none_or(|whole| whole.ends_with(&format!(".svc.{}", self.cluster.domain)));
        self.service(&self.service_key(from, name)).filter(|_| is_one)
    }

    /// The key of that service, whether there is one or not.
    pub fn service_key(&self, from: &NsName, name: &str) -> ObjectKey {
        let own = match from {
            NsName::Pod(id) => id.namespace.as_str(),
            _ => "default",
        };
        let word = name.trim_end_matches('.');
        let full = format!(".svc.{}", self.cluster.domain);
        let word = word.strip_suffix(&full).or(word.strip_suffix(".svc")).unwrap_or(word);
        let (name, namespace) = word.split_once('.').unwrap_or((word, own));
        ObjectKey::new(namespace, name)
    }
}

/// What a resolver goes by: the lines of a resolv.conf.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings {
    pub servers: Vec<IpAddr>,
    /// Domains that names are completed with, in this order.
    pub searches: Vec<String>,
    pub options: Vec<DnsOption>,
}

/// What the cluster gives to a resolver.
#[derive(Debug, Clone, Copy)]
pub struct ClusterDns<'a> {
    pub address: IpAddr,
    pub domain: &'a str,
    /// The pod's own.
    pub namespace: &'a str,
}

impl Resolver {
    /// Whether nothing was written about it.
    pub fn is_usual(&self) -> bool {
        *self == Resolver::default()
    }

    /// The text of the pod's resolv.conf.
    pub fn text(&self, cluster: ClusterDns) -> String {
        let Settings { servers, searches, options } = self.settings(cluster);
        written(&servers, &searches, &options)
    }

    /// What the pod's resolver goes by. What is too much for a resolver is cut off, as by kubelet.
    pub fn settings(&self, cluster: ClusterDns) -> Settings {
        let ClusterDns { address, domain, namespace } = cluster;
        let of_cluster = matches!(self.policy, DnsPolicy::ClusterFirst | DnsPolicy::ClusterFirstWithHostNet);
        let (mut servers, mut searches, mut options) = match of_cluster {
            true => (
                vec![address],
                vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.to_owned()],
                vec![DnsOption { name: "ndots".to_owned(), value: Some("5".to_owned()) }],
            ),
            false => Default::default(),
        };
        add_new(&mut servers, &self.nameservers);
        add_new(&mut searches, &self.searches);
        for option in &self.options {
            options.retain(|o| o.name != option.name);
            options.push(option.clone());
        }
        servers.truncate(MOST_NAMESERVERS);
        searches.truncate(MOST_SEARCHES);
        Settings { servers, searches, options }
    }
}

impl Settings {
    /// The names that are tried for `name`, in their order (resolv.conf(5), `search`, `ndots`).
    pub fn candidates(&self, name: &str) -> Vec<String> {
        if name.ends_with('.') {
            return vec![name.to_owned()];
        }
        let complete = |end: &String| match end.trim_end_matches('.') {
            "" => name.to_owned(),
            end => format!("{name}.{end}"),
        };
        let mut all: Vec<String> = self.searches.iter().map(complete).collect();
        let is_enough = name.matches('.').count() >= self.ndots();
        all.insert(if is_enough { 0 } else { all.len() }, name.to_owned());
        all.dedup();
        all
    }

    /// A name with fewer dots is tried with the search list first.
    fn ndots(&self) -> usize {
        let written = self.options.iter().rfind(|o| o.name == "ndots").and_then(|o| o.value.as_ref()?.parse().ok());
        written.unwrap_or(1)
    }
}

fn add_new<T: PartialEq + Clone>(all: &mut Vec<T>, more: &[T]) {
    for item in more {
        if !all.contains(item) {
            all.push(item.clone());
        }
    }
}

fn written(servers: &[IpAddr], searches: &[String], options: &[DnsOption]) -> String {
    let mut text = String::new();
    if !searches.is_empty() {
        let _ = writeln!(text, "search {}", searches.join(" "));
    }
    for server in servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    if !options.is_empty() {
        let option = |o: &DnsOption| match &o.value {
            Some(value) => format!("{}:{value}", o.name),
            None => o.name.clone(),
        };
        let _ = writeln!(text, "options {}", options.iter().map(option).collect::<Vec<_>>().join(" "));
    }
    text
}

/// What a pod's file says of its resolver, checked.
pub(super) fn resolve(
    policy: Option<&At<DnsPolicy>>,
    config: Option<&At<DnsConfig>>,
    problems: &mut Problems,
) -> Resolver {
    let none = DnsConfig::default();
    let config_given = config.map_or(&none, |c| &c.value);
    let mut nameservers = Vec::new();
    for server in &config_given.nameservers {
        match server.parse() {
            Ok(ip) => nameservers.push(ip),
            Err(_) => problems.push(refused("nameservers", server, "must be a valid IP address")),
        }
    }
    if let Some(over) = config_given.nameservers.get(MOST_NAMESERVERS) {
        problems.push(refused("nameservers", over, &format!("must not have more than {MOST_NAMESERVERS} nameservers")));
    }
    check_searches(&config_given.searches, problems);
    if let (Some(policy), true) = (policy.filter(|p| p.value == DnsPolicy::None), config_given.nameservers.is_empty()) {
        problems.push(
            Problem::error(
                codes::OBJECT_INVALID,
                "dnsConfig.nameservers: Required value: under `dnsPolicy: None` the pod would have no DNS server",
            )
            .at(policy.place, "with this")
            .help("write `dnsConfig: { nameservers: [ADDRESS] }`"),
        );
    }
    Resolver {
        policy: policy.map_or_else(DnsPolicy::default, |p| p.value),
        nameservers,
        searches: config_given.searches.iter().map(|s| s.value.clone()).collect(),
        options: config_given.options.clone(),
    }
}

fn check_searches(searches: &[At<String>], problems: &mut Problems) {
    for search in searches {
        // A dot alone is the root; names of services outside may have underscores (KEP 4427).
        let name = search.strip_suffix('.').unwrap_or(search.as_str());
        if search.value != "." && !is_dns_subdomain(&name.replace('_', "x")) {
            problems.push(refused("searches", search, "must be a domain, such as shop.example.com"));
        }
    }
    if let Some(over) = searches.get(MOST_SEARCHES) {
        problems.push(refused("searches", over, &format!("must not have more than {MOST_SEARCHES} search paths")));
    }
    let length = searches.iter().map(|s| s.len()).sum::<usize>() + searches.len().saturating_sub(1);
    if let Some(last) = searches.last().filter(|_| length > MOST_SEARCH_CHARACTERS) {
        let why = format!("must not have more than {MOST_SEARCH_CHARACTERS} characters, spaces included, in the list");
        problems.push(refused("searches", last, &why));
    }
}

fn refused(field: &str, written: &At<String>, why: &str) -> Problem {
    Problem::error(codes::OBJECT_INVALID, format!("dnsConfig.{field}: Invalid value: \"{}\": {why}", written.value))
        .at(written.place, "this one")
        .help("see `man 5 resolv.conf`; the limits are the API server's")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: ClusterDns<'static> = ClusterDns {
        address: IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 10)),
        domain: "cluster.local",
        namespace: "shop",
    };

    fn at(text: &str) -> At<String> {
        At::new(text.to_owned(), Default::default())
    }

    fn resolved(policy: DnsPolicy, config: DnsConfig) -> (Resolver, Problems) {
        let mut problems = Problems::default();
        let (policy, config) = (At::new(policy, Default::default()), At::new(config, Default::default()));
        (resolve(Some(&policy), Some(&config), &mut problems), problems)
    }

    #[test]
    fn a_pod_asks_the_cluster_where_nothing_is_written() {
        let text = Resolver::default().text(CLUSTER);
        let usual =
            "search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n";
        assert_eq!(text, usual);
    }

    #[test]
    fn a_pods_own_config_is_added_and_replaces_options() {
        let ndots = DnsOption { name: "ndots".to_owned(), value: Some("2".to_owned()) };
        let config = DnsConfig {
            nameservers: vec![at("10.96.0.10"), at("192.0.2.1")],
            searches: vec![at("svc.cluster.local"), at("_tcp.example.com"), at(".")],
            options: vec![ndots, DnsOption { name: "edns0".to_owned(), value: None }],
        };
        let (resolver, problems) = resolved(DnsPolicy::ClusterFirst, config);
        assert!(!problems.has_errors());
        let wanted = "search shop.svc.cluster.local svc.cluster.local cluster.local _tcp.example.com .\n\
                      nameserver 10.96.0.10\nnameserver 192.0.2.1\noptions ndots:2 edns0\n";
        assert_eq!(resolver.text(CLUSTER), wanted);
    }

    #[test]
    fn a_machine_itself_is_known_by_its_hosts_file() {
        let known = |name| loopback(name).map(|ip| ip.to_string());
        assert_eq!(known("localhost").as_deref(), Some("127.0.0.1"));
        assert_eq!(known("ip6-localhost").as_deref(), Some("::1"));
        assert_eq!(known("local"), None);
    }

    #[test]
    fn a_name_is_completed_first_where_it_has_few_dots() {
        let usual = Resolver::default().settings(CLUSTER);
        let completed = ["a.b.shop.svc.cluster.local", "a.b.svc.cluster.local", "a.b.cluster.local", "a.b"];
        assert_eq!(usual.candidates("a.b"), completed);
        assert_eq!(usual.candidates("a.b."), ["a.b."]);
        assert_eq!(usual.candidates("a.b.c.d.e.f")[0], "a.b.c.d.e.f");
        let ndots = DnsOption { name: "ndots".to_owned(), value: Some("1".to_owned()) };
        let config = DnsConfig { searches: vec![at(".")], options: vec![ndots], ..DnsConfig::default() };
        let (resolver, _) = resolved(DnsPolicy::ClusterFirst, config);
        let own = resolver.settings(CLUSTER).candidates("a.b");
        assert_eq!((own[0].as_str(), own.len()), ("a.b", 5));
        assert_eq!(Settings::default().candidates("a"), ["a"]);
    }

    #[test]
    fn what_the_api_server_refuses_is_refused() {
        let servers =
            |all: &[&str]| DnsConfig { nameservers: all.iter().map(|s| at(s)).collect(), ..Default::default() };
        let searches =
            |all: Vec<String>| DnsConfig { searches: all.iter().map(|s| at(s)).collect(), ..Default::default() };
        let is_refused = |policy, config| resolved(policy, config).1.has_errors();
        assert!(is_refused(DnsPolicy::None, DnsConfig::default()), "None without a server");
        assert!(!is_refused(DnsPolicy::None, servers(&["192.0.2.1", "192.0.2.2", "2001:db8::1"])));
        assert!(is_refused(DnsPolicy::ClusterFirst, servers(&["dns.example.com"])), "a name");
        assert!(is_refused(DnsPolicy::ClusterFirst, servers(&["192.0.2.1"; 4])), "four of them");
        let numbered = |count: usize| (0..count).map(|n| format!("s{n}.example.com")).collect::<Vec<_>>();
        assert!(!is_refused(DnsPolicy::ClusterFirst, searches(numbered(32))));
        assert!(is_refused(DnsPolicy::ClusterFirst, searches(numbered(33))));
        assert!(is_refused(DnsPolicy::ClusterFirst, searches(vec!["two words".to_owned()])));
        let long = (0..12).map(|n| format!("{}{n}.example.com", "a.".repeat(90))).collect();
        assert!(is_refused(DnsPolicy::ClusterFirst, searches(long)), "more than 2048 characters");
    }
}
