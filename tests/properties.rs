//! What holds for every lab: generated lab files are resolved and planned, and the plans looked at as
//! values.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use labctl::diag::render;
use labctl::lab::names::NsName;
use labctl::lab::{self, Lab};
use labctl::plan::diff::{Op, diff};
use labctl::plan::{LinkKind, Plan, plan};
use labctl::spec::load::{Text, decode_text};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::Index;

/// A valid lab file, part by part, so that it can be edited.
#[derive(Debug, Clone)]
struct Draft {
    networks: Vec<(u8, u16)>,
    flannel: String,
    subnet_len: u8,
    hosts: BTreeMap<u8, (Index, bool)>,
    clients: BTreeMap<u8, Index>,
    pods: BTreeMap<u8, Pod>,
    deployments: BTreeMap<u8, (u8, Vec<Index>)>,
}

#[derive(Debug, Clone)]
struct Pod {
    host: Option<Index>,
    namespace: bool,
    ports: Option<Vec<u16>>,
    containers: bool,
}

impl Draft {
    fn yaml(&self) -> String {
        let network = |at: &Index| at.index(self.networks.len());
        let host = |at: &Index| self.hosts.keys().nth(at.index(self.hosts.len())).expect("a host");
        let mut text = format!(
            "name: any\ncluster: {{ flannel: {{ {}, subnetLen: {} }} }}\nnetworks:\n",
            self.flannel, self.subnet_len
        );
        for (n, (length, mtu)) in self.networks.iter().enumerate() {
            // Half of the networks have their ranges by default.
            let cidr = if *length == 0 { String::new() } else { format!("cidr: 172.20.{}.0/{length}, ", n * 8) };
            text.push_str(&format!("  net{n}: {{ {cidr}mtu: {mtu} }}\n"));
        }
        text.push_str("hosts:\n");
        for (n, (on, fixed)) in &self.hosts {
            // Leases from the far end of the range do not meet those that are given by default.
            let subnet = format!(", podCIDR: 10.244.{}.0/{}", 200 + n, self.subnet_len.max(24));
            text.push_str(&format!(
                "  host{n}: {{ network: net{}{} }}\n",
                network(on),
                if *fixed { &subnet } else { "" }
            ));
        }
        text.push_str("clients:\n");
        for (n, on) in &self.clients {
            text.push_str(&format!("  client{n}: {{ network: net{} }}\n", network(on)));
        }
        text.push_str("pods:\n");
        for (n, pod) in &self.pods {
            let mut fields = Vec::new();
            fields.extend(pod.host.as_ref().map(|at| format!("host: host{}", host(at))));
            fields.extend(pod.namespace.then(|| "namespace: other".to_owned()));
            fields.extend(pod.ports.as_ref().filter(|_| !pod.containers).map(|p| format!("ports: {p:?}")));
            fields.extend(
                pod.containers.then(|| "containers: [{ name: a }, { name: b, command: [sleep, '9'] }]".to_owned()),
            );
            text.push_str(&format!("  pod{n}: {{ {} }}\n", fields.join(", ")));
        }
        text.push_str("deployments:\n");
        for (n, (replicas, on)) in &self.deployments {
            let on: Vec<_> = on.iter().map(|at| format!("host{}", host(at))).collect();
            let hosts = if on.is_empty() { String::new() } else { format!(", hosts: [{}]", on.join(", ")) };
            text.push_str(&format!("  set{n}: {{ replicas: {replicas}{hosts} }}\n"));
        }
        text
    }

    fn lab(&self, before: Option<&Lab>) -> Lab {
        let text = Text { name: "lab.yaml".into(), text: self.yaml(), default_name: "lab".into(), ..Text::default() };
        let loaded = decode_text(&text);
        let mut problems = loaded.problems.clone();
        let lab = lab::resolve(&loaded, before, &mut problems);
        lab.unwrap_or_else(|| panic!("{}{}", self.yaml(), render::to_text(&problems, &loaded.sources, false, 100)))
    }
}

fn flannel() -> impl Strategy<Value = String> {
    prop_oneof![
        (1u32..=9_999_999, 1u16.., any::<bool>()).prop_map(|(vni, port, direct)| format!(
            "backend: vxlan, vni: {vni}, port: {port}, directRouting: {direct}"
        )),
        Just("backend: host-gw".to_owned()),
        (1u16..).prop_map(|port| format!("backend: udp, port: {port}")),
    ]
}

