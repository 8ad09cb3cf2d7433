//! The lab's meaning: every name resolved, every address given, nothing missing.
//!
//! A [`Lab`] is made by [`super::resolve`] alone, and only when no error was found, so code that
//! holds one need not ask again. Devices, routes and rules are `plan`'s.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::dns::Dns;
use super::external::ExternalRoute;
use super::host_ports::HostPort;
use super::ingress::IngressLayer;
use super::names::{HostName, IfName, LabName, NetworkName, NsName, PodId, path_of};
use super::probe::Probe;
use super::resolver::{ClusterDns, Resolver, Settings};
use crate::objects::{ConfigMap, EndpointSlice, ObjectKey, Secret, Service};
use crate::spec::types::{EnvVar, RestartPolicy};
use crate::spec::value::{Labels, Protocol};

/// A valid lab.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Lab {
    pub name: LabName,
    pub description: Option<String>,
    pub cluster: Cluster,
    pub networks: Vec<Network>,
    pub hosts: Vec<Host>,
    pub clients: Vec<Client>,
    pub pods: Vec<Pod>,
    /// Deployments, those of the cluster's DNS and of the ingress controller among them. Their pods are among [`Lab::pods`].
    pub deployments: Vec<Deployment>,
    /// Services with all their fields, those that every cluster has among them; empty where the lab
    /// has no service layer.
    pub services: Vec<Service>,
    /// Endpoint slices as given, for services without selector.
    pub slices: Vec<EndpointSlice>,
    /// What the router sends to hosts beside their own addresses.
    pub external_routes: Vec<ExternalRoute>,
    /// Kubernetes' namespaces.
    pub namespaces: BTreeSet<String>,
    /// The cluster's DNS; nothing where the lab has no service layer.
    pub dns: Option<Dns>,
    /// The ingress controller and what it serves; nothing where the lab has no ingress.
    pub ingress: Option<IngressLayer>,
    /// Secrets with all their fields, `stringData` worked into `data`.
    #[serde(skip)]
    pub secrets: Vec<Secret>,
    #[serde(skip)]
    pub config_maps: Vec<ConfigMap>,
    #[serde(skip)]
    pub probes: Vec<Probe>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cluster {
    #[serde(rename = "podCIDR")]
    pub pod_cidr: IpNet,
    #[serde(rename = "serviceCIDR")]
    pub service_cidr: IpNet,
    pub domain: String,
    pub backend: Backend,
    /// Whether flanneld runs with `--ip-masq`.
    pub ip_masq: bool,
    /// The ports that NodePorts come from.
    pub node_ports: RangeInclusive<u16>,
    pub proxy: ProxySettings,
    /// The range that load balancers' public addresses come from.
    pub balancers: IpNet,
}

/// How kube-proxy is set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProxySettings {
    pub masquerade_all: bool,
    pub localhost_node_ports: bool,
    /// Ranges of host addresses on which NodePorts answer; empty: all.
    pub node_port_addresses: Vec<IpNet>,
}

/// A flannel back end with its options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Backend {
    #[serde(rename_all = "camelCase")]
    Vxlan {
        vni: u32,
        port: u16,
        direct_routing: bool,
    },
    HostGw,
    Udp {
        port: u16,
    },
}

impl Backend {
    /// The back end's type, as net-conf.json spells it.
    pub fn name(&self) -> &'static str {
        match self {
            Backend::Vxlan { .. } => "vxlan",
            Backend::HostGw => "host-gw",
            Backend::Udp { .. } => "udp",
        }
    }
}

/// A switch with the router's address on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Network {
    pub name: NetworkName,
    /// The network's range, with the router's address in it.
    pub gateway: IpNet,
    pub mtu: u32,
    /// Its number in the lab, which stays when others come and go. Device indices follow from it.
    pub slot: u32,
}

/// Where a machine is plugged in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Attachment {
    /// Index into [`Lab::networks`].
    #[serde(skip)]
    pub network: usize,
    /// Address and prefix length.
    pub address: IpNet,
    /// Its number among hosts and clients, which stays when others come and go.
    pub slot: u32,
}

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Host {
    pub name: HostName,
    #[serde(flatten)]
    pub attachment: Attachment,
    /// The subnet that flannel leases to it.
    #[serde(rename = "podCIDR")]
    pub pod_cidr: IpNet,
    pub labels: Labels,
    pub ports: Vec<Port>,
}

/// A machine outside the cluster.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Client {
    pub name: HostName,
    #[serde(flatten)]
    pub attachment: Attachment,
    pub ports: Vec<Port>,
}

/// A port that something listens on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    pub number: u16,
    pub protocol: Protocol,
    pub name: Option<String>,
    /// The port of the pod's host that leads here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_port: Option<HostPort>,
}

/// A pod with its place and address.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    pub id: PodId,
    pub host: HostName,
    /// Its address, with the prefix length of its host's subnet.
    pub address: IpNet,
    /// The host's end of its veth pair.
    pub veth: IfName,
    pub labels: Labels,
    /// The deployment it belongs to.
    pub owner: Option<String>,
    pub restart_policy: RestartPolicy,
    /// What it calls itself, and is called behind the headless service that `subdomain` names.
    pub hostname: Option<String>,
    pub subdomain: Option<String>,
    /// Where it resolves names, where that is not the cluster's DNS alone.
    #[serde(skip_serializing_if = "Resolver::is_usual")]
    pub resolver: Resolver,
    /// How long its programs have to end.
    pub grace: Duration,
    pub containers: Vec<Container>,
}

/// A number of equal pods.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Deployment {
    #[serde(flatten)]
    pub key: ObjectKey,
    pub replicas: u32,
    /// Its pods' labels.
    pub labels: Labels,
}

