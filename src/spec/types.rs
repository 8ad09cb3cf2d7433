//! What may be written in a lab file: its fields, with Kubernetes' own names and shapes wherever
//! Kubernetes has the thing. Nothing here is checked beyond its shape; meaning is `lab`'s.
//!
//! The JSON Schema in `schemas/` is made from these types, descriptions included, so the words
//! behind `///` are what an editor shows.

use schemars::JsonSchema;
use serde::Deserialize;

use super::at::At;
use super::damage::Damage;
use super::named::Named;
use super::probe::ProbeSpec;
use super::value::{Labels, Port, PortSpec};

/// A lab: hosts on networks, pods on hosts, a flannel network between them, and probes that say
/// what must be true of it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LabFile {
    /// The lab's name; the file's own name without its ending where this is left out.
    pub name: Option<At<String>>,
    /// What the lab is about, in a sentence.
    pub description: Option<String>,
    /// Ranges and network plug-in of the cluster.
    pub cluster: ClusterSpec,
    /// Networks that hosts and clients stand on, each a switch with a router between them. Where
    /// none is written there is one, `lan`.
    pub networks: Named<NetworkSpec>,
    /// The cluster's nodes.
    pub hosts: Named<HostSpec>,
    /// Machines outside the cluster. One called `internet` stands behind the router in every lab.
    pub clients: Named<ClientSpec>,
    /// Single pods.
    pub pods: Named<PodSpec>,
    /// Sets of equal pods, spread over the hosts.
    pub deployments: Named<DeploymentSpec>,
    /// What must be true once the lab is up.
    pub probes: Vec<At<ProbeSpec>>,
    /// What could not be read and is missing in the other fields.
    #[serde(skip)]
    pub damage: Damage,
}

/// Ranges and network plug-in of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClusterSpec {
    /// The range that pods' addresses come from. Default: 10.244.0.0/16.
    #[serde(rename = "podCIDR")]
    pub pod_cidr: Option<At<String>>,
    /// The range that services' virtual addresses come from. Default: 10.96.0.0/12.
    #[serde(rename = "serviceCIDR")]
    pub service_cidr: Option<At<String>>,
    /// The domain of cluster names. Default: cluster.local.
    pub domain: Option<At<String>>,
    /// How pods of different hosts reach each other.
    pub flannel: FlannelSpec,
}

/// Flannel's net-conf.json, with the fields of all its back ends side by side.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct FlannelSpec {
    /// The back end. Default: vxlan.
    pub backend: Option<At<BackendName>>,
    /// The length of each host's subnet. Default: 24.
    pub subnet_len: Option<At<u8>>,
    /// vxlan: the VXLAN Network Identifier. Default: 1.
    #[serde(alias = "VNI")]
    pub vni: Option<At<u32>>,
    /// vxlan and udp: the UDP port. Default: 8472 and 8285.
    #[serde(alias = "Port")]
    pub port: Option<At<Port>>,
    /// vxlan: hosts of one network reach each other by plain routes, without encapsulation.
    #[serde(alias = "DirectRouting")]
    pub direct_routing: Option<At<bool>>,
    /// Whether packets that leave the pod network get their host's address (flanneld's --ip-masq).
    /// Default: true.
    pub ip_masq: Option<bool>,
}

/// One of flannel's back ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, serde::Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BackendName {
    Vxlan,
    HostGw,
    Udp,
}

/// A network: one switch, and the router's address on it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct NetworkSpec {
    /// Its range, such as 192.168.1.0/24. Default: the next free 192.168.N.0/24.
    pub cidr: Option<At<String>>,
    /// The router's address. Default: the range's last usable one.
    pub gateway: Option<At<String>>,
    /// The largest packet of its links, in bytes. Default: 1500.
    pub mtu: Option<At<u32>>,
}

/// A node of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HostSpec {
    /// The network it stands on; may be left out where there is only one.
    pub network: Option<At<String>>,
    /// Its address. Default: the next free one of its network, from .11 on.
    pub address: Option<At<String>>,
    /// The subnet that flannel leases to it. Default: the next free one of the cluster's podCIDR.
    #[serde(rename = "podCIDR")]
    pub pod_cidr: Option<At<String>>,
    /// Labels, as Kubernetes has them on nodes.
    pub labels: Labels,
    /// Ports on which the host itself answers, as an echo pod does.
    pub ports: Vec<At<PortSpec>>,
}

/// A machine outside the cluster.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClientSpec {
    /// The network it stands on; may be left out where there is only one.
    pub network: Option<At<String>>,
    /// Its address. Default: the next free one of its network, from .101 on.
    pub address: Option<At<String>>,
    /// Ports on which it answers, as an echo pod does.
    pub ports: Vec<At<PortSpec>>,
}

