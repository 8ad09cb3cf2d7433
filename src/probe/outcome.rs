//! What a try saw and what came of a probe, as values. Judging is `expect`'s, showing is
//! `report`'s; outcomes travel from the lab's process to the command line as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{LookedUp, Used};
use crate::lab::names::NsName;
use crate::lab::probe::{Ask, Target};
use crate::spec::probe::FailureName;

/// What a probe asks with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Ping,
    Tcp,
    Udp,
    Http,
    Https,
    Dns,
    Exec,
}

impl Kind {
    pub fn of(ask: &Ask) -> Kind {
        match ask {
            Ask::Ping { .. } => Kind::Ping,
            Ask::Tcp { .. } => Kind::Tcp,
            Ask::Udp { .. } => Kind::Udp,
            Ask::Http(http) if http.tls => Kind::Https,
            Ask::Http(_) => Kind::Http,
            Ask::Dns { .. } => Kind::Dns,
            Ask::Exec { .. } => Kind::Exec,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Ping => "ping",
            Kind::Tcp => "tcp",
            Kind::Udp => "udp",
            Kind::Http => "http",
            Kind::Https => "https",
            Kind::Dns => "dns",
            Kind::Exec => "exec",
        })
    }
}

/// Whether a probe saw what it had to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Passed,
    Differed,
}

/// What came of a probe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    pub name: String,
    pub from: NsName,
    pub kind: Kind,
    /// The target as it was asked for.
    pub target: String,
    /// The address that was really tried, with its port where there is one. `None` where the
    /// name did not resolve, and for a program.
    pub tried: Option<String>,
    pub verdict: Verdict,
    pub expected: String,
    pub observed: String,
    /// Questions asked in all, repetitions included.
    pub tries: u64,
    /// Milliseconds from the first question to the verdict.
    pub took_ms: f64,
    pub details: Details,
}

impl Outcome {
    pub fn passed(&self) -> bool {
        self.verdict == Verdict::Passed
    }
}

/// What was seen, in fields for programs. Of several tries, the one that decided: the first that
/// differed, else the last.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Details {
    /// With what was asked; for who looks at the packets, in this process alone.
    #[serde(skip)]
    pub used: Vec<Used>,
    /// What DNS servers answered, one after the other; as above.
    #[serde(skip)]
    pub looked_up: Vec<LookedUp>,
    /// How it failed; `None` where it did not, or where the question could not be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureName>,
    /// The name of the pod, host or client that answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered_by: Option<String>,
    /// The source address that the answerer saw.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<SocketAddr>,
    /// The HTTP status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The time to live of a ping's answer at its arrival.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u8>,
    /// A ping's way there and back, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
    /// The largest packet in bytes that was answered, or the MTU that a too large one ran into.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The DNS response code's mnemonic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rcode: Option<String>,
    /// The DNS answer's records.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answers: Option<Vec<String>>,
    /// The program's exit code; 128 and the signal's number where a signal ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The beginning of the answer's text or of the program's output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub excerpt: Option<String>,
    /// How many answers each one gave, where several were asked for.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub distribution: BTreeMap<String, u64>,
    /// The share of them that was expected of each name or pattern, 0 to 1.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub expected_shares: BTreeMap<String, f64>,
    /// How far off each of these shares may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<f64>,
}

/// Why a try did not succeed.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// `Any` for a failure that has no name of its own (an HTTP error status, an exit code).
    /// `None` where the question could not be asked at all, which is never what was expected.
    pub kind: Option<FailureName>,
    /// Who failed how, with the address that was really tried.
    pub text: String,
    /// Whether an answer came and merely says no, so that an expectation of what it says can
    /// still be met.
    pub answered: bool,
}

impl Failure {
    pub fn new(kind: FailureName, text: impl Into<String>) -> Failure {
        Failure { kind: Some(kind), text: text.into(), answered: false }
    }

    /// An answer that says no.
    pub fn answer(kind: FailureName, text: impl Into<String>) -> Failure {
        Failure { kind: Some(kind), text: text.into(), answered: true }
    }

    /// In words, which begin with the kind's name where it has one.
    pub fn says(&self) -> String {
        match self.kind {
            None | Some(FailureName::Any) => self.text.clone(),
            Some(kind) => format!("{}: {}", failure_name(kind), self.text),
        }
    }

    /// The question could not be asked, for a reason that lies with the prober.
    pub fn unasked(text: impl fmt::Display) -> Failure {
        Failure { kind: None, text: format!("could not be asked: {text}"), answered: false }
    }
}

