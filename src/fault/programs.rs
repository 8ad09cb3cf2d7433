//! Faults of programs: those that pass packets on, and those that should answer.

use crate::spec::value::Protocol;
use crate::trace::model::Cause;

use super::site::End;
use super::twist::Bend;
use super::{Change, Chosen, Fault, Lacks, PlaceKind, Question, Site, Twist};

pub const FAULTS: &[Fault] = &[
    Fault {
        name: "flanneld-dead",
        title: "flanneld has ended",
        says: "With flannel's udp back end every packet goes through a program, and it has ended on one host.",
        cause: Cause::FlanneldDead,
        place: PlaceKind::Host,
        effect: "ends flanneld on the asker's host, and with it flannel0 and its routes",
        backends: &["udp"],
        needs: "pods on two hosts",
        choose: flanneld_dead,
    },
    Fault {
        name: "no-listener",
        title: "Nobody listens in a pod",
        says: "The pod is there and its network well, but nothing listens on its port.",
        cause: Cause::NoListener,
        place: PlaceKind::Pod,
        effect: "closes the port of a pod",
        backends: &[],
        needs: "a pod of the echo server with a port",
        choose: no_listener,
    },
];

fn flanneld_dead(site: &Site) -> Result<Chosen, Lacks> {
    let pair = site.any_pair(End::Asker)?;
    let ns = pair.host.ns();
    Ok(Chosen {
        on: pair.host.name.to_string(),
        place: ns.clone(),
        object: "flanneld".to_owned(),
        question: Question::ping(pair.from.ns(), &pair.to.id),
        change: Change::Machines(vec![Twist::new(ns, Bend::WithoutFlanneld)]),
    })
}

fn no_listener(site: &Site) -> Result<Chosen, Lacks> {
    let (from, pod) = site.asked_pod()?;
    let listener = site.ns(&pod.ns())?.listeners.iter().find(|l| l.protocol == Protocol::Tcp);
    let port = listener.ok_or("the pod has no port, or a program of its own listens there")?.port;
    Ok(Chosen {
        on: format!("pod {}", pod.id),
        place: pod.ns(),
        object: format!("port {port}"),
        question: Question::tcp(from, &pod.id, port),
        change: Change::Machines(vec![Twist::new(pod.ns(), Bend::Deaf(port))]),
    })
}
