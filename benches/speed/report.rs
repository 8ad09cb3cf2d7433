//! Medians, the tables that a person reads, and the line that a program does.

use std::time::Duration;

use serde_json::{Value, json};
use tabled::builder::Builder;
use tabled::settings::Style;

pub fn median(mut all: Vec<Duration>) -> Duration {
    all.sort();
    all.get(all.len() / 2).copied().unwrap_or_default()
}

pub fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e5).round() / 100.0
}

/// One way to build and take down, with its medians.
pub struct Row {
    pub what: &'static str,
    pub hosts: u32,
    pub pods: u32,
    pub up: Duration,
    pub down: Duration,
    /// Until the kernel has taken every namespace down, from the beginning of `down`.
    pub gone: Duration,
    pub runs: usize,
}

/// A figure with the value that it is to reach.
pub struct Figure {
    pub what: String,
    pub value: f64,
    pub unit: &'static str,
    /// Whether it is to be lower or higher than the second value.
    pub target: Option<(&'static str, f64)>,
}

impl Figure {
    fn verdict(&self) -> String {
        match self.target {
            Some((sign, target)) => {
                let reached = if sign == "<" { self.value < target } else { self.value >= target };
                format!("{sign} {target} {}", if reached { "reached" } else { "MISSED" })
            }
            None => String::new(),
        }
    }
}

fn ratio(one: Duration, other: Duration) -> f64 {
    (one.as_secs_f64() / other.as_secs_f64().max(1e-9) * 100.0).round() / 100.0
}

fn floor_of<'r>(rows: &'r [Row], row: &Row) -> Option<&'r Row> {
    rows.iter().find(|r| r.what == "floor" && (r.hosts, r.pods) == (row.hosts, row.pods))
}

pub fn table(rows: &[Row]) -> String {
    let mut builder = Builder::default();
    builder.push_record(["HOSTS", "PODS", "", "UP ms", "x FLOOR", "DOWN ms", "GONE ms", "RUNS"]);
    for row in rows {
        let times = floor_of(rows, row).map(|f| ratio(row.up, f.up).to_string()).unwrap_or_default();
        builder.push_record([
            row.hosts.to_string(),
            row.pods.to_string(),
            row.what.to_owned(),
            milliseconds(row.up).to_string(),
            times,
            milliseconds(row.down).to_string(),
            milliseconds(row.gone).to_string(),
            row.runs.to_string(),
        ]);
    }
    builder.build().with(Style::blank()).to_string()
}

pub fn figures(figures: &[Figure]) -> String {
    let mut builder = Builder::default();
    builder.push_record(["FIGURE", "VALUE", "UNIT", "TARGET"]);
    for figure in figures {
        let value = (figure.value * 1000.0).round() / 1000.0;
        builder.push_record([figure.what.clone(), value.to_string(), figure.unit.to_owned(), figure.verdict()]);
    }
    builder.build().with(Style::blank()).to_string()
}

pub fn json(rows: &[Row], figures: &[Figure], notes: &[String]) -> Value {
    let row = |r: &Row| {
        json!({
            "what": r.what, "hosts": r.hosts, "pods": r.pods, "runs": r.runs,
            "upMs": milliseconds(r.up), "downMs": milliseconds(r.down), "goneMs": milliseconds(r.gone),
            "upToFloor": floor_of(rows, r).map(|f| ratio(r.up, f.up)),
        })
    };
    let figure = |f: &Figure| {
        let target = f.target.map(|(sign, value)| json!({ "sign": sign, "value": value }));
        json!({ "what": f.what, "value": f.value, "unit": f.unit, "target": target })
    };
    json!({
        "builds": rows.iter().map(row).collect::<Vec<_>>(),
        "figures": figures.iter().map(figure).collect::<Vec<_>>(),
        "notes": notes,
    })
}
