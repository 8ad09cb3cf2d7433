//! Hosts and clients: which network each stands on, and its address there.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::diag::{Place, Problem, Problems, codes, did_you_mean};
use crate::spec::at::At;
use crate::spec::types::LabFile;
use crate::spec::value::Protocol;

use super::addressing::INTERNET_NAME;
use super::ipam::{Pool, size};
use super::model::{Attachment, Client, Cluster, Host, Lab, Network, Port};
use super::names::HostName;
use super::ranges::{outside, taken};
use super::resolve::valid;
use super::{containers, declared, host_ports, leases};

/// A Linux bridge has at most so many ports (`BR_MAX_PORTS` less the one that is never given).
pub const MOST_PORTS: usize = 1023;

/// All hosts, then all clients, with the client `internet` that every lab has.
pub(super) fn plug_in(
    file: &LabFile,
    cluster: &Cluster,
    networks: &[Network],
    before: Option<&Lab>,
    problems: &mut Problems,
) -> (Vec<Host>, Vec<Client>) {
    let subnets = leases::subnets(file, cluster, before, problems);
    let internet = At::new(INTERNET_NAME.to_owned(), Place::default());
    let mut wanted: Vec<Plug> = Vec::new();
    wanted.extend(file.hosts.iter().map(|(name, h)| Plug {
        name,
        network: h.network.as_ref(),
        address: h.address.as_ref(),
        from: 11,
    }));
    wanted.extend(file.clients.iter().map(|(name, c)| Plug {
        name,
        network: c.network.as_ref(),
        address: c.address.as_ref(),
        from: 101,
    }));
    if has_implied_internet(file) {
        wanted.push(Plug { name: &internet, network: Some(&internet), address: None, from: 10 });
    }
    // All machines at once: what a client has written, or had before, is not given to a host.
    let mut attachments = Plugs::new(file, networks, before).plug_all(&wanted, problems);
    let of_clients = attachments.split_off(file.hosts.len());
    let hosts = hosts(file, subnets, attachments, problems);
    let clients = clients(file, &wanted[file.hosts.len()..], of_clients, problems);
    (hosts, clients)
}

/// Every lab has a client `internet`, unless the file has something of that name.
pub(super) fn has_implied_internet(file: &LabFile) -> bool {
    !file.clients.names().chain(file.hosts.names()).any(|n| n == INTERNET_NAME)
}

/// Small numbers that stay with their names.
pub(super) struct Slots {
    known: HashMap<String, u32>,
    used: HashSet<u32>,
    /// Below this one none is free.
    next: u32,
}

impl Slots {
    pub fn new(before: Option<Vec<(String, u32)>>) -> Slots {
        let known: HashMap<_, _> = before.unwrap_or_default().into_iter().collect();
        let used = known.values().copied().collect();
        Slots { known, used, next: 0 }
    }

    pub fn get(&mut self, name: &str) -> u32 {
        if let Some(slot) = self.known.get(name) {
            return *slot;
        }
        while !self.used.insert(self.next) {
            self.next += 1;
        }
        let slot = self.next;
        self.known.insert(name.to_owned(), slot);
        slot
    }
}

/// The networks' sockets: addresses and slots for machines.
struct Plugs<'a> {
    file: &'a LabFile,
    networks: &'a [Network],
    pools: Vec<Pool>,
    /// Where the search for a free address is, by network and by where it began.
    searches: HashMap<(usize, u128), Pool>,
    slots: Slots,
    before: HashMap<String, (String, IpAddr)>,
    plugged: Vec<usize>,
}

/// What a host or client says about its place on the networks.
struct Plug<'a> {
    name: &'a At<String>,
    network: Option<&'a At<String>>,
    address: Option<&'a At<String>>,
    /// Where the search for a free address begins.
    from: u128,
}