/// What one try brought back.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    pub details: Details,
    /// The whole text of the answer, as far as it was read.
    pub text: Option<String>,
    /// Set where the answer says no.
    pub refusal: Option<Failure>,
}

/// One try with its end.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observation {
    pub tried: Option<String>,
    pub details: Details,
    pub text: Option<String>,
    pub failure: Option<Failure>,
}

impl Observation {
    pub fn new(tried: Option<String>, result: Result<Answer, Failure>) -> Observation {
        let answer = result.unwrap_or_else(|failure| Answer { refusal: Some(failure), ..Answer::default() });
        let Answer { mut details, text, refusal: failure } = answer;
        details.failure = failure.as_ref().and_then(|f| f.kind);
        details.excerpt = text.as_deref().map(excerpt).filter(|t| !t.is_empty());
        Observation { tried, details, text, failure }
    }
}

/// The first lines of a text, short enough for a report.
pub fn excerpt(text: &str) -> String {
    const LINES: usize = 5;
    const LETTERS: usize = 400;
    let text = text.trim_end();
    let short: String = text.lines().take(LINES).collect::<Vec<_>>().join("\n").chars().take(LETTERS).collect();
    if short.len() < text.len() { format!("{short} …") } else { short }
}

/// The name of a failure as the lab file has it.
pub fn failure_name(kind: FailureName) -> &'static str {
    match kind {
        FailureName::Any => "failure",
        FailureName::Timeout => "timeout",
        FailureName::Refused => "refused",
        FailureName::Reset => "reset",
        FailureName::Unreachable => "unreachable",
        FailureName::TooBig => "too-big",
        FailureName::TtlExceeded => "ttl-exceeded",
        FailureName::Name => "name",
        FailureName::Tls => "tls",
        FailureName::Protocol => "protocol",
    }
}

/// The target in the words of the lab file.
pub fn asked(ask: &Ask) -> String {
    let shown = |to: &Target| match to {
        Target::Address(ip) => ip.to_string(),
        Target::Machine(ns) => ns.to_string(),
        Target::Service(key) => key.to_string(),
        Target::Name(name) => name.clone(),
    };
    let with_port = |to: &Target, port: &u16| match to {
        Target::Address(ip) => SocketAddr::new(*ip, *port).to_string(),
        other => format!("{}:{port}", shown(other)),
    };
    match ask {
        Ask::Ping { to, .. } => shown(to),
        Ask::Tcp { to, port, .. } | Ask::Udp { to, port, .. } => with_port(to, port),
        Ask::Http(http) => {
            let (scheme, usual) = if http.tls { ("https", 443) } else { ("http", 80) };
            let port = if http.port == usual { String::new() } else { format!(":{}", http.port) };
            format!("{scheme}://{}{port}{}", http.host, http.path)
        }
        Ask::Dns { name, record, server, port, .. } => format!("{name} {record} @{}", with_port(server, port)),
        Ask::Exec { command } => command.join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_says_that_it_is_one() {
        assert_eq!(excerpt("one\ntwo\n"), "one\ntwo");
        assert_eq!(excerpt("1\n2\n3\n4\n5\n6\n"), "1\n2\n3\n4\n5 …");
        assert_eq!(excerpt(&"x".repeat(1000)).chars().count(), 402);
    }

    #[test]
    fn an_outcome_survives_json() {
        let outcome = Outcome {
            name: "n".into(),
            from: NsName::try_from("pod/default/a".to_owned()).expect("a name"),
            kind: Kind::Http,
            target: "b:80".into(),
            tried: Some("10.0.0.1:80".into()),
            verdict: Verdict::Differed,
            expected: "an answer".into(),
            observed: "refused".into(),
            tries: 3,
            took_ms: 1.5,
            details: Details { source: "10.0.0.2:4000".parse().ok(), ttl: Some(62), ..Details::default() },
        };
        let text = serde_json::to_string(&outcome).expect("JSON");
        assert_eq!(serde_json::from_str::<Outcome>(&text).expect("an outcome"), outcome);
        assert!(!text.contains("exitCode"), "what was not seen is left out: {text}");
    }

    #[test]
    fn a_target_is_shown_as_it_is_typed() {
        let to = Target::Address("fd00::1".parse().expect("an address"));
        assert_eq!(asked(&Ask::Tcp { to: to.clone(), port: 80, send: None, ttl: None }), "[fd00::1]:80");
        let (name, record) = ("a.b".into(), "A".into());
        let dns = Ask::Dns { name, search: Vec::new(), record, server: to, port: 53, tcp: false };
        assert_eq!(asked(&dns), "a.b A @[fd00::1]:53");
    }
}
