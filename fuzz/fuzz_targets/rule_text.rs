//! Rule text: what `iptables-save` might print is read without a panic and reads back as itself, and
//! whatever stands in an object, each line that is written for it is one of the few kinds there are.
#![no_main]

use labctl::objects::{ObjectMeta, Service, ServicePort, ServiceSpec};
use labctl::plan::proxy::canonical::canonical;
use labctl::plan::proxy::{self, Family, ProxyConfig};
use labctl::plan::rules::Rules;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let read = Rules::parse(&text);
    assert_eq!(Rules::parse(&read.restore_text()).lines(), Rules::parse(&text).lines());
    for line in text.lines() {
        canonical(line, Family::V4);
        canonical(line, Family::V6);
    }
    written(&text);
});

/// A service whose every text comes from the input, a line each.
fn written(text: &str) {
    let mut lines = text.lines().map(str::to_owned);
    let mut next = || lines.next().unwrap_or_default();
    let meta = ObjectMeta { name: Some(next()), namespace: Some(next()), ..ObjectMeta::default() };
    let port = ServicePort { name: Some(next()), port: 80, node_port: Some(30080), ..ServicePort::default() };
    let spec = ServiceSpec {
        type_: Some("LoadBalancer".to_owned()),
        cluster_ip: Some(next()),
        external_ips: Some(vec![next(), next()]),
        load_balancer_source_ranges: Some(vec![next(), next()]),
        session_affinity: Some(next()),
        ports: Some(vec![port]),
        ..ServiceSpec::default()
    };
    let service = Service { metadata: meta, spec: Some(spec), status: None };
    let config = ProxyConfig::new("node1", std::net::IpAddr::from([192, 168, 0, 2]));
    let rules = proxy::plan([&service], [], &config);
    for line in rules.restore_input().lines() {
        let known = line.starts_with("-A KUBE-") || line.starts_with(":KUBE-");
        assert!(known || ["*filter", "*nat", "COMMIT"].contains(&line), "{line:?}");
        assert_eq!(line.matches('"').count() % 2, 0, "{line:?}");
    }
    let _ = proxy::sync(&proxy::plan([], [], &config), &rules);
}
