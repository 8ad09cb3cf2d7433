//! What flannel's rules are for, in words. How they are written is in [`crate::plan::flannel`].

use super::Rule;

/// What a rule of FLANNEL-FWD or FLANNEL-POSTRTG is for: it looks at the pods' whole range and at that of
/// the host.
pub(super) fn meaning(rule: &Rule) -> Option<String> {
    if rule.has("--mark") {
        return Some("marked for kube-proxy's own masquerading: nothing is left to do".to_owned());
    }
    let turned = |option: &str| {
        let at = rule.words().iter().position(|w| w == option);
        at.and_then(|n| n.checked_sub(1)).is_some_and(|n| rule.words().get(n).is_some_and(|w| w == "!"))
    };
    let words = match (rule.target()?, rule.option("-s"), rule.option("-d")) {
        ("ACCEPT", Some(_), _) => "from a pod: let through",
        ("ACCEPT", None, Some(_)) => "to a pod: let through",
        ("RETURN", Some(_), Some(_)) if turned("-s") => "from no pod to a pod of this host: the source stays",
        ("RETURN", Some(_), Some(_)) => "from a pod to a pod: the source stays",
        ("MASQUERADE", Some(_), Some(_)) if turned("-s") => {
            "from no pod to a pod elsewhere: gets the host's address, so that answers come back here"
        }
        ("MASQUERADE", Some(_), _) => {
            "from a pod to who is none: gets the host's address, as nobody outside knows pods"
        }
        _ => return None,
    };
    Some(words.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(rule: &str) -> String {
        meaning(&Rule::parse(rule)).unwrap_or_default()
    }

    #[test]
    fn each_rule_of_flannels_has_its_meaning() {
        assert_eq!(
            words("-s 10.244.0.0/16 -m comment --comment \"flanneld forward\" -j ACCEPT"),
            "from a pod: let through"
        );
        assert_eq!(words("-s 10.244.1.0/24 -d 10.244.0.0/16 -j RETURN"), "from a pod to a pod: the source stays");
        assert_eq!(
            words("! -s 10.244.0.0/16 -d 10.244.1.0/24 -j RETURN"),
            "from no pod to a pod of this host: the source stays"
        );
        assert!(
            words("-s 10.244.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE --random-fully").starts_with("from a pod to who")
        );
        assert!(
            words("! -s 10.244.0.0/16 -d 10.244.0.0/16 -j MASQUERADE --random-fully")
                .starts_with("from no pod to a pod")
        );
        assert_eq!(words("-j DROP"), "", "it is none of flannel's");
    }
}
