//! Objects in kubectl's own columns, and those of labctl's own kinds beside them.

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::daemon::kube::now;

use super::output::{Table, age, text};

/// How many endpoints kubectl names before it counts the rest.
const SHOWN: usize = 3;

/// A heading of a column, and what stands under it.
pub type Column = (&'static str, fn(&Value) -> String);

/// Columns of a kind; those behind them are in the wide table only.
pub struct Columns {
    pub columns: &'static [Column],
    pub wide: &'static [Column],
}

/// How a table is to look.
#[derive(Debug, Clone, Copy, Default)]
pub struct Look {
    pub wide: bool,
    /// Whether objects of all namespaces are in it.
    pub all_namespaces: bool,
    /// Whether labels are shown, too.
    pub labels: bool,
}

pub const PODS: Columns = Columns {
    columns: &[
        ("NAME", name),
        ("READY", ready),
        ("STATUS", status),
        ("RESTARTS", restarts),
        ("AGE", since),
        ("IP", |p| text(p, "/status/podIP").to_owned()),
        ("HOST", |p| text(p, "/spec/nodeName").to_owned()),
    ],
    wide: &[("PORTS", container_ports), LABELS],
};

pub const HOSTS: Columns = Columns {
    columns: &[
        ("NAME", name),
        ("STATUS", |_| "Ready".to_owned()),
        ("ADDRESS", address),
        ("POD SUBNET", |h| text(h, "/spec/podCIDR").to_owned()),
    ],
    wide: &[LABELS],
};

pub const CLIENTS: Columns = Columns {
    columns: &[
        ("NAME", name),
        ("ADDRESS", address),
        ("NETWORK", |c| text(c, "/spec/network").to_owned()),
        ("PORTS", |c| or(&written_ports(list(c, "/spec/ports"), "/port"), "<none>")),
    ],
    wide: &[],
};

pub const NETWORKS: Columns = Columns {
    columns: &[
        ("NAME", name),
        ("RANGE", |n| text(n, "/spec/cidr").to_owned()),
        ("ROUTER", |n| text(n, "/spec/gateway").to_owned()),
        ("MTU", |n| number(n, "/spec/mtu").to_string()),
        ("MACHINES", |n| {
            or(&list(n, "/status/machines").filter_map(Value::as_str).collect::<Vec<_>>().join(","), "<none>")
        }),
    ],
    wide: &[("BRIDGE", |n| text(n, "/status/bridge").to_owned())],
};

pub const SERVICES: Columns = Columns {
    columns: &[
        ("NAME", name),
        ("TYPE", |s| text(s, "/spec/type").to_owned()),
        ("CLUSTER-IP", |s| or(text(s, "/spec/clusterIP"), "<none>")),
        ("EXTERNAL-IP", external),
        ("PORT(S)", ports),
        ("AGE", since),
    ],
    wide: &[("SELECTOR", |s| pairs(s.pointer("/spec/selector")))],
};

pub const ENDPOINTS: Columns = Columns {
    columns: &[("NAME", name), ("ENDPOINTS", |e| addresses(e, "addresses")), ("AGE", since)],
    wide: &[("NOT READY", |e| addresses(e, "notReadyAddresses"))],
};

pub const SLICES: Columns = Columns {
    columns: &[
        ("NAME", name),
        ("ADDRESSTYPE", |s| text(s, "/addressType").to_owned()),
        ("PORTS", slice_ports),
        ("ENDPOINTS", slice_addresses),
        ("AGE", since),
    ],
    wide: &[("READY", |s| conditions(s, "ready")), ("TERMINATING", |s| conditions(s, "terminating"))],
};

pub const DEPLOYMENTS: Columns = Columns {
    columns: &[
        ("NAME", name),
        ("READY", |d| format!("{}/{}", number(d, "/status/readyReplicas"), number(d, "/spec/replicas"))),
        ("UP-TO-DATE", |d| number(d, "/status/updatedReplicas").to_string()),
        ("AVAILABLE", |d| number(d, "/status/availableReplicas").to_string()),
        ("AGE", since),
    ],
    wide: &[("SELECTOR", |d| pairs(d.pointer("/spec/selector/matchLabels")))],
};

pub const NAMESPACES: Columns = Columns {
    columns: &[("NAME", name), ("STATUS", |n| text(n, "/status/phase").to_owned()), ("AGE", since)],
    wide: &[],
};

pub const INGRESSES: Columns = Columns {
    columns: &[
        ("NAME", name),
        ("CLASS", class),
        ("HOSTS", hosts),
        ("ADDRESS", |i| or(text(i, "/status/loadBalancer/ingress/0/ip"), "<none>")),
        ("PORTS", |i| if list(i, "/spec/tls").next().is_some() { "80, 443".to_owned() } else { "80".to_owned() }),
        ("AGE", since),
    ],
    wide: &[LABELS],
};

pub const INGRESS_CLASSES: Columns =
    Columns { columns: &[("NAME", name), ("CONTROLLER", |c| text(c, "/spec/controller").to_owned())], wide: &[LABELS] };

pub const SECRETS: Columns = Columns {
    columns: &[("NAME", name), ("TYPE", |s| text(s, "/type").to_owned()), ("DATA", fields)],
    wide: &[LABELS],
};

pub const CONFIG_MAPS: Columns = Columns { columns: &[("NAME", name), ("DATA", fields)], wide: &[LABELS] };

/// The table, with the namespace in front where those of all are shown.
pub fn table(items: &[Value], columns: &Columns, look: Look) -> String {
    let namespace: Column = ("NAMESPACE", |item| text(item, "/metadata/namespace").to_owned());
    let mut shown: Vec<&Column> = look.all_namespaces.then_some(&namespace).into_iter().collect();
    shown.extend(columns.columns);
    shown.extend(columns.wide.iter().filter(|_| look.wide));
    if look.labels && !shown.iter().any(|(heading, _)| *heading == LABELS.0) {
        shown.push(&LABELS);
    }
    let headings: Vec<&str> = shown.iter().map(|(heading, _)| *heading).collect();
    let mut table = Table::new(&headings);
    for item in items {
        table.row(shown.iter().map(|(_, cell)| cell(item)));
    }
    table.text()
}

/// Pods of any namespace, which stands in front of a name where it is not `default`.
pub fn pods(items: &[Value]) -> String {
    if items.is_empty() {
        return "none\n".to_owned();
    }
    let mut items = items.to_vec();
    for pod in &mut items {
        pod["metadata"]["name"] = full_name(pod).into();
    }
    table(&items, &PODS, Look::default())
}

/// A pod's name as it is typed: with its namespace where that is not `default`.
fn full_name(pod: &Value) -> String {
    match text(pod, "/metadata/namespace") {
        "" | "default" => name(pod),
        namespace => format!("{namespace}/{}", name(pod)),
    }
}

const LABELS: Column = ("LABELS", |item| pairs(item.pointer("/metadata/labels")));

/// An ingress' class, in its field or in the old annotation.
pub fn class(ingress: &Value) -> String {
    let old = ingress["metadata"]["annotations"]["kubernetes.io/ingress.class"].as_str();
    let class = ingress.pointer("/spec/ingressClassName").and_then(Value::as_str).or(old);
    or(class.unwrap_or_default(), "<none>")
}

/// The hosts of an ingress' rules; `*` stands for every name.
fn hosts(ingress: &Value) -> String {
    let all = list(ingress, "/spec/rules").map(|r| or(text(r, "/host"), "*"));
    let all: Vec<String> = all.collect();
    if all.is_empty() { "*".to_owned() } else { shortened(&all) }
}

/// How many fields a secret or ConfigMap has.
fn fields(item: &Value) -> String {
    item["data"].as_object().map_or(0, serde_json::Map::len).to_string()
}

fn address(machine: &Value) -> String {
    text(machine, "/status/addresses/0/address").to_owned()
}

fn ready(pod: &Value) -> String {
    let ready = list(pod, "/status/containerStatuses").filter(|c| c["ready"] == true).count();
    format!("{ready}/{}", list(pod, "/status/containerStatuses").count())
}

fn restarts(pod: &Value) -> String {
    list(pod, "/status/containerStatuses").filter_map(|c| c["restartCount"].as_u64()).sum::<u64>().to_string()
}

/// Waiting and ended containers say more than the phase, as in kubectl's STATUS column.
pub fn status(pod: &Value) -> String {
    if pod.pointer("/metadata/deletionTimestamp").is_some() {
        return "Terminating".to_owned();
    }
    let reason = list(pod, "/status/containerStatuses").find_map(|c| {
        let reason = c.pointer("/state/waiting/reason").or(c.pointer("/state/terminated/reason"));
        reason.and_then(Value::as_str)
    });
    reason.unwrap_or(text(pod, "/status/phase")).to_owned()
}

fn container_ports(pod: &Value) -> String {
    let ports = list(pod, "/spec/containers").flat_map(|c| list(c, "/ports"));
    or(&written_ports(ports, "/containerPort"), "<none>")
}

/// `8080/TCP,53/UDP`, the number being at `pointer` of each.
fn written_ports<'v>(ports: impl Iterator<Item = &'v Value>, pointer: &str) -> String {
    ports.map(|p| format!("{}/{}", number(p, pointer), text(p, "/protocol"))).collect::<Vec<_>>().join(",")
}