impl<'a> Plugs<'a> {
    fn new(file: &'a LabFile, networks: &'a [Network], before: Option<&Lab>) -> Plugs<'a> {
        let pools = networks
            .iter()
            .map(|n| {
                let mut pool = Pool::new(n.gateway.trunc(), 11);
                let _ = pool.claim(n.gateway.addr(), None);
                pool
            })
            .collect();
        let mut machines = Vec::new();
        if let Some(lab) = before {
            machines.extend(lab.hosts.iter().map(|h| (h.name.to_string(), &h.attachment)));
            machines.extend(lab.clients.iter().map(|c| (c.name.to_string(), &c.attachment)));
        }
        let slots = Slots::new(Some(machines.iter().map(|(n, a)| (n.clone(), a.slot)).collect()));
        let before = machines
            .iter()
            .filter_map(|(n, a)| Some((n.clone(), (before?.network_of(a).name.to_string(), a.address.addr()))))
            .collect();
        Plugs { file, networks, pools, searches: HashMap::new(), slots, before, plugged: vec![0; networks.len()] }
    }

    /// Which network a machine stands on: the one it names, or the only one that is not internet.
    fn network(&self, plug: &Plug, problems: &mut Problems) -> Option<usize> {
        let names = || self.networks.iter().map(|n| n.name.as_str());
        if let Some(written) = plug.network {
            let found = names().position(|n| n == written.value);
            if found.is_none() && !declared::network(self.file, written) {
                let known: Vec<_> = names().collect();
                let near = did_you_mean(written, names());
                problems.push(
                    Problem::error(codes::NETWORK_UNKNOWN, format!("there is no network `{}`", written.value))
                        .at(written.place, "not declared")
                        .help(match near {
                            Some(near) => format!("did you mean `{near}`?"),
                            None => format!("declare it under `networks:`; known are: {}", known.join(", ")),
                        }),
                );
            }
            return found;
        }
        let local: Vec<usize> =
            (0..self.networks.len()).filter(|i| self.networks[*i].name.as_str() != INTERNET_NAME).collect();
        if let [only] = local.as_slice() {
            return Some(*only);
        }
        if self.is_excused(plug) {
            return None;
        }
        let possible = if local.is_empty() { (0..self.networks.len()).collect() } else { local };
        let known: Vec<_> = possible.iter().map(|i| self.networks[*i].name.as_str()).collect();
        problems.push(
            Problem::error(
                codes::NETWORK_NOT_CHOSEN,
                format!("`{}` must say which network it stands on", plug.name.value),
            )
            .at(plug.name.place, "no `network:`")
            .help(format!("add `network:` with one of: {}", known.join(", "))),
        );
        None
    }

    /// Whether a machine may well have said its network, or there may be only one, in what could not
    /// be read.
    fn is_excused(&self, plug: &Plug) -> bool {
        let damage = &self.file.damage;
        let local = |n: &&str| **n != *INTERNET_NAME;
        let written = self.file.networks.names().filter(local).count().max(1);
        let understood = self.networks.iter().map(|n| n.name.as_str()).filter(local).count();
        damage.around(plug.name.place) || damage.section("networks") || understood < written.min(2)
    }

    /// Claim a written address at once, so that nobody is given it by default.
    fn claim(&mut self, plug: &Plug, network: usize, problems: &mut Problems) -> Option<IpAddr> {
        let written = plug.address?;
        let pool = &mut self.pools[network];
        match written.parse::<IpAddr>() {
            Ok(ip) if pool.usable(ip) => match pool.claim(ip, Some(written.place)) {
                Ok(()) => return Some(ip),
                Err(first) => problems.push(taken(ip, written.place, first, "the router")),
            },
            Ok(_) if declared::network_is_guessed(self.file, self.networks[network].name.as_str()) => {}
            _ => {
                let what = format!("network {}", self.networks[network].name);
                problems.push(outside(written, pool.range(), &what));
            }
        }
        None
    }

    /// Keep the address of the lab as it was, where the machine stays on its network.
    fn keep(&mut self, plug: &Plug, network: usize) -> Option<IpAddr> {
        let (was_on, ip) = self.before.get(&plug.name.value)?;
        let pool = &mut self.pools[network];
        let stays = *was_on == self.networks[network].name.as_str() && pool.usable(*ip);
        (stays && pool.claim(*ip, None).is_ok()).then_some(*ip)
    }

    fn free(&mut self, plug: &Plug, network: usize, problems: &mut Problems) -> Option<IpAddr> {
        let pool = &mut self.pools[network];
        let search = self.searches.entry((network, plug.from)).or_insert_with(|| Pool::new(pool.range(), plug.from));
        let found = std::iter::from_fn(|| search.next()).find(|ip| pool.is_free(*ip));
        match found {
            Some(ip) => {
                let _ = pool.claim(ip, Some(plug.name.place));
            }
            // A range without room for anyone is refused as such.
            None if size(pool.range()) < 4 => {}
            None => problems.push(
                Problem::error(
                    codes::NETWORK_FULL,
                    format!("network {} has no address left for `{}`", self.networks[network].name, plug.name.value),
                )
                .at(plug.name.place, "one too many")
                .help(format!("give the network a range larger than {}", pool.range())),
            ),
        }
        found
    }

    fn attachment(&mut self, plug: &Plug, network: usize, ip: IpAddr, problems: &mut Problems) -> Attachment {
        self.plugged[network] += 1;
        if self.plugged[network] == MOST_PORTS + 1 {
            problems.push(
                Problem::error(
                    codes::NETWORK_FULL,
                    format!("network {} has more than {MOST_PORTS} machines", self.networks[network].name),
                )
                .at(plug.name.place, "one too many")
                .help("a Linux bridge has 1023 ports; spread the machines over several networks"),
            );
        }
        let length = self.networks[network].gateway.prefix_len();
        let address = IpNet::new(ip, length).unwrap_or(self.networks[network].gateway);
        Attachment { network, address, slot: self.slots.get(&plug.name.value) }
    }

    /// Give every machine its place: written addresses first, kept ones next, free ones last.
    fn plug_all(&mut self, plugs: &[Plug], problems: &mut Problems) -> Vec<Option<Attachment>> {
        let networks: Vec<_> = plugs.iter().map(|p| self.network(p, problems)).collect();
        let mut given: Vec<Option<IpAddr>> =
            plugs.iter().zip(&networks).map(|(p, n)| self.claim(p, (*n)?, problems)).collect();
        for ((plug, network), ip) in plugs.iter().zip(&networks).zip(&mut given) {
            if let (None, None, Some(n)) = (*ip, plug.address, network) {
                *ip = self.keep(plug, *n);
            }
        }
        let mut all = Vec::new();
        for ((plug, network), ip) in plugs.iter().zip(networks).zip(given) {
            let place = network.and_then(|n| Some((n, ip.or_else(|| self.free(plug, n, problems))?)));
            all.push(place.map(|(n, ip)| self.attachment(plug, n, ip, problems)));
        }
        all
    }
}

