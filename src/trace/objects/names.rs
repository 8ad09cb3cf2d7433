//! Names that do not resolve: who says so, and which name may have been meant.

use crate::diag::did_you_mean;
use crate::lab::Lab;
use crate::lab::dns::DNS_DEPLOYMENT;
use crate::lab::names::NsName;
use crate::lab::probe::{Ask, Target};
use crate::objects::{ObjectKey, Service, headless};
use crate::probe::LookedUp;

use crate::trace::model::{Cause, Flow};
use crate::trace::verdict::Case;
use crate::trace::walk::Blame;

/// A name that the asker did not get an address of.
struct Unknown<'a> {
    lab: &'a Lab,
    from: &'a NsName,
    name: String,
    /// What DNS servers answered.
    answers: &'a [LookedUp],
    /// In the prober's words.
    seen: &'a str,
    /// The DNS server that says so, and the asker where it asks none.
    place: NsName,
}

/// Why a name has no address.
pub fn no_name(case: &Case) -> Option<Blame> {
    let name = match (&case.asked.ask, case.asked.ask.target()?.0) {
        (Ask::Dns { name, .. }, _) | (_, Target::Name(name)) => name.clone(),
        _ => return None,
    };
    let (from, seen) = (&case.asked.from, case.outcome.observed.as_str());
    let unknown = Unknown {
        lab: case.material.lab,
        from,
        name,
        answers: &case.outcome.details.looked_up,
        seen: seen.strip_prefix("name: ").unwrap_or(seen),
        place: case.flows.iter().rev().find_map(Flow::taken_by).unwrap_or_else(|| from.clone()),
    };
    Some(unknown.blame())
}

impl Unknown<'_> {
    fn blame(self) -> Blame {
        let Unknown { lab, from, seen, .. } = self;
        let service = lab.service_called(from, &self.name);
        let is_known = service.is_some_and(|service| self.is_told_not_to_be(service));
        let no_such_name = |name, place, says| Blame { cause: Cause::NoSuchName, place, object: name, says };
        match (alias(lab, from, &self.name).filter(|_| is_known), service) {
            (Some((key, other)), _) => {
                let says = format!("service {key} is another name of {other}, which nobody knows: {seen}");
                no_such_name(self.name, self.place, says)
            }
            // A headless service has the addresses of its pods, and none where it has no pods.
            (None, Some(service)) if is_known && service.spec.as_ref().is_some_and(headless) => {
                let says = format!("the name has no address: {seen}");
                let (cause, place, object) = (Cause::NoEndpoints, self.place, self.name);
                super::without_endpoints(lab, service, Blame { cause, place, object, says })
            }
            (None, Some(service)) if is_known => {
                let key = ObjectKey::of(&service.metadata);
                let says = format!("there is a service {key}, and the DNS server does not know of it: {seen}");
                no_such_name(self.name, self.place, says)
            }
            // A server that says that it cannot tell has not said that there is none.
            (None, Some(_)) if !lab.resolver_of(from).servers.is_empty() => {
                let (object, says) = (DNS_DEPLOYMENT.to_owned(), seen.to_owned());
                Blame { cause: Cause::DnsDead, place: self.place, object, says }
            }
            _ => no_such_name(self.name, self.place, seen.to_owned()),
        }
    }

    /// Whether a DNS server has said that a service's full name has no such record.
    fn is_told_not_to_be(&self, service: &Service) -> bool {
        let ObjectKey { namespace, name } = ObjectKey::of(&service.metadata);
        let full = format!("{name}.{namespace}.svc.{}", self.lab.cluster.domain);
        let of_it = |told: &&LookedUp| told.name.trim_end_matches('.').eq_ignore_ascii_case(&full);
        let told = self.answers.iter().rfind(of_it).map(|told| told.rcode.as_str());
        matches!(told, Some("NXDOMAIN" | "NOERROR"))
    }
}

/// The name that a service stands for, where that is all it does.
pub fn alias(lab: &Lab, from: &NsName, name: &str) -> Option<(ObjectKey, String)> {
    let service = lab.service_called(from, name)?;
    let other = service.spec.as_ref()?.external_name.clone().filter(|other| !other.is_empty())?;
    Some((ObjectKey::of(&service.metadata), other))
}