fn name(item: &Value) -> String {
    text(item, "/metadata/name").to_owned()
}

fn or(text: &str, otherwise: &str) -> String {
    if text.is_empty() { otherwise.to_owned() } else { text.to_owned() }
}

fn number(item: &Value, pointer: &str) -> u64 {
    item.pointer(pointer).and_then(Value::as_u64).unwrap_or_default()
}

fn list<'v>(item: &'v Value, pointer: &str) -> impl Iterator<Item = &'v Value> {
    item.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

/// How long an object is there.
pub fn since(item: &Value) -> String {
    let born = text(item, "/metadata/creationTimestamp").parse::<Timestamp>();
    let seconds = born.map(|born| now().as_second() - born.as_second());
    seconds.map_or_else(|_| "<unknown>".to_owned(), |s| age(s.try_into().unwrap_or(0)))
}

/// `key=value` pairs of a map.
pub fn pairs(map: Option<&Value>) -> String {
    let pairs = map.and_then(Value::as_object).into_iter().flatten();
    let all: Vec<String> = pairs.map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
    or(&all.join(","), "<none>")
}

/// kubectl's EXTERNAL-IP (`getServiceExternalIP`).
fn external(service: &Value) -> String {
    let words = |pointer| list(service, pointer).filter_map(Value::as_str).map(str::to_owned);
    let balancer = list(service, "/status/loadBalancer/ingress").map(|i| match text(i, "/ip") {
        "" => text(i, "/hostname").to_owned(),
        ip => ip.to_owned(),
    });
    match text(service, "/spec/type") {
        "ExternalName" => text(service, "/spec/externalName").to_owned(),
        "LoadBalancer" => {
            let all: Vec<String> = balancer.chain(words("/spec/externalIPs")).collect();
            or(&all.join(","), "<pending>")
        }
        _ => or(&words("/spec/externalIPs").collect::<Vec<_>>().join(","), "<none>"),
    }
}

