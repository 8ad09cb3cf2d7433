//! Services without selector, which live by the slices and Endpoints objects that are given with them.

use crate::as_root_and_ordinary_user;
use crate::ask::{answerers, endpoints, get, refused, udp_who, who};
use crate::harness::Bench;

as_root_and_ordinary_user![
    several_slices_with_several_ports_make_one_service,
    several_slices_with_several_addresses_make_one_service,
    an_endpoints_object_is_mirrored_created_changed_and_taken_out,
];

const LAB: &str = "manifests: [objects.yaml]\nhosts: { node1: {}, node2: {} }\npods:\n  ask: { host: node1 }\n  \
                   one: { host: node1, address: 10.244.1.101, ports: [8001, { containerPort: 8003, protocol: UDP }] }\n  \
                   two: { host: node2, address: 10.244.2.102, ports: [8001, 8002] }\n";

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: { name: tea }\nspec:\n  ports:\n  \
                       - { name: a, port: 80 }\n  - { name: b, port: 81 }\n  - { name: c, port: 82, protocol: UDP }\n";

#[track_caller]
fn up(bench: &Bench, objects: &[&str]) {
    std::fs::write(bench.path("objects.yaml"), objects.join("---\n")).expect("manifests");
    bench.up(&bench.write(LAB));
}

fn slice(number: u8, addresses: &str, ports: &str) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: tea-{number}\n  \
         labels: {{ kubernetes.io/service-name: tea }}\naddressType: IPv4\nendpoints: [{addresses}]\nports: [{ports}]\n"
    )
}

const ONE: &str = "{ addresses: [10.244.1.101], conditions: { ready: true }, nodeName: node1 }";
const TWO: &str = "{ addresses: [10.244.2.102], conditions: { ready: true }, nodeName: node2 }";

fn several_slices_with_several_ports_make_one_service(bench: &Bench) {
    let first = slice(1, ONE, "{ name: a, port: 8001 }, { name: c, port: 8003, protocol: UDP }");
    let second = slice(2, TWO, "{ name: b, port: 8002 }");
    up(bench, &[SERVICE, &first, &second]);
    assert_eq!(answerers(bench, "ask", "http://tea:80", 8), ["one"]);
    assert_eq!(answerers(bench, "ask", "http://tea:81", 8), ["two"]);
    assert_eq!(udp_who(bench, "ask", "tea:82"), "one");
    up(bench, &[SERVICE, &second]);
    refused(bench, "ask", "http://tea:80");
    assert_eq!(who(bench, "ask", "http://tea:81"), "two");
}

fn several_slices_with_several_addresses_make_one_service(bench: &Bench) {
    let first = slice(1, ONE, "{ name: a, port: 8001 }");
    let second = slice(2, TWO, "{ name: a, port: 8001 }");
    let other = slice(3, TWO, "{ name: b, port: 8002 }");
    up(bench, &[SERVICE, &first, &second, &other]);
    assert_eq!(answerers(bench, "ask", "http://tea:80", 20), ["one", "two"]);
    assert_eq!(answerers(bench, "ask", "http://tea:81", 8), ["two"]);
    assert_eq!(endpoints(bench, "node2", "default/tea:a"), ["10.244.1.101:8001", "10.244.2.102:8001"]);
    let unready = second.replace("ready: true", "ready: false");
    up(bench, &[SERVICE, &first, &unready, &other]);
    assert_eq!(answerers(bench, "ask", "http://tea:80", 8), ["one"], "what is not ready gets nothing");
}

fn an_endpoints_object_is_mirrored_created_changed_and_taken_out(bench: &Bench) {
    let mirrored = |ip: &str| {
        format!(
            "apiVersion: v1\nkind: Endpoints\nmetadata: {{ name: tea }}\nsubsets:\n- addresses: [{{ ip: {ip} }}]\n  \
             ports: [{{ name: a, port: 8001 }}]\n"
        )
    };
    up(bench, &[SERVICE]);
    refused(bench, "ask", "http://tea:80");
    up(bench, &[SERVICE, &mirrored("10.244.1.101")]);
    assert_eq!(answerers(bench, "ask", "http://tea:80", 8), ["one"]);
    up(bench, &[SERVICE, &mirrored("10.244.2.102")]);
    assert_eq!(answerers(bench, "ask", "http://tea:80", 8), ["two"]);
    up(bench, &[SERVICE]);
    refused(bench, "ask", "http://tea:80");
    assert!(get(bench, "ask", "http://tea:81").is_err());
}
