//! `inspect flannel`: each host's subnet and lease, and how it reaches each peer.

use std::process::ExitCode;

use serde_json::json;

use crate::cli::args::FlannelArgs;
use crate::cli::output::{Table, print};
use crate::cli::process::outer_pid;
use crate::cli::{Done, find_lab};
use crate::daemon::inspect::flannel::{FlannelHost, Part, Way};

pub fn run(args: &FlannelArgs) -> Done {
    let client = find_lab(args.lab.as_deref())?;
    let only = args.host.as_ref().map(|h| format!("?host={h}")).unwrap_or_default();
    let mut hosts: Vec<FlannelHost> = client.get(&format!("/labctl/v1/inspect/flannel{only}"))?;
    let daemon = client.pid()?;
    for flanneld in hosts.iter_mut().filter_map(|h| h.flanneld.as_mut()) {
        // As `ps` shows it to the caller, where that can be found out.
        flanneld.pid = flanneld.pid.map(|pid| outer_pid(daemon, pid).unwrap_or(pid));
    }
    print(args.format.output, &json!(hosts), |_| {
        let all: Vec<String> = hosts.iter().map(text).collect();
        if all.is_empty() { "the lab has no hosts\n".to_owned() } else { all.join("\n") }
    });
    Ok(ExitCode::SUCCESS)
}

fn text(host: &FlannelHost) -> String {
    let mut out = format!("host {} ({}, network {})\n", host.host, host.public_ip, host.network);
    let mut line = |name: &str, value: &str| out.push_str(&format!("  {name:<11} {value}\n"));
    line("subnet", &format!("{} of {}", host.subnet, host.pod_network));
    line("lease", &host.lease.to_string());
    let mut name = "subnet.env";
    for env in &host.subnet_env {
        line(name, env);
        name = "";
    }
    line("back end", &host.backend);
    line("device", &device(host));
    if let Some(flanneld) = &host.flanneld {
        let process = match flanneld.pid {
            Some(pid) => format!("process {pid}, listens on UDP {}", flanneld.listen),
            None => "NOT RUNNING; `labctl up` starts it again".to_owned(),
        };
        line("flanneld", &process);
    }
    if host.peers.is_empty() {
        line("peers", "none");
        return out;
    }
    out + &peers(&host.peers)
}

fn device(host: &FlannelHost) -> String {
    match (&host.device, &host.device_name) {
        (Some(device), _) => {
            let mac = device.mac.as_ref().map(|m| format!(", {m}")).unwrap_or_default();
            let addresses: Vec<&str> = device.addresses.iter().map(|a| a.address.as_str()).collect();
            let detail = device.detail.as_ref().map(|d| format!(", {d}")).unwrap_or_default();
            let state = if device.state == "up" { "up".to_owned() } else { device.state.to_uppercase() };
            let address = addresses.first().copied().unwrap_or("NO ADDRESS");
            format!("{}, {state}, MTU {}{mac}, {address}{detail}", device.name, device.mtu)
        }
        (None, Some(name)) => format!("{name} is MISSING"),
        (None, None) => "none: routes lead straight to the hosts".to_owned(),
    }
}

fn peers(ways: &[Way]) -> String {
    let mut table = Table::new(&["  PEER", "PODS", "WAY", "NEEDS", "IN THE KERNEL"]);
    for way in ways {
        let mut head = [format!("  {}", way.peer), way.subnet.clone(), way.way.clone()];
        for part in &way.parts {
            let [peer, subnet, words] = std::mem::take(&mut head);
            table.row([peer, subnet, words, part.part.clone(), state(part)]);
        }
    }
    table.text()
}

/// What is there, and in capitals what is wrong with it.
fn state(part: &Part) -> String {
    match (&part.there, &part.wanted) {
        (Some(there), None) => there.clone(),
        (None, None) => "none: the kernel takes only a neighbour as next hop".to_owned(),
        (None, Some(wanted)) if part.part == "flanneld" => format!("NOT RUNNING; it should know: {wanted}"),
        (None, Some(wanted)) => format!("MISSING: {wanted}"),
        (Some(there), Some(wanted)) => format!("WRONG: {there}; it should be {wanted}"),
    }
}
