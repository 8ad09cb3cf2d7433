//! What a DNS server is told once, at its start: its zones and the options of CoreDNS' kubernetes
//! plugin, under CoreDNS' own names for them. What is in the cluster comes later and again and
//! again; see [`super::records`].

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::name::{self, Name};

/// Bytes of the longest zone: `hostmaster` and a service's own labels must find room before it.
const MAX_ZONE: usize = 200;

/// The process: where it listens and what it serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Config {
    /// The address of all its ports; `0.0.0.0` is every address of the pod.
    pub listen: IpAddr,
    /// Of UDP and TCP. 0 is any free one, which `ready` then tells.
    pub port: u16,
    /// `/health` and `/ready` over HTTP, as CoreDNS' plugins of these names have them.
    pub health: Option<u16>,
    pub ready: Option<u16>,
    /// `/metrics` in Prometheus' text form.
    pub metrics: Option<u16>,
    pub dns: DnsConfig,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            listen: IpAddr::from([0, 0, 0, 0]),
            port: 53,
            health: Some(8080),
            ready: Some(8181),
            metrics: Some(9153),
            dns: DnsConfig::default(),
        }
    }
}

/// How names are answered. The defaults are those of the Corefile that kubeadm writes, but for the
/// TTL, which is CoreDNS' own default of 5 s instead of kubeadm's 30: in a lab that is changed and
/// looked at, nobody should be waiting for a resolver to forget.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DnsConfig {
    /// The cluster's domain.
    pub domain: String,
    /// Zones served besides it; those under `in-addr.arpa` and `ip6.arpa` have the PTR records.
    pub zones: Vec<String>,
    /// Seconds that an answer may be remembered.
    pub ttl: u32,
    pub pods: Pods,
    /// Namespaces whose names are served; all where empty.
    pub namespaces: Vec<String>,
    /// `ignore empty_service`: a service without endpoints is not there.
    pub ignore_empty_service: bool,
    /// `endpoint_pod_names`: an endpoint without a hostname has its pod's name.
    pub endpoint_pod_names: bool,
    /// `zonal`: `ZONE.pin._zone.SERVICE…` and `ZONE.prefer._zone.SERVICE…` exist.
    pub zonal: bool,
    /// Zones of which names that the cluster does not have are looked up in `records`.
    pub fallthrough: Vec<String>,
    /// Addresses in a new order each time.
    pub loadbalance: bool,
    /// The server's own addresses, by which it finds the service that it is behind, whose name and
    /// address its NS records have.
    pub local_ips: Vec<IpAddr>,
    /// What names outside the cluster stand for. Nobody outside is asked, so there are no others.
    pub records: BTreeMap<String, Vec<Record>>,
}

impl Default for DnsConfig {
    fn default() -> Self {
        let reverse = || vec!["in-addr.arpa".to_owned(), "ip6.arpa".to_owned()];
        DnsConfig {
            domain: "cluster.local".to_owned(),
            zones: reverse(),
            ttl: 5,
            pods: Pods::Insecure,
            namespaces: Vec::new(),
            ignore_empty_service: false,
            endpoint_pod_names: false,
            zonal: false,
            fallthrough: reverse(),
            loadbalance: true,
            local_ips: Vec::new(),
            records: BTreeMap::new(),
        }
    }
}

/// Names such as `10-244-1-2.default.pod.cluster.local`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pods {
    /// There are none.
    Disabled,
    /// Any address, in a namespace that exists.
    Insecure,
    /// Addresses of pods of that namespace.
    Verified,
}

/// What a name outside the cluster stands for: `{"a": "192.0.2.1"}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Record {
    A(std::net::Ipv4Addr),
    Aaaa(std::net::Ipv6Addr),
    Cname(String),
    Txt(String),
    Ptr(String),
    Ns(String),
    Mx { preference: u16, exchange: String },
    Srv { priority: u16, weight: u16, port: u16, target: String },
}

