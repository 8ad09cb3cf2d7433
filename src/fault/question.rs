//! What is asked of a lab to see a fault, in the words in which it is typed.

use serde::{Deserialize, Serialize};

use crate::diag::Problems;
use crate::lab::Lab;
use crate::lab::names::NsName;
use crate::lab::probe::Probe;
use crate::probe::Kind;
use crate::spec::at::At;
use crate::spec::probe::{
    ConnectLong, ConnectSpec, DnsLong, DnsSpec, HttpLong, HttpSpec, PingLong, PingSpec, ProbeSpec,
};

/// How long one try may take, in seconds: within a lab an answer takes a few milliseconds.
const PATIENCE: f64 = 1.0;

/// A question that is answered in a healthy lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Question {
    /// Who asks.
    pub from: NsName,
    /// Whom: a pod, host, client or service by its name, a URL, or for `dns` the name that is looked up.
    pub to: String,
    pub kind: Kind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Bytes of a ping's packet, which then must not be fragmented.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u32>,
}

impl Question {
    pub fn ping(from: NsName, to: impl ToString) -> Question {
        Question { from, to: to.to_string(), kind: Kind::Ping, port: None, size: None }
    }

    pub fn tcp(from: NsName, to: impl ToString, port: u16) -> Question {
        Question { port: Some(port), kind: Kind::Tcp, ..Question::ping(from, to) }
    }

    pub fn https(from: NsName, url: impl ToString) -> Question {
        Question { kind: Kind::Https, ..Question::ping(from, url) }
    }

    pub fn dns(from: NsName, name: impl ToString) -> Question {
        Question { kind: Kind::Dns, ..Question::ping(from, name) }
    }

    /// In a sentence: `a1 pings b1`.
    pub fn words(&self) -> String {
        let Question { from, to, .. } = self;
        match (self.kind, self.port, self.size) {
            (Kind::Ping, _, Some(size)) => format!("{from} pings {to} with {size} bytes that must not be fragmented"),
            (Kind::Ping, _, None) => format!("{from} pings {to}"),
            (Kind::Dns, ..) => format!("{from} looks up {to}"),
            (kind, Some(port), _) => format!("{from} asks {to}:{port} over {kind}"),
            (_, None, _) => format!("{from} asks for {to}"),
        }
    }

    /// The words behind `labctl trace` that ask it.
    pub fn typed(&self) -> Vec<String> {
        let Question { from, to, kind, port, size } = self;
        let flag = match kind {
            Kind::Ping => Some("--icmp"),
            Kind::Tcp => Some("--tcp"),
            Kind::Udp => Some("--udp"),
            Kind::Dns => Some("--dns"),
            _ => None,
        };
        let mut all = vec![from.to_string(), to.clone()];
        all.extend(flag.map(str::to_owned));
        all.extend(port.map(|port| format!("--port={port}")));
        all.extend(size.map(|size| format!("--size={size}")));
        all
    }

    /// The probe that asks it; nothing where the lab has lost what it names.
    pub fn probe(&self, lab: &Lab) -> Option<Probe> {
        crate::lab::question(&self.spec(), lab, &mut Problems::default())
    }

    fn spec(&self) -> ProbeSpec {
        let at = |text: &str| At::new(text.to_owned(), Default::default());
        let mut spec = ProbeSpec {
            from: Some(at(&self.from.path())),
            retries: Some(0),
            timeout: Some(At::new(PATIENCE, Default::default())),
            ..ProbeSpec::default()
        };
        let end = || {
            ConnectSpec(ConnectLong { to: at(&format!("{}:{}", self.to, self.port.unwrap_or_default())), send: None })
        };
        match self.kind {
            Kind::Tcp => spec.tcp = Some(At::new(end(), Default::default())),
            Kind::Udp => spec.udp = Some(At::new(end(), Default::default())),
            Kind::Http | Kind::Https => {
                let http = HttpSpec(HttpLong { url: at(&self.to), ..HttpLong::default() });
                spec.http = Some(At::new(http, Default::default()));
            }
            Kind::Dns => {
                let dns = DnsSpec(DnsLong { name: at(&self.to), ..DnsLong::default() });
                spec.dns = Some(At::new(dns, Default::default()));
            }
            Kind::Ping | Kind::Exec => {
                let size = self.size.map(|size| At::new(size, Default::default()));
                let ping = PingLong { to: at(&self.to), dont_fragment: size.is_some(), size, ttl: None };
                spec.ping = Some(At::new(PingSpec(ping), Default::default()));
            }
        }
        spec
    }
}
