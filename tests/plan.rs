//! Plans as values: what each back end makes of the same small cluster, by snapshot, and which
//! steps a change of the file causes.

use labctl::lab::{self, Lab};
use labctl::plan::diff::{Step, diff};
use labctl::plan::{Plan, plan};
use labctl::spec::load::{Text, decode_text};

fn lab(text: &str, before: Option<&Lab>) -> Lab {
    let text =
        Text { name: "lab.yaml".to_owned(), text: text.to_owned(), default_name: "lab".to_owned(), ..Text::default() };
    let mut loaded = decode_text(&text);
    let mut problems = std::mem::take(&mut loaded.problems);
    let lab = lab::resolve(&loaded, before, &mut problems);
    lab.unwrap_or_else(|| panic!("{problems:#?}"))
}

/// Two hosts on one network, one on another; a pod on each.
fn cluster(flannel: &str) -> String {
    format!(
        "cluster: {{ flannel: {{ {flannel} }} }}
networks: {{ rack1: {{ cidr: 192.168.1.0/24 }}, rack2: {{ cidr: 192.168.2.0/24 }} }}
hosts: {{ node1: {{ network: rack1 }}, node2: {{ network: rack1 }}, node3: {{ network: rack2 }} }}
pods: {{ a: {{ host: node1 }}, b: {{ host: node2 }}, c: {{ host: node3 }} }}
"
    )
}

fn words(steps: &[Step]) -> String {
    steps.iter().map(|s| format!("{s}\n")).collect()
}

/// The build of one host and of its pod.
fn build_of(plan: &Plan, names: &[&str]) -> String {
    let steps = diff(&Plan::default(), plan);
    let of: Vec<Step> = steps.into_iter().filter(|s| names.contains(&s.ns.to_string().as_str())).collect();
    let mut text = words(&of);
    for ns in plan.namespaces.iter().filter(|n| names.contains(&n.ns.to_string().as_str())) {
        text.push_str(&ns.rules.restore_text());
        for file in &ns.files {
            text.push_str(&format!("-- {} of {}\n{}", file.path, ns.ns, file.content));
        }
    }
    text
}

#[test]
fn vxlan_gives_each_peer_a_neighbour_an_fdb_entry_and_a_route() {
    let plan = plan(&lab(&cluster("backend: vxlan"), None));
    insta::assert_snapshot!(build_of(&plan, &["node1", "a"]));
}

#[test]
fn direct_routing_tunnels_only_between_networks() {
    let plan = plan(&lab(&cluster("backend: vxlan, directRouting: true, vni: 7, port: 4789"), None));
    insta::assert_snapshot!(build_of(&plan, &["node1"]));
}

#[test]
fn host_gw_has_no_route_across_the_router() {
    let plan = plan(&lab(&cluster("backend: host-gw"), None));
    insta::assert_snapshot!(build_of(&plan, &["node1", "a"]));
}

#[test]
fn udp_leads_the_pod_network_into_a_tun_device() {
    let plan = plan(&lab(&cluster("backend: udp, port: 8286"), None));
    insta::assert_snapshot!(build_of(&plan, &["node1", "a"]));
}

#[test]
fn the_router_has_a_bridge_per_network_and_hides_the_lab_from_the_internet() {
    let plan = plan(&lab(&cluster("backend: vxlan"), None));
    insta::assert_snapshot!(build_of(&plan, &["router", "internet"]));
}

/// The steps from one file to another, as a running lab would take them.
fn change(from: &str, to: &str) -> String {
    let before = lab(from, None);
    let after = lab(to, Some(&before));
    words(&diff(&plan(&before), &plan(&after)))
}

#[test]
fn a_pod_more_touches_its_host_and_itself_alone() {
    let from = cluster("backend: vxlan");
    insta::assert_snapshot!(change(&from, &from.replace("pods: {", "pods: { d: { host: node1 },")));
}

#[test]
fn a_pod_less_takes_its_cable_with_it() {
    let from = cluster("backend: vxlan");
    insta::assert_snapshot!(change(&from, &from.replace("a: { host: node1 }, ", "")));
}

#[test]
fn a_host_more_is_made_known_to_the_others() {
    let from = cluster("backend: vxlan");
    insta::assert_snapshot!(change(&from, &from.replace("hosts: {", "hosts: { node4: { network: rack2 },")));
}

#[test]
fn a_new_back_end_keeps_pods_and_changes_their_mtu() {
    let from = cluster("backend: vxlan");
    insta::assert_snapshot!(change(&from, &cluster("backend: udp")));
}

#[test]
fn a_label_is_nothing_that_a_namespace_holds() {
    let from = cluster("backend: vxlan");
    assert_eq!(change(&from, &from.replace("a: { host: node1 }", "a: { host: node1, labels: { app: tea } }")), "");
}

#[test]
fn a_new_address_of_a_host_writes_its_routes_again_and_tells_the_peers() {
    let from = cluster("backend: vxlan")
        .replace("node1: { network: rack1 }", "node1: { network: rack1, address: 192.168.1.50 }");
    insta::assert_snapshot!(change(&from, &from.replace("192.168.1.50", "192.168.1.60")));
}
