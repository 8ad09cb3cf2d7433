//! The assertions of the DNS specification, by their identifiers: what each asks in a cluster that
//! has one of everything. An assertion that is not known here fails.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use labctl::workload::dns::DnsConfig;
use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};

use crate::server::{Server, section};

/// A question, and the answer's records without name, TTL and class. None: NXDOMAIN.
type Check = (&'static str, &'static str, Option<&'static [&'static str]>);

pub fn trials(path: &Path) -> Vec<Trial> {
    let text = std::fs::read_to_string(path).expect("the assertions can be read");
    let all: Value = serde_json::from_str(&text).expect("the assertions");
    let server = Arc::new(OnceLock::new());
    let ids = all["assertions"].as_array().expect("a list").iter().map(|a| a["id"].as_str().expect("an id").to_owned());
    let trial = |id: String| {
        let server = Arc::clone(&server);
        Trial::test(format!("specification::{id}"), move || hold(&id, server.get_or_init(start)))
    };
    ids.map(trial).collect()
}

fn hold(id: &str, server: &Server) -> Result<(), Failed> {
    let checks = checks(id).ok_or_else(|| format!("the assertion {id} has no questions here"))?;
    for (name, kind, wanted) in checks {
        for transport in ["udp", "tcp"] {
            let reply = server.ask(name, kind, transport);
            let code = format!("{:?}", reply.metadata.response_code);
            let wanted_code = if wanted.is_some() { "NoError" } else { "NXDomain" };
            let seen: BTreeSet<String> =
                section(&reply.answers)?.iter().map(|r| r.splitn(4, ' ').last().expect("data").to_owned()).collect();
            let wanted: BTreeSet<String> = wanted.unwrap_or_default().iter().map(|w| (*w).to_owned()).collect();
            if code != wanted_code || seen != wanted {
                return Err(format!("{name} {kind} over {transport}: {code} {seen:?}, wanted {wanted:?}").into());
            }
        }
    }
    Ok(())
}

const SRV: &[&str] = &["SRV 0 100 80 web.shop.svc.cluster.local."];
const READY: &[&str] = &["A 10.244.1.2", "A 10.244.1.3", "A 10.244.1.4"];
const TWINS: &[&str] = &["A 10.244.1.2", "A 10.244.1.3"];

fn checks(id: &str) -> Option<Vec<Check>> {
    Some(match id {
        "ver" => vec![("dns-version.cluster.local.", "TXT", Some(&["TXT \"1.1.0\""]))],
        "cip-a" => vec![("web.shop.svc.cluster.local.", "A", Some(&["A 10.96.0.7"]))],
        "cip-aaaa" => vec![("six.shop.svc.cluster.local.", "AAAA", Some(&["AAAA fd00::7"]))],
        "cip-srv" => vec![("_http._tcp.web.shop.svc.cluster.local.", "SRV", Some(SRV))],
        "cip-srv-unnamed" => vec![
            ("_http._tcp.plain.shop.svc.cluster.local.", "SRV", None),
            ("_80._tcp.plain.shop.svc.cluster.local.", "SRV", None),
        ],
        "cip-ptr4" => vec![("7.0.96.10.in-addr.arpa.", "PTR", Some(&["PTR web.shop.svc.cluster.local."]))],
        "cip-ptr6" => vec![(
            "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.",
            "PTR",
            Some(&["PTR six.shop.svc.cluster.local."]),
        )],
        "hl-a" => vec![("db.shop.svc.cluster.local.", "A", Some(READY))],
        "hl-none" => vec![("none.shop.svc.cluster.local.", "A", None)],
        "hl-host" => vec![
            ("twin.db.shop.svc.cluster.local.", "A", Some(TWINS)),
            ("waiting.db.shop.svc.cluster.local.", "A", None),
        ],
        "hl-aaaa" => vec![("db.shop.svc.cluster.local.", "AAAA", Some(&["AAAA fd00:1::4", "AAAA fd00:1::5"]))],
        "hl-host6" => vec![("six.db.shop.svc.cluster.local.", "AAAA", Some(&["AAAA fd00:1::4", "AAAA fd00:1::5"]))],
        "hl-srv" => vec![
            (
                "_pg._tcp.pair.shop.svc.cluster.local.",
                "SRV",
                Some(&["SRV 0 50 5432 a.pair.shop.svc.cluster.local.", "SRV 0 50 5432 b.pair.shop.svc.cluster.local."]),
            ),
            (
                "_mon._udp.pair.shop.svc.cluster.local.",
                "SRV",
                Some(&["SRV 0 50 9187 a.pair.shop.svc.cluster.local.", "SRV 0 50 9187 b.pair.shop.svc.cluster.local."]),
            ),
        ],
        "hl-srv-unnamed" => vec![("_pg._tcp.unnamed.shop.svc.cluster.local.", "SRV", None)],
        "hl-ptr4" => vec![
            ("4.1.244.10.in-addr.arpa.", "PTR", Some(&["PTR single.db.shop.svc.cluster.local."])),
            ("9.1.244.10.in-addr.arpa.", "PTR", None),
        ],
        "hl-ptr6" => vec![(
            "4.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa.",
            "PTR",
            Some(&["PTR six.db.shop.svc.cluster.local."]),
        )],
        "ext-cname" => vec![
            ("inside.shop.svc.cluster.local.", "A", Some(&["CNAME web.shop.svc.cluster.local.", "A 10.96.0.7"])),
            ("beyond.shop.svc.cluster.local.", "A", Some(&["CNAME www.example.com."])),
        ],
        "ext-cname6" => {
            vec![(
                "inside6.shop.svc.cluster.local.",
                "AAAA",
                Some(&["CNAME six.shop.svc.cluster.local.", "AAAA fd00::7"]),
            )]
        }
        "case" => vec![
            ("WEB.Shop.sVc.cluster.LOCAL.", "A", Some(&["A 10.96.0.7"])),
            ("TWIN.dB.shop.svc.cluster.local.", "A", Some(TWINS)),
            ("7.0.96.10.IN-addr.ARPA.", "PTR", Some(&["PTR web.shop.svc.cluster.local."])),
            ("DNS-version.cluster.local.", "TXT", Some(&["TXT \"1.1.0\""])),
        ],
        // Whoever writes the slices makes ready what is to be published.
        "ready" => vec![("eager.shop.svc.cluster.local.", "A", Some(&["A 10.244.1.30"]))],
        // What the other assertions ask for is all that the specification has.
        "ext-superset" => OTHERS.iter().filter_map(|id| checks(id)).flatten().collect(),
        _ => return None,
    })
}

