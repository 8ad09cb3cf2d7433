//! What is told while a machine is followed: one value a line, in the model's terms.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::lab::names::NsName;
use crate::trace::model::{End, Packet, Protocol, Role, Translation};

/// A line of what is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum Told {
    /// The first line: it has begun.
    Following(Following),
    /// A packet that has ended.
    Packet(Box<PacketTold>),
    /// Packets came too fast.
    Untold {
        /// So many that the machine sent, got or passed on were not told, at least.
        packets: u64,
    },
    /// The lab was changed, and what has come is watched, too. Packets of the moment before are missing.
    Changed,
    /// The last line, where it is not the caller who ends it.
    Ended { why: String },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Following {
    /// The version of this form, which is 1.
    pub version: u32,
    /// The lab's name.
    pub lab: String,
    /// Whom, as `pod/default/tea-1`, `host/node1`, `client/laptop` or `router`.
    #[schemars(with = "String")]
    pub machine: NsName,
    /// When it began, in nanoseconds since 1970; steps count from here.
    pub since: u64,
    /// What a reader should know beside it: means that are missing here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// A packet, and which flow it is of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PacketTold {
    /// The number of its flow, from 1, which the flow keeps.
    pub flow: u32,
    /// Whether it is the first of its flow that is told.
    pub first: bool,
    /// Whether the machine only passes it on: it has neither sent it nor is it to get it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub passing: bool,
    pub role: Role,
    pub protocol: Protocol,
    /// Both ends of the flow as the one who began it sees them.
    pub source: End,
    pub destination: End,
    /// What connection tracking made of the flow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub translations: Vec<Translation>,
    /// What a program says in it, where that is HTTP in clear text: `GET tea-svc/`, `HTTP 200 OK`; or
    /// whom it asks for over TLS: `TLS cafe.example.com`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<String>,
    /// The object that decides where a request goes on that comes to the ingress controller, such as
    /// `ingress default/cafe-ingress, path /tea, service default/tea-svc:80`; over TLS, where no path can be read,
    /// the ingresses of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
    pub packet: Packet,
}