/// What may have been meant by a name that nobody knows.
pub fn meant(case: &Case, name: &str) -> String {
    let (lab, from) = (case.material.lab, &case.asked.from);
    let asks_dns = !lab.resolver_of(from).servers.is_empty();
    let own = if let NsName::Pod(id) = from { id.namespace.as_str() } else { "default" };
    let gone = lab.service_key(from, name);
    if lab.service_called(from, name).is_some() {
        return "`labctl get pods -n kube-system` shows the DNS servers, which are told of a service within a moment: ask again"
            .to_owned();
    }
    let origin = case.material.origin;
    if let Some(place) = origin.deleted_service(&gone) {
        return format!(
            "service {gone} was deleted from the running lab; its text still has it, at {}",
            origin.at(&place)
        );
    }
    let elsewhere = lab.services.iter().map(|s| ObjectKey::of(&s.metadata)).find(|key| key.name == gone.name);
    if let Some(ObjectKey { name, namespace }) = elsewhere.filter(|_| asks_dns) {
        return format!("there is a service {name} in the namespace {namespace}: ask for `{name}.{namespace}`");
    }
    let all = known(lab, own);
    let word = if gone.namespace == own { gone.name } else { format!("{}.{}", gone.name, gone.namespace) };
    match did_you_mean(&word, all.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None if asks_dns => "`labctl get services -A` shows the names that there are in the cluster; one from outside \
                             is told to its DNS by `dns: { records: { NAME: ADDRESS } }` in the lab's file"
            .to_owned(),
        None => format!(
            "`labctl exec {from} -- cat /etc/hosts` shows the names that {from} knows; names of the cluster are for pods"
        ),
    }
}

/// All names that can be asked for from a namespace.
fn known(lab: &Lab, own: &str) -> Vec<String> {
    let services = lab.services.iter().map(|s| ObjectKey::of(&s.metadata)).flat_map(|ObjectKey { name, namespace }| {
        let full = format!("{name}.{namespace}");
        if namespace == own { vec![full, name] } else { vec![full] }
    });
    let machines = lab.namespaces().map(|ns| ns.to_string());
    let hosts = lab.ingress_hosts().into_iter().map(str::to_owned);
    let records = lab.dns.iter().flat_map(|dns| dns.records.keys().cloned());
    services.chain(machines).chain(hosts).chain(records).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::Problems;
    use crate::spec::load::{Text, decode_text};

    const LAB: &str = "hosts: { node1: {} }\npods: { a: { host: node1 } }\nservices:\n  \
        bare: { clusterIP: None, selector: { app: none }, ports: [{ port: 80 }] }\n  \
        web: { selector: { app: none }, ports: [{ port: 80 }] }\n  \
        other: { type: ExternalName, externalName: example.com }\n";

    /// What is blamed where `a` asks for a service whose full name is answered so.
    fn blamed(name: &str, rcode: Option<&str>) -> Blame {
        let text = Text { name: "lab".into(), text: LAB.into(), default_name: "lab".into(), ..Text::default() };
        let lab = crate::lab::resolve(&decode_text(&text), None, &mut Problems::default()).expect("a lab");
        let from = lab.find("a").expect("a pod");
        let answer = |(name, rcode): (&str, &str)| LookedUp { name: name.to_owned(), rcode: rcode.to_owned() };
        // The last name of a resolver's is another one, of which nobody in the cluster knows anything.
        let full = format!("{name}.default.svc.cluster.local");
        let answers: Vec<_> =
            rcode.into_iter().flat_map(|code| [(&*full, code), (name, "REFUSED")]).map(answer).collect();
        let (name, place) = (name.to_owned(), NsName::Router);
        Unknown { lab: &lab, from: &from, name, answers: &answers, seen: "seen", place }.blame()
    }

    #[test]
    fn a_headless_service_without_pods_has_no_address() {
        for rcode in ["NXDOMAIN", "NOERROR"] {
            assert_eq!(blamed("bare", Some(rcode)).cause, Cause::NoEndpoints);
        }
    }

    #[test]
    fn a_server_that_refuses_or_is_silent_says_nothing_of_endpoints() {
        for answer in [Some("SERVFAIL"), Some("REFUSED"), None] {
            for name in ["bare", "web", "other"] {
                let blame = blamed(name, answer);
                assert_eq!((blame.cause, blame.object.as_str()), (Cause::DnsDead, "coredns"), "{name}: {answer:?}");
            }
        }
    }

    #[test]
    fn a_service_that_the_server_does_not_know_of_is_told_as_such() {
        let blame = blamed("web", Some("NXDOMAIN"));
        assert_eq!(blame.cause, Cause::NoSuchName);
        assert!(blame.says.starts_with("there is a service default/web, and the DNS server"), "{}", blame.says);
        assert_eq!(
            blamed("other", Some("NXDOMAIN")).says,
            "service default/other is another name of example.com, which nobody knows: seen"
        );
    }
}
