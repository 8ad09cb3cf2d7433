//! The plan of a lab at its best: every pod ready, every rule of its services written.

use std::collections::BTreeSet;

use crate::lab::Lab;
use crate::objects::ObjectKey;
use crate::plan::services;
use crate::plan::{Plan, balancers, plan};

/// What each namespace will hold once all pods of `lab` are ready.
pub fn prediction(lab: &Lab) -> Plan {
    let mut all = plan(lab);
    let slices = services::slices_of_ready(lab);
    let proxies = services::proxies(lab, &lab.services, &slices);
    services::add(&mut all, &proxies);
    let with_pods: BTreeSet<_> = proxies
        .iter()
        .flat_map(|(host, rules)| rules.health.iter().map(move |check| (host, check)))
        .filter(|(_, check)| check.local_endpoints > 0)
        .map(|(host, check)| (check.service.clone(), host.clone()))
        .collect();
    let healthy = |service: &ObjectKey, host: &_| with_pods.contains(&(service.clone(), Clone::clone(host)));
    balancers::add(&mut all, &balancers::plan(lab, healthy));
    all
}
