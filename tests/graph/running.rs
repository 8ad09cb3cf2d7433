//! `labctl graph` as it is typed, of labs that run and of files.

use super::harness::{Bench, Who};

crate::as_root_and_ordinary_user![a_running_lab_is_drawn_as_it_is_now, a_pod_is_drawn_where_it_runs];
crate::tests![&[];
    a_file_is_drawn_without_running_it_in_each_format,
    a_trace_is_played_by_a_page_alone,
    what_is_no_trace_of_the_lab_is_refused,
];

const LAB: &str = "networks: { n: { cidr: 10.9.0.0/24 } }
hosts: { node1: { network: n } }
cluster: { flannel: { backend: vxlan } }
deployments: { tea: { replicas: 1, labels: { app: tea } } }
";

fn a_running_lab_is_drawn_as_it_is_now(bench: &Bench) {
    let file = bench.write(LAB);
    bench.up(&file);
    let drawn = bench.ok(&["graph", "-o", "dot"]);
    assert_eq!(drawn, bench.ok(&["graph", &file, "-o", "dot"]));
    for dev in ["router#br-n", "host/node1#eth0", "host/node1#flannel.1", "host/node1#cni0", "pod/default/tea-1#eth0"] {
        assert!(drawn.contains(&format!("\"{dev}\" [")), "{dev} is missing:\n{drawn}");
    }
    bench.ok(&["scale", "deployment", "tea", "--replicas", "2"]);
    let scaled = bench.ok(&["graph", &bench.lab, "-o", "dot"]);
    assert!(scaled.contains("pod/default/tea-2#eth0"), "{scaled}");
    assert!(!bench.ok(&["graph", &file, "-o", "dot"]).contains("tea-2"));
    bench.run(&["graph", "nobody"]).ends_with(2).says("no lab `nobody` runs");
}

/// After a pod went and another one came, the same text built afresh would place them otherwise.
fn a_pod_is_drawn_where_it_runs(bench: &Bench) {
    let file = bench.write(
        "networks: { n: { cidr: 10.9.0.0/24 } }
hosts: { node1: { network: n }, node2: { network: n } }
deployments: { tea: { replicas: 3 } }
",
    );
    bench.up(&file);
    bench.ok(&["delete", "pod", "tea-1"]);
    let drawn = bench.ok(&["graph"]);
    let pods = bench.json(&["get", "pods"]);
    let pods = pods["items"].as_array().expect("pods");
    assert_eq!(pods.len(), 3, "{pods:?}");
    for pod in pods {
        let word = |path: &str| pod.pointer(path).and_then(serde_json::Value::as_str).expect("a word").to_owned();
        let label = format!("\"{}<br/>{}<br/>", word("/metadata/name"), word("/status/podIP"));
        let host = format!("[\"{}\"]", word("/spec/nodeName"));
        let before = drawn.split_once(&label).unwrap_or_else(|| panic!("{label} is not in\n{drawn}")).0;
        let inside = before.rsplit_once("subgraph ").expect("a box").1;
        assert!(inside.contains(&host), "{label} is not on {host}:\n{drawn}");
    }
}

fn a_file_is_drawn_without_running_it_in_each_format() {
    let bench = Bench::new(Who::Ordinary);
    let file = bench.write(LAB);
    for (format, begins) in
        [("mermaid", "flowchart TB\n"), ("dot", "graph \""), ("svg", "<svg "), ("html", "<!doctype html>")]
    {
        let printed = bench.ok(&["graph", &file, "-o", format]);
        assert!(printed.starts_with(begins), "{format}: {printed}");
        let out = bench.path(&format!("picture.{format}"));
        assert_eq!(bench.ok(&["graph", &file, "--out", out.to_str().expect("a path")]), "");
        assert_eq!(std::fs::read_to_string(out).expect("a picture"), printed, "{format} by the file's ending");
    }
    assert_eq!(bench.labs(), Vec::<String>::new());
}

fn trace(bench: &Bench, change: impl Fn(String) -> String) -> String {
    let path = bench.path("trace.json");
    std::fs::write(&path, change(include_str!("trace.json").to_owned())).expect("a trace");
    path.to_string_lossy().into_owned()
}

fn tea(bench: &Bench) -> String {
    let path = bench.path("tea.yaml");
    std::fs::write(&path, include_str!("tea.yaml")).expect("a lab");
    path.to_string_lossy().into_owned()
}

fn a_trace_is_played_by_a_page_alone() {
    let bench = Bench::new(Who::Ordinary);
    let (lab, trace) = (tea(&bench), trace(&bench, |text| text));
    assert!(bench.ok(&["graph", &lab, "--trace", &trace]).starts_with("<!doctype html>"));
    bench.run(&["graph", &lab, "--trace", &trace, "-o", "svg"]).ends_with(2).says("only a page plays a trace");
}

fn what_is_no_trace_of_the_lab_is_refused() {
    let bench = Bench::new(Who::Ordinary);
    let (lab, other) = (tea(&bench), bench.write(LAB));
    let refused = |lab: &str, trace: &str, why: &str| {
        let ran = bench.run(&["graph", lab, "--trace", trace]).ends_with(2).says(why);
        assert_eq!(ran.stdout, "");
    };
    refused(&lab, "nowhere.json", "nowhere.json cannot be read");
    refused(&lab, &trace(&bench, |_| "{}".to_owned()), "is no trace: missing field `version`");
    refused(
        &lab,
        &trace(&bench, |text| text.replacen("\"version\": 1", "\"version\": 2", 1)),
        "has version 2 of traces",
    );
    refused(&other, &trace(&bench, |text| text), "the trace is one of lab tea");
}
