//! `labctl rules`: what kube-proxy would write, without root and without a lab.

mod harness;

use harness::{Bench, Who};

tests![&[];
    kube_proxys_flags_have_its_defaults,
    kube_proxys_flags_do_what_they_do_there,
    a_manifest_that_is_wrong_is_refused_with_its_name,
];

fn main() {
    harness::tests::main();
}

const MANIFESTS: &str = r#"
apiVersion: v1
kind: Service
metadata: { name: tea }
spec:
  type: NodePort
  clusterIP: 10.96.0.20
  ports: [{ port: 80, targetPort: 8080, nodePort: 30080 }]
---
apiVersion: v1
kind: ConfigMap
metadata: { name: none-of-its-business }
---
apiVersion: v1
kind: List
items:
  - apiVersion: discovery.k8s.io/v1
    kind: EndpointSlice
    metadata: { name: tea-1, labels: { kubernetes.io/service-name: tea } }
    addressType: IPv4
    ports: [{ port: 8080 }]
    endpoints: [{ addresses: [10.244.1.5], nodeName: node1 }, { addresses: [10.244.2.5], nodeName: node2 }]
"#;

fn rules(more: &[&str]) -> String {
    let bench = Bench::new(Who::Ordinary);
    let file = bench.path("tea.yaml");
    std::fs::write(&file, MANIFESTS).expect("a file");
    let mut args = vec!["rules", "-f", file.to_str().expect("a path"), "--node", "node1"];
    args.extend(more);
    bench.ok(&args)
}

fn kube_proxys_flags_have_its_defaults() {
    let text = rules(&[]);
    assert!(text.starts_with("*filter\n:KUBE-SERVICES - [0:0]\n") && text.ends_with("COMMIT\n"), "{text}");
    assert!(text.contains("-j MARK --or-mark 0x4000\n") && text.contains("-d 10.96.0.20 --dport 80 -j KUBE-SVC-"));
    assert!(text.contains("KUBE-FIREWALL") && text.contains("-m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\n"));
    assert!(!text.contains("cluster IP\" -m tcp -p tcp -d 10.96.0.20 --dport 80 ! -s"), "no range is known:\n{text}");
    assert_eq!(text.matches("-j DNAT --to-destination 10.244.").count(), 2);
}

fn kube_proxys_flags_do_what_they_do_there() {
    let text = rules(&["--cluster-cidr", "fd00::/8,10.244.0.0/16", "--masquerade-bit=15"]);
    assert!(text.contains(" ! -s 10.244.0.0/16 -j KUBE-MARK-MASQ\n") && text.contains("--or-mark 0x8000\n"), "{text}");
    let text = rules(&["--masquerade-all", "--iptables-localhost-nodeports=false"]);
    assert!(text.contains("--dport 80 -j KUBE-MARK-MASQ\n") && !text.contains("KUBE-FIREWALL"), "{text}");
    assert!(text.contains("--dst-type LOCAL ! -d 127.0.0.0/8 -j KUBE-NODEPORTS\n"), "{text}");
    let text = rules(&["--node-ip", "192.168.0.2", "--nodeport-addresses", "primary"]);
    assert!(text.contains(" -d 192.168.0.2 -j KUBE-NODEPORTS\n") && !text.contains("addrtype"), "{text}");
    let text = rules(&["--node-ip", "2001:db8::1"]);
    assert!(text.contains("! -d ::1/128 -j KUBE-NODEPORTS\n") && !text.contains("10.96.0.20"), "{text}");
}

fn a_manifest_that_is_wrong_is_refused_with_its_name() {
    let bench = Bench::new(Who::Ordinary);
    let file = bench.path("wrong.yaml");
    std::fs::write(&file, "kind: Service\nmetadata: { name: tea }\nspec: { ports: 80 }\n").expect("a file");
    let ran =
        bench.run(&["rules", "-f", file.to_str().expect("a path"), "--node", "node1"]).ends_with(2).says("Service tea");
    assert_eq!(ran.stdout, "");
}
