//! Faults of names and of the ingress: DNS, services that are not there, rules and certificates.

use crate::lab::IngressLayer;
use crate::lab::ingress::INGRESS_NAMESPACE;
use crate::lab::names::NsName;
use crate::objects::{Ingress, ObjectKey};
use crate::trace::model::Cause;

use super::services::{applied, asks, bare, deletion, door};
use super::twist::Bend;
use super::{Change, Chosen, Fault, Lacks, PlaceKind, Question, Site, Twist};

/// The name that the wrong certificate is for, and the service that there is not.
const OTHER_NAME: &str = "other.example.org";
const NOBODY: &str = "nobody-svc";

const HTTPS: &str = "an ingress with a certificate for a host, and a client";

pub const FAULTS: &[Fault] = &[
    Fault {
        name: "dns-dead",
        title: "The cluster's DNS does not answer",
        says: "The DNS servers' pods are there and the servers in them have ended.",
        cause: Cause::DnsDead,
        place: PlaceKind::Pod,
        effect: "ends the DNS server of every DNS pod",
        backends: &[],
        needs: "a pod, and a service layer, which has DNS",
        choose: dns_dead,
    },
    Fault {
        name: "service-missing",
        title: "A service is not there",
        says: "A name is asked for that no service has any more, and DNS says so.",
        cause: Cause::NoSuchName,
        place: PlaceKind::Pod,
        effect: "deletes a service",
        backends: &[],
        needs: "a service with a pod behind it and a pod that is not",
        choose: service_missing,
    },
    Fault {
        name: "ingress-wrong-secret",
        title: "An ingress shows another name's certificate",
        says: "The secret that an ingress names holds a certificate for another name, signed by nobody.",
        cause: Cause::WrongCertificate,
        place: PlaceKind::Pod,
        effect: "applies the ingress' secret with a certificate for other.example.org",
        backends: &[],
        needs: HTTPS,
        choose: wrong_secret,
    },
    Fault {
        name: "ingress-wrong-backend",
        title: "An ingress leads to a service that is not there",
        says: "The rules of an ingress name a service that does not exist, so the controller has nowhere to send the request.",
        cause: Cause::ProxyRefused,
        place: PlaceKind::Pod,
        effect: "applies the ingress with the service nobody-svc in each of its rules",
        backends: &[],
        needs: HTTPS,
        choose: wrong_backend,
    },
];

fn dns_servers<'a>(site: &Site<'a>) -> impl Iterator<Item = &'a NsName> {
    site.plan.namespaces.iter().filter(|n| n.dns.is_some()).map(|n| &n.ns)
}

/// The first of them, which stands for all: any of them may be asked.
fn dns_server<'a>(site: &Site<'a>) -> Result<&'a NsName, Lacks> {
    Ok(dns_servers(site).next().ok_or("the lab has no DNS, as it has no services")?)
}

fn dns_dead(site: &Site) -> Result<Chosen, Lacks> {
    let (servers, first) = (dns_servers(site), dns_server(site)?);
    let asker = site.pods().next().ok_or("the lab has no pod")?;
    let name = format!("kubernetes.default.svc.{}", site.lab.cluster.domain);
    Ok(Chosen {
        on: "deployment kube-system/coredns".to_owned(),
        place: first.clone(),
        object: "coredns".to_owned(),
        question: Question::dns(asker.ns(), name),
        change: Change::Machines(servers.map(|ns| Twist::new(ns.clone(), Bend::WithoutDns)).collect()),
    })
}

fn service_missing(site: &Site) -> Result<Chosen, Lacks> {
    let (door, asker) = door(site, "a service with a pod behind it and a pod that is not", |_| true)?;
    let change = Change::Objects(vec![deletion(&door.key)]);
    Ok(Chosen { place: dns_server(site)?.clone(), ..asks(&door, asker, change) })
}

/// An ingress with a certificate and a path for a host, asked for by a client.
struct Entrance<'a> {
    ingress: &'a Ingress,
    secret: ObjectKey,
    controller: NsName,
    question: Question,
}

fn entrance<'a>(site: &Site<'a>) -> Result<Entrance<'a>, Lacks> {
    let layer: &IngressLayer = site.lab.ingress.as_ref().ok_or("the lab has no ingress")?;
    let client = site.client().or_else(|_| site.internet())?.ns();
    let controller = site.lab.pods.iter().find(|p| p.id.namespace.as_str() == INGRESS_NAMESPACE);
    let controller = controller.ok_or("the lab has no ingress controller of its own")?.ns();
    let found = layer.ingresses.iter().find_map(|ingress| {
        let spec = ingress.spec.as_ref()?;
        let secret =
            spec.tls.iter().flatten().find_map(|t| t.secret_name.clone().zip(t.hosts.clone()?.first().cloned()))?;
        let (secret, host) = secret;
        let rule = spec.rules.iter().flatten().find(|r| r.host.as_deref() == Some(&host))?;
        let path = rule.http.as_ref()?.paths.first()?.path.clone().unwrap_or_else(|| "/".to_owned());
        let namespace = ObjectKey::of(&ingress.metadata).namespace;
        let question = Question::https(client.clone(), format!("https://{host}{path}"));
        Some(Entrance {
            ingress,
            secret: ObjectKey::new(&namespace, &secret),
            controller: controller.clone(),
            question,
        })
    });
    found.ok_or_else(|| site.nowhere(HTTPS))
}

fn wrong_secret(site: &Site) -> Result<Chosen, Lacks> {
    let entrance = entrance(site)?;
    let signed = rcgen::generate_simple_self_signed([OTHER_NAME.to_owned()]).map_err(|e| e.to_string())?;
    let key = &entrance.secret;
    let metadata = serde_json::json!({ "name": key.name, "namespace": key.namespace });
    let wrong = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "type": "kubernetes.io/tls",
        "stringData": { "tls.crt": signed.cert.pem(), "tls.key": signed.signing_key.serialize_pem() },
    });
    let change = Change::Objects(vec![applied(&wrong)]);
    Ok(chosen(&entrance, format!("secret {key}"), change))
}

fn wrong_backend(site: &Site) -> Result<Chosen, Lacks> {
    let entrance = entrance(site)?;
    let mut wrong = entrance.ingress.clone();
    let rules = wrong.spec.iter_mut().flat_map(|s| s.rules.iter_mut().flatten());
    let paths = rules.flat_map(|r| r.http.iter_mut().flat_map(|h| &mut h.paths));
    paths.filter_map(|p| p.backend.service.as_mut()).for_each(|s| NOBODY.clone_into(&mut s.name));
    let change = Change::Objects(vec![applied(&bare(&wrong)?)]);
    let object = format!("ingress {}", ObjectKey::of(&entrance.ingress.metadata));
    Ok(chosen(&entrance, object, change))
}

fn chosen(entrance: &Entrance, object: String, change: Change) -> Chosen {
    Chosen {
        on: object.clone(),
        place: entrance.controller.clone(),
        object,
        question: entrance.question.clone(),
        change,
    }
}
