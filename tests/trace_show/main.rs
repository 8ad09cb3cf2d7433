//! How traces look: text, sequence diagrams, JSON and captures, made of the traces in `tests/traces`.

mod capture;
mod generated;
mod json;
mod text;

use labctl::trace::model::Trace;

/// The traces in `tests/traces`.
const SAMPLES: [&str; 5] = ["cluster-ip", "ingress", "missing-route", "flannel-udp", "too-big"];

fn sample_text(name: &str) -> String {
    let path = format!("{}/tests/traces/{name}.json", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn sample(name: &str) -> Trace {
    serde_json::from_str(&sample_text(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}
