//! Any bytes as a DNS message, over either transport, against a cluster that has one of everything.
#![no_main]

use std::sync::LazyLock;

use labctl::workload::dns::{DnsConfig, Record, Records, Transport, answer};
use libfuzzer_sys::fuzz_target;

static RECORDS: LazyLock<Records> = LazyLock::new(|| {
    let records = [("www.example.com".to_owned(), vec![Record::Cname("web.shop.svc.cluster.local".to_owned())])];
    let config = DnsConfig { zonal: true, records: records.into(), ..DnsConfig::default() };
    let mut records = Records::new(&config).expect("names");
    let update = serde_json::json!({ "set": {
        "namespaces": ["shop"],
        "services": [
            { "metadata": { "name": "web", "namespace": "shop" },
              "spec": { "clusterIPs": ["10.96.0.7"], "ports": [{ "name": "http", "port": 80 }] } },
            { "metadata": { "name": "db", "namespace": "shop" }, "spec": { "clusterIPs": ["None"] } },
            { "metadata": { "name": "out", "namespace": "shop" },
              "spec": { "type": "ExternalName", "externalName": "www.example.com" } },
        ],
        "slices": [{
            "metadata": { "name": "db-1", "namespace": "shop", "labels": { "kubernetes.io/service-name": "db" } },
            "addressType": "IPv4", "ports": [{ "name": "pg", "port": 5432 }],
            "endpoints": (0..60).map(|n| serde_json::json!({ "addresses": [format!("10.244.1.{n}")] })).collect::<Vec<_>>(),
        }],
    } });
    records.apply(&serde_json::from_value(update).expect("an update"));
    records
});

fuzz_target!(|message: &[u8]| {
    let mut reply = Vec::new();
    for (transport, limit) in [(Transport::Udp, 65507), (Transport::Tcp, 65535)] {
        if answer(&RECORDS, message, transport, &mut reply).is_some() {
            assert!(reply.len() >= 12 && reply.len() <= limit);
            assert_eq!(reply[..2], message[..2]);
        }
    }
});