fn ports(service: &Value) -> String {
    let port = |p: &Value| {
        let node = p["nodePort"].as_u64().filter(|n| *n > 0).map(|n| format!(":{n}")).unwrap_or_default();
        format!("{}{node}/{}", p["port"], text(p, "/protocol"))
    };
    or(&list(service, "/spec/ports").map(port).collect::<Vec<_>>().join(","), "<none>")
}

/// At most [`SHOWN`] of these, and how many more there are, as kubectl writes it.
pub fn shortened(all: &[String]) -> String {
    let shown = all.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(",");
    match all.len().saturating_sub(SHOWN) {
        0 => or(&shown, "<none>"),
        more => format!("{shown} + {more} more..."),
    }
}

/// Each address with each port, as kubectl's `formatEndpoints` has them.
fn addresses(endpoints: &Value, field: &str) -> String {
    let mut all = Vec::new();
    for subset in list(endpoints, "/subsets") {
        let ips: Vec<&str> = subset[field].as_array().into_iter().flatten().map(|a| text(a, "/ip")).collect();
        match subset["ports"].as_array() {
            None => all.extend(ips.iter().map(ToString::to_string)),
            Some(ports) => {
                all.extend(ports.iter().flat_map(|p| ips.iter().map(move |ip| format!("{ip}:{}", p["port"]))))
            }
        }
    }
    shortened(&all)
}

