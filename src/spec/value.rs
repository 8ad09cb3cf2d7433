//! Small values with more than one way to write them: ports, port references, labels.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor, value::MapAccessDeserializer};

use super::at::At;

/// Labels, in the order of their keys. Kubernetes' rules for keys and values are checked in `lab`.
pub type Labels = BTreeMap<String, String>;

/// A port number from 1 to 65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct Port(pub u16);

impl Port {
    fn read<E: de::Error>(n: i64) -> Result<Port, E> {
        match u16::try_from(n) {
            Ok(port) if port > 0 => Ok(Port(port)),
            _ => Err(E::custom(format!("{n} is not a port; ports go from 1 to 65535"))),
        }
    }
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = Port;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port number from 1 to 65535")
            }
            fn visit_i64<E: de::Error>(self, n: i64) -> Result<Port, E> {
                Port::read(n)
            }
            fn visit_u64<E: de::Error>(self, n: u64) -> Result<Port, E> {
                Port::read(i64::try_from(n).unwrap_or(i64::MAX))
            }
        }
        deserializer.deserialize_u16(V)
    }
}

impl JsonSchema for Port {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Port".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "type": "integer", "minimum": 1, "maximum": 65535 })
    }
}

/// The transport of a port.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize, serde::Serialize, JsonSchema,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
        })
    }
}

/// A container's port: a number, or Kubernetes' ContainerPort.
#[derive(Debug, Clone, PartialEq)]
pub struct PortSpec {
    pub container_port: At<Port>,
    pub name: Option<At<String>>,
    pub protocol: Protocol,
    /// The port of the pod's host that leads here.
    pub host_port: Option<At<Port>>,
    /// The only address of the host on which `host_port` does so.
    pub host_ip: Option<At<String>>,
}

/// The long form of [`PortSpec`], as Kubernetes writes it.
#[derive(serde::Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ContainerPort {
    /// The number.
    container_port: At<Port>,
    /// A name that probes and services may use.
    #[serde(default)]
    name: Option<At<String>>,
    /// Default: TCP.
    #[serde(default)]
    protocol: Protocol,
    /// The port of the pod's host that leads here, as the CNI plug-in portmap does it.
    #[serde(default)]
    host_port: Option<At<Port>>,
    /// The only address of the host on which `hostPort` leads here. Default: all of them.
    #[serde(default, rename = "hostIP")]
    host_ip: Option<At<String>>,
}

impl<'de> Deserialize<'de> for PortSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = PortSpec;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port number, or a map with containerPort")
            }
            fn visit_i64<E: de::Error>(self, n: i64) -> Result<PortSpec, E> {
                let container_port = At::new(Port::read(n)?, Default::default());
                let protocol = Protocol::Tcp;
                Ok(PortSpec { container_port, name: None, protocol, host_port: None, host_ip: None })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<PortSpec, A::Error> {
                let long = ContainerPort::deserialize(MapAccessDeserializer::new(map))?;
                Ok(PortSpec {
                    container_port: long.container_port,
                    name: long.name,
                    protocol: long.protocol,
                    host_port: long.host_port,
                    host_ip: long.host_ip,
                })
            }
        }
        deserializer.deserialize_any(V)
    }
}

impl JsonSchema for PortSpec {
    fn schema_name() -> Cow<'static, str> {
        "ContainerPort".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let number = Port::json_schema(generator);
        let long = ContainerPort::json_schema(generator);
        schemars::json_schema!({ "anyOf": [number, long] })
    }
}

/// A port by number, or by the name that a container gave it.
#[derive(Debug, Clone, PartialEq)]
pub enum PortRef {
    Number(Port),
    Name(String),
}

impl<'de> Deserialize<'de> for PortRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = PortRef;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port number or a port's name")
            }
            fn visit_i64<E: de::Error>(self, n: i64) -> Result<PortRef, E> {
                Port::read(n).map(PortRef::Number)
            }
            fn visit_str<E: de::Error>(self, name: &str) -> Result<PortRef, E> {
                Ok(PortRef::Name(name.to_owned()))
            }
        }
        deserializer.deserialize_any(V)
    }
}

impl JsonSchema for PortRef {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "PortRef".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let number = Port::json_schema(generator);
        schemars::json_schema!({ "anyOf": [number, { "type": "string" }] })
    }
}

/// A word or a list of words.
#[derive(Debug, Clone, Default, PartialEq, serde::Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMore {
    One(String),
    More(Vec<String>),
    #[default]
    Nothing,
}
