//! The host of each pod: the one it names, the one it had, or the one with the fewest pods, among
//! those whose ports it wants are free. Which address it gets there is decided in [`super::addresses`].

use std::collections::{HashMap, HashSet};

use crate::diag::{Place, Problem, Problems, codes};
use crate::lab::host_ports::{Claim, claims, place_of};
use crate::lab::model::Port;
use crate::lab::names::{HostName, PodId};

use super::{Scene, Wanted, known_host};

/// The index of each pod's host; nothing where there is none, which is reported.
pub(super) fn choose(wanted: &[Wanted], scene: &Scene, problems: &mut Problems) -> Vec<Option<usize>> {
    let mut choice = Choice::new(wanted, scene);
    choice.named(problems);
    choice.kept();
    choice.others(problems);
    choice.chosen
}

struct Choice<'a> {
    wanted: &'a [Wanted<'a>],
    scene: &'a Scene<'a>,
    /// How many pods each host has.
    load: Vec<usize>,
    /// Which of its ports are taken, and by which pod.
    taken: Vec<Vec<(Claim, usize)>>,
    chosen: Vec<Option<usize>>,
}

impl<'a> Choice<'a> {
    fn new(wanted: &'a [Wanted<'a>], scene: &'a Scene<'a>) -> Choice<'a> {
        let hosts = scene.ground.hosts.len();
        let chosen = vec![None; wanted.len()];
        Choice { wanted, scene, load: vec![0; hosts], taken: vec![Vec::new(); hosts], chosen }
    }

    fn put(&mut self, pod: usize, host: usize) {
        self.load[host] += 1;
        self.taken[host].extend(claims(&self.wanted[pod].containers).map(|(claim, _)| (claim, pod)));
        self.chosen[pod] = Some(host);
    }

    /// The first port of the pod that another one has taken on the host, and who has.
    fn clash(&self, pod: usize, host: usize) -> Option<(Claim, &'a Port, usize)> {
        let taken = &self.taken[host];
        let by = |claim: &Claim| taken.iter().find(|(other, _)| other.overlaps(claim)).map(|(_, by)| *by);
        claims(&self.wanted[pod].containers).find_map(|(claim, port)| Some((claim, port, by(&claim)?)))
    }

    fn is_allowed(&self, pod: usize, host: usize) -> bool {
        let among = &self.wanted[pod].among;
        among.is_empty() || among.contains(&self.scene.ground.hosts[host].name)
    }

    /// Pods that name their host. No scheduler looks at these, and the kubelet refuses one whose port is
    /// taken (`NodePorts`).
    fn named(&mut self, problems: &mut Problems) {
        let Scene { file, ground, .. } = self.scene;
        let index = self.index();
        for (n, pod) in self.wanted.iter().enumerate() {
            let Some(written) = pod.host else { continue };
            let host = known_host(written, file, ground, problems).and_then(|h| index.get(h.name.as_str()).copied());
            let Some(host) = host else { continue };
            if let Some((claim, port, by)) = self.clash(n, host) {
                let message = format!("hostPort {claim} of host {} is taken", ground.hosts[host].name);
                let (own, other) = (self.place(n, Some(port)), self.place_of_claim(by, &claim));
                problems.push(
                    Problem::error(codes::HOST_PORT, message)
                        .at(own, format!("wanted by pod {}", pod.id))
                        .at(other, format!("taken by pod {}", self.wanted[by].id))
                        .help("take another port, or another host for one of them; `hostIP` may tell them apart, too"),
                );
            }
            self.put(n, host);
        }
    }

    /// Pods that were there before stay, unless a pod that names the host needs their port.
    fn kept(&mut self) {
        let before = self.scene.before;
        let was: HashMap<&PodId, &HostName> = before.iter().flat_map(|l| &l.pods).map(|p| (&p.id, &p.host)).collect();
        let index = self.index();
        for (n, pod) in self.wanted.iter().enumerate().filter(|(_, pod)| pod.host.is_none()) {
            let host = was.get(&pod.id).and_then(|h| index.get(h.as_str()).copied());
            if let Some(host) = host.filter(|i| self.is_allowed(n, *i) && self.clash(n, *i).is_none()) {
                self.put(n, host);
            }
        }
    }

    fn others(&mut self, problems: &mut Problems) {
        let mut told = HashSet::new();
        for (n, pod) in self.wanted.iter().enumerate() {
            if self.chosen[n].is_some() || pod.host.is_some() {
                continue;
            }
            let allowed: Vec<usize> = (0..self.load.len()).filter(|i| self.is_allowed(n, *i)).collect();
            let free = allowed.iter().copied().filter(|i| self.clash(n, *i).is_none());
            match free.min_by_key(|i| self.load[*i]) {
                Some(host) => self.put(n, host),
                // One word for all the pods of a deployment.
                None if told.insert((pod.place, pod.owner.as_deref())) => problems.extend(self.no_room(n, &allowed)),
                None => {}
            }
        }
    }

    /// Every host that a pod may run on has a port taken that it wants; in a cluster it would stay Pending.
    fn no_room(&self, pod: usize, allowed: &[usize]) -> Option<Problem> {
        let (claim, port, by) = allowed.iter().find_map(|host| self.clash(pod, *host))?;
        let (who, hosts) = (&self.wanted[pod].id, allowed.len());
        let message = match hosts {
            1 => format!("the only host that {who} may run on has hostPort {claim} taken"),
            _ => format!("all {hosts} hosts that {who} may run on have hostPort {claim} taken"),
        };
        let owner = &self.wanted[pod].owner;
        let siblings = owner.is_some() && self.wanted[by].owner == *owner;
        let help = match siblings {
            true => "a port of a host leads to one pod, so there may be no more replicas than hosts",
            false => "a port of a host leads to one pod; take another port, or add a host",
        };
        let problem = Problem::error(codes::HOST_PORT, message).help(help);
        // Pods of the lab itself are written nowhere.
        let place = self.place(pod, Some(port));
        Some(if place == Place::default() { problem } else { problem.at(place, "no host has it free") })
    }

    /// Where a pod's host port was written, or else the pod.
    fn place(&self, pod: usize, port: Option<&Port>) -> Place {
        let Wanted { id, owner, place, .. } = &self.wanted[pod];
        port.and_then(|port| place_of(self.scene.file, (id, owner.as_deref()), port)).unwrap_or(*place)
    }

    fn place_of_claim(&self, pod: usize, wanted: &Claim) -> Place {
        let taking = claims(&self.wanted[pod].containers).find(|(claim, _)| claim.overlaps(wanted));
        self.place(pod, taking.map(|(_, port)| port))
    }

    fn index(&self) -> HashMap<&'a str, usize> {
        self.scene.ground.hosts.iter().enumerate().map(|(i, h)| (h.name.as_str(), i)).collect()
    }
}
