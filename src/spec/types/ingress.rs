//! What may be written of the ingress controller, under `cluster.ingress`. Ingresses themselves are
//! read as Kubernetes' own type.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor, value::MapAccessDeserializer, value::StrDeserializer};

use crate::spec::at::At;
use crate::spec::named::Named;
use crate::spec::value::Port;

/// The cluster's ingress controller. It is there when this is written, even as `{}`, or when the lab
/// has an ingress.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct IngressSettings {
    /// Who serves: `built-in`, `nginx`, `haproxy`, or a map with `command` and `template`. Default: built-in.
    pub controller: Option<At<ControllerSpec>>,
    /// How many pods serve. Default: 1.
    pub replicas: Option<At<u32>>,
    /// The service in front of them.
    pub service: ControllerServiceSpec,
    /// Whether its pods answer on the ports 80 and 443 of their hosts, too. Default: false.
    pub host_port: bool,
    /// Settings, with the names that ingress-nginx has for them in its ConfigMap.
    pub config: Named<ConfigValue>,
    /// The ConfigMap that holds the settings in place of `config`, as NAMESPACE/NAME.
    pub config_map: Option<At<String>>,
    /// The service that answers what no rule matches, as NAMESPACE/NAME. Default: the controller, with 404.
    pub default_backend_service: Option<At<String>>,
    /// The secret with the certificate for names that have none of their own, as NAMESPACE/NAME.
    /// Default: one that nobody signed.
    #[serde(rename = "defaultSSLCertificate")]
    pub default_ssl_certificate: Option<At<String>>,
}

/// The service in front of the ingress controller's pods.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ControllerServiceSpec {
    /// LoadBalancer or NodePort. Default: LoadBalancer.
    #[serde(rename = "type")]
    pub kind: Option<At<ControllerServiceType>>,
    /// Its NodePorts. Default: free ones.
    pub node_ports: NodePorts,
    /// `Local`: only hosts with a pod of the controller answer, which then sees who asks. Default: Cluster.
    pub external_traffic_policy: Option<At<TrafficPolicy>>,
}

/// How the ingress controller is reached from outside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, serde::Serialize, JsonSchema)]
pub enum ControllerServiceType {
    #[default]
    LoadBalancer,
    NodePort,
}

/// Which hosts' pods a service uses for those who come from outside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, serde::Serialize, JsonSchema)]
pub enum TrafficPolicy {
    #[default]
    Cluster,
    Local,
}

/// NodePorts of the ingress controller.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct NodePorts {
    /// That of port 80.
    pub http: Option<At<Port>>,
    /// That of port 443.
    pub https: Option<At<Port>>,
}

/// Which program serves.
#[derive(Debug, Clone, PartialEq)]
pub enum ControllerSpec {
    Named(ControllerName),
    Command(ControllerCommand),
}

/// A controller that labctl knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ControllerName {
    /// labctl's own.
    BuiltIn,
    /// nginx, which must be installed.
    Nginx,
    /// HAProxy, which must be installed.
    Haproxy,
}

/// A controller that the user brings.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ControllerCommand {
    /// The program and its arguments; `{config}` stands for the path of its configuration.
    pub command: Vec<String>,
    /// A file, relative to this one, that its configuration is made from.
    pub template: At<String>,
}

impl Default for ControllerSpec {
    fn default() -> Self {
        ControllerSpec::Named(ControllerName::BuiltIn)
    }
}

impl<'de> Deserialize<'de> for ControllerSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = ControllerSpec;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a controller's name, or a map with command")
            }
            fn visit_str<E: de::Error>(self, word: &str) -> Result<ControllerSpec, E> {
                ControllerName::deserialize(StrDeserializer::new(word)).map(ControllerSpec::Named)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ControllerSpec, A::Error> {
                ControllerCommand::deserialize(MapAccessDeserializer::new(map)).map(ControllerSpec::Command)
            }
        }
        deserializer.deserialize_any(V)
    }
}

impl JsonSchema for ControllerSpec {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Controller".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let name = generator.subschema_for::<ControllerName>();
        let command = generator.subschema_for::<ControllerCommand>();
        schemars::json_schema!({ "anyOf": [name, command] })
    }
}

/// A setting's value. A ConfigMap has only texts; here a number or a truth value need not be in quotes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigValue(pub String);

impl<'de> Deserialize<'de> for ConfigValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = ConfigValue;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text, a number, or true or false")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<ConfigValue, E> {
                Ok(ConfigValue(text.to_owned()))
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<ConfigValue, E> {
                Ok(ConfigValue(number.to_string()))
            }
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<ConfigValue, E> {
                Ok(ConfigValue(number.to_string()))
            }
            fn visit_bool<E: de::Error>(self, value: bool) -> Result<ConfigValue, E> {
                Ok(ConfigValue(value.to_string()))
            }
        }
        deserializer.deserialize_any(V)
    }
}

impl JsonSchema for ConfigValue {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "ConfigValue".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "type": ["string", "number", "boolean"] })
    }
}
