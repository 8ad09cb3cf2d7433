//! A probe with its names resolved and its expectation complete.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::Serialize;

use super::names::NsName;
use crate::objects::ObjectKey;
use crate::spec::probe::FailureName;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Probe {
    pub name: String,
    pub from: NsName,
    pub ask: Ask,
    pub expect: Expect,
    /// How often it is asked, at least once.
    pub count: u32,
    pub retries: u32,
    pub timeout: Duration,
    /// Whether something that it names has been taken out of the running lab since.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub lost: bool,
}

/// Whom a probe is sent to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Target {
    Address(IpAddr),
    /// A pod, host, client or the router; its address is looked up when the probe runs.
    Machine(NsName),
    /// A service, asked for by a machine that has no cluster DNS: by its address in the lab's books.
    Service(ObjectKey),
    /// A name that the asker itself must resolve.
    Name(String),
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum Ask {
    Ping {
        to: Target,
        /// Bytes of the whole IP packet.
        size: u32,
        dont_fragment: bool,
        ttl: u8,
    },
    Tcp {
        to: Target,
        port: u16,
        send: Option<String>,
        /// The time to live of what is sent; the kernel's own where nothing is said.
        #[serde(skip_serializing_if = "Option::is_none")]
        ttl: Option<u8>,
    },
    Udp {
        to: Target,
        port: u16,
        send: Option<String>,
        /// The time to live of what is sent; the kernel's own where nothing is said.
        #[serde(skip_serializing_if = "Option::is_none")]
        ttl: Option<u8>,
    },
    Http(Box<HttpAsk>),
    Dns {
        name: String,
        /// What is asked for in its place, one after the other until one has the record, as a resolver completes
        /// a name; nothing where the name is asked for as it is.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        search: Vec<String>,
        record: String,
        server: Target,
        port: u16,
        tcp: bool,
    },
    Exec {
        command: Vec<String>,
    },
}

impl Ask {
    /// Whom a question goes to, with the port; 0 where there is none.
    pub fn target(&self) -> Option<(&Target, u16)> {
        match self {
            Ask::Ping { to, .. } => Some((to, 0)),
            Ask::Tcp { to, port, .. } | Ask::Udp { to, port, .. } => Some((to, *port)),
            Ask::Http(http) => Some((&http.to, http.to_port)),
            Ask::Dns { server, port, .. } => Some((server, *port)),
            Ask::Exec { .. } => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HttpAsk {
    pub tls: bool,
    /// The URL's host, as the Host header and SNI have it.
    pub host: String,
    /// Who is asked, and on which port: what the URL names, unless `connectTo` sends the request
    /// elsewhere.
    pub to: Target,
    pub to_port: u16,
    /// The URL's port, as the Host header has it where it is not the usual one.
    pub port: u16,
    /// Path and query.
    pub path: String,
    pub method: String,
    pub headers: BTreeMap<String, String>,
    pub body: Option<String>,
    pub insecure: bool,
}

/// What must come of a probe; what is `None` is not looked at.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Expect {
    /// `None`: success. Otherwise the failure that must come.
    pub fail: Option<FailureName>,
    pub status: Option<u16>,
    pub body: Option<String>,
    /// A pattern with `*`.
    pub pod: Option<String>,
    pub source: Option<SourceExpect>,
    pub distribution: Option<BTreeMap<String, f64>>,
    pub tolerance: f64,
    pub ttl: Option<u8>,
    pub mtu: Option<u32>,
    pub answers: Option<Vec<String>>,
    pub rcode: Option<String>,
    pub exit_code: Option<i32>,
}

/// The source address that the answerer must have seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum SourceExpect {
    Range(IpNet),
    Machine(NsName),
}
