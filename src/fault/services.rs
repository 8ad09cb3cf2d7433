//! Faults of services and of the pods behind them: what a person writes wrongly into an object.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use crate::lab::names::NsName;
use crate::lab::{Pod, Run};
use crate::objects::{ObjectKey, Service, ServiceSpec};
use crate::spec::edit::{Edit, ObjectKind, ObjectRef};
use crate::spec::load::Manifest;
use crate::trace::model::Cause;

use super::filters::port_of;
use super::site::Door;
use super::{Change, Chosen, Fault, Lacks, PlaceKind, Question, Site};

/// A port that a pod of a lab hardly listens on.
const UNUSED: u16 = 9999;

const BEHIND: &str = "a service with a pod behind it and a pod that is not";
const NODE_PORT: &str = "a client, and a service with a NodePort and a host that has none of its pods";

pub const FAULTS: &[Fault] = &[
    Fault {
        name: "selector-wrong",
        title: "A service selects labels that no pod has",
        says: "A letter too many in a service's selector, and it selects nobody.",
        cause: Cause::NoEndpoints,
        place: PlaceKind::Host,
        effect: "applies the service with another value in its selector",
        backends: &[],
        needs: BEHIND,
        choose: selector_wrong,
    },
    Fault {
        name: "target-port-wrong",
        title: "A service leads to a port on which nobody listens",
        says: "The service's targetPort is not one that its pods listen on.",
        cause: Cause::WrongTargetPort,
        place: PlaceKind::Pod,
        effect: "applies the service with the targetPort 9999",
        backends: &[],
        needs: BEHIND,
        choose: target_port_wrong,
    },
    Fault {
        name: "no-endpoints",
        title: "A service has no pods",
        says: "The deployment behind a service was scaled to nothing.",
        cause: Cause::NoEndpoints,
        place: PlaceKind::Host,
        effect: "scales the deployment behind a service to 0",
        backends: &[],
        needs: "a service whose pods are all of one deployment, and another pod",
        choose: no_endpoints,
    },
    Fault {
        name: "readiness-failing",
        title: "The pod behind a service is not ready",
        says: "The pod runs and answers, but its readiness probe asks for something that fails, so the service does not lead to it.",
        cause: Cause::NotReady,
        place: PlaceKind::Pod,
        effect: "applies the pod with a readiness probe whose path answers 503",
        backends: &[],
        needs: "a service with a single pod, which is of no deployment and has no program of its own, and another pod",
        choose: readiness_failing,
    },
    Fault {
        name: "local-without-pod",
        title: "A NodePort with the policy Local, and a host without a pod",
        says: "With externalTrafficPolicy Local a host sends only to its own pods, and drops the packet where it has none.",
        cause: Cause::NoLocalEndpoint,
        place: PlaceKind::Host,
        effect: "applies the service with externalTrafficPolicy Local",
        backends: &[],
        needs: NODE_PORT,
        choose: local_without_pod,
    },
    Fault {
        name: "internal-local-without-pod",
        title: "A service for its own host's pods alone, and a host without one",
        says: "With internalTrafficPolicy Local pods are sent only to pods of their own host, and their packets are dropped where it has none.",
        cause: Cause::NoLocalEndpoint,
        place: PlaceKind::Host,
        effect: "applies the service with internalTrafficPolicy Local",
        backends: &[],
        needs: "a service and a pod on a host that has none of its pods",
        choose: internal_local,
    },
];

/// An edit that applies an object, which is JSON, as all JSON is YAML. Its name must not tell what is
/// wrong with it.
pub(super) fn applied(object: &Value) -> Edit {
    let name = "<an object of the running lab>".to_owned();
    Edit::Apply(Manifest { asked: None, name, text: Ok(object.to_string()), namespace: None })
}

/// An object without what the cluster says of it.
pub(super) fn bare(object: &impl serde::Serialize) -> Result<Value, Lacks> {
    let mut value = serde_json::to_value(object).map_err(|e| e.to_string())?;
    if let Some(fields) = value.as_object_mut() {
        fields.remove("status");
    }
    Ok(value)
}

/// A service that is applied with another specification.
fn changed(service: &Service, change: impl FnOnce(&mut ServiceSpec)) -> Result<Change, Lacks> {
    let mut wrong = service.clone();
    change(wrong.spec.get_or_insert_default());
    Ok(Change::Objects(vec![applied(&bare(&wrong)?)]))
}

/// A pod asks a service by its name. The place is the asker's host, where kube-proxy's rules are met.
pub(super) fn asks(door: &Door, asker: &Pod, change: Change) -> Chosen {
    Chosen {
        on: door.words(),
        place: NsName::Host(asker.host.clone()),
        object: door.words(),
        question: Question::tcp(asker.ns(), door.name_for(asker), door.port),
        change,
    }
}

/// The first service that fits and a pod that asks it.
pub(super) fn door<'a>(
    site: &Site<'a>,
    what: &str,
    fits: impl Fn(&Door<'a>) -> bool,
) -> Result<(Door<'a>, &'a Pod), Lacks> {
    if let Some(super::On::Machine(ns)) = &site.on {
        return Err(format!("it is a fault of a service, and {ns} is a {}", ns.kind()).into());
    }
    let mut all = site.doors().into_iter().filter(|d| fits(d));
    let found = all.find_map(|door| site.asker(&door, |_| true).map(|asker| (door, asker)));
    found.ok_or_else(|| site.nowhere(what))
}