fn slice_ports(slice: &Value) -> String {
    let all: Vec<String> = list(slice, "/ports").map(|p| p["port"].to_string()).collect();
    if all.is_empty() { "<unset>".to_owned() } else { shortened(&all) }
}

fn slice_addresses(slice: &Value) -> String {
    let all: Vec<String> = list(slice, "/endpoints").map(|e| text(e, "/addresses/0").to_owned()).collect();
    if all.is_empty() { "<unset>".to_owned() } else { shortened(&all) }
}

/// How many endpoints of a slice have this condition.
fn conditions(slice: &Value, condition: &str) -> String {
    list(slice, "/endpoints").filter(|e| e["conditions"][condition] == true).count().to_string()
}

/// A port of the host that leads to a pod, in words.
pub fn host_port(port: &Value, pod: &Value) -> String {
    let host = text(pod, "/spec/nodeName");
    let on = match text(port, "/hostIP") {
        "" => host.to_owned(),
        ip => format!("{host}, on {ip} alone,"),
    };
    let (from, to, chain) = (&port["hostPort"], &port["containerPort"], text(port, "/chain"));
    format!("{from}/{} of {on} leads to port {to} (chain {chain})", text(port, "/protocol"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_service_has_kubectls_columns() {
        let node_port = json!({
            "metadata": { "name": "tea" },
            "spec": { "type": "NodePort", "clusterIP": "10.96.1.1", "ports": [
                { "port": 80, "nodePort": 30080, "protocol": "TCP" }, { "port": 53, "protocol": "UDP" }] },
        });
        let row = table(std::slice::from_ref(&node_port), &SERVICES, Look::default());
        let words: Vec<&str> = row.lines().nth(1).unwrap_or_default().split_whitespace().collect();
        assert_eq!(words, ["tea", "NodePort", "10.96.1.1", "<none>", "80:30080/TCP,53/UDP", "<unknown>"]);
        let mut balanced = node_port;
        balanced["spec"]["type"] = "LoadBalancer".into();
        assert_eq!(external(&balanced), "<pending>");
        balanced["status"] = json!({ "loadBalancer": { "ingress": [{ "ip": "198.51.100.1" }] } });
        assert_eq!(external(&balanced), "198.51.100.1");
        let alias = json!({ "spec": { "type": "ExternalName", "externalName": "example.com" } });
        assert_eq!((external(&alias).as_str(), ports(&alias).as_str()), ("example.com", "<none>"));
    }

    #[test]
    fn endpoints_beyond_the_third_are_counted() {
        let address = |n: u8| json!({ "ip": format!("10.0.0.{n}") });
        let subset = |ports: Value| json!({ "addresses": (1..=4).map(address).collect::<Vec<_>>(), "ports": ports });
        let object = json!({ "subsets": [subset(json!([{ "port": 80 }]))] });
        assert_eq!(addresses(&object, "addresses"), "10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 1 more...");
        assert_eq!(addresses(&object, "notReadyAddresses"), "<none>");
        assert_eq!(addresses(&json!({}), "addresses"), "<none>");
    }
}
