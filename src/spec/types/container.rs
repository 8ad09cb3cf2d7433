//! What may be written of a container: its program, its ports, and when it is ready. The pod around it
//! is the parent's.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::spec::at::At;
use crate::spec::value::{Port, PortRef, PortSpec};

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

/// Kubernetes' readinessProbe: exactly one of httpGet, tcpSocket, exec and grpc.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ReadinessSpec {
    /// Ready while a GET is answered with a status from 200 to 399.
    pub http_get: Option<HttpGet>,
    /// Ready while a connection is accepted.
    pub tcp_socket: Option<TcpSocket>,
    /// Ready while the command ends with 0.
    pub exec: Option<ExecAction>,
    /// Ready while the gRPC health checking protocol answers SERVING.
    pub grpc: Option<GrpcAction>,
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
    /// HTTPS' certificate is not checked. Default: HTTP.
    #[serde(default)]
    pub scheme: Option<UriScheme>,
    /// The address to ask in place of the pod's; for a virtual host set the header `Host`.
    #[serde(default)]
    pub host: Option<At<String>>,
    /// Headers of the request.
    #[serde(default)]
    pub http_headers: Vec<HttpHeader>,
}

/// How a request goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum UriScheme {
    #[default]
    Http,
    Https,
}

/// One header of a request.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpHeader {
    /// Its name.
    pub name: String,
    /// Its value. Default: empty.
    #[serde(default)]
    pub value: String,
}

/// A request of the gRPC health checking protocol to the pod.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcAction {
    /// The port's number.
    pub port: Port,
    /// The service whose health is asked for. Default: that of the whole server.
    #[serde(default)]
    pub service: Option<String>,
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
