//! What may be written in a probe: who asks, what, and what must come of it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde::de::{
    self, Deserializer, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer, value::SeqAccessDeserializer,
};

use super::at::At;

/// A question to the lab and the answer that must come. Exactly one of ping, tcp, udp, http, dns
/// and exec says what is asked.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ProbeSpec {
    /// What it shows, in a few words.
    pub name: Option<At<String>>,
    /// The pod, host or client that asks.
    pub from: Option<At<String>>,
    /// An ICMP echo request.
    pub ping: Option<At<PingSpec>>,
    /// A TCP connection.
    pub tcp: Option<At<ConnectSpec>>,
    /// A UDP datagram and its answer.
    pub udp: Option<At<ConnectSpec>>,
    /// An HTTP or HTTPS request.
    pub http: Option<At<HttpSpec>>,
    /// A DNS query.
    pub dns: Option<At<DnsSpec>>,
    /// A program run there.
    pub exec: Option<At<ExecSpec>>,
    /// What must come of it: `success` (the default), `fail`, or details.
    pub expect: Option<At<ExpectSpec>>,
    /// How often it is asked; more than once for a distribution. Default: 1.
    pub count: Option<At<u32>>,
    /// How often a try that differs is repeated before it counts. Default: 2.
    pub retries: Option<u32>,
    /// Seconds that one try may take. Default: 2.
    pub timeout: Option<At<f64>>,
}

/// What to ping.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PingLong {
    /// A pod, host or client, or an address.
    pub to: At<String>,
    /// Bytes of the whole IP packet. Default: 84.
    #[serde(default)]
    pub size: Option<At<u32>>,
    /// Whether the packet must not be fragmented. Default: false.
    #[serde(default)]
    pub dont_fragment: bool,
    /// The time to live it starts with. Default: 64.
    #[serde(default)]
    pub ttl: Option<u8>,
}

/// Where to connect.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConnectLong {
    /// `NAME:PORT` or `ADDRESS:PORT`.
    pub to: At<String>,
    /// What to send.
    #[serde(default)]
    pub send: Option<String>,
}

/// An HTTP request.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpLong {
    /// `http://NAME:PORT/PATH`, or https.
    pub url: At<String>,
    /// Default: GET.
    #[serde(default)]
    pub method: Option<At<String>>,
    /// Headers besides those that every request has.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// What to send behind the headers. Default: nothing.
    #[serde(default)]
    pub body: Option<String>,
    /// Send the request to this name or address, with `:PORT` where it is not the URL's, in place of the
    /// URL's, as curl's --connect-to. `ingress` is the ingress controller.
    #[serde(default)]
    pub connect_to: Option<At<String>>,
    /// Accept any certificate. Default: false.
    #[serde(default)]
    pub insecure: bool,
}

/// A DNS query.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DnsLong {
    /// The name, asked as it is (no search list).
    pub name: At<String>,
    /// The record type. Default: A.
    #[serde(default, rename = "type")]
    pub record: Option<At<String>>,
    /// The server, `NAME` or `ADDRESS`, with `:PORT` where it is not 53. Default: the cluster's
    /// DNS service.
    #[serde(default)]
    pub server: Option<At<String>>,
    /// Ask over TCP. Default: false.
    #[serde(default)]
    pub tcp: bool,
}

/// A program to run.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExecLong {
    /// The program and its arguments.
    pub command: Vec<String>,
}

/// Details of what must come of a probe. What is left out is not looked at.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ExpectLong {
    /// `any` where every failure will do, or the one that must come.
    pub fail: Option<At<FailureName>>,
    /// The HTTP status.
    pub status: Option<At<u16>>,
    /// Text that the answer must contain (an HTTP body, a TCP or UDP answer, a program's output).
    pub body: Option<String>,
    /// The pod, host or client that must have answered; `*` stands for any letters.
    pub pod: Option<At<String>>,
    /// The source address that the answerer must have seen: an address, a range, or the name of
    /// a pod, host or client.
    pub source: Option<At<String>>,
    /// Names (with `*`) to the share of the answers that each must have given, 0 to 1; see `count`.
    pub distribution: Option<At<BTreeMap<String, f64>>>,
    /// How far a share may be off. Default: 0.1.
    pub tolerance: Option<f64>,
    /// The time to live of the answer to a ping at its arrival.
    pub ttl: Option<At<u8>>,
    /// The path's MTU in bytes, found with packets that must not be fragmented (ping only).
    pub mtu: Option<At<u32>>,
    /// A DNS answer's records, in any order.
    pub answers: Option<Vec<String>>,
    /// A DNS answer's response code, such as NXDOMAIN.
    pub rcode: Option<At<String>>,
    /// A program's exit code.
    pub exit_code: Option<i32>,
}

