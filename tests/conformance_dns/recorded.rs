//! The recorded cases of CoreDNS' kubernetes plugin. The fixtures are CoreDNS' inner objects, and
//! are made into the Kubernetes objects that they come from.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use hickory_proto::rr::RecordType;
use labctl::workload::dns::{DnsConfig, Pods, Record};
use libtest_mimic::{Failed, Trial};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::server::{Server, section};

#[derive(Deserialize)]
struct Recording {
    cases: serde_json::Map<String, Value>,
    fixtures: Fixtures,
}

#[derive(Deserialize)]
struct Fixtures {
    services: serde_json::Map<String, Value>,
    endpoints: serde_json::Map<String, Value>,
}

#[derive(Debug, Clone, Deserialize)]
struct Case {
    qname: String,
    qtype: String,
    rcode: String,
    answer: BTreeSet<String>,
    ns: BTreeSet<String>,
    extra: BTreeSet<String>,
}

/// Cases of one configuration, and the server that they share.
struct Group {
    config: DnsConfig,
    update: Option<Value>,
    /// What of the SOA record is compared.
    soa: Soa,
    server: OnceLock<Server>,
}

#[derive(Clone, Copy, PartialEq)]
enum Soa {
    Whole,
    /// Not the last number: the recording has another TTL there than in the records, and CoreDNS'
    /// own comparison does not look at it.
    NotMinimum,
    /// Nor the record's TTL: CoreDNS' test throws the outcome of its comparison away, and the
    /// expectation has a TTL that CoreDNS does not give.
    NotTtl,
}

pub fn trials(path: &Path) -> Vec<Trial> {
    let text = std::fs::read_to_string(path).expect("the recording can be read");
    let recording: Recording = serde_json::from_str(&text).expect("the recording");
    let update = update(&recording.fixtures);
    let mut trials = Vec::new();
    for (name, cases) in recording.cases {
        let group = Arc::new(group(&name, &update));
        let cases: Vec<Case> = serde_json::from_value(cases).expect("cases");
        assert!(!cases.is_empty(), "{name} has no cases");
        for (number, case) in cases.into_iter().enumerate() {
            let group = Arc::clone(&group);
            let title = format!("{name}::{number:02}_{}_{}", case.qtype, case.qname);
            trials.push(Trial::test(title, move || compare(&group, &case)));
        }
    }
    trials
}

/// As each of CoreDNS' tests configures its plugin: no reverse zones, pods disabled, unless said.
fn group(name: &str, update: &Value) -> Group {
    let outside = vec![Record::A([1, 2, 3, 4].into())];
    let mut config = DnsConfig {
        zones: Vec::new(),
        pods: Pods::Disabled,
        fallthrough: Vec::new(),
        records: [("ext.interwebs.test".to_owned(), outside)].into(),
        ..DnsConfig::default()
    };
    let (mut update, mut soa) = (Some(update.clone()), Soa::Whole);
    match name {
        "handler_case_test.go" | "handler_pod_disabled_test.go" => {}
        "handler_ignore_emptyservice_test.go" => config.ignore_empty_service = true,
        "handler_pod_insecure_test.go" => {
            config.pods = Pods::Insecure;
            soa = Soa::NotMinimum;
        }
        "handler_pod_verified_test.go" => config.pods = Pods::Verified,
        "handler_test.go:commonDnsTestCases" | "handler_test.go:dnsTestCases" => {
            config.namespaces = vec!["testns".to_owned()];
        }
        "handler_test.go:notSyncedTestCases" => update = None,
        "handler_test.go:nsTestCases" => soa = Soa::NotTtl,
        "kubernetes_apex_test.go" => config.local_ips = vec![[127, 0, 0, 1].into()],
        "zonal_test.go" => {
            config.zonal = true;
            update = Some(zonal());
        }
        other => panic!("cases of {other}, of whose configuration nothing is known here"),
    }
    Group { config, update, soa, server: OnceLock::new() }
}

fn compare(group: &Group, case: &Case) -> Result<(), Failed> {
    let server = group.server.get_or_init(|| Server::start(group.config.clone(), group.update.as_ref()));
    for transport in ["udp", "tcp"] {
        let reply = server.ask(&case.qname, &case.qtype, transport);
        let code = format!("{:?}", reply.metadata.response_code).to_ascii_uppercase();
        if code != case.rcode {
            return Err(format!("over {transport}: {code} instead of {}", case.rcode).into());
        }
        if !reply.metadata.authoritative || reply.metadata.truncation {
            return Err(format!("over {transport}: flags {:?}", reply.metadata).into());
        }
        let sections = [&reply.answers, &reply.authorities, &reply.additionals];
        for (seen, wanted) in sections.into_iter().zip([&case.answer, &case.ns, &case.extra]) {
            let cut = |all: BTreeSet<String>| all.iter().map(|r| group.soa.cut(r)).collect::<BTreeSet<_>>();
            let (seen, wanted) = (cut(section(seen)?), cut(wanted.iter().map(|r| normal(r)).collect()));
            if seen != wanted {
                return Err(format!("over {transport}:\nseen   {seen:#?}\nwanted {wanted:#?}").into());
            }
        }
        aliases_first(&reply.answers)?;
    }
    Ok(())
}

