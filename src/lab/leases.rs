//! flannel's subnet leases: which part of the cluster's range each host's pods get their addresses
//! from. The pods themselves are [`super::placement`]'s.

use ipnet::IpNet;

use crate::diag::{Place, Problem, Problems, codes};
use crate::spec::LabFile;
use crate::spec::at::At;

use super::declared;
use super::ipam::{overlap, size};
use super::model::{Cluster, Lab};
use super::ranges;

/// Each host's lease, in file order: what is written, then what it had before, then the next free
/// subnet, from the second one on (flannel's default SubnetMin).
pub(super) fn subnets(
    file: &LabFile,
    cluster: &Cluster,
    before: Option<&Lab>,
    problems: &mut Problems,
) -> Vec<Option<IpNet>> {
    let length = subnet_len(file, cluster, problems);
    let mut used: Vec<(IpNet, Place)> = Vec::new();
    let mut all: Vec<Option<IpNet>> = vec![None; file.hosts.len()];
    for (slot, (_, spec)) in all.iter_mut().zip(file.hosts.iter()) {
        *slot = spec.pod_cidr.as_ref().and_then(|w| written_subnet(w, (file, cluster), &mut used, problems));
    }
    for (slot, (name, spec)) in all.iter_mut().zip(file.hosts.iter()) {
        let was = before.and_then(|l| l.hosts.iter().find(|h| h.name.as_str() == name.value)).map(|h| h.pod_cidr);
        let fits = |net: &IpNet| {
            spec.pod_cidr.is_none()
                && net.prefix_len() == length
                && cluster.pod_cidr.contains(net)
                && first_overlap(*net, &used).is_none()
        };
        if let (None, Some(net)) = (*slot, was.filter(fits)) {
            used.push((net, name.place));
            *slot = Some(net);
        }
    }
    let mut free = cluster.pod_cidr.subnets(length).into_iter().flatten().skip(1);
    for (slot, (name, spec)) in all.iter_mut().zip(file.hosts.iter()) {
        if slot.is_some() || spec.pod_cidr.is_some() {
            continue;
        }
        match free.find(|net| first_overlap(*net, &used).is_none()) {
            Some(net) => {
                used.push((net, name.place));
                *slot = Some(net);
            }
            None => problems.push(used_up(cluster, length, name)),
        }
    }
    all
}

fn used_up(cluster: &Cluster, length: u8, name: &At<String>) -> Problem {
    let range = cluster.pod_cidr;
    let subnets = 1u128 << u32::from(length.saturating_sub(range.prefix_len())).min(127);
    let message = format!("no subnet is left for host `{}`: each host leases a /{length} of {range}", name.value);
    let leases = match subnets - 1 {
        0 => "the range is a single one, and flannel leaves the first free".to_owned(),
        n => format!("the range has {subnets}, of which flannel leaves the first free: enough for {n} hosts"),
    };
    // Two bits are four times as many.
    let wider = range.prefix_len().saturating_sub(2);
    let wider = ipnet::IpNet::new(range.addr(), wider).map(|net| net.trunc()).unwrap_or(range);
    let smaller = length.saturating_add(2).min(30);
    Problem::error(codes::SUBNETS_USED_UP, message).at(name.place, leases).help(format!(
        "take a larger range, such as `podCIDR: {wider}` under `cluster`, or smaller subnets, such as `subnetLen: \
         {smaller}` under `flannel`"
    ))
}

fn first_overlap(net: IpNet, others: &[(IpNet, Place)]) -> Option<&(IpNet, Place)> {
    others.iter().find(|(other, _)| overlap(*other, net))
}

fn subnet_len(file: &LabFile, cluster: &Cluster, problems: &mut Problems) -> u8 {
    let range = cluster.pod_cidr;
    let default = 24.max(range.prefix_len() + 1).min(30);
    let Some(written) = &file.cluster.flannel.subnet_len else { return default };
    if written.value <= range.prefix_len() || written.value > 30 {
        problems.push(
            Problem::error(codes::RANGE_INVALID, format!("hosts cannot have a /{} each out of {range}", written.value))
                .at(written.place, "this length")
                .help(format!("take a length from {} to 30", range.prefix_len() + 1)),
        );
        return default;
    }
    written.value
}

fn written_subnet(
    written: &At<String>,
    (file, cluster): (&LabFile, &Cluster),
    used: &mut Vec<(IpNet, Place)>,
    problems: &mut Problems,
) -> Option<IpNet> {
    let range = cluster.pod_cidr;
    let fault = |code, message: String| Problem::error(code, message).at(written.place, "this subnet");
    let net = match ranges::parse(written) {
        Ok(net) => net,
        Err(problem) => {
            problems.push(*problem);
            return None;
        }
    };
    if !range.contains(&net) {
        if !declared::pods_range_is_guessed(file) {
            problems.push(
                fault(codes::RANGE_INVALID, format!("{net} is no subnet of cluster.podCIDR, {range}"))
                    .help("flannel leases subnets of its network only"),
            );
        }
        return None;
    }
    if size(net) < 4 {
        problems.push(
            fault(codes::RANGE_TOO_SMALL, format!("{net} has no room for a bridge and a pod"))
                .help("take a length of /30 or shorter"),
        );
        return None;
    }
    if let Some((other, place)) = first_overlap(net, used) {
        problems.push(
            fault(codes::RANGE_OVERLAP, format!("{net} overlaps {other}, another host's subnet"))
                .at(*place, "the other one")
                .help("a pod's address must lead to one host; take another subnet"),
        );
        return None;
    }
    used.push((net, written.place));
    Some(net)
}