fn pod() -> impl Strategy<Value = Pod> {
    let ports = option::of(vec(1u16.., 0..3).prop_map(|mut p| {
        p.sort_unstable();
        p.dedup();
        p
    }));
    (option::of(any::<Index>()), any::<bool>(), ports, any::<bool>())
        .prop_map(|(host, namespace, ports, containers)| Pod { host, namespace, ports, containers })
}

fn draft() -> impl Strategy<Value = Draft> {
    (
        vec((prop_oneof![Just(0u8), 22u8..=27], 576u16..=9000), 1..=4),
        flannel(),
        24u8..=27,
        btree_map(0u8..40, (any::<Index>(), any::<bool>()), 1..6),
        btree_map(0u8..40, any::<Index>(), 0..4),
        btree_map(0u8..40, pod(), 0..8),
        btree_map(0u8..10, (0u8..6, vec(any::<Index>(), 0..3)), 0..3),
    )
        .prop_map(|(networks, flannel, subnet_len, hosts, clients, pods, deployments)| Draft {
            networks,
            flannel,
            subnet_len,
            hosts,
            clients,
            pods,
            deployments,
        })
}

/// Addresses of a lab, each once; those of pods and bridges as well as those of machines.
fn no_address_twice(lab: &Lab, plan: &Plan) {
    let mut seen: HashMap<IpAddr, String> = HashMap::new();
    for ns in &plan.namespaces {
        for address in &ns.addresses {
            let who = format!("{} {}", ns.ns, address.dev);
            if let Some(other) = seen.insert(address.net.addr(), who.clone()) {
                panic!("{} is {other}'s and {who}'s", address.net);
            }
        }
    }
    for ip in lab.pods.iter().map(lab::Pod::ip).chain(lab.hosts.iter().map(lab::Host::ip)) {
        assert!(seen.contains_key(&ip), "{ip} is on no device");
    }
}

fn devices_are_sound(plan: &Plan) {
    for ns in &plan.namespaces {
        let mut names = HashSet::from(["lo"]);
        let mut indices = HashSet::from([1]);
        for link in &ns.links {
            assert!(!link.name.as_str().is_empty() && link.name.as_str().len() <= 15, "{}: {}", ns.ns, link.name);
            assert!(names.insert(link.name.as_str()), "{}: {} twice", ns.ns, link.name);
            assert!(indices.insert(link.index), "{}: index {} twice", ns.ns, link.index);
            if let Some(master) = &link.master {
                let bridge = ns.link(master).unwrap_or_else(|| panic!("{}: no {master}", ns.ns));
                assert_eq!(bridge.kind, LinkKind::Bridge);
                assert!(link.mtu <= 65535);
            }
            match &link.kind {
                LinkKind::Veth { peer_ns, peer } => {
                    let far = plan
                        .get(peer_ns)
                        .and_then(|p| p.link(peer))
                        .unwrap_or_else(|| panic!("no {peer} in {peer_ns}"));
                    assert_eq!(far.kind, LinkKind::Veth { peer_ns: ns.ns.clone(), peer: link.name.clone() });
                    assert_ne!(far.index, link.index, "{} {}", ns.ns, link.name);
                    assert_eq!(far.mtu, link.mtu, "{} {}", ns.ns, link.name);
                    assert!(far.master.is_some() != link.master.is_some(), "one end is a bridge's port");
                }
                LinkKind::Vxlan { dev, local, .. } => {
                    assert!(ns.link(dev).is_some(), "no {dev}");
                    assert!(ns.addresses.iter().any(|a| a.net.addr() == *local), "{local} is not its own");
                }
                LinkKind::Bridge | LinkKind::Tun => {}
                LinkKind::Other { what } => panic!("{what}"),
            }
        }
        let devices = ns.addresses.iter().map(|a| &a.dev).chain(ns.routes.iter().map(|r| &r.dev));
        for dev in devices.chain(ns.neighbours.iter().map(|n| &n.dev)).chain(ns.fdb.iter().map(|f| &f.dev)) {
            assert!(ns.link(dev).is_some(), "{}: no {dev}", ns.ns);
        }
        let mut routes = HashSet::new();
        for route in &ns.routes {
            assert!(routes.insert(route.dst), "{}: two routes to {}", ns.ns, route.dst);
        }
    }
}

