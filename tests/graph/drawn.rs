//! What a picture has in it.

use std::collections::BTreeSet;

use labctl::graph::model::{Graph, LinkKind, device_id};
use labctl::graph::options;
use labctl::plan;

use super::{crowd, labs, tea};

crate::tests![&[];
    every_device_of_the_plan_is_drawn,
    every_veth_pair_and_every_port_is_a_link,
    hosts_that_tunnel_to_each_other_are_linked,
    many_tunnels_become_one_mesh,
    pods_of_one_deployment_and_host_are_one_box_where_there_are_many,
    pods_of_a_trace_are_drawn_each_for_itself,
    every_step_of_the_trace_has_its_place_in_the_picture,
];

fn ids(graph: &Graph) -> BTreeSet<String> {
    graph.devices().map(|d| d.id.clone()).collect()
}

fn every_device_of_the_plan_is_drawn() {
    for lab in labs() {
        let drawn = ids(&lab.graph(true));
        for ns in &lab.plan.namespaces {
            for link in &ns.links {
                let id = device_id(&ns.ns, link.name.as_str());
                assert!(drawn.contains(&id), "{}: {id} is not among {drawn:#?}", lab.name);
            }
        }
    }
}

fn every_veth_pair_and_every_port_is_a_link() {
    for lab in labs() {
        let links = |kind: LinkKind| lab.graph(true).links.iter().filter(|l| l.kind == kind).count();
        let devices = || lab.plan.namespaces.iter().flat_map(|n| &n.links);
        let ports = devices().filter(|l| l.master.is_some()).count();
        let ends = devices().filter(|l| matches!(l.kind, plan::LinkKind::Veth { .. })).count();
        assert_eq!((links(LinkKind::Plug), 2 * links(LinkKind::Cable)), (ports, ends), "{}", lab.name);
    }
}

fn tunnels(text: &str) -> Vec<(String, String)> {
    let hosts = "{ a: { network: x }, b: { network: x }, c: { network: y } }";
    let text = format!(
        "networks: {{ x: {{ cidr: 10.1.0.0/24 }}, y: {{ cidr: 10.2.0.0/24 }} }}\nhosts: {hosts}\ncluster: {{ flannel: {{ {text} }} }}\n"
    );
    let graph = super::Drawn::of_text("tunnels", &text).graph(false);
    let tunnels = graph.links.into_iter().filter(|l| l.kind == LinkKind::Tunnel);
    tunnels.map(|l| (l.from, l.to)).collect()
}

fn hosts_that_tunnel_to_each_other_are_linked() {
    let pairs = |dev: &str, pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(a, b)| (format!("host/{a}#{dev}"), format!("host/{b}#{dev}"))).collect()
    };
    let all = [("a", "b"), ("a", "c"), ("b", "c")];
    assert_eq!(tunnels("backend: vxlan, vni: 7"), pairs("flannel.7", &all));
    assert_eq!(tunnels("backend: udp"), pairs("flanneld", &all));
    assert_eq!(tunnels("backend: vxlan, directRouting: true"), pairs("flannel.1", &all[1..]));
    assert_eq!(tunnels("backend: host-gw"), []);
}

fn many_tunnels_become_one_mesh() {
    let graph = crowd("vxlan").graph(false);
    let tunnel = graph.tunnel.as_ref().expect("a tunnel");
    assert!(tunnel.is_mesh && !graph.links.iter().any(|l| l.kind == LinkKind::Tunnel));
    assert_eq!((tunnel.ends.len(), tunnel.says.as_str()), (10, "VXLAN 1, UDP port 8472"));
}

fn pods_of_one_deployment_and_host_are_one_box_where_there_are_many() {
    let lab = crowd("vxlan");
    let boxes = |all: bool| {
        lab.graph(all).networks.iter().flat_map(|n| &n.machines).flat_map(|m| m.pods.clone()).collect::<Vec<_>>()
    };
    let (few, all) = (boxes(false), boxes(true));
    assert_eq!((few.len(), all.len()), (30, 200));
    assert_eq!(few.iter().map(|pod| pod.count).sum::<usize>(), 200);
    assert_eq!((few[0].name.as_str(), few[0].address.as_str()), ("tea ×8", "10.244.2.2 … 10.244.2.9"));
    let graph = lab.graph(false);
    let drawn = ids(&graph);
    for (of, seen) in &graph.folded {
        assert!(drawn.contains(seen) || few.iter().any(|pod| pod.id == *seen), "{of} is drawn as {seen}, which is not");
        assert!(!drawn.contains(of), "{of} is drawn twice");
    }
}

fn pods_of_a_trace_are_drawn_each_for_itself() {
    let lab = crowd("vxlan");
    let (_, mut trace) = tea();
    let passed = lab.lab.pods[7].ns();
    trace.flows[0].packets[0].steps[0].place = passed.clone();
    let graph = Graph::of(&lab.lab, &lab.plan, &options(Some(&trace), false));
    assert!(ids(&graph).contains(&device_id(&passed, "eth0")), "{graph:#?}");
}

fn every_step_of_the_trace_has_its_place_in_the_picture() {
    let (lab, trace) = tea();
    let drawn = ids(&lab.graph(false));
    for step in trace.flows.iter().flat_map(|f| &f.packets).flat_map(|p| &p.steps) {
        if let Some(dev) = &step.dev {
            let id = device_id(&step.place, dev.as_str());
            assert!(drawn.contains(&id), "{id} is not among {drawn:#?}");
        }
    }
}
