//! Ports of hosts against the real CNI plug-in portmap of Debian's containernetworking-plugins: the same
//! pods with the same ids on the same host, once with our rules and once with those that the plug-in
//! writes there when it is called for one pod after the other, as a container runtime calls it. Where
//! the plug-in is not installed the tests are reported as ignored.

mod harness;

use std::collections::BTreeMap;
use std::io::Write;
use std::process::Stdio;

use labctl::lab::names::{Namespace, PodId, PodName};
use labctl::plan::portmap::{NETWORK, container_id};
use serde_json::{Value, json};

use harness::tests::Need;
use harness::{Bench, Ran};

const PORTMAP: &str = "/usr/lib/cni/portmap";

macro_rules! beside_portmap {
    ($($name:ident),* $(,)?) => { $(
        on_a_bench!(Root, "as_root", &[Need::Root, Need::Program(PORTMAP)], $name);
        on_a_bench!(Ordinary, "as_an_ordinary_user", &[Need::Program(PORTMAP)], $name);
    )* };
}

beside_portmap![rules_are_those_of_the_plugin, rules_beside_services_are_those_of_the_plugin];
tests![&[]; another_rule_is_a_difference];

fn main() {
    harness::tests::main();
}

/// Pods of one host: one port and many, both protocols, addresses, more than fit into one rule.
fn pods() -> Vec<(&'static str, String)> {
    let one = "{ containerPort: 80, hostPort: 8080, name: http }".to_owned();
    let dns = "{ containerPort: 53, protocol: UDP, hostPort: 5353 }, { containerPort: 53, hostPort: 5353 }, 9153";
    let on = "{ containerPort: 80, hostPort: 81, hostIP: 192.168.1.11 }, { containerPort: 81, hostPort: 81, hostIP: 127.0.0.1 }, \
              { containerPort: 82, hostPort: 82, hostIP: 0.0.0.0 }";
    let many: Vec<String> = (1..=17).map(|n| format!("{{ containerPort: {n}, hostPort: {} }}", 7000 + n)).collect();
    vec![
        ("one", one),
        ("dns", dns.to_owned()),
        ("none", "80".to_owned()),
        ("on", on.to_owned()),
        ("many", many.join(", ")),
    ]
}

/// The lab, with the ports of the host or with those of the pods alone.
fn lab(more: &str, with: bool) -> String {
    let mut text = format!("hosts: {{ node1: {{ address: 192.168.1.11 }} }}\n{more}pods:\n");
    for (name, ports) in pods() {
        let ports = if with { ports } else { "80".to_owned() };
        text += &format!("  {name}: {{ host: node1, ports: [{ports}] }}\n");
    }
    text
}

fn rules_are_those_of_the_plugin(bench: &Bench) {
    compare(bench, "");
}

fn rules_beside_services_are_those_of_the_plugin(bench: &Bench) {
    compare(
        bench,
        "services: { one: { clusterIP: 10.96.1.1, type: NodePort, ports: [{ port: 80, nodePort: 30080 }] } }\n",
    );
}

#[track_caller]
fn compare(bench: &Bench, more: &str) {
    bench.up(&bench.write(&lab(more, true)));
    let ours = state(bench);
    let objects: Vec<Value> = pods().iter().map(|(name, _)| bench.pod(name)).collect();
    bench.up(&bench.write(&lab(more, true).replace("  one: ", "  # one: ")));
    let ours_less = state(bench);
    bench.ok(&["down"]);

    bench.up(&bench.write(&lab(more, false)));
    assert!(!state(bench).contains_key("nat CNI-HOSTPORT-DNAT"), "nothing is there yet");
    objects.iter().for_each(|pod| plugin(bench, "ADD", pod));
    same(&ours, &state(bench));
    plugin(bench, "DEL", &objects[0]);
    same(&ours_less, &state(bench));
}