/// Each next hop is on a range of the device's own, or the route says that it need not be.
fn next_hops_are_neighbours(plan: &Plan) {
    for ns in &plan.namespaces {
        for route in ns.routes.iter().filter(|r| !r.onlink) {
            let Some(via) = route.via else { continue };
            let near = ns.addresses.iter().any(|a| a.dev == route.dev && a.net.contains(&via));
            assert!(near, "{}: {} via {via} is no neighbour", ns.ns, route.dst);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_plan_is_sound(draft in draft()) {
        let lab = draft.lab(None);
        let plan = plan(&lab);
        prop_assert_eq!(plan.namespaces.len(), lab.namespaces().count());
        no_address_twice(&lab, &plan);
        devices_are_sound(&plan);
        next_hops_are_neighbours(&plan);
    }

    #[test]
    fn the_same_file_gives_the_same_plan_and_no_difference(draft in draft()) {
        let (first, again) = (draft.lab(None), draft.lab(None));
        prop_assert_eq!(&first, &again);
        prop_assert_eq!(plan(&first), plan(&again));
        prop_assert_eq!(diff(&plan(&first), &plan(&again)), Vec::new());
        // A running lab that is given its own file again is not changed either.
        let kept = draft.lab(Some(&first));
        prop_assert_eq!(diff(&plan(&first), &plan(&kept)), Vec::new());
    }

    #[test]
    fn a_difference_speaks_of_the_two_labs_only(old in draft(), new in draft()) {
        let old_lab = old.lab(None);
        let (a, b) = (plan(&old_lab), plan(&new.lab(Some(&old_lab))));
        let steps = diff(&a, &b);
        let (mut added, mut removed) = (HashSet::new(), HashSet::new());
        for step in &steps {
            prop_assert!(a.get(&step.ns).is_some() || b.get(&step.ns).is_some(), "{}", step);
            match step.op {
                Op::AddNs => prop_assert!(a.get(&step.ns).is_none() && added.insert(step.ns.clone())),
                Op::RemoveNs => prop_assert!(b.get(&step.ns).is_none() && removed.insert(step.ns.clone())),
                _ => {}
            }
        }
        prop_assert!(steps.is_sorted_by_key(labctl::plan::diff::Step::stage), "stages follow each other");
        let names = |p: &Plan| p.namespaces.iter().map(|n| n.ns.clone()).collect::<HashSet<NsName>>();
        prop_assert_eq!(added, &names(&b) - &names(&a));
        prop_assert_eq!(removed, &names(&a) - &names(&b));
    }

    /// Who is in the lab before and after an edit keeps host, address and device names, and keeps
    /// them whatever else comes or goes.
    #[test]
    fn an_edit_moves_nobody_who_can_stay(draft in draft(), other in draft()) {
        let before = draft.lab(None);
        // The ground stays; pods, deployments and clients come, go and change.
        let edited = Draft {
            pods: draft.pods.iter().filter(|(n, _)| *n % 3 != 0).chain(&other.pods).map(|(n, p)| (*n, draft.pods.get(n).unwrap_or(p).clone())).collect(),
            deployments: other.deployments.iter().chain(&draft.deployments).map(|(n, d)| (*n, d.clone())).collect(),
            clients: draft.clients.iter().filter(|(n, _)| *n % 2 == 0).chain(other.clients.iter().filter(|(n, _)| !draft.clients.contains_key(n))).map(|(n, c)| (*n, *c)).collect(),
            ..draft.clone()
        };
        let after = edited.lab(Some(&before));
        for pod in &before.pods {
            if let Some(now) = after.pod(&pod.id) {
                prop_assert_eq!((&now.host, now.address, &now.veth), (&pod.host, pod.address, &pod.veth), "{}", pod.id);
            }
        }
        for host in &before.hosts {
            prop_assert_eq!(Some(host), after.host(&host.name));
        }
        for client in &before.clients {
            let now = after.clients.iter().find(|c| c.name == client.name);
            prop_assert!(now.is_none_or(|now| now.attachment == client.attachment), "{}", client.name);
        }
        let plan = plan(&after);
        no_address_twice(&after, &plan);
        devices_are_sound(&plan);
    }

    /// A host that is taken out takes its pods with it, or leaves them to others; the rest stays.
    #[test]
    fn a_host_that_goes_moves_only_its_own_pods(draft in draft()) {
        prop_assume!(draft.hosts.len() > 1);
        let free = |pod: &Pod| Pod { host: None, ..pod.clone() };
        let draft = Draft {
            pods: draft.pods.iter().map(|(n, p)| (*n, free(p))).collect(),
            deployments: draft.deployments.iter().map(|(n, (replicas, _))| (*n, (*replicas, Vec::new()))).collect(),
            ..draft
        };
        let before = draft.lab(None);
        let mut fewer = draft.clone();
        let gone = format!("host{}", fewer.hosts.pop_first().expect("a host").0);
        let after = fewer.lab(Some(&before));
        for pod in before.pods.iter().filter(|p| p.host.as_str() != gone) {
            let now = after.pod(&pod.id).expect("the pod is still there");
            prop_assert_eq!((&now.host, now.address, &now.veth), (&pod.host, pod.address, &pod.veth), "{}", pod.id);
        }
        prop_assert_eq!(before.pods.len(), after.pods.len());
        devices_are_sound(&plan(&after));
        // And the host that comes back moves nobody, though it stands first in the file.
        let again = draft.lab(Some(&after));
        for host in &after.hosts {
            prop_assert_eq!(Some(host), again.host(&host.name));
        }
        for pod in &after.pods {
            prop_assert_eq!(Some(pod), again.pod(&pod.id));
        }
        devices_are_sound(&plan(&again));
    }
}

fn lab_of(text: &str, before: Option<&Lab>) -> Lab {
    let loaded = decode_text(&Text {
        name: "lab.yaml".into(),
        text: text.into(),
        default_name: "lab".into(),
        ..Text::default()
    });
    let mut problems = loaded.problems.clone();
    let lab = lab::resolve(&loaded, before, &mut problems);
    lab.unwrap_or_else(|| panic!("{}", render::to_text(&problems, &loaded.sources, false, 100)))
}

#[test]
fn a_network_that_comes_first_does_not_move_one_that_was_there() {
    let before = lab_of("networks: { b: }\nhosts: { n1: { network: b } }", None);
    let after = lab_of("networks: { a: , b: }\nhosts: { n0: { network: b }, n1: { network: b } }", Some(&before));
    assert_eq!(
        before.networks.iter().find(|n| n.name.as_str() == "b"),
        after.networks.iter().find(|n| n.name.as_str() == "b")
    );
    assert_eq!(before.hosts.first().map(lab::Host::ip), after.hosts.last().map(lab::Host::ip));
    assert_eq!(before.hosts.first().map(|h| h.pod_cidr), after.hosts.last().map(|h| h.pod_cidr));
}

#[test]
fn an_address_that_a_client_writes_or_had_is_not_given_to_a_host() {
    let lab = lab_of("hosts: { n1: }\nclients: { c: { address: 192.168.1.11 } }", None);
    assert_eq!(lab.hosts.first().map(|h| h.ip().to_string()).as_deref(), Some("192.168.1.12"));
    // In a small network hosts and clients take from the same few addresses.
    let small = "networks: { lan: { cidr: 192.168.1.0/29 } }\nclients: { c: }\n";
    let before = lab_of(small, None);
    let after = lab_of(&format!("{small}hosts: {{ n1: , n2: , n3: }}"), Some(&before));
    assert_eq!(before.clients.first().map(lab::Client::ip), after.clients.first().map(lab::Client::ip));
}

/// More networks and machines than a person would write, in one namespace of the router's.
#[test]
fn a_router_with_very_many_networks_has_no_index_twice() {
    let mut text = "networks:\n".to_owned();
    for n in 0..200 {
        text.push_str(&format!("  network-number-{n}: {{ cidr: 172.20.{n}.0/24 }}\n"));
    }
    text.push_str("hosts:\n");
    for n in 0..200 {
        text.push_str(&format!("  host{n}: {{ network: network-number-{n} }}\n"));
    }
    let loaded = decode_text(&Text { name: "lab.yaml".into(), text, default_name: "lab".into(), ..Text::default() });
    let mut problems = loaded.problems.clone();
    let lab = lab::resolve(&loaded, None, &mut problems).expect("a lab");
    devices_are_sound(&plan(&lab));
}
