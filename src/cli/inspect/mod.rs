//! `inspect`: what the kernel holds, one file for each thing that can be looked into.

mod bridge;
mod flannel;
pub mod stack;

use crate::daemon::inspect::Owner;

use super::Done;
use super::args::Inspect;

pub fn run(what: &Inspect) -> Done {
    match what {
        Inspect::Stack(args) => stack::run(args),
        Inspect::Bridge(args) => bridge::run(args),
        Inspect::Flannel(args) => flannel::run(args),
    }
}

/// `pod tea-1 (eth0)`, or a dash.
fn owner(owner: Option<&Owner>) -> String {
    owner.map_or_else(|| "-".to_owned(), |o| format!("{} ({})", machine(&o.kind, &o.name), o.device))
}

/// `router` needs no second word.
pub fn machine(kind: &str, name: &str) -> String {
    if kind == name { name.to_owned() } else { format!("{kind} {name}") }
}