/// A simple resolver reads from the top.
fn aliases_first(answers: &[hickory_proto::rr::Record]) -> Result<(), Failed> {
    let is_alias = |r: &&hickory_proto::rr::Record| r.record_type() == RecordType::CNAME;
    let after = answers.iter().skip_while(is_alias).any(|r| is_alias(&r));
    if after { Err("an alias comes after what it leads to".into()) } else { Ok(()) }
}

impl Soa {
    fn cut(self, record: &str) -> String {
        let mut words: Vec<&str> = record.split(' ').collect();
        if words.get(3) == Some(&"SOA") && self != Soa::Whole {
            words.pop();
            if self == Soa::NotTtl {
                words.remove(1);
            }
        }
        words.join(" ")
    }
}

/// A recorded record in the form of [`section`].
fn normal(record: &str) -> String {
    let mut words: Vec<&str> = record.split_whitespace().collect();
    if words[3] == "SOA" {
        words[6] = "-";
    }
    words.join(" ")
}

fn update(fixtures: &Fixtures) -> Value {
    let services: Vec<Value> =
        fixtures.services.values().flat_map(|all| all.as_array().expect("services")).map(service).collect();
    let slices = fixtures.endpoints.iter().flat_map(|(key, slices)| {
        let service = key.split('.').next().expect("a name").to_owned();
        slices.as_array().expect("slices").iter().map(move |s| slice(&service, s)).collect::<Vec<_>>()
    });
    json!({ "set": {
        "services": services,
        "slices": slices.collect::<Vec<_>>(),
        "pods": [{ "namespace": "podns", "name": "foo", "ip": "10.240.0.1" }],
        // All there are to CoreDNS' test but `pod-nons`, `nsnoexist` and what is not served.
        "namespaces": ["testns", "unexposedns", "kube-system", "podns", "svcns"],
    } })
}

fn service(fixture: &Value) -> Value {
    let ips = fixture["ClusterIPs"].as_array().cloned().unwrap_or_default();
    let mut ports = fixture["Ports"].as_array().cloned().unwrap_or_default();
    for port in &mut ports {
        port["protocol"] = upper(&port["protocol"]);
    }
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": fixture["Name"], "namespace": fixture["Namespace"] },
        "spec": {
            "type": fixture["Type"], "externalName": fixture["ExternalName"], "ports": ports,
            "clusterIP": ips.first(), "clusterIPs": ips,
        },
    })
}

/// CoreDNS writes protocols in lower case in its tests; the API has them in upper case.
fn upper(protocol: &Value) -> Value {
    protocol.as_str().expect("a protocol").to_ascii_uppercase().into()
}

fn slice(service: &str, fixture: &Value) -> Value {
    let subset = &fixture["Subsets"][0];
    let endpoint = |a: &Value| {
        let hostname = a["Hostname"].as_str().filter(|h| !h.is_empty());
        json!({ "addresses": [a["IP"]], "hostname": hostname, "conditions": { "ready": true } })
    };
    let ports = subset["Ports"].as_array().into_iter().flatten();
    // Port -1 is how CoreDNS notes that a slice has none.
    let ports = ports.filter(|p| p["Port"] != -1);
    let port = |p: &Value| json!({ "name": p["Name"], "port": p["Port"], "protocol": upper(&p["Protocol"]) });
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": fixture["Name"], "namespace": fixture["Namespace"],
            "labels": { "kubernetes.io/service-name": service },
        },
        "addressType": "IPv4",
        "endpoints": subset["Addresses"].as_array().into_iter().flatten().map(endpoint).collect::<Vec<_>>(),
        "ports": ports.map(port).collect::<Vec<_>>(),
    })
}

/// Three endpoints in two zones behind a headless service, and one with a virtual address.
fn zonal() -> Value {
    let port = json!([{ "name": "http", "protocol": "TCP", "port": 80 }]);
    let endpoint = |n: u8, zone: &str| json!({ "addresses": [format!("172.0.0.{n}")], "zone": zone });
    json!({ "set": {
        "namespaces": ["testns"],
        "services": [
            { "metadata": { "name": "hdls", "namespace": "testns" }, "spec": { "clusterIP": "None", "clusterIPs": ["None"] } },
            { "metadata": { "name": "clstr", "namespace": "testns" }, "spec": { "clusterIPs": ["10.0.0.10"], "ports": port } },
        ],
        "slices": [{
            "metadata": {
                "name": "hdls-slice", "namespace": "testns", "labels": { "kubernetes.io/service-name": "hdls" },
            },
            "addressType": "IPv4",
            "endpoints": [endpoint(1, "us-west-2a"), endpoint(2, "us-west-2b"), endpoint(3, "us-west-2b")],
            "ports": port,
        }],
    } })
}
