//! What may be written in a lab file: its fields, with Kubernetes' own names and shapes wherever
//! Kubernetes has the thing. Nothing here is checked beyond its shape; meaning is `lab`'s.
//!
//! The JSON Schema in `schemas/` is made from these types, descriptions included, so the words
//! behind `///` are what an editor shows.

use schemars::JsonSchema;
use serde::Deserialize;

use super::at::At;
use super::damage::Damage;
use super::edit::Replaced;
use super::manifest::Objects;
use super::named::Named;
use super::probe::ProbeSpec;
use super::resolver::{DnsConfig, DnsPolicy};
use super::value::{Labels, OneOrMore, Port, PortSpec};
use crate::diag::Problem;

mod container;
mod ingress;

pub use self::container::{
    ContainerSpec, EnvVar, ExecAction, GrpcAction, HttpGet, HttpHeader, ReadinessSpec, RestartPolicy, TcpSocket,
    UriScheme,
};
pub use self::ingress::{
    ControllerCommand, ControllerName, ControllerServiceSpec, ControllerServiceType, ControllerSpec, IngressSettings,
    TrafficPolicy,
};
pub use super::value::PortRef;

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
    /// Services, each with the fields of a Kubernetes Service's `spec`, and `namespace`, `labels` and
    /// `annotations` beside them.
    pub services: ServicesSpec,
    /// Ingresses, each with the fields of a Kubernetes Ingress' `spec`, and `namespace`, `labels` and
    /// `annotations` beside them.
    pub ingresses: IngressesSpec,
    /// Ingress classes, each with the fields of a Kubernetes IngressClass' `spec`, and `labels` and
    /// `annotations` beside them.
    pub ingress_classes: IngressClassesSpec,
    /// Secrets, each with `type`, `data` and `stringData` as Kubernetes has them, and `namespace`, `labels`
    /// and `annotations`; or with `generate: true`, and the lab makes a certificate.
    pub secrets: SecretsSpec,
    /// ConfigMaps, each with `data` and `binaryData` as Kubernetes has them, and `namespace`, `labels` and
    /// `annotations`.
    pub config_maps: ConfigMapsSpec,
    /// Files with ordinary Kubernetes manifests, relative to this one; `*` stands for any letters.
    pub manifests: Vec<At<String>>,
    /// The cluster's DNS. It is there when this is written, even as `{}`, or when the lab has services.
    pub dns: Option<DnsSpec>,
    /// What must be true once the lab is up.
    pub probes: Vec<At<ProbeSpec>>,
    /// Services and what the manifests hold.
    #[serde(skip)]
    pub objects: Objects,
    /// The text that `cluster.ingress.controller.template` names, or why it cannot be read; nothing
    /// where no template is named.
    #[serde(skip)]
    pub template: Option<Result<String, Problem>>,
    /// What could not be read and is missing in the other fields.
    #[serde(skip)]
    pub damage: Damage,
    /// Deployments' pods that were deleted while the lab ran.
    #[serde(skip)]
    pub replaced: Replaced,
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
    /// The ports that NodePorts come from (kube-apiserver's --service-node-port-range). Default:
    /// 30000-32767.
    pub service_node_port_range: Option<At<String>>,
    /// How kube-proxy is set.
    pub kube_proxy: KubeProxySpec,
    /// The cloud's load balancers.
    pub load_balancer: LoadBalancerSpec,
    /// Addresses, or ranges of them, that the router sends to hosts, each with the host or hosts. A
    /// service's externalIPs are reachable from outside only where somebody routes them.
    pub external_routes: Named<OneOrMore>,
    /// The ingress controller. It is there when this is written, even as `{}`, or when the lab has an
    /// ingress.
    pub ingress: Option<At<IngressSettings>>,
}

/// kube-proxy's configuration, as far as it changes rules.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct KubeProxySpec {
    /// Masquerade everything that goes to a service's virtual address. Default: false.
    #[serde(rename = "masqueradeAll")]
    pub masquerade_all: bool,
    /// Whether NodePorts answer on 127.0.0.1, too. Default: true.
    pub localhost_node_ports: Option<bool>,
    /// Ranges of host addresses on which NodePorts answer. Default: all of them.
    pub node_port_addresses: Vec<At<String>>,
}

/// The cloud's load balancers, which stand at the router.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LoadBalancerSpec {
    /// The range that their public addresses come from. Default: 198.51.100.0/24.
    pub addresses: Option<At<String>>,
}

/// The cluster's DNS server, CoreDNS' place in Kubernetes.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DnsSpec {
    /// Names outside the cluster, each with its addresses, or with the name that it is an alias of.
    /// Other names do not exist: no machine outside the lab is asked.
    pub records: Named<DnsRecord>,
    /// How many pods answer. Default: 2.
    pub replicas: Option<At<u32>>,
    /// Which names of the form `10-244-1-2.default.pod.cluster.local` are answered. Default:
    /// insecure.
    pub pods: Option<PodRecords>,
}

/// An address, a name, or a list of addresses.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum DnsRecord {
    One(String),
    Several(Vec<String>),
}

impl Default for DnsRecord {
    fn default() -> Self {
        DnsRecord::Several(Vec::new())
    }
}

/// Which pod names the DNS server answers, as in CoreDNS' `pods` option.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, serde::Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PodRecords {
    /// None.
    Disabled,
    /// Any address, whether or not a pod has it.
    #[default]
    Insecure,
    /// Those of pods that are there.
    Verified,
}

/// Sections whose entries are read as manifests are; see [`super::manifest`].
macro_rules! read_as_manifests {
    ($($(#[$doc:meta])* $name:ident = $schema_name:literal, $schema:path;)*) => { $(
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct $name;

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                serde::de::IgnoredAny::deserialize(deserializer).map(|_| $name)
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $schema_name.into()
            }
            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                $schema(generator)
            }
        }
    )* };
}

read_as_manifests! {
    /// The section `services`.
    ServicesSpec = "Services", super::manifest::service::schema;
    /// The section `ingresses`.
    IngressesSpec = "Ingresses", super::manifest::ingress::schema;
    /// The section `ingressClasses`.
    IngressClassesSpec = "IngressClasses", super::manifest::ingress::class_schema;
    /// The section `secrets`.
    SecretsSpec = "Secrets", super::manifest::secret::schema;
    /// The section `configMaps`.
    ConfigMapsSpec = "ConfigMaps", super::manifest::secret::config_map_schema;
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

// A container's fields stand in pods and deployments once more: serde's `flatten` would put them together, and
// would lose the places of values and the refusal of unknown fields.

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
    /// Its name behind a headless service called as `subdomain` is. Default: the pod's name.
    pub hostname: Option<At<String>>,
    /// The headless service that its full name is behind.
    pub subdomain: Option<At<String>>,
    /// Where it resolves names. Default: ClusterFirst.
    pub dns_policy: Option<At<DnsPolicy>>,
    /// What is added to its resolv.conf.
    pub dns_config: Option<At<DnsConfig>>,
    /// Seconds that its programs have to end. Default: 30.
    pub termination_grace_period_seconds: Option<At<u32>>,
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
    /// The headless service that the pods' full names are behind.
    pub subdomain: Option<At<String>>,
    /// Where its pods resolve names. Default: ClusterFirst.
    pub dns_policy: Option<At<DnsPolicy>>,
    /// What is added to their resolv.conf.
    pub dns_config: Option<At<DnsConfig>>,
    /// Seconds that a pod's programs have to end. Default: 30.
    pub termination_grace_period_seconds: Option<At<u32>>,
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