/// A [`DnsConfig`] with its names in wire form, in lower case where they are compared.
#[derive(Debug)]
pub(super) struct Settings {
    pub zones: Vec<Zone>,
    /// The first zone that is not a reverse one, to which PTR records lead.
    pub primary: Box<[u8]>,
    pub config: DnsConfig,
    pub fallthrough: Vec<Box<[u8]>>,
    pub namespaces: Vec<Vec<u8>>,
    /// Names that only lead to others are here without anything (RFC 8020).
    outside: HashMap<Box<[u8]>, Vec<Data>>,
    /// Those of the configuration.
    records: BTreeMap<String, Vec<Record>>,
}

#[derive(Debug)]
pub(super) struct Zone {
    pub wire: Box<[u8]>,
    pub reverse: bool,
}

/// A [`Record`] with its names in wire form.
#[derive(Debug, Clone)]
pub(super) enum Data {
    Address(IpAddr),
    Cname(Box<[u8]>),
    Pointing(u16, Box<[u8]>),
    Txt(Box<[u8]>),
    Mx(u16, Box<[u8]>),
    Srv([u16; 3], Box<[u8]>),
}

fn wire(text: &str) -> io::Result<Box<[u8]>> {
    let no = || io::Error::new(io::ErrorKind::InvalidInput, format!("`{text}` is no domain name"));
    name::parse(text).ok_or_else(no)
}

fn lower(text: &str) -> io::Result<Box<[u8]>> {
    wire(&text.to_ascii_lowercase())
}

fn zone(text: &str) -> io::Result<Zone> {
    let wire = lower(text)?;
    if wire.len() > MAX_ZONE {
        let problem = format!("the zone `{text}` is too long for names in it");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    }
    let reverse = wire.ends_with(b"\x07in-addr\x04arpa\0") || wire.ends_with(b"\x03ip6\x04arpa\0");
    Ok(Zone { wire, reverse })
}

impl Settings {
    /// # Errors
    /// A zone or a record's name that is none.
    pub fn new(config: &DnsConfig) -> io::Result<Settings> {
        let texts = std::iter::once(&config.domain).chain(&config.zones);
        let zones = texts.map(|z| zone(z)).collect::<io::Result<Vec<_>>>()?;
        let forward = zones.iter().find(|z| !z.reverse);
        let none = || io::Error::new(io::ErrorKind::InvalidInput, "the cluster's domain is a reverse zone");
        Ok(Settings {
            primary: forward.ok_or_else(none)?.wire.clone(),
            fallthrough: config.fallthrough.iter().map(|z| lower(z)).collect::<io::Result<_>>()?,
            namespaces: config.namespaces.iter().map(|n| n.to_ascii_lowercase().into_bytes()).collect(),
            outside: outside(&config.records)?,
            records: config.records.clone(),
            zones,
            config: DnsConfig { records: BTreeMap::new(), ..config.clone() },
        })
    }
}

impl Settings {
    /// Let these names outside the cluster, and those of the configuration, be all that there are.
    pub fn set_outside(&mut self, names: &BTreeMap<String, Vec<IpAddr>>) {
        let record = |ip: &IpAddr| match ip {
            IpAddr::V4(ip) => Record::A(*ip),
            IpAddr::V6(ip) => Record::Aaaa(*ip),
        };
        let mut all = self.records.clone();
        for (name, ips) in names.iter().filter(|(name, _)| name::parse(name).is_some()) {
            all.entry(name.to_ascii_lowercase()).or_insert_with(|| ips.iter().map(record).collect());
        }
        // Those of the configuration have been read before, and the others are names, too.
        if let Ok(all) = outside(&all) {
            self.outside = all;
        }
    }

    /// Have the names outside the cluster that `before` has.
    pub fn keep_outside(&mut self, before: &mut Settings) {
        self.outside = std::mem::take(&mut before.outside);
    }

    /// What a name outside the cluster stands for. One that is not there is what a wildcard stands for,
    /// where its closest parent that is there has one (RFC 4592, 3.3.1).
    pub fn outside(&self, name: &Name) -> Option<&[Data]> {
        let exact = self.outside.get(name.wire());
        let wildcard = || {
            let parent = (1..name.labels()).map(|n| name.from(n)).find(|parent| self.outside.contains_key(*parent))?;
            self.outside.get(&[b"\x01*", parent].concat()[..])
        };
        exact.or_else(wildcard).map(Vec::as_slice)
    }
}

