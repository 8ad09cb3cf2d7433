//! The 32 cases of which endpoints are usable.

use std::net::SocketAddr;
use std::path::Path;

use libtest_mimic::Trial;
use serde::Deserialize;

use labctl::plan::proxy::ProxyConfig;
use labctl::plan::proxy::categorize::categorize;
use labctl::plan::proxy::endpoint::Endpoint;
use labctl::plan::proxy::service::Policy;

#[derive(Debug, Deserialize)]
struct File {
    cases: Vec<Case>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Case {
    name: String,
    endpoints: Option<Vec<Recorded>>,
    service: Service,
    node_name: String,
    node_labels: Option<std::collections::BTreeMap<String, String>>,
    cluster_endpoints: Option<Vec<String>>,
    local_endpoints: Option<Vec<String>>,
    all_endpoints: Option<Vec<String>>,
    /// There is one somewhere, though none can be reached.
    only_remote_endpoints: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Service {
    internal_policy_local: bool,
    external_policy_local: bool,
    node_port: u16,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Recorded {
    endpoint: SocketAddr,
    is_local: bool,
    node_hints: Option<Vec<String>>,
    zone_hints: Option<Vec<String>>,
    ready: bool,
    serving: bool,
    terminating: bool,
}

pub fn trials(folder: &Path) -> Vec<Trial> {
    let text = std::fs::read_to_string(folder.join("categorize_endpoints_cases.json")).expect("the recordings");
    let cases = serde_json::from_str::<File>(&text).expect("the recordings' form").cases;
    cases
        .into_iter()
        .map(|case| {
            let name = format!("categorize::{}", case.name.replace([' ', ','], "_"));
            Trial::test(name, move || {
                check(&case);
                Ok(())
            })
        })
        .collect()
}

fn check(case: &Case) {
    let mut config = ProxyConfig::new(&case.node_name, SocketAddr::from(([10, 0, 0, 1], 0)).ip());
    config.labels = case.node_labels.clone().unwrap_or_default();
    // The gate is the one thing that this case and the next differ in, and it is not recorded.
    config.node_hints = !case.name.contains("feature gate disabled");
    let hints = |hints: &Option<Vec<String>>| hints.clone().unwrap_or_default();
    let kept: Vec<(Vec<String>, Vec<String>)> =
        case.endpoints.iter().flatten().map(|e| (hints(&e.zone_hints), hints(&e.node_hints))).collect();
    let recorded = case.endpoints.iter().flatten();
    let mut endpoints: Vec<Endpoint> =
        recorded.zip(&kept).map(|(e, (zones, nodes))| endpoint(e, zones, nodes)).collect();
    endpoints.sort_by(|a, b| a.text.cmp(&b.text));
    let policy = Policy {
        internal_local: case.service.internal_policy_local,
        external_local: case.service.external_policy_local,
        accessible: case.service.node_port != 0,
    };
    let usable = categorize(&endpoints, policy, &config);
    let texts = |list: &[&Endpoint]| -> Vec<String> { list.iter().map(|e| e.text.clone()).collect() };
    let (cluster, local, reachable) = (texts(&usable.cluster), texts(&usable.local), texts(&usable.reachable));
    assert_eq!(cluster, case.cluster_endpoints.clone().unwrap_or_default(), "under policy Cluster");
    assert_eq!(local, case.local_endpoints.clone().unwrap_or_default(), "under policy Local");
    let all = case.all_endpoints.clone().or(case.cluster_endpoints.clone().filter(|c| !c.is_empty()));
    assert_eq!(reachable, all.or(case.local_endpoints.clone()).unwrap_or_default(), "in reach");
    assert_eq!(usable.any, case.only_remote_endpoints || !reachable.is_empty(), "anywhere");
}

fn endpoint<'e>(recorded: &Recorded, zones: &'e [String], nodes: &'e [String]) -> Endpoint<'e> {
    Endpoint {
        address: recorded.endpoint,
        text: recorded.endpoint.to_string(),
        local: recorded.is_local,
        ready: recorded.ready,
        serving: recorded.serving,
        terminating: recorded.terminating,
        zones: zones.iter().map(String::as_str).collect(),
        nodes: nodes.iter().map(String::as_str).collect(),
    }
}

pub fn a_wrong_expectation_is_seen() {
    let case = Case { cluster_endpoints: Some(vec!["10.0.0.1:80".to_owned()]), ..Case::default() };
    assert!(std::panic::catch_unwind(|| check(&case)).is_err(), "an endpoint that is not there was not missed");
}
