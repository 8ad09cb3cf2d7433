//! Paths that are regular expressions and cannot be read as one. A host's paths are, where an ingress
//! asks for `use-regex` or a rewrite for it (see [`crate::plan::ingress::PathPattern::Regex`]).

use std::collections::HashSet;

use crate::diag::{Problem, Problems, codes};
use crate::objects::Ingress;
use crate::objects::ingress::{annotations, pattern};

use super::resolve::Checked;

/// Tell of paths that are no regular expressions. They are left out of what the controller is told.
pub(super) fn check(ingresses: &[Checked], problems: &mut Problems) {
    let asking = ingresses.iter().filter(|ingress| asks(&ingress.object));
    let hosts: HashSet<String> = asking.flat_map(|ingress| hosts(&ingress.object)).collect();
    for ingress in ingresses.iter().filter(|_| !hosts.is_empty()) {
        let rules = ingress.object.spec.iter().flat_map(|s| s.rules.iter().flatten()).enumerate();
        for (r, rule) in rules.filter(|(_, rule)| hosts.contains(&host(rule.host.as_deref()))) {
            for (p, path) in rule.http.iter().flat_map(|http| &http.paths).enumerate() {
                let text = path.path.as_deref().unwrap_or("/");
                let Some(fault) = pattern::fault(text).filter(|_| !problems.is_full()) else { continue };
                let place = ingress.written.place(&format!("spec.rules[{r}].http.paths[{p}].path"));
                let message = format!("ingress {}: the path `{text}` is no regular expression: {fault}", ingress.key());
                problems.push(Problem::warning(codes::INGRESS_PATH, message).at(place, "this rule is left out").help(
                    "an ingress of this host asks for `use-regex` or `rewrite-target`: mend the path, or take that out",
                ));
            }
        }
    }
}

fn asks(ingress: &Ingress) -> bool {
    let Some(written) = &ingress.metadata.annotations else { return false };
    let (read, _) = annotations::read(written);
    read.use_regex || read.rewrite.is_some()
}

fn hosts(ingress: &Ingress) -> impl Iterator<Item = String> {
    ingress.spec.iter().flat_map(|s| s.rules.iter().flatten()).map(|rule| host(rule.host.as_deref()))
}

fn host(written: Option<&str>) -> String {
    written.unwrap_or_default().to_ascii_lowercase()
}
