//! Names that do not resolve: who says so, and which name may have been meant.

use crate::diag::did_you_mean;
use crate::lab::Lab;
use crate::lab::names::NsName;
use crate::lab::probe::{Ask, Target};
use crate::objects::ObjectKey;

use crate::trace::model::{Cause, Flow};
use crate::trace::verdict::Case;
use crate::trace::walk::Blame;

/// A name that nobody knows. The place is the DNS server that says so, and the asker where it asks none.
pub fn no_name(case: &Case) -> Option<Blame> {
    let (lab, from) = (case.material.lab, &case.asked.from);
    let name = match (&case.asked.ask, case.asked.ask.target()?.0) {
        (Ask::Dns { name, .. }, _) | (_, Target::Name(name)) => name.clone(),
        _ => return None,
    };
    let seen = case.outcome.observed.as_str();
    let seen = seen.strip_prefix("name: ").unwrap_or(seen);
    let place = case.flows.iter().rev().find_map(Flow::taken_by).unwrap_or_else(|| from.clone());
    if let Some((key, other)) = alias(lab, from, &name) {
        let says = format!("service {key} is another name of {other}, which nobody knows: {seen}");
        return Some(Blame { cause: Cause::NoSuchName, place, object: name, says });
    }
    // A headless service has the addresses of its pods, and none where it has no pods.
    if let Some(service) = lab.service_called(from, &name) {
        let says = format!("the name has no address: {seen}");
        return Some(super::without_endpoints(
            lab,
            service,
            Blame { cause: Cause::NoEndpoints, place, object: name, says },
        ));
    }
    Some(Blame { cause: Cause::NoSuchName, place, object: name, says: seen.to_owned() })
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
