//! `inspect stack`: the four parts of a network stack: interfaces, loopback, routing table,
//! iptables rules.

use std::process::ExitCode;

use serde_json::json;

use crate::cli::args::StackArgs;
use crate::cli::output::{Table, print};
use crate::cli::{Done, find_lab};
use crate::daemon::inspect::{Seen, StackAnswer};
use crate::kernel::stack::StackRoute;
use crate::plan::rules::Rules;

use super::machine;

pub fn run(args: &StackArgs) -> Done {
    let client = find_lab(args.lab.as_deref())?;
    let stack: StackAnswer = client.get(&format!("/labctl/v1/inspect/stack?target={}", args.target))?;
    print(args.format.output, &json!(stack), |wide| text(&stack, wide));
    Ok(ExitCode::SUCCESS)
}

fn text(stack: &StackAnswer, wide: bool) -> String {
    let (loopback, others): (Vec<_>, Vec<_>) = stack.interfaces.iter().partition(|s| s.interface.kind == "loopback");
    let mut out = format!("The network stack of {}\n", machine(&stack.kind, &stack.name));
    out.push_str(&format!("\n1. Interfaces\n{}", interfaces(&others)));
    out.push_str(&format!("\n2. Loopback\n{}", interfaces(&loopback)));
    out.push_str(&format!("\n3. Routing table\n{}", routes(&stack.routes, wide)));
    out.push_str(&format!("\n4. iptables rules\n{}", rules(&stack.rules)));
    out
}

/// Interfaces with all their addresses, one line for each.
pub fn interfaces(all: &[&Seen]) -> String {
    if all.is_empty() {
        return "none\n".to_owned();
    }
    let mut table = Table::new(&["INDEX", "NAME", "STATE", "MAC", "MTU", "KIND", "ADDRESSES", "MORE"]);
    for seen in all {
        let interface = &seen.interface;
        let mut addresses = interface.addresses.iter().map(|a| a.address.clone());
        table.row([
            interface.index.to_string(),
            interface.name.clone(),
            interface.state.clone(),
            interface.mac.clone().unwrap_or_else(|| "-".to_owned()),
            interface.mtu.to_string(),
            interface.kind.clone(),
            addresses.next().unwrap_or_else(|| "-".to_owned()),
            more(seen),
        ]);
        for address in addresses {
            let mut row = vec![String::new(); 6];
            row.push(address);
            table.row(row);
        }
    }
    table.text()
}

/// What the kind adds: the bridge that it is a port of, and where its cable leads.
fn more(seen: &Seen) -> String {
    let interface = &seen.interface;
    let mut words = Vec::new();
    if let Some(master) = &interface.master {
        words.push(format!("port of {master}"));
    }
    match (&seen.other_end, interface.far_index) {
        (Some(end), _) => words.push(format!("other end {} on {}", end.device, machine(&end.kind, &end.name))),
        (None, Some(index)) => words.push(format!("other end has index {index} in another namespace")),
        (None, None) => {}
    }
    words.extend(interface.detail.clone());
    words.join(", ")
}

fn routes(all: &[StackRoute], wide: bool) -> String {
    if all.is_empty() {
        return "none: nothing can be reached\n".to_owned();
    }
    let mut headings = vec!["DESTINATION", "VIA", "DEVICE", "MADE BY", "SOURCE"];
    if wide {
        headings.extend(["SCOPE", "FLAGS"]);
    }
    let mut table = Table::new(&headings);
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    for route in all {
        let via = match &route.refuses {
            Some(refuses) => refuses.clone(),
            None => route.via.map_or_else(|| "direct".to_owned(), |v| v.to_string()),
        };
        let by = if route.protocol == "kernel" { "kernel (connected)".to_owned() } else { route.protocol.clone() };
        let mut row =
            vec![route.dst.clone(), via, or_dash(route.dev.clone()), by, or_dash(route.src.map(|s| s.to_string()))];
        if wide {
            row.extend([route.scope.clone(), if route.onlink { "onlink" } else { "" }.to_owned()]);
        }
        table.row(row);
    }
    table.text()
}

/// Chains that hold a rule or drop what reaches their end, as iptables-save writes rules.
fn rules(rules: &Rules) -> String {
    let mut out = String::new();
    for table in &rules.tables {
        for chain in &table.chains {
            let drops = chain.policy.as_deref().is_some_and(|p| p != "ACCEPT");
            if chain.rules.is_empty() && !drops {
                continue;
            }
            let policy = chain.policy.as_ref().map(|p| format!(" (otherwise {p})")).unwrap_or_default();
            out.push_str(&format!("{} {}{policy}\n", table.name, chain.name));
            out.extend(chain.rules.iter().map(|rule| format!("  {rule}\n")));
        }
    }
    if out.is_empty() { "none: every packet passes\n".to_owned() } else { out }
}