/// A pod. `ports`, `command`, `args`, `env` and `readinessProbe` describe its only container;
/// `containers` describes several.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PodSpec {
    /// The host it runs on. Default: the host with the fewest pods.
    pub host: Option<At<String>>,
    /// Its namespace. Default: `default`.
    pub namespace: Option<At<String>>,
    /// Labels.
    pub labels: Labels,
    /// Its address. Default: the next free one of its host's subnet, as host-local gives them.
    pub address: Option<At<String>>,
    /// Taken as Kubernetes has it, with a warning: labctl runs no images.
    pub image: Option<At<String>>,
    /// Ports on which it listens. Without a `command` the built-in echo server answers on each of
    /// them. Default: 8080, TCP and UDP.
    pub ports: Option<Vec<At<PortSpec>>>,
    /// A program to run in place of the echo server.
    pub command: Option<Vec<String>>,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment.
    pub env: Vec<EnvVar>,
    /// When the pod counts as ready.
    pub readiness_probe: Option<At<ReadinessSpec>>,
    /// What happens when a program ends. Default: Always.
    pub restart_policy: Option<RestartPolicy>,
    /// Several containers in one network namespace.
    pub containers: Option<Vec<At<ContainerSpec>>>,
}

/// A number of equal pods.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DeploymentSpec {
    /// How many. Default: 1.
    pub replicas: Option<At<u32>>,
    /// Its namespace. Default: `default`.
    pub namespace: Option<At<String>>,
    /// Labels of each pod.
    pub labels: Labels,
    /// Hosts that the pods are spread over. Default: all.
    pub hosts: Option<Vec<At<String>>>,
    /// Taken as Kubernetes has it, with a warning: labctl runs no images.
    pub image: Option<At<String>>,
    /// Ports, as in a pod.
    pub ports: Option<Vec<At<PortSpec>>>,
    /// A program to run in place of the echo server.
    pub command: Option<Vec<String>>,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment.
    pub env: Vec<EnvVar>,
    /// When a pod counts as ready.
    pub readiness_probe: Option<At<ReadinessSpec>>,
    /// Several containers in one network namespace.
    pub containers: Option<Vec<At<ContainerSpec>>>,
}

/// One container of a pod.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ContainerSpec {
    /// Its name, unique within the pod.
    pub name: Option<At<String>>,
    /// Taken as Kubernetes has it, with a warning: labctl runs no images.
    pub image: Option<At<String>>,
    /// Ports on which it listens.
    pub ports: Option<Vec<At<PortSpec>>>,
    /// A program to run in place of the echo server.
    pub command: Option<Vec<String>>,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment.
    pub env: Vec<EnvVar>,
    /// When the container counts as ready.
    pub readiness_probe: Option<At<ReadinessSpec>>,
}

/// One environment variable.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, serde::Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnvVar {
    /// Its name.
    pub name: String,
    /// Its value. Default: empty.
    #[serde(default)]
    pub value: String,
}

/// What happens when a container's program ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, serde::Serialize, JsonSchema)]
pub enum RestartPolicy {
    #[default]
    Always,
    OnFailure,
    Never,
}

/// Kubernetes' readinessProbe: exactly one of httpGet, tcpSocket and exec.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ReadinessSpec {
    /// Ready while a GET is answered with a status from 200 to 399.
    pub http_get: Option<HttpGet>,
    /// Ready while a connection is accepted.
    pub tcp_socket: Option<TcpSocket>,
    /// Ready while the command ends with 0.
    pub exec: Option<ExecAction>,
    /// Seconds before the first try. Default: 0.
    pub initial_delay_seconds: Option<u32>,
    /// Seconds between tries. Default: 10.
    pub period_seconds: Option<u32>,
    /// Seconds that a try may take. Default: 1.
    pub timeout_seconds: Option<u32>,
    /// Tries in a row that make it ready. Default: 1.
    pub success_threshold: Option<u32>,
    /// Tries in a row that make it unready. Default: 3.
    pub failure_threshold: Option<u32>,
}

/// A GET request to the pod.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpGet {
    /// The path. Default: /.
    #[serde(default)]
    pub path: Option<String>,
    /// The port, by number or by the name that the container gave it.
    pub port: PortRef,
}

/// A TCP connection to the pod.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TcpSocket {
    /// The port, by number or by the name that the container gave it.
    pub port: PortRef,
}

/// A command in the pod.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExecAction {
    /// The program and its arguments.
    pub command: Vec<String>,
}

pub use super::value::PortRef;
