//! What each back end leaves in the kernel, line by line against what real flannel left on two
//! nodes. The recordings are `node1.txt`, `node2.txt` (flanneld alone) and `pods.txt` (with one
//! pod on each node) of a folder beside the project; where it is missing the tests are reported as ignored.
//!
//! Put aside before comparing: MAC and link-local addresses, device indices, the number or name
//! of a peer's namespace, and a bridge's running timers. Learnt neighbours are left out, because
//! they tell who talked last and not what flannel wrote.

mod harness;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use labctl::diag::Problems;
use labctl::lab::Lab;
use labctl::plan::flannel::lease;
use labctl::spec::load::{Text, decode_text};

use harness::{Bench, beside_the_project};

as_root_and_ordinary_user![beside "shared/conformance/flannel"; vxlan_leaves_what_real_flannel_leaves, host_gw_leaves_what_real_flannel_leaves];
as_root![beside "shared/conformance/flannel"; udp_leaves_what_real_flannel_leaves];
as_ordinary_user_with_tun![beside "shared/conformance/flannel"; udp_leaves_what_real_flannel_leaves];
tests![&[]; another_value_is_a_difference, another_order_is_a_difference];

fn main() {
    harness::tests::main();
}

fn vxlan_leaves_what_real_flannel_leaves(bench: &Bench) {
    compare(bench, "vxlan");
}

fn host_gw_leaves_what_real_flannel_leaves(bench: &Bench) {
    compare(bench, "host-gw");
}

fn udp_leaves_what_real_flannel_leaves(bench: &Bench) {
    compare(bench, "udp");
}

/// A recording's parts by their headings.
struct Recording(BTreeMap<String, String>);

impl Recording {
    fn read(path: &Path) -> Recording {
        let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut parts = BTreeMap::new();
        let mut heading = String::new();
        for line in text.lines() {
            let new = line.strip_prefix("## ");
            // Pings follow the last part without a heading of their own.
            let pings = line.starts_with("PING ").then_some("pings");
            if let Some(new) = new.or(pings) {
                heading = new.to_owned();
            }
            let part: &mut String = parts.entry(heading.clone()).or_default();
            if new.is_none() {
                part.push_str(&format!("{line}\n"));
            }
        }
        Recording(parts)
    }

    fn part(&self, heading: &str) -> &str {
        self.0.get(heading).unwrap_or_else(|| panic!("the recording has no part {heading:?}"))
    }

    fn value(&self, name: &str) -> &str {
        let line = self.part("subnet.env").lines().find_map(|l| l.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("no {name}"))
    }
}

/// The same two nodes as the recording's.
fn file(backend: &str, nodes: &[Recording], pods: bool) -> String {
    let mut text = format!(
        "cluster: {{ flannel: {{ backend: {backend} }} }}\n\
         networks: {{ lan: {{ cidr: 192.168.0.0/24, gateway: 192.168.0.254 }} }}\nhosts:\n"
    );
    for (i, node) in nodes.iter().enumerate() {
        let subnet = node.value("FLANNEL_SUBNET").replace(".1/24", ".0/24");
        text += &format!("  node{n}: {{ address: 192.168.0.1{n}, podCIDR: {subnet} }}\n", n = i + 1);
    }
    if pods {
        text += "pods: { pod1: { host: node1 }, pod2: { host: node2 } }\n";
    }
    text
}

fn compare(bench: &Bench, backend: &str) {
    let folder = beside_the_project("shared/conformance/flannel").expect("the recordings").join(backend);
    let nodes = [1, 2].map(|n| Recording::read(&folder.join(format!("node{n}.txt"))));
    let text = file(backend, &nodes, false);
    bench.up(&bench.write(&text));
    for (i, recorded) in nodes.iter().enumerate() {
        node(bench, &format!("node{}", i + 1), recorded);
    }
    leases(bench, &text, nodes[0].part("etcd"));
    // The pods come later, as they did on the recording's nodes.
    bench.up(&bench.write(&file(backend, &nodes, true)));
    let recorded = Recording::read(&folder.join("pods.txt"));
    for n in [1, 2] {
        let (pod, host) = (format!("pod{n}"), format!("node{n}"));
        let seen = bench.sh(&pod, "ip -d address show dev eth0; ip route");
        same(&pod, recorded.part(&pod), &seen);
        let seen = bench.sh(&host, "ip -d link show cni0; ip address show dev cni0 | grep inet; ip route");
        same(&format!("cni0 of {host}"), recorded.part(&format!("{host} cni0")), &seen);
    }
    pings(bench, &recorded, nodes[0].value("FLANNEL_MTU").parse().expect("a number"));
}

fn node(bench: &Bench, name: &str, recorded: &Recording) {
    let look = |what: &str, line: &str| same(&format!("{what} of {name}"), recorded.part(what), &bench.sh(name, line));
    look("subnet.env", "cat /run/flannel/subnet.env");
    look("ip -d addr", "ip -d address");
    look("ip route", "ip route");
    look("fdb", "bridge fdb show | grep flannel || true");
    look("iptables-save", "iptables-save");
    let permanent =
        |text: &str| text.lines().filter(|l| l.contains("PERMANENT")).map(|l| format!("{l}\n")).collect::<String>();
    same(&format!("neighbours of {name}"), &permanent(recorded.part("neigh")), &permanent(&bench.sh(name, "ip neigh")));
    vteps(bench, name);
}