/// How a probe can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, serde::Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FailureName {
    /// Any of the others.
    Any,
    /// No answer within the time limit.
    Timeout,
    /// The port is closed: a TCP reset or an ICMP port unreachable.
    Refused,
    /// The connection was cut while in use.
    Reset,
    /// A router or host says that the target cannot be reached, or the sender has no route.
    Unreachable,
    /// A packet that must not be fragmented is larger than a link.
    TooBig,
    /// The time to live ran out on the way.
    TtlExceeded,
    /// The name does not resolve.
    Name,
    /// TLS was not agreed on.
    Tls,
    /// The answer was not what the protocol wants.
    Protocol,
}

/// `success`, `fail`, or details.
#[derive(Debug, Clone, PartialEq)]
pub enum ExpectSpec {
    Success,
    Fail,
    Details(Box<ExpectLong>),
}

impl<'de> Deserialize<'de> for ExpectSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = ExpectSpec;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`success`, `fail` or a map")
            }
            fn visit_str<E: de::Error>(self, word: &str) -> Result<ExpectSpec, E> {
                match word {
                    "success" => Ok(ExpectSpec::Success),
                    "fail" => Ok(ExpectSpec::Fail),
                    other => Err(E::unknown_variant(other, &["success", "fail"])),
                }
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ExpectSpec, A::Error> {
                let long = ExpectLong::deserialize(MapAccessDeserializer::new(map))?;
                Ok(ExpectSpec::Details(Box::new(long)))
            }
        }
        deserializer.deserialize_any(V)
    }
}

impl JsonSchema for ExpectSpec {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Expect".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let long = generator.subschema_for::<ExpectLong>();
        schemars::json_schema!({ "anyOf": [{ "enum": ["success", "fail"] }, long] })
    }
}

/// A type that may be written short, as a text or a list, or long, as a map.
macro_rules! short_or_long {
    ($name:ident, $long:ident, $expecting:literal, $schema:tt, $($visit:tt)*) => {
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct $name(pub $long);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct V;
                impl<'de> Visitor<'de> for V {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }
                    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<$name, A::Error> {
                        $long::deserialize(MapAccessDeserializer::new(map)).map($name)
                    }
                    $($visit)*
                }
                deserializer.deserialize_any(V)
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                let long = generator.subschema_for::<$long>();
                schemars::json_schema!({ "anyOf": [$schema, long] })
            }
        }
    };
}

fn bare(text: &str) -> At<String> {
    At::new(text.to_owned(), Default::default())
}

short_or_long!(PingSpec, PingLong, "a name or address to ping, or a map", { "type": "string" },
fn visit_str<E: de::Error>(self, to: &str) -> Result<PingSpec, E> {
    Ok(PingSpec(PingLong { to: bare(to), ..PingLong::default() }))
});
short_or_long!(ConnectSpec, ConnectLong, "`NAME:PORT`, or a map", { "type": "string" },
fn visit_str<E: de::Error>(self, to: &str) -> Result<ConnectSpec, E> {
    Ok(ConnectSpec(ConnectLong { to: bare(to), ..ConnectLong::default() }))
});
short_or_long!(HttpSpec, HttpLong, "a URL, or a map with url", { "type": "string" },
fn visit_str<E: de::Error>(self, url: &str) -> Result<HttpSpec, E> {
    Ok(HttpSpec(HttpLong { url: bare(url), ..HttpLong::default() }))
});
short_or_long!(DnsSpec, DnsLong, "a name to resolve, or a map with name", { "type": "string" },
fn visit_str<E: de::Error>(self, name: &str) -> Result<DnsSpec, E> {
    Ok(DnsSpec(DnsLong { name: bare(name), ..DnsLong::default() }))
});
short_or_long!(ExecSpec, ExecLong, "a command as a list of words, or a map with command",
{ "type": "array", "items": { "type": "string" } },
fn visit_seq<A: SeqAccess<'de>>(self, words: A) -> Result<ExecSpec, A::Error> {
    let command = Vec::deserialize(SeqAccessDeserializer::new(words))?;
    Ok(ExecSpec(ExecLong { command }))
});