fn hosts(
    file: &LabFile,
    subnets: Vec<Option<IpNet>>,
    attachments: Vec<Option<Attachment>>,
    problems: &mut Problems,
) -> Vec<Host> {
    let mut all = Vec::new();
    for (((name, spec), attachment), subnet) in file.hosts.iter().zip(attachments).zip(subnets) {
        let host: Option<HostName> = valid(name, "host", problems);
        refuse_reserved(name, problems);
        let ports = containers::ports(&spec.ports, problems);
        host_ports::refuse(&spec.ports, "host", problems);
        containers::check_labels(&spec.labels, name, problems);
        if let (Some(name), Some(attachment), Some(pod_cidr)) = (host, attachment, subnet) {
            all.push(Host { name, attachment, pod_cidr, labels: spec.labels.clone(), ports });
        }
    }
    all
}

fn refuse_reserved(name: &At<String>, problems: &mut Problems) {
    if name.value == "router" {
        problems.push(
            Problem::error(codes::NAME_TAKEN, "`router` is the name of the lab's router")
                .at(name.place, "taken")
                .help("take another name"),
        );
    }
}

fn clients(
    file: &LabFile,
    plugs: &[Plug],
    attachments: Vec<Option<Attachment>>,
    problems: &mut Problems,
) -> Vec<Client> {
    let mut ports: Vec<Vec<Port>> = file.clients.iter().map(|(_, c)| containers::ports(&c.ports, problems)).collect();
    file.clients.iter().for_each(|(_, c)| host_ports::refuse(&c.ports, "client", problems));
    if plugs.len() > ports.len() {
        ports.push(vec![Port { number: 80, protocol: Protocol::Tcp, name: None, host_port: None }]);
    }
    let mut all = Vec::new();
    for ((plug, attachment), ports) in plugs.iter().zip(attachments).zip(ports) {
        refuse_reserved(plug.name, problems);
        if let Some((first, _)) = file.hosts.iter().find(|(n, _)| n.value == plug.name.value) {
            problems.push(
                Problem::error(codes::NAME_TAKEN, format!("`{}` is a host and a client", plug.name.value))
                    .at(plug.name.place, "taken")
                    .at(first.place, "by this host")
                    .help("hosts, clients and pods of the namespace `default` share their names; take another"),
            );
        }
        let name: Option<HostName> = valid(plug.name, "client", problems);
        if let (Some(name), Some(attachment)) = (name, attachment) {
            all.push(Client { name, attachment, ports });
        }
    }
    all
}