const OTHERS: [&str; 20] = [
    "ver",
    "cip-a",
    "cip-aaaa",
    "cip-srv",
    "cip-srv-unnamed",
    "cip-ptr4",
    "cip-ptr6",
    "hl-a",
    "hl-none",
    "hl-host",
    "hl-aaaa",
    "hl-host6",
    "hl-srv",
    "hl-srv-unnamed",
    "hl-ptr4",
    "hl-ptr6",
    "ext-cname",
    "ext-cname6",
    "case",
    "ready",
];

fn start() -> Server {
    let http = json!([{ "name": "http", "protocol": "TCP", "port": 80 }]);
    let unnamed = json!([{ "protocol": "TCP", "port": 80 }]);
    let pair =
        json!([{ "name": "pg", "port": 5432, "protocol": "TCP" }, { "name": "mon", "port": 9187, "protocol": "UDP" }]);
    let none = json!([]);
    let update = json!({ "set": {
        "namespaces": ["shop"],
        "services": [
            service("web", json!({ "clusterIPs": ["10.96.0.7"], "ports": http })),
            service("six", json!({ "clusterIPs": ["fd00::7"], "ports": http })),
            service("plain", json!({ "clusterIPs": ["10.96.0.8"], "ports": unnamed })),
            service("db", json!({ "clusterIPs": ["None"], "ports": http })),
            service("none", json!({ "clusterIPs": ["None"], "ports": http })),
            service("pair", json!({ "clusterIPs": ["None"], "ports": pair })),
            service("unnamed", json!({ "clusterIPs": ["None"], "ports": unnamed })),
            service("eager", json!({ "clusterIPs": ["None"], "publishNotReadyAddresses": true, "ports": http })),
            service("inside", json!({ "type": "ExternalName", "externalName": "web.shop.svc.cluster.local" })),
            service("inside6", json!({ "type": "ExternalName", "externalName": "six.shop.svc.cluster.local" })),
            service("beyond", json!({ "type": "ExternalName", "externalName": "www.example.com" })),
        ],
        "slices": [
            slice("db", "db-4", &http, &[
                ("10.244.1.2", "twin", true), ("10.244.1.3", "twin", true), ("10.244.1.4", "single", true),
                ("10.244.1.9", "waiting", false),
            ]),
            slice("db", "db-6", &http, &[("fd00:1::4", "six", true), ("fd00:1::5", "six", true)]),
            slice("none", "none-4", &http, &[("10.244.1.20", "late", false)]),
            slice("pair", "pair-4", &pair, &[("10.244.1.21", "a", true), ("10.244.1.22", "b", true)]),
            slice("unnamed", "unnamed-4", &unnamed, &[("10.244.1.23", "c", true)]),
            slice("eager", "eager-4", &none, &[("10.244.1.30", "d", true)]),
        ],
    } });
    Server::start(DnsConfig::default(), Some(&update))
}

fn service(name: &str, spec: Value) -> Value {
    json!({ "metadata": { "name": name, "namespace": "shop" }, "spec": spec })
}

fn slice(service: &str, name: &str, ports: &Value, endpoints: &[(&str, &str, bool)]) -> Value {
    let endpoint = |(ip, hostname, ready): &(&str, &str, bool)| json!({ "addresses": [ip], "hostname": hostname, "conditions": { "ready": ready } });
    json!({
        "metadata": { "name": name, "namespace": "shop", "labels": { "kubernetes.io/service-name": service } },
        "addressType": "IPv4", "ports": ports, "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
    })
}
