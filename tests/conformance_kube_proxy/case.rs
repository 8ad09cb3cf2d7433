//! A recorded case: configuration, objects, what kube-proxy wrote, and flows with their outcome.

use std::net::IpAddr;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use labctl::objects::{EndpointSlice, Service};
use labctl::plan::proxy::{self, Family, LocalTraffic, ProxyConfig, ProxyRules};

#[derive(Debug, Deserialize)]
struct File {
    cases: Vec<Case>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Case {
    pub id: String,
    pub config: Config,
    /// The node's addresses.
    #[serde(rename = "nodeIPs")]
    pub node_ips: Option<Vec<IpAddr>>,
    pub services: Vec<Value>,
    pub endpoint_slices: Vec<Value>,
    pub canonical_save: String,
    pub flows: Vec<Flow>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    #[serde(rename = "conntrackTCPLiberal")]
    conntrack_tcp_liberal: bool,
    if_local: Option<Vec<String>>,
    ip_family: String,
    localhost_node_ports: bool,
    masquerade_all: bool,
    masquerade_mark: String,
    pub nfacct: bool,
    #[serde(rename = "nodeIP")]
    node_ip: IpAddr,
    node_name: String,
    node_port_addresses: String,
    random_fully: bool,
    topology_labels: Option<std::collections::BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Flow {
    pub name: String,
    #[serde(rename = "sourceIP")]
    pub source: IpAddr,
    pub protocol: String,
    #[serde(rename = "destIP")]
    pub destination: IpAddr,
    pub dest_port: u16,
    /// Endpoints, `REJECT`, `DROP`, `ACCEPT`, or nothing where no rule takes the packet.
    pub output: String,
    pub masq: bool,
}

pub fn read(folder: &Path) -> Vec<Case> {
    let text = std::fs::read_to_string(folder.join("iptables_cases.json")).expect("the recordings");
    serde_json::from_str::<File>(&text).expect("the recordings' form").cases
}

impl Case {
    pub fn config(&self, nfacct: bool) -> ProxyConfig {
        let recorded = &self.config;
        let mut config = ProxyConfig::new(&recorded.node_name, recorded.node_ip);
        config.family = if recorded.ip_family == "IPv6" { Family::V6 } else { Family::V4 };
        config
            .addresses
            .insert(0, if config.family == Family::V4 { "127.0.0.1" } else { "::1" }.parse().expect("an address"));
        config.addresses.extend(self.node_ips.iter().flatten());
        config.labels = recorded.topology_labels.clone().unwrap_or_default();
        config.local = recorded.if_local.as_deref().map(|words| match words {
            [s, cidr] if s == "-s" => LocalTraffic::Cidr(cidr.parse().expect("a range")),
            [i, name] if i == "-i" => LocalTraffic::Interface(name.clone()),
            other => panic!("what is local by {other:?}?"),
        });
        config.masquerade_all = recorded.masquerade_all;
        let mark = u32::from_str_radix(recorded.masquerade_mark.trim_start_matches("0x"), 16).expect("a mark");
        config.masquerade_bit = u8::try_from(mark.trailing_zeros()).expect("a bit");
        config.localhost_nodeports = recorded.localhost_node_ports;
        let ranges = recorded.node_port_addresses.trim_matches(['[', ']']).split_whitespace();
        config.nodeport_addresses = ranges.map(|r| r.parse().expect("a range")).collect();
        config.random_fully = recorded.random_fully;
        config.nfacct = nfacct;
        config.conntrack_tcp_liberal = recorded.conntrack_tcp_liberal;
        config
    }

    pub fn plan(&self, config: &ProxyConfig) -> ProxyRules {
        let services: Vec<Service> = self.services.iter().map(object).collect();
        let slices: Vec<EndpointSlice> = self.endpoint_slices.iter().map(object).collect();
        proxy::plan(&services, &slices, config)
    }
}

fn object<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap_or_else(|e| panic!("{e} in {value}"))
}
