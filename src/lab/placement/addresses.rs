//! Which address each pod gets out of its host's subnet, and what its cable is called: the host-local
//! IPAM plug-in in small. Which host a pod runs on is decided in the parent.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;
use sha2::{Digest, Sha256};

use crate::diag::{Place, Problem, Problems, codes};
use crate::lab::ipam::Pool;
use crate::lab::machines::MOST_PORTS;
use crate::lab::model::{Host, Pod};
use crate::lab::names::{IfName, PodId};
use crate::lab::ranges::{outside, taken};

use super::{Scene, Wanted};

/// host-local's way: .1 is the bridge's, pods get the next free one from .2 on.
pub(super) fn give_addresses(
    wanted: Vec<Wanted>,
    hosts: Vec<Option<usize>>,
    scene: &Scene,
    problems: &mut Problems,
) -> Vec<Pod> {
    let hosts_of_lab = &scene.ground.hosts;
    let mut pools: Vec<Pool> = hosts_of_lab.iter().map(pool).collect();
    let given = written_and_kept(&wanted, &hosts, &mut pools, (scene, problems));
    let mut veths = HashSet::new();
    let mut full = HashSet::new();
    let mut count = vec![0usize; hosts_of_lab.len()];
    let mut pods = Vec::with_capacity(wanted.len());
    for ((pod, host), ip) in wanted.into_iter().zip(hosts).zip(given) {
        let Some(index) = host else { continue };
        let host = &hosts_of_lab[index];
        count[index] += 1;
        let Some(ip) = ip.or_else(|| pools[index].next()).filter(|_| count[index] <= MOST_PORTS) else {
            if full.insert(index) {
                problems.push(host_full(host, pod.place, count[index]));
            }
            continue;
        };
        let veth = veth_name(&pod.id, &mut veths);
        pods.push(made(pod, host, ip, veth));
    }
    pods
}

/// A host's addresses for pods, without the bridge's own.
fn pool(host: &Host) -> Pool {
    let mut pool = Pool::new(host.pod_cidr, 2);
    if let Some(bridge) = host.pod_cidr.hosts().next() {
        let _ = pool.claim(bridge, None);
    }
    pool
}

/// The addresses that are not free to choose, claimed from their hosts' pools: those that are written,
/// and of the others those that pods had before, as long as they run where they ran.
fn written_and_kept(
    wanted: &[Wanted],
    hosts: &[Option<usize>],
    pools: &mut [Pool],
    (scene, problems): (&Scene, &mut Problems),
) -> Vec<Option<IpAddr>> {
    let claim = |(pod, host): (&Wanted, &Option<usize>)| claim_written(pod, scene, &mut pools[(*host)?], problems);
    let mut given: Vec<Option<IpAddr>> = wanted.iter().zip(hosts).map(claim).collect();
    let was: HashMap<&PodId, IpAddr> = scene.before.iter().flat_map(|l| &l.pods).map(|p| (&p.id, p.ip())).collect();
    for ((pod, host), ip) in wanted.iter().zip(hosts).zip(&mut given) {
        if let (None, None, Some(host), Some(old)) = (*ip, pod.address, host, was.get(&pod.id)) {
            let pool = &mut pools[*host];
            *ip = (pool.usable(*old) && pool.claim(*old, None).is_ok()).then_some(*old);
        }
    }
    given
}

fn made(pod: Wanted, host: &Host, ip: IpAddr, veth: IfName) -> Pod {
    Pod {
        veth,
        id: pod.id,
        host: host.name.clone(),
        address: IpNet::new(ip, host.pod_cidr.prefix_len()).unwrap_or(host.pod_cidr),
        labels: pod.labels.clone(),
        owner: pod.owner,
        restart_policy: pod.restart_policy,
        hostname: pod.hostname,
        subdomain: pod.subdomain,
        resolver: pod.resolver,
        grace: pod.grace,
        containers: pod.containers,
    }
}

fn host_full(host: &Host, place: Place, count: usize) -> Problem {
    let why = if count > MOST_PORTS {
        "a Linux bridge has 1023 ports".to_owned()
    } else {
        format!("its subnet {} has no address left", host.pod_cidr)
    };
    Problem::error(codes::PODS_TOO_MANY, format!("host `{}` cannot take more pods: {why}", host.name))
        .at(place, "no room for this one")
        .help("spread the pods over more hosts, or shorten `flannel.subnetLen`")
}

fn claim_written(pod: &Wanted, scene: &Scene, pool: &mut Pool, problems: &mut Problems) -> Option<IpAddr> {
    let written = pod.address?;
    match written.parse::<IpAddr>() {
        Ok(ip) if pool.usable(ip) => match pool.claim(ip, Some(written.place)) {
            Ok(()) => return Some(ip),
            Err(first) => problems.push(taken(ip, written.place, first, "the bridge cni0")),
        },
        // Where the host, or its subnet, could not be read, the address may be right.
        Ok(_) if scene.is_guessed(pod, pool.range()) => {}
        _ => problems.push(outside(written, pool.range(), "the host's subnet")),
    }
    None
}

/// `veth` and 8 hex digits, as the bridge plug-in names the host's end. There they are random;
/// here they follow from the pod's name, so that a plan can be compared with the next one.
fn veth_name(id: &PodId, used: &mut HashSet<IfName>) -> IfName {
    let mut salt = 0u32;
    loop {
        let digest = Sha256::digest(format!("{}/{}/{salt}", id.namespace, id.name));
        let name = IfName::new(&format!("veth{:02x}{:02x}{:02x}{:02x}", digest[0], digest[1], digest[2], digest[3]));
        if used.insert(name.clone()) {
            return name;
        }
        salt += 1;
    }
}
