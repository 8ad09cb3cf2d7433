//! Whatever two labs are: one that was changed live into the other ends in the same kernel state
//! as a fresh build. Generated labs, real kernel. Addresses are written down in the files, because
//! a running lab would rightly keep those that it gave out.
//!
//! The seed is fixed, so that a failure comes again; `LABCTL_CASES` asks for more cases.

mod harness;

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

use harness::Bench;
use harness::dice::Dice;

as_root![any_lab_changed_into_any_other_equals_a_fresh_one];

fn main() {
    harness::tests::main();
}

const CASES: u64 = 25;

/// A lab of one to three hosts on one or two networks with up to six pods. The same name means
/// another thing now and then: another network, another host, another address.
fn lab(dice: &mut Dice) -> String {
    let networks = 1 + dice.below(2);
    let mut text = format!("cluster: {{ flannel: {} }}\nnetworks:\n", flannel(dice, networks));
    for n in 1..=networks {
        let mtu = [1500, 1500, 1400][dice.below(3) as usize];
        let _ = writeln!(text, "  net{n}: {{ cidr: 192.168.{n}.0/24, mtu: {mtu} }}");
    }
    let hosts = 1 + dice.below(3);
    text += "hosts:\n";
    for h in 1..=hosts {
        let network = 1 + dice.below(networks);
        let last = 10 + h + 10 * dice.below(2);
        let subnet = h + 10 * u64::from(dice.below(4) == 0);
        let _ = writeln!(
            text,
            "  node{h}: {{ network: net{network}, address: 192.168.{network}.{last}, podCIDR: 10.244.{subnet}.0/24 }}"
        );
    }
    if dice.below(2) == 0 {
        let _ = writeln!(text, "clients:\n  laptop: {{ network: net1, address: 192.168.1.{} }}", 101 + dice.below(2));
    }
    pods(dice, &mut text, hosts);
    text
}

fn flannel(dice: &mut Dice, networks: u64) -> &'static str {
    let all = [
        "{ backend: vxlan }",
        "{ backend: vxlan, directRouting: true }",
        "{ backend: vxlan, vni: 9, port: 4789 }",
        "{ backend: udp }",
        "{ backend: udp, port: 9000 }",
        "{ backend: vxlan, ipMasq: false }",
        // Only where it is no warning.
        "{ backend: host-gw }",
    ];
    all[dice.below(if networks == 1 { 7 } else { 6 }) as usize]
}

fn pods(dice: &mut Dice, text: &mut String, hosts: u64) {
    let names: Vec<u64> = (1..=6).filter(|_| dice.below(2) == 0).collect();
    if names.is_empty() {
        return;
    }
    *text += "pods:\n";
    for pod in names {
        let port = 80 + dice.below(2);
        let _ = writeln!(text, "  pod{pod}: {{ host: node{}, ports: [{port}] }}", 1 + dice.below(hosts));
    }
}

/// Write down the addresses of the pods as a fresh lab would give them.
fn with_addresses(bench: &Bench, text: &str) -> String {
    let file = bench.write_as("addresses", text);
    let plan = bench.json(&["plan", &file]);
    let mut text = text.to_owned();
    for pod in plan["lab"]["pods"].as_array().into_iter().flatten() {
        let name = pod["id"]["name"].as_str().expect("a name");
        let address = pod["address"].as_str().expect("an address").split('/').next().unwrap_or_default();
        text = text.replace(&format!("  {name}: {{ "), &format!("  {name}: {{ address: {address}, "));
    }
    text
}

/// What the kernel holds, by namespace and by what was asked.
type State = BTreeMap<String, BTreeMap<&'static str, Vec<String>>>;

const LOOKS: &[(&str, &str)] = &[
    ("links", "ip -d -j link"),
    ("addresses", "ip -4 -j address"),
    ("routes", "ip -4 -j route show table all"),
    ("neighbours", "ip -4 -j neigh show nud permanent"),
    ("forwarding", "bridge -j fdb"),
];

fn state(bench: &Bench, file: &str) -> State {
    let plan = bench.json(&["plan", file]);
    let names = plan["namespaces"].as_array().expect("namespaces").iter();
    let names: Vec<String> = names.map(|n| n["ns"].as_str().expect("a name").to_owned()).collect();
    names.into_iter().map(|name| (name.clone(), looks(bench, &name))).collect()
}