/// One container of a pod.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Container {
    pub name: String,
    pub ports: Vec<Port>,
    pub run: Run,
    pub readiness: Option<Readiness>,
}

/// What a container does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Run {
    /// The built-in echo server answers on its ports.
    Echo,
    /// The cluster's DNS server.
    Dns,
    /// The ingress controller.
    Ingress,
    Program {
        command: Vec<String>,
        env: Vec<EnvVar>,
    },
}

/// A readiness probe with all its numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Readiness {
    pub check: ReadinessCheck,
    pub initial_delay: Duration,
    pub period: Duration,
    pub timeout: Duration,
    pub success_threshold: u32,
    pub failure_threshold: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum ReadinessCheck {
    HttpGet(HttpCheck),
    TcpSocket {
        port: u16,
    },
    Exec {
        command: Vec<String>,
    },
    /// The health of `service`; of the whole server where it is empty.
    Grpc {
        port: u16,
        service: String,
    },
}

/// A GET request that tells whether a container is ready.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct HttpCheck {
    pub path: String,
    pub port: u16,
    pub https: bool,
    /// Who is asked; the pod where this is left out.
    pub host: Option<IpAddr>,
    /// Names and values of headers, as they may stand in a request.
    pub headers: Vec<(String, String)>,
}

/// The tenth address of a range of services.
pub(super) fn dns_address(range: IpNet) -> IpAddr {
    range.hosts().nth(9).unwrap_or(range.addr())
}

impl Host {
    pub fn ns(&self) -> NsName {
        NsName::Host(self.name.clone())
    }

    pub fn ip(&self) -> IpAddr {
        self.attachment.address.addr()
    }
}

impl Client {
    pub fn ns(&self) -> NsName {
        NsName::Client(self.name.clone())
    }

    pub fn ip(&self) -> IpAddr {
        self.attachment.address.addr()
    }
}

impl Pod {
    pub fn ns(&self) -> NsName {
        NsName::Pod(self.id.clone())
    }

    pub fn ip(&self) -> IpAddr {
        self.address.addr()
    }

    /// What the pod calls itself: the hostname that was written, or else its own name.
    pub fn hostname(&self) -> &str {
        self.hostname.as_deref().unwrap_or(self.id.name.as_str())
    }

    pub fn ports(&self) -> impl Iterator<Item = &Port> {
        self.containers.iter().flat_map(|c| &c.ports)
    }
}

impl Lab {
    pub fn host(&self, name: &HostName) -> Option<&Host> {
        self.hosts.iter().find(|h| h.name == *name)
    }

    /// The service `namespace/name`.
    pub fn service(&self, key: &ObjectKey) -> Option<&Service> {
        self.services.iter().find(|s| ObjectKey::of(&s.metadata) == *key)
    }

    pub fn pod(&self, id: &PodId) -> Option<&Pod> {
        self.pods.iter().find(|p| p.id == *id)
    }

    pub fn network_of(&self, attachment: &Attachment) -> &Network {
        &self.networks[attachment.network]
    }

    pub fn pods_on<'a>(&'a self, host: &'a HostName) -> impl Iterator<Item = &'a Pod> {
        self.pods.iter().filter(move |p| p.host == *host)
    }

    /// Every namespace of the lab, the router first, then hosts, clients and pods.
    pub fn namespaces(&self) -> impl Iterator<Item = NsName> + '_ {
        std::iter::once(NsName::Router)
            .chain(self.hosts.iter().map(Host::ns))
            .chain(self.clients.iter().map(Client::ns))
            .chain(self.pods.iter().map(Pod::ns))
    }

    /// The namespace that a person means by `word`: `tea-1`, `kube-system/coredns-1`, `node1`,
    /// `router`, a full path such as `pod/default/tea-1`, or as kubectl has it, `pod/tea-1`.
    pub fn find(&self, word: &str) -> Option<NsName> {
        let called = |word: &str| self.namespaces().find(|ns| ns.is_called(word));
        called(word).or_else(|| called(&path_of(word)?))
    }

    /// The address that stands for a namespace; the router's is the first network's gateway.
    pub fn address_of(&self, ns: &NsName) -> Option<IpAddr> {
        match ns {
            NsName::Router => self.networks.first().map(|n| n.gateway.addr()),
            NsName::Host(name) => self.host(name).map(Host::ip),
            NsName::Client(name) => self.clients.iter().find(|c| c.name == *name).map(Client::ip),
            NsName::Pod(id) => self.pod(id).map(Pod::ip),
        }
    }

    /// The cluster's DNS service: the tenth address of the service range, as kubeadm gives it.
    pub fn dns_address(&self) -> IpAddr {
        dns_address(self.cluster.service_cidr)
    }

    /// What the cluster gives to a pod's resolver.
    pub fn cluster_dns<'a>(&'a self, pod: &'a Pod) -> ClusterDns<'a> {
        let namespace = pod.id.namespace.as_str();
        ClusterDns { address: self.dns_address(), domain: &self.cluster.domain, namespace }
    }

    /// What a machine's resolver goes by: a pod's, as kubelet sets it up. Hosts, clients and the router know no
    /// DNS server.
    pub fn resolver_of(&self, ns: &NsName) -> Settings {
        match ns {
            NsName::Pod(id) => self.pod(id).map(|pod| pod.resolver.settings(self.cluster_dns(pod))).unwrap_or_default(),
            _ => Settings::default(),
        }
    }

    /// Who has an address, where anyone in the lab does.
    pub fn owner_of(&self, ip: IpAddr) -> Option<NsName> {
        if self.networks.iter().any(|n| n.gateway.addr() == ip) {
            return Some(NsName::Router);
        }
        self.namespaces().find(|ns| self.address_of(ns) == Some(ip))
    }
}
