//! What does not go together among hosts and paths: hosts with TLS that no rule has, rules that others
//! have taken.

use std::collections::{HashMap, HashSet};

use crate::diag::{Place, Problem, Problems, codes};
use crate::objects::{IngressTLS, ObjectKey};

use super::near;
use super::resolve::Checked;
use super::secrets::rule_hosts;

/// Hosts in small letters, and the names that one label stands before.
struct Hosts(HashSet<String>);

impl Hosts {
    fn of<'h>(hosts: impl Iterator<Item = &'h str>) -> Hosts {
        Hosts(hosts.map(str::to_ascii_lowercase).collect())
    }

    /// Whether one of them is `host`, or a wildcard that stands for it.
    fn cover(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        self.0.contains(&host) || parent(&host).is_some_and(|parent| self.0.contains(&format!("*.{parent}")))
    }
}

/// What stands behind the first label of a name that is no wildcard.
fn parent(host: &str) -> Option<&str> {
    host.split_once('.').filter(|(label, _)| *label != "*").map(|(_, rest)| rest)
}

/// Tell of hosts that are under `tls` and in no rule, and of rules' hosts that are not under `tls` where
/// others are.
pub(super) fn check(ingress: &Checked, problems: &mut Problems) {
    let spec = ingress.object.spec.as_ref();
    let entries = spec.and_then(|s| s.tls.as_deref()).unwrap_or_default();
    if entries.is_empty() {
        return;
    }
    let hosts: Vec<&str> = rule_hosts(&ingress.object).collect();
    without_rule(ingress, entries, &hosts, problems);
    // An entry without hosts is for all of them.
    if entries.iter().all(|e| e.hosts.iter().flatten().next().is_some()) {
        without_tls(ingress, entries, problems);
    }
}

fn without_rule(ingress: &Checked, entries: &[IngressTLS], hosts: &[&str], problems: &mut Problems) {
    let rules = Hosts::of(hosts.iter().copied());
    let parents: HashSet<&str> = hosts.iter().filter_map(|host| parent(host)).collect();
    let has_rule = |name: &str| {
        rules.0.contains(&name.to_ascii_lowercase()) || name.strip_prefix("*.").is_some_and(|p| parents.contains(p))
    };
    for (n, entry) in entries.iter().enumerate() {
        for (m, name) in entry.hosts.iter().flatten().enumerate().filter(|(_, name)| !has_rule(name)) {
            if problems.is_full() {
                return;
            }
            let place = ingress.written.place(&format!("spec.tls[{n}].hosts[{m}]"));
            let help = match near(name, hosts.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("add a rule with `host: {name}`, or take it out here"),
            };
            let message = format!("ingress {}: no rule has the host `{name}`", ingress.key());
            problems.push(Problem::warning(codes::INGRESS_HOST, message).at(place, "has no effect").help(help));
        }
    }
}

fn without_tls(ingress: &Checked, entries: &[IngressTLS], problems: &mut Problems) {
    let names: Vec<&str> = entries.iter().flat_map(|e| e.hosts.iter().flatten()).map(String::as_str).collect();
    let (named, mut told) = (Hosts::of(names.iter().copied()), HashSet::new());
    let rules = ingress.object.spec.iter().flat_map(|s| s.rules.iter().flatten()).enumerate();
    for (n, rule) in rules {
        let Some(host) = rule.host.as_deref().filter(|h| !h.is_empty()) else { continue };
        if named.cover(host) || !told.insert(host) {
            continue;
        }
        // A misspelt one was told with its entry.
        if problems.is_full() || near(host, names.iter().copied()).is_some() {
            continue;
        }
        let place = ingress.written.place(&format!("spec.rules[{n}].host"));
        let message = format!("ingress {}: `{host}` has no TLS, other hosts of the ingress have", ingress.key());
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
