//! `rules`: what kube-proxy would write for manifests, without root and without a lab.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::ExitCode;

use clap::{ArgAction, Args, ValueEnum, value_parser};
use ipnet::IpNet;

use crate::diag::{Problems, Sources};
use crate::plan::proxy::{self, Family, LocalTraffic, ProxyConfig};
use crate::spec::beside;
use crate::spec::manifest::given::Given;

use super::{Done, Failure, output, show};

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum IpFamily {
    Ipv4,
    Ipv6,
}

/// kube-proxy's own flags where it has them, with its defaults.
#[derive(Debug, Args)]
pub struct RulesArgs {
    /// Manifests with Services and EndpointSlices, YAML or JSON; `-` for standard input,
    /// a directory for its files
    #[arg(short = 'f', long = "filename", value_name = "FILE", required = true)]
    pub files: Vec<String>,
    /// The node whose rules they are: endpoints with this nodeName are local
    #[arg(long, value_name = "NAME")]
    pub node: String,
    /// The node's addresses, the first one of a family being its own
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    pub node_ip: Vec<IpAddr>,
    /// The family; that of the first --node-ip where this is left out, or else IPv4
    #[arg(long, value_enum)]
    pub family: Option<IpFamily>,
    /// The node's labels, of which topology.kubernetes.io/zone counts
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',', value_parser = label)]
    pub node_labels: Vec<(String, String)>,
    /// The range of pods' addresses, by which traffic from inside the cluster is known
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub cluster_cidr: Vec<IpNet>,
    /// Masquerade all traffic to cluster IPs
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set)]
    pub masquerade_all: bool,
    /// The bit of the packet mark that means "to be masqueraded"
    #[arg(long, value_name = "BIT", default_value_t = 14, value_parser = value_parser!(u8).range(0..=31))]
    pub masquerade_bit: u8,
    /// Ranges of the addresses that NodePorts answer on, or `primary` for the node's own
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub nodeport_addresses: Vec<NodePortRange>,
    /// Whether NodePorts answer on 127.0.0.1
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true, action = ArgAction::Set)]
    pub iptables_localhost_nodeports: bool,
    /// Whether the kernel has kube-proxy's packet counters (nfacct)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true, action = ArgAction::Set)]
    pub nfacct: bool,
    /// Masquerade with random ports, as kube-proxy does where iptables can
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set)]
    pub random_fully: bool,
}

pub fn run(args: &RulesArgs) -> Done {
    let (mut given, mut problems, mut sources) = (Given::default(), Problems::default(), Sources::default());
    for manifest in beside::read_manifests(&args.files)? {
        match manifest.text {
            Ok(text) => {
                let source = sources.add(&manifest.name, text.as_str());
                given.read(&text, source, &mut problems);
            }
            Err(problem) => problems.push(problem),
        }
    }
    if problems.has_errors() {
        problems.sort();
        return Err(Failure::new(problems, sources));
    }
    show(&problems, &sources);
    let rules = proxy::plan(&given.services, &given.slices, &config(args));
    output::write(format_args!("{}", rules.restore_input()));
    Ok(ExitCode::SUCCESS)
}

fn config(args: &RulesArgs) -> ProxyConfig {
    let family = match args.family {
        Some(IpFamily::Ipv4) => Family::V4,
        Some(IpFamily::Ipv6) => Family::V6,
        None => args.node_ip.first().map_or(Family::V4, Family::of),
    };
    let loopback = match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Family::V6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    // kube-proxy that cannot learn its node's address takes loopback's.
    let node_ip = args.node_ip.iter().copied().find(|ip| family.has(ip)).unwrap_or(loopback);
    let mut config = ProxyConfig::new(&args.node, node_ip);
    config.addresses = std::iter::once(loopback).chain(args.node_ip.iter().copied()).collect();
    config.labels = args.node_labels.iter().cloned().collect();
    config.local = LocalTraffic::by_cidr(&args.cluster_cidr, family);
    config.masquerade_all = args.masquerade_all;
    config.masquerade_bit = args.masquerade_bit;
    config.localhost_nodeports = args.iptables_localhost_nodeports;
    config.nodeport_addresses = args.nodeport_addresses.iter().map(|range| range.range(node_ip)).collect();
    config.random_fully = args.random_fully;
    config.nfacct = args.nfacct;
    config
}

/// A range of `--nodeport-addresses`, or the word for the node's own address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodePortRange {
    Primary,
    Range(IpNet),
}

impl NodePortRange {
    fn range(&self, node_ip: IpAddr) -> IpNet {
        match self {
            NodePortRange::Primary => IpNet::from(node_ip),
            NodePortRange::Range(range) => *range,
        }
    }
}

impl std::str::FromStr for NodePortRange {
    type Err = ipnet::AddrParseError;

    fn from_str(word: &str) -> Result<NodePortRange, Self::Err> {
        if word == "primary" { Ok(NodePortRange::Primary) } else { word.parse().map(NodePortRange::Range) }
    }
}

/// `KEY=VALUE`.
pub fn label(word: &str) -> Result<(String, String), String> {
    let (key, value) = word.split_once('=').ok_or("a label is KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}
