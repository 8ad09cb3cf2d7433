//! What does not go together among hosts and paths: hosts with TLS that no rule has, rules that others
//! have taken.

use std::collections::HashMap;

use crate::diag::{Place, Problem, Problems, codes, did_you_mean};
use crate::objects::ObjectKey;

use super::resolve::Checked;
use super::secrets::rule_hosts;

/// Whether an entry of `tls` for `name` holds for a rule's `host`.
fn holds_for(name: &str, host: &str) -> bool {
    let parent = || host.split_once('.').filter(|(label, _)| *label != "*").map(|(_, rest)| rest);
    name.eq_ignore_ascii_case(host) || name.strip_prefix("*.").is_some_and(|wildcard| Some(wildcard) == parent())
}

/// Tell of hosts that are under `tls` and in no rule, and of rules' hosts that are not under `tls` where
/// others are.
pub(super) fn check(ingress: &Checked, problems: &mut Problems) {
    let Some(spec) = &ingress.object.spec else { return };
    let entries: Vec<_> = spec.tls.iter().flatten().collect();
    let hosts: Vec<&str> = rule_hosts(&ingress.object).collect();
    let named: Vec<&str> = entries.iter().flat_map(|e| e.hosts.iter().flatten()).map(String::as_str).collect();
    let key = ingress.key();
    for (n, entry) in entries.iter().enumerate() {
        for (m, name) in entry.hosts.iter().flatten().enumerate() {
            if hosts.iter().any(|host| holds_for(name, host)) {
                continue;
            }
            let place = ingress.written.place(&format!("spec.tls[{n}].hosts[{m}]"));
            let help = match did_you_mean(name, hosts.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("add a rule with `host: {name}`, or take it out here"),
            };
            let message = format!("ingress {key}: no rule has the host `{name}`");
            problems.push(Problem::warning(codes::INGRESS_HOST, message).at(place, "has no effect").help(help));
        }
    }
    // An entry without hosts is for all of them.
    if entries.is_empty() || entries.iter().any(|e| e.hosts.iter().flatten().next().is_none()) {
        return;
    }
    let mut told: Vec<&str> = Vec::new();
    for (n, rule) in spec.rules.iter().flatten().enumerate() {
        let Some(host) = rule.host.as_deref().filter(|h| !h.is_empty()) else { continue };
        if named.iter().any(|name| holds_for(name, host)) || told.contains(&host) {
            continue;
        }
        told.push(host);
        // A misspelt one was told above.
        if did_you_mean(host, named.iter().copied()).is_some() {
            continue;
        }
        let place = ingress.written.place(&format!("spec.rules[{n}].host"));
        let message = format!("ingress {key}: `{host}` has no TLS, other hosts of the ingress have");
        problems.push(
            Problem::warning(codes::INGRESS_HOST, message)
                .at(place, "https shows a certificate that nobody trusts")
                .help(format!("add it to `hosts` of an entry under `tls`, or give {host} an ingress of its own")),
        );
    }
}

/// Tell of paths that an earlier rule has taken.
pub(super) fn check_taken(ingresses: &[Checked], problems: &mut Problems) {
    let mut taken: HashMap<(String, &str, &str), (ObjectKey, Place)> = HashMap::new();
    for ingress in ingresses {
        let Some(spec) = &ingress.object.spec else { continue };
        for (r, rule) in spec.rules.iter().flatten().enumerate() {
            let host = rule.host.as_deref().unwrap_or_default().to_ascii_lowercase();
            for (p, path) in rule.http.iter().flat_map(|http| &http.paths).enumerate() {
                let written = path.path.as_deref().filter(|p| !p.is_empty()).unwrap_or("/");
                // The `/` at a prefix' end is no element.
                let text = if path.path_type == "Prefix" { written.trim_end_matches('/') } else { written };
                let field = format!("spec.rules[{r}].http.paths[{p}]");
                let place = ingress.written.place(&format!("{field}.path"));
                let place = Place { end: place.end.min(place.start + 60), ..place };
                let key = (host.clone(), path.path_type.as_str(), text);
                match taken.get(&key) {
                    Some((first, at)) => {
                        problems.push(taken_path(&ingress.key(), (&host, written), place, (first, *at)))
                    }
                    None => {
                        taken.insert(key, (ingress.key(), place));
                    }
                }
            }
        }
    }
}

fn taken_path(
    ingress: &ObjectKey,
    (host, path): (&str, &str),
    place: Place,
    (first, at): (&ObjectKey, Place),
) -> Problem {
    let host = if host.is_empty() { "every name" } else { host };
    let by = if first == ingress { "an earlier rule".to_owned() } else { format!("ingress {first}") };
    Problem::warning(codes::INGRESS_PATH, format!("ingress {ingress}: {path} of {host} is taken by {by}"))
        .at(place, "has no effect")
        .at(at, "this one has it")
        .help("take one of them out, or give it another path or `pathType`")
}
