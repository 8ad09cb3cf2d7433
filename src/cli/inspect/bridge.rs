//! `inspect bridge`: a bridge's forwarding table, and with `--watch` what it learns and forgets.

use std::io::Write;
use std::ops::ControlFlow;
use std::process::ExitCode;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::cli::args::{BridgeArgs, Format};
use crate::cli::output::{Table, age, count, print};
use crate::cli::{Done, find_lab};
use crate::daemon::client::Client;
use crate::daemon::inspect::Told;
use crate::daemon::inspect::bridge::{BridgeAnswer, Entry};
use crate::kernel::stack::Origin;

use super::owner;

pub fn run(args: &BridgeArgs) -> Done {
    let client = find_lab(args.lab.as_deref())?;
    if args.watch {
        return watch(&client, args);
    }
    let bridge: BridgeAnswer = client.get(&format!("/labctl/v1/inspect/bridge?bridge={}", args.bridge))?;
    print(args.format.output, &json!(bridge), |_| table(&bridge));
    Ok(ExitCode::SUCCESS)
}

fn table(bridge: &BridgeAnswer) -> String {
    let forgets = bridge.ageing.map(|ms| format!(", forgets after {}", age(ms / 1000))).unwrap_or_default();
    let mut out = format!("{} on {}: {}{forgets}\n", bridge.bridge, bridge.machine, count(bridge.ports, "port"));
    if bridge.entries.is_empty() {
        out.push_str("its table is empty\n");
        return out;
    }
    let mut table = Table::new(&["MAC", "PORT", "WHO", "KIND", "LAST SEEN"]);
    for entry in &bridge.entries {
        let seen = match entry.origin {
            Origin::Learnt => format!("{} ago", age(entry.age / 1000)),
            _ => "-".to_owned(),
        };
        table.row([entry.mac.clone(), entry.port.clone(), who(entry), kind(entry.origin).to_owned(), seen]);
    }
    out.push_str(&table.text());
    out
}

fn kind(origin: Origin) -> &'static str {
    match origin {
        Origin::Local => "local",
        Origin::Permanent => "permanent",
        Origin::Learnt => "learnt",
    }
}

/// Whose address it is; where the lab gave it to nobody, who is at the end of the port's cable.
fn who(entry: &Entry) -> String {
    match (&entry.owner, &entry.leads_to) {
        (Some(known), _) => owner(Some(known)),
        (None, Some(end)) => format!("somebody behind {} {}", end.kind, end.name),
        (None, None) => "unknown".to_owned(),
    }
}

fn watch(client: &Client, args: &BridgeArgs) -> Done {
    let machine_readable = matches!(args.format.output, Format::Json | Format::Yaml);
    let mut first = true;
    let followed = client.follow(&format!("/labctl/v1/inspect/watch?bridge={}", args.bridge), |line| {
        let text = match (machine_readable, first) {
            (true, _) => read::<Value>(line).map(|v| format!("{v}\n")),
            (false, true) => read::<BridgeAnswer>(line).map(|b| table(&b) + "\nwatching; Ctrl-C ends it\n"),
            (false, false) => read::<Told>(line).map(|t| sentence(&t)),
        };
        first = false;
        // Each change at once, also into a pipe.
        let mut out = anstream::stdout().lock();
        let written = out.write_all(text.unwrap_or_default().as_bytes()).and_then(|()| out.flush());
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    match followed {
        // Followed to its end: the lab is gone.
        Err(problem) if first => Err(problem.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn read<T: DeserializeOwned>(line: &[u8]) -> Option<T> {
    serde_json::from_slice(line).ok()
}

fn sentence(told: &Told) -> String {
    let at = format!("{:>9.3} s", std::time::Duration::from_millis(told.after).as_secs_f64());
    let Some(entry) = &told.entry else {
        return match told.what.as_str() {
            "lost" => format!("{at}  changes came faster than they could be read; some are not shown\n"),
            _ => format!("{at}  the {}\n", told.what),
        };
    };
    let from = told.from.as_ref().map(|from| format!(" from {from}")).unwrap_or_default();
    format!("{at}  {:<8} {}{from}  {} {}\n", told.what, entry.mac, entry.port, who(entry))
}