/// MAC addresses are put aside above, so that they lead to the peer's device is asked here.
fn vteps(bench: &Bench, name: &str) {
    let fdb = bench.sh(name, "bridge fdb show | grep flannel || true");
    let Some(mac) = fdb.split_whitespace().next() else { return };
    let peer = if name == "node1" { "node2" } else { "node1" };
    assert_eq!(bench.sh(peer, "cat /sys/class/net/flannel.1/address").trim(), mac, "{name}'s entry leads to {peer}");
    assert!(bench.sh(name, "ip neigh").contains(&format!("lladdr {mac} PERMANENT")), "{name}'s neighbour is {peer}");
}

fn leases(bench: &Bench, text: &str, recorded: &str) {
    let loaded = decode_text(&Text {
        name: "lab".into(),
        text: text.to_owned(),
        default_name: bench.lab.clone(),
        ..Text::default()
    });
    let lab = labctl::lab::resolve(&loaded, None, &mut Problems::default()).expect("a valid lab");
    let mut keys: Vec<String> = lab.hosts.iter().map(|h| key(&lab, h)).collect();
    keys.sort();
    same("leases", recorded, &keys.concat());
}

/// A lease as etcd shows it: its key, and below it the value.
fn key(lab: &Lab, host: &labctl::lab::Host) -> String {
    let subnet = host.pod_cidr.to_string().replace('/', "-");
    let value = serde_json::to_string(&lease(lab, host)).expect("JSON");
    format!("/coreos.com/network/subnets/{subnet}\n{value}\n")
}

fn pings(bench: &Bench, recorded: &Recording, mtu: u32) {
    let to = bench.ip("pod2");
    let ttl = |text: &str| {
        let word = text.split_whitespace().find(|w| w.starts_with("ttl="));
        word.unwrap_or_else(|| panic!("no answer in {text}")).to_owned()
    };
    let between = bench.sh("pod1", &format!("ping -c 1 -W 2 {to}"));
    assert_eq!(ttl(&between), ttl(recorded.part("pings")), "what a ping arrives with");
    bench.sh("node1", &format!("ping -c 1 -W 2 {to}"));
    bench.sh("pod2", "ping -c 1 -W 2 192.168.0.11");
    // The recording's last two pings: one that fits into every back end's packets, and one that
    // only those fit that wrap less than vxlan does.
    let sized =
        |bytes: u32| bench.exec("pod1", &["ping", "-c", "1", "-W", "2", "-M", "do", "-s", &bytes.to_string(), &to]);
    sized(mtu - 28).ends_with(0);
    assert_ne!(sized(mtu - 27).code, 0, "a packet larger than the MTU went through");
}

#[track_caller]
fn same(what: &str, recorded: &str, seen: &str) {
    let (recorded, seen) = (normal(recorded), normal(seen));
    if recorded == seen {
        return;
    }
    let only = |these: &[String], those: &[String], sign: &str| -> String {
        these.iter().filter(|l| !those.contains(l)).map(|l| format!("{sign} {l}\n")).collect()
    };
    let differs = only(&recorded, &seen, "- flannel:") + &only(&seen, &recorded, "+ labctl: ");
    let order = if differs.is_empty() { format!("the order differs: {seen:#?}") } else { differs };
    panic!("{what} is not as recorded:\n{order}");
}

fn normal(text: &str) -> Vec<String> {
    let lines =
        text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#') && !l.contains("valid_lft"));
    lines.map(line).collect()
}

/// One line without what must differ.
fn line(line: &str) -> String {
    let mut words = Vec::new();
    let mut before = "";
    for word in line.split_whitespace() {
        let index = words.is_empty() && word.strip_suffix(':').is_some_and(|n| n.parse::<u32>().is_ok());
        let put_aside =
            before.ends_with("_timer") || before.starts_with("link-netns") || word.starts_with("link-netns");
        // An address is tentative for a second, until nobody else claims it.
        if !index && !put_aside && word != "tentative" {
            words.push(self::word(word));
        }
        before = word;
    }
    words.join(" ")
}

fn word(word: &str) -> String {
    if word.starts_with("fe80::") {
        return "fe80::/64".to_owned();
    }
    if let Some((name, _)) = word.split_once("@if") {
        return format!("{name}:");
    }
    // iptables-save counts packets and bytes.
    if word.starts_with('[') && word.ends_with(']') && word.contains(':') {
        return "[0:0]".to_owned();
    }
    if let Some((json, _)) = word.split_once("\"VtepMAC\":") {
        return format!("{json}\"VtepMAC\":MAC");
    }
    let mac = word.rsplit_once('.').map_or(word, |(_, mac)| mac);
    let octets: Vec<&str> = mac.split(':').collect();
    let is_mac =
        octets.len() == 6 && octets.iter().all(|o| (1..=2).contains(&o.len()) && u8::from_str_radix(o, 16).is_ok());
    let fixed = ["ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00", "01:80:c2:00:00:00"].contains(&mac);
    if is_mac && !fixed { word.replace(mac, "MAC") } else { word.to_owned() }
}

fn another_value_is_a_difference() {
    let why = std::panic::catch_unwind(|| same("a device", "2: eth0@if3: mtu 1450\n", "7: eth0@if9: mtu 1500\n"));
    assert!(said(why).contains("+ labctl:  eth0: mtu 1500"));
}

fn another_order_is_a_difference() {
    let why = std::panic::catch_unwind(|| same("rules", "-A one\n-A two\n", "-A two\n-A one\n"));
    assert!(said(why).contains("the order differs"));
}

/// What a panic said.
fn said(why: std::thread::Result<()>) -> String {
    let why = why.expect_err("a difference must be found");
    why.downcast_ref::<String>().cloned().unwrap_or_default()
}