fn selector_wrong(site: &Site) -> Result<Chosen, Lacks> {
    let selects = |d: &Door| d.spec.selector.as_ref().is_some_and(|s| !s.is_empty());
    let (door, asker) = door(site, BEHIND, selects)?;
    let change = changed(door.service, |spec| {
        // The first label's value, misspelt.
        spec.selector.iter_mut().flatten().take(1).for_each(|(_, value)| value.push('x'));
    })?;
    Ok(asks(&door, asker, change))
}

fn target_port_wrong(site: &Site) -> Result<Chosen, Lacks> {
    let listens = |p: &&Pod| p.ports().any(|port| port.number == UNUSED);
    let (door, asker) = door(site, BEHIND, |d| d.spec.selector.is_some() && !d.pods.iter().any(listens))?;
    let change = changed(door.service, |spec| {
        let port = spec.ports.iter_mut().flatten().find(|p| p.port == i32::from(door.port));
        port.into_iter().for_each(|p| p.target_port = Some(IntOrString::Int(UNUSED.into())));
    })?;
    let pod = door.pods.first().ok_or("the service has no pod")?;
    Ok(Chosen { place: pod.ns(), ..asks(&door, asker, change) })
}

fn no_endpoints(site: &Site) -> Result<Chosen, Lacks> {
    let owner = |d: &Door| {
        let first = d.pods.first()?;
        let key = ObjectKey::new(first.id.namespace.as_str(), first.owner.as_deref()?);
        let all = d.pods.iter().all(|p| p.owner == first.owner && p.id.namespace == first.id.namespace);
        site.lab.deployments.iter().find(|x| x.key == key).filter(|_| all)
    };
    // Who asks must stay.
    let stays = |d: &Door| {
        owner(d).is_some_and(|of| site.asker(d, |_| true).is_some_and(|a| a.owner.as_deref() != Some(&of.key.name)))
    };
    let (door, asker) = door(site, "a service whose pods are all of one deployment, and another pod", stays)?;
    let of = owner(&door).ok_or("the service's pods are of no deployment")?;
    let scale = Edit::Scale { deployment: of.key.clone(), replicas: 0 };
    Ok(asks(&door, asker, Change::Objects(vec![scale])))
}

fn readiness_failing(site: &Site) -> Result<Chosen, Lacks> {
    let what = "a service with a single pod, which is of no deployment and has no program of its own, and another pod";
    let plain = |p: &Pod| p.owner.is_none() && p.containers.iter().all(|c| c.run == Run::Echo && c.readiness.is_none());
    let fits = |d: &Door| matches!(d.pods.as_slice(), [pod] if plain(pod) && port_of(pod).is_some());
    let (door, asker) = door(site, what, fits)?;
    let pod = *door.pods.first().ok_or("the service has no pod")?;
    let mut wrong = manifest(pod);
    wrong["spec"]["containers"][0]["readinessProbe"] = json!({
        "httpGet": { "path": "/status/503", "port": port_of(pod) },
        "periodSeconds": 1,
        "failureThreshold": 1,
    });
    let change = Change::Objects(vec![applied(&wrong)]);
    Ok(Chosen { on: format!("pod {}", pod.id), place: pod.ns(), ..asks(&door, asker, change) })
}

/// A pod of the echo server as somebody would apply it.
fn manifest(pod: &Pod) -> Value {
    let port = |p: &crate::lab::Port| {
        let mut port = json!({ "containerPort": p.number, "protocol": p.protocol });
        if let Some(name) = &p.name {
            port["name"] = json!(name);
        }
        port
    };
    let container = |c: &crate::lab::Container| json!({ "name": c.name, "image": "labctl/echo", "ports": c.ports.iter().map(port).collect::<Vec<_>>() });
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": pod.id.name, "namespace": pod.id.namespace, "labels": pod.labels },
        "spec": {
            "nodeName": pod.host,
            "restartPolicy": pod.restart_policy,
            "containers": pod.containers.iter().map(container).collect::<Vec<_>>(),
        },
    })
}

fn local_without_pod(site: &Site) -> Result<Chosen, Lacks> {
    let client = site.client()?;
    let (door, host, port) = site.far_node_port()?;
    let change = changed(door.service, |spec| spec.external_traffic_policy = Some("Local".to_owned()))?;
    Ok(Chosen {
        on: door.words(),
        place: host.ns(),
        object: door.words(),
        question: Question::tcp(client.ns(), &host.name, port),
        change,
    })
}

fn internal_local(site: &Site) -> Result<Chosen, Lacks> {
    let what = "a service and a pod on a host that has none of its pods";
    let far = |d: &Door| site.asker(d, |h| d.pods.iter().all(|p| p.host != *h));
    let (door, _) = door(site, what, |d| far(d).is_some())?;
    let asker = far(&door).ok_or_else(|| site.nowhere(what))?;
    let change = changed(door.service, |spec| spec.internal_traffic_policy = Some("Local".to_owned()))?;
    Ok(asks(&door, asker, change))
}

/// The reference by which a service is deleted.
pub(super) fn deletion(key: &ObjectKey) -> Edit {
    Edit::Delete(ObjectRef { kind: ObjectKind::Service, key: key.clone() })
}