fn outside(records: &BTreeMap<String, Vec<Record>>) -> io::Result<HashMap<Box<[u8]>, Vec<Data>>> {
    let mut all: HashMap<Box<[u8]>, Vec<Data>> = HashMap::new();
    for (name, records) in records {
        let name = lower(name)?;
        let data = records.iter().map(data).collect::<io::Result<Vec<_>>>()?;
        let mut rest = &name[..];
        // `a.b.c` being there, `b.c` and `c` are, too.
        while let Some(parent) = rest.first().and_then(|length| rest.get(1 + usize::from(*length)..)) {
            if parent.len() > 1 {
                all.entry(parent.into()).or_default();
            }
            rest = parent;
        }
        all.entry(name).or_default().extend(data);
    }
    Ok(all)
}

fn data(record: &Record) -> io::Result<Data> {
    use super::query::kind;
    Ok(match record {
        Record::A(ip) => Data::Address((*ip).into()),
        Record::Aaaa(ip) => Data::Address((*ip).into()),
        Record::Cname(target) => Data::Cname(wire(target)?),
        Record::Txt(text) => Data::Txt(text.as_bytes().into()),
        Record::Ptr(target) => Data::Pointing(kind::PTR, wire(target)?),
        Record::Ns(target) => Data::Pointing(kind::NS, wire(target)?),
        Record::Mx { preference, exchange } => Data::Mx(*preference, wire(exchange)?),
        Record::Srv { priority, weight, port, target } => Data::Srv([*priority, *weight, *port], wire(target)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_outside_come_and_go_and_those_of_the_configuration_win() {
        let records = BTreeMap::from([("own.example.com".to_owned(), vec![Record::A([192, 0, 2, 1].into())])]);
        let mut settings = Settings::new(&DnsConfig { records, ..DnsConfig::default() }).unwrap();
        let names =
            |all: &[&str]| all.iter().map(|name| ((*name).to_owned(), vec![IpAddr::from([198, 51, 100, 1])])).collect();
        let found = |settings: &Settings, name: &str| {
            let data = settings.outside(&Name::read(&name::parse(name).unwrap()).unwrap())?;
            Some(data.iter().filter_map(Data::ip).map(|ip| ip.to_string()).collect::<String>())
        };
        settings.set_outside(&names(&["own.example.com", "cafe.example.com"]));
        assert_eq!(found(&settings, "own.example.com").as_deref(), Some("192.0.2.1"));
        assert_eq!(found(&settings, "cafe.example.com").as_deref(), Some("198.51.100.1"));
        settings.set_outside(&names(&["tea.example.com"]));
        assert_eq!(found(&settings, "cafe.example.com"), None);
        assert_eq!(found(&settings, "tea.example.com").as_deref(), Some("198.51.100.1"));
    }

    #[test]
    fn a_wildcard_stands_for_what_its_parent_does_not_have() {
        let a = |n: u8| vec![Record::A([192, 0, 2, n].into())];
        let named = [("*.example.com", 1), ("www.example.com", 2), ("x.y.example.com", 3), ("example.org", 4)];
        let records = named.map(|(name, n)| (name.to_owned(), a(n))).into();
        let settings = Settings::new(&DnsConfig { records, ..DnsConfig::default() }).unwrap();
        let found = |name: &str| {
            let data = settings.outside(&Name::read(&name::parse(name).unwrap()).unwrap())?;
            Some(data.iter().filter_map(Data::ip).map(|ip| ip.to_string()).collect::<String>())
        };
        for (name, ip) in [
            ("any.example.com", Some("192.0.2.1")),
            ("ANY.thing.example.com", Some("192.0.2.1")),
            ("*.example.com", Some("192.0.2.1")),
            ("www.example.com", Some("192.0.2.2")),
            // What is there, with or without data, hides the wildcard, and so does a parent nearer to the name.
            ("example.com", Some("")),
            ("y.example.com", Some("")),
            ("any.y.example.com", None),
            ("any.www.example.com", None),
            ("any.*.example.com", None),
            ("any.example.org", None),
            ("any.example.net", None),
        ] {
            assert_eq!(found(name).as_deref(), ip, "{name}");
        }
    }
}
