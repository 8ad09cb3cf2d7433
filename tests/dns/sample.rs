//! A small cluster, and messages by hand.

use hickory_proto::op::Message;
use labctl::workload::dns::{DnsConfig, Record, Records, Transport, Update, answer};
use serde_json::{Value, json};

pub fn config() -> DnsConfig {
    let www = vec![Record::A([192, 0, 2, 1].into()), Record::A([192, 0, 2, 2].into()), Record::Txt("hello".to_owned())];
    let records = [
        ("www.example.com".to_owned(), www),
        ("alias.example.com".to_owned(), vec![Record::Cname("WWW.example.com".to_owned())]),
        ("back.example.com".to_owned(), vec![Record::Cname("web.shop.svc.cluster.local".to_owned())]),
        ("loop.example.com".to_owned(), vec![Record::Cname("pool.example.com".to_owned())]),
        ("pool.example.com".to_owned(), vec![Record::Cname("loop.example.com".to_owned())]),
        ("1.2.0.192.in-addr.arpa".to_owned(), vec![Record::Ptr("www.example.com".to_owned())]),
    ];
    DnsConfig { records: records.into(), ..DnsConfig::default() }
}

pub fn service(name: &str, spec: Value) -> Value {
    json!({ "metadata": { "name": name, "namespace": "shop" }, "spec": spec })
}

/// A slice of `service` with endpoints from 10.244.1.0 on.
pub fn slice(service: &str, endpoints: u32) -> Value {
    let endpoint = |n: u32| json!({ "addresses": [format!("10.244.{}.{}", 1 + n / 256, n % 256)] });
    json!({
        "metadata": {
            "name": format!("{service}-1"), "namespace": "shop",
            "labels": { "kubernetes.io/service-name": service },
        },
        "addressType": "IPv4",
        "ports": [{ "name": "http", "protocol": "TCP", "port": 80 }],
        "endpoints": (0..endpoints).map(endpoint).collect::<Vec<_>>(),
    })
}

/// `web` has a virtual address, `many` is headless with 200 endpoints, `huge` with 4,000.
pub fn cluster() -> Value {
    let http = json!([{ "name": "http", "protocol": "TCP", "port": 80 }]);
    let alias = |target: &str| json!({ "type": "ExternalName", "externalName": target });
    json!({ "set": {
        "namespaces": ["shop", "kube-system"],
        "services": [
            service("web", json!({ "clusterIPs": ["10.96.0.7"], "ports": http })),
            service("many", json!({ "clusterIPs": ["None"] })),
            service("huge", json!({ "clusterIPs": ["None"] })),
            service("out", alias("alias.example.com")),
            service("nowhere", alias("gone.shop.svc.cluster.local")),
            service("ring", alias("gnir.shop.svc.cluster.local")),
            service("gnir", alias("ring.shop.svc.cluster.local")),
            service("number", alias("192.0.2.7")),
        ],
        "slices": [slice("many", 200), slice("huge", 4000)],
    } })
}

pub fn records() -> Records {
    let mut records = Records::new(&config()).expect("names");
    let update: Update = serde_json::from_value(cluster()).expect("an update");
    records.apply(&update);
    records
}

/// A query for `name`, with `flags` as the header's second word.
pub fn query(name: &str, kind: u16, flags: u16) -> Vec<u8> {
    let mut query = vec![0x12, 0x34];
    query.extend(flags.to_be_bytes());
    query.extend([0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.').filter(|l| !l.is_empty()) {
        query.push(u8::try_from(label.len()).expect("short"));
        query.extend(label.as_bytes());
    }
    query.push(0);
    query.extend(kind.to_be_bytes());
    query.extend([0, 1]);
    query
}

/// Add an OPT record.
pub fn with_edns(mut query: Vec<u8>, size: u16, version: u8, flags: u16) -> Vec<u8> {
    query[11] += 1;
    query.extend([0, 0, 41]);
    query.extend(size.to_be_bytes());
    query.extend([0, version]);
    query.extend(flags.to_be_bytes());
    query.extend([0, 0]);
    query
}

pub fn reply(records: &Records, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
    let mut buffer = Vec::new();
    answer(records, query, transport, &mut buffer).map(|_| buffer)
}

/// The answer, as another implementation reads it.
#[track_caller]
pub fn read(records: &Records, query: &[u8], transport: Transport) -> Message {
    let reply = reply(records, query, transport).expect("an answer");
    Message::from_vec(&reply).unwrap_or_else(|e| panic!("{e}: {reply:02x?}"))
}

/// The answer section's data, in its order.
#[track_caller]
pub fn data(records: &Records, name: &str, kind: u16) -> Vec<String> {
    let message = read(records, &query(name, kind, 0x0100), Transport::Tcp);
    message.answers.iter().map(|r| format!("{} {} {}", r.name, r.record_type(), r.data)).collect()
}