/// All looks at one namespace, with one entry into it.
fn looks(bench: &Bench, name: &str) -> BTreeMap<&'static str, Vec<String>> {
    let mut line = String::new();
    for (_, look) in LOOKS {
        let _ = write!(line, "{look}; echo; echo =====; ");
    }
    line += "iptables-save | grep -v '^#'; true";
    let said = bench.sh(name, &line);
    let mut parts = said.split("=====\n");
    let mut all = BTreeMap::new();
    for (what, _) in LOOKS {
        let part = parts.next().unwrap_or_default().trim();
        let value: Value = if part.is_empty() { Value::Null } else { serde_json::from_str(part).expect("JSON") };
        // What a bridge has learnt, and what the kernel listens to by itself, leads nowhere else.
        let written = |entry: &&Value| *what != "forwarding" || entry.get("dst").is_some();
        let mut entries: Vec<String> = value.as_array().into_iter().flatten().filter(written).map(settled).collect();
        entries.sort();
        all.insert(*what, entries);
    }
    all.insert("rules", rules(parts.next().unwrap_or_default()));
    all
}

/// What iptables-save printed, without counters. A table that was used once stays, and does
/// nothing while its chains are empty; iptables cannot remove it.
fn rules(saved: &str) -> Vec<String> {
    let tables = saved.split_inclusive("COMMIT\n");
    let does_something =
        |table: &&str| table.lines().any(|l| l.starts_with("-A") || (l.starts_with(':') && !l.contains(" ACCEPT ")));
    let lines = tables.filter(does_something).flat_map(str::lines);
    lines.map(|l| l.split(" [").next().unwrap_or_default().to_owned()).collect()
}

/// An entry without what runs on by itself, such as timers, and without the numbers of devices
/// and bridge ports: who stays keeps his while others come and go, so they tell the lab's history.
fn settled(entry: &Value) -> String {
    const MOVING: &[&str] = &[
        "hello_timer",
        "tcn_timer",
        "topology_change_timer",
        "gc_timer",
        "timer",
        "hold_timer",
        "message_age_timer",
        "forward_delay_timer",
        "link_netnsid",
        "topology_change_ack",
        "config_pending",
        "ifindex",
        "link_index",
        // A bridge takes it from its ports and keeps it when the last one has gone.
        "tso_max_size",
    ];
    const PORT: &[&str] = &["id", "no", "designated_port"];
    fn strip(value: &mut Value) {
        match value {
            Value::Object(map) => {
                let port = map.contains_key("designated_port");
                map.retain(|key, _| !(MOVING.contains(&key.as_str()) || port && PORT.contains(&key.as_str())));
                map.values_mut().for_each(strip);
            }
            Value::Array(all) => all.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let mut entry = entry.clone();
    strip(&mut entry);
    entry.to_string()
}

/// Wait until the kernel has stopped changing it: a new bridge port learns for a moment.
fn settled_state(bench: &Bench, file: &str) -> State {
    let mut before = state(bench, file);
    harness::until("the kernel's state settles", || {
        let now = state(bench, file);
        let same = now == before && !format!("{now:?}").contains("\"state\":\"learning\"");
        before = now;
        same
    });
    before
}

fn any_lab_changed_into_any_other_equals_a_fresh_one(bench: &Bench) {
    let cases = std::env::var("LABCTL_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(CASES);
    for case in 1..=cases {
        let mut dice = Dice::of_case(case);
        let (first, second) = (with_addresses(bench, &lab(&mut dice)), with_addresses(bench, &lab(&mut dice)));
        println!("case {case}:\n--- first\n{first}--- second\n{second}");
        bench.up(&bench.write(&first));
        let file = bench.write(&second);
        bench.up(&file);
        bench.is_as_planned();
        let live = settled_state(bench, &file);
        bench.ok(&["down"]);
        bench.up(&file);
        let fresh = settled_state(bench, &file);
        bench.ok(&["down"]);
        compare(case, &live, &fresh);
    }
}

#[track_caller]
fn compare(case: u64, live: &State, fresh: &State) {
    assert_eq!(live.keys().collect::<Vec<_>>(), fresh.keys().collect::<Vec<_>>(), "case {case}");
    for (name, fresh) in fresh {
        for (what, fresh) in fresh {
            let live = &live[name][what];
            let only = |these: &[String], those: &[String], who: &str| -> String {
                these.iter().filter(|l| !those.contains(l)).map(|l| format!("{who} {l}\n")).collect()
            };
            let differs = only(live, fresh, "changed live:") + &only(fresh, live, "built afresh:");
            assert!(live == fresh, "case {case}: {what} of {name} differ:\n{differs}");
        }
    }
}
