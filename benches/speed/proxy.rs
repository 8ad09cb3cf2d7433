//! kube-proxy's rules: planning them, the first restore beside a raw one of the same text, and the
//! sync after one endpoint has changed, with our own time apart from the kernel program's.
//!
//! It is measured in a process with namespaces of its own, which this program becomes.

use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::CloneFlags;
use serde::{Deserialize, Serialize};
use serde_json::json;

use labctl::objects::{EndpointSlice, Service};
use labctl::plan::proxy::{self, LocalTraffic, ProxyConfig, ProxyRules};
use labctl::plan::rules::Rules;

use crate::inside::leave;
use crate::report::{Figure, median, milliseconds};
use crate::timed;

/// Services with two endpoints each.
pub const SIZES: [u32; 3] = [100, 1000, 10_000];

/// Medians, in milliseconds.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Times {
    plan: f64,
    /// Planning and writing the text.
    own_first: f64,
    /// `iptables-restore` alone, with the same text.
    raw: f64,
    first: f64,
    own_change: f64,
    change: f64,
}

/// `proxy SERVICES RUNS`: measure, and print the times.
pub fn run(services: u32, runs: usize) -> io::Result<()> {
    leave(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none)?;
    let (before, after) = (Objects::new(services, false)?, Objects::new(services, true)?);
    let raw_text = whole(&before.plan());
    let mut all: [Vec<Duration>; 6] = Default::default();
    for _ in 0..runs {
        let (plan, _) = timed(|| before.plan());
        let (raw, outcome) = timed(|| restore(&raw_text, false));
        outcome?;
        let (own_first, (old, text)) = timed(|| {
            let rules = before.plan();
            let text = whole(&rules);
            (rules, text)
        });
        let (kernel, outcome) = timed(|| restore(&text, false));
        outcome?;
        let (own_change, text) = timed(|| proxy::sync(&old, &after.plan()));
        let text = text.ok_or_else(|| io::Error::other("nothing has changed"))?;
        let (change, outcome) = timed(|| restore(&text, true));
        outcome?;
        let times = [plan, own_first, raw, own_first + kernel, own_change, own_change + change];
        all.iter_mut().zip(times).for_each(|(list, time)| list.push(time));
    }
    let [plan, own_first, raw, first, own_change, change] = all.map(|list| milliseconds(median(list)));
    println!("{}", json!(Times { plan, own_first, raw, first, own_change, change }));
    Ok(())
}

/// The text of a first restore, which leaves nothing else in the tables.
fn whole(rules: &ProxyRules) -> String {
    let mut all = Rules::default();
    rules.add_to(&mut all);
    all.restore_text()
}

fn restore(text: &str, keep: bool) -> io::Result<()> {
    let mut command = Command::new("iptables-restore");
    if keep {
        command.arg("--noflush");
    }
    let mut child = command.stdin(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(text.as_bytes())?;
    }
    let status = child.wait()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("iptables-restore: {status}"))) }
}

struct Objects {
    services: Vec<Service>,
    slices: Vec<EndpointSlice>,
    config: ProxyConfig,
}

impl Objects {
    /// With one endpoint of a service in the middle `changed`.
    fn new(count: u32, changed: bool) -> io::Result<Objects> {
        let (mut services, mut slices) = (Vec::new(), Vec::new());
        for i in 0..count {
            let ip = |first: u32| format!("10.{}.{}.{}", first + (i >> 16), i >> 8 & 255, i & 255);
            let second = if changed && i == count / 2 { "10.255.255.1".to_owned() } else { ip(200) };
            let (name, space) = (format!("svc{i}"), format!("ns{}", i / 100));
            let port = |number: u16| json!([{ "name": "http", "port": number, "protocol": "TCP" }]);
            let service = json!({ "metadata": { "name": name, "namespace": space },
                "spec": { "type": "ClusterIP", "clusterIP": ip(96), "ports": port(80) } });
            let labels = json!({ "kubernetes.io/service-name": name });
            let slice = json!({ "metadata": { "name": name, "namespace": space, "labels": labels },
                "addressType": "IPv4", "ports": port(8080),
                "endpoints": [{ "addresses": [ip(100)] }, { "addresses": [second] }] });
            services.push(serde_json::from_value(service)?);
            slices.push(serde_json::from_value(slice)?);
        }
        let mut config = ProxyConfig::new("node1", io_parse("192.168.0.2")?);
        config.local = Some(LocalTraffic::Cidr(io_parse("10.0.0.0/8")?));
        Ok(Objects { services, slices, config })
    }

    fn plan(&self) -> ProxyRules {
        proxy::plan(&self.services, &self.slices, &self.config)
    }
}

fn io_parse<T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>>(text: &str) -> io::Result<T> {
    text.parse().map_err(io::Error::other)
}

/// Measure each size in a process of its own.
pub fn figures(quick: bool) -> io::Result<Vec<Figure>> {
    let mut all = Vec::new();
    for size in SIZES {
        eprintln!("measuring kube-proxy's rules of {size} services");
        let runs = if quick { 3 } else { 5 };
        let mut command = Command::new(std::env::current_exe()?);
        let output = command.args(["proxy", &size.to_string(), &runs.to_string()]).stderr(Stdio::inherit()).output()?;
        if !output.status.success() {
            return Err(io::Error::other(format!("kube-proxy's rules of {size} services: {}", output.status)));
        }
        let times: Times = serde_json::from_slice(&output.stdout)?;
        all.extend(of_size(size, &times));
    }
    Ok(all)
}

fn of_size(size: u32, times: &Times) -> Vec<Figure> {
    // What real kube-proxy took for one change at this size, halved.
    let half = (size == 10_000).then_some(("<", 943.0 / 2.0));
    let own = (size == 10_000).then_some(("<", 100.0));
    let figure =
        |what: &str, value, unit, target| Figure { what: format!("{size} services, {what}"), value, unit, target };
    vec![
        figure("planned", f64::from(size) / times.plan.max(1e-6) * 1000.0, "services/s", None),
        figure("plan", times.plan, "ms", own),
        figure("first sync, own part", times.own_first, "ms", None),
        figure("first sync", times.first, "ms", None),
        figure("raw restore", times.raw, "ms", None),
        figure("first sync to the raw restore", times.first / times.raw.max(1e-6), "times", Some(("<", 1.25))),
        figure("one endpoint changed, own part", times.own_change, "ms", own),
        figure("one endpoint changed", times.change, "ms", half),
    ]
}