/// Call the plug-in on the host, as containerd does for a pod with these ports.
#[track_caller]
fn plugin(bench: &Bench, command: &str, pod: &Value) {
    let ports = pod["spec"]["containers"].as_array().expect("containers").iter();
    let ports = ports.flat_map(|c| c["ports"].as_array().cloned().unwrap_or_default());
    let mappings: Vec<Value> = ports.filter(|p| p["hostPort"].is_u64()).map(mapping).collect();
    let address = format!("{}/24", pod["status"]["podIP"].as_str().expect("an address"));
    let netns = "/var/run/netns/pod";
    let config = json!({
        "cniVersion": "1.0.0", "name": NETWORK, "type": "portmap", "capabilities": { "portMappings": true },
        "runtimeConfig": { "portMappings": mappings },
        "prevResult": {
            "cniVersion": "1.0.0",
            "interfaces": [{ "name": "eth0", "sandbox": netns }],
            "ips": [{ "address": address, "interface": 0 }],
        },
    });
    let name = pod["metadata"]["name"].as_str().expect("a name").to_owned();
    let id = PodId {
        namespace: Namespace::try_from("default".to_owned()).expect("a namespace"),
        name: PodName::try_from(name.clone()).expect("a name"),
    };
    let environment = [
        format!("CNI_COMMAND={command}"),
        format!("CNI_CONTAINERID={}", container_id(&id)),
        format!("CNI_NETNS={netns}"),
        "CNI_IFNAME=eth0".to_owned(),
        "CNI_PATH=/usr/lib/cni".to_owned(),
        "PATH=/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
    ];
    let mut words = vec!["exec", "node1", "--", "env"];
    words.extend(environment.iter().map(String::as_str));
    words.push(PORTMAP);
    let mut called = bench.labctl(&words);
    let mut child =
        called.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("labctl runs");
    child.stdin.take().expect("a pipe").write_all(config.to_string().as_bytes()).expect("it is read");
    let output = child.wait_with_output().expect("its end");
    Ran::from_output(&output, &format!("portmap {command} for {name}")).ends_with(0);
}

/// A port as the runtime hands it on.
fn mapping(port: Value) -> Value {
    let mut mapping = json!({
        "hostPort": port["hostPort"], "containerPort": port["containerPort"],
        "protocol": port["protocol"].as_str().expect("a protocol").to_lowercase(),
    });
    if port["hostIP"].is_string() {
        mapping["hostIP"] = port["hostIP"].clone();
    }
    mapping
}

/// Every chain of the host with its rules in order, and the sysctl.
type State = BTreeMap<String, Vec<String>>;

fn state(bench: &Bench) -> State {
    let mut all = chains(&bench.sh("node1", "iptables-save"));
    let localnet = bench.sh("node1", "cat /proc/sys/net/ipv4/conf/cni0/route_localnet");
    all.insert("route_localnet of cni0".to_owned(), vec![localnet]);
    all
}

fn chains(saved: &str) -> State {
    let (mut all, mut table) = (State::new(), "");
    for line in saved.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        } else if let Some(chain) = line.strip_prefix(':') {
            let mut words = chain.split(' ');
            let (name, policy) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            all.entry(format!("{table} {name}")).or_default().push(policy.to_owned());
        } else if let Some((chain, rule)) = line.strip_prefix("-A ").and_then(|l| l.split_once(' ')) {
            all.entry(format!("{table} {chain}")).or_default().push(rule.to_owned());
        }
    }
    all
}

#[track_caller]
fn same(ours: &State, real: &State) {
    let mut differs = String::new();
    for name in ours.keys().chain(real.keys().filter(|name| !ours.contains_key(*name))) {
        let (own, theirs) = (ours.get(name), real.get(name));
        if own != theirs {
            differs += &format!("{name}\n  ours {own:#?}\n  portmap's {theirs:#?}\n");
        }
    }
    assert!(differs.is_empty(), "{differs}");
}

fn another_rule_is_a_difference() {
    let saved = "*nat\n:A - [0:0]\n-A A -j B\n-A A -j C\nCOMMIT\n";
    same(&chains(saved), &chains(saved));
    for other in
        [saved.replace("-j C", "-j D"), saved.replace("-A A -j B\n", ""), saved.replace(":A -", ":A - [0:0]\n:E -")]
    {
        let why = std::panic::catch_unwind(|| same(&chains(saved), &chains(&other)));
        assert!(why.is_err(), "{other}");
    }
}
