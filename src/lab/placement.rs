//! Which pods there are, and where each goes: the scheduler in small. Which address a pod gets
//! is decided in [`addresses`], which host it runs on in [`hosts`], which subnet a host has in
//! [`super::leases`].

mod addresses;
mod hosts;

use std::collections::HashMap;
use std::time::Duration;

use ipnet::IpNet;

use crate::diag::{Place, Problem, Problems, codes, did_you_mean};
use crate::objects::ObjectKey;
use crate::spec::at::At;
use crate::spec::damage::Damage;
use crate::spec::types::{DeploymentSpec, LabFile, PodSpec, RestartPolicy};
use crate::spec::value::Labels;

use super::addressing::{Ground, INTERNET_NAME};
use super::containers::{self, Workload};
use super::declared;
use super::dns::{DNS_DEPLOYMENT, DNS_NAMESPACE, Dns};
use super::ingress::{self, Controller, INGRESS_NAME, INGRESS_NAMESPACE};
use super::machines;
use super::model::{Container, Deployment, Host, Lab, Pod};
use super::names::{HostName, Namespace, PodId, PodName};
use super::resolve::valid;
use super::resolver::{self, Resolver};

/// The most pods of one lab; beyond it a typing error is likelier than a wish.
const MOST_PODS: usize = 20_000;

/// A pod that is wanted, before it has a host and an address.
struct Wanted<'a> {
    id: PodId,
    place: Place,
    host: Option<&'a At<String>>,
    /// Hosts it may be placed on; empty: all.
    among: Vec<HostName>,
    address: Option<&'a At<String>>,
    labels: &'a Labels,
    owner: Option<String>,
    restart_policy: RestartPolicy,
    hostname: Option<String>,
    subdomain: Option<String>,
    resolver: Resolver,
    grace: Duration,
    containers: Vec<Container>,
}

/// What a pod's place depends on.
struct Scene<'a> {
    file: &'a LabFile,
    ground: &'a Ground,
    before: Option<&'a Lab>,
}

impl Scene<'_> {
    /// Whether a pod's host, or that host's subnet, is only a guess.
    fn is_guessed(&self, pod: &Wanted, subnet: IpNet) -> bool {
        let host = self.ground.hosts.iter().find(|h| h.pod_cidr == subnet).map(|h| h.name.as_str());
        let host = self.file.hosts.iter().find(|(n, _)| Some(n.value.as_str()) == host).map(|(n, _)| n.place);
        let damage = &self.file.damage;
        damage.around(pod.place)
            || host.is_some_and(|place| damage.around(place))
            || declared::pods_range_is_guessed(self.file)
    }
}

/// A deployment that labs have without writing it.
pub(super) struct Own {
    namespace: &'static str,
    name: &'static str,
    replicas: u32,
    labels: Labels,
    container: Container,
}

/// The deployments that the lab has without writing them: the DNS server's, as kubeadm makes it,
/// and the ingress controller's.
pub(super) fn own(dns: Option<&Dns>, controller: Option<&Controller>) -> Vec<Own> {
    let dns = dns.map(|dns| Own {
        namespace: DNS_NAMESPACE,
        name: DNS_DEPLOYMENT,
        replicas: dns.replicas,
        labels: dns.labels.clone(),
        container: super::dns::container(),
    });
    let controller = controller.map(|controller| Own {
        namespace: INGRESS_NAMESPACE,
        name: INGRESS_NAME,
        replicas: controller.replicas,
        labels: controller.labels.clone(),
        container: ingress::container(controller),
    });
    dns.into_iter().chain(controller).collect()
}

/// Every pod with its host and address; `before` is the lab as it runs now, `own` what it has without
/// writing it.
pub(super) fn place(
    file: &LabFile,
    ground: &Ground,
    (before, own): (Option<&Lab>, &[Own]),
    problems: &mut Problems,
) -> Vec<Pod> {
    let mut wanted = Vec::new();
    for (name, spec) in file.pods.iter() {
        wanted.extend(single(&file.damage, name, spec, problems));
    }
    for (name, spec) in file.deployments.iter() {
        wanted.extend(replicas((name, spec), file, ground, problems));
        if wanted.len() > MOST_PODS {
            problems.push(too_many(name.place));
            return Vec::new();
        }
    }
    if !ground.hosts.is_empty() {
        wanted.extend(own.iter().flat_map(|own| own_pods(own, file)));
    }
    check_names(&wanted, file, problems);
    if ground.hosts.is_empty() {
        let none = file.hosts.is_empty() && !file.damage.section("hosts");
        if let (Some(first), true) = (wanted.first(), none) {
            problems.push(
                Problem::error(codes::HOST_MISSING, "there are pods but no host to run them")
                    .at(first.place, "this pod needs a host")
                    .help("add `hosts: { node1: {} }`"),
            );
        }
        return Vec::new();
    }
    let scene = Scene { file, ground, before };
    let hosts = hosts::choose(&wanted, &scene, problems);
    addresses::give_addresses(wanted, hosts, &scene, problems)
}

/// Every deployment, whatever number of pods it has.
pub(super) fn deployments(file: &LabFile, own: &[Own]) -> Vec<Deployment> {
    let written = file.deployments.iter().map(|(name, spec)| Deployment {
        key: ObjectKey::new(spec.namespace.as_ref().map_or("default", |n| n.value.as_str()), name),
        replicas: spec.replicas.as_ref().map_or(1, |r| r.value),
        labels: spec.labels.clone(),
    });
    let own = own.iter().map(|own| Deployment {
        key: ObjectKey::new(own.namespace, own.name),
        replicas: own.replicas,
        labels: own.labels.clone(),
    });
    written.chain(own).collect()
}

fn too_many(place: Place) -> Problem {
    Problem::error(codes::PODS_TOO_MANY, format!("the lab has more than {MOST_PODS} pods"))
        .at(place, "with these")
        .help("is a replicas count mistyped?")
}

/// Seconds that a pod's programs have to end where nothing is written, as in Kubernetes.
const GRACE: u32 = 30;

fn grace(written: Option<&At<u32>>) -> Duration {
    Duration::from_secs(u64::from(written.map_or(GRACE, |w| w.value)))
}

/// A hostname or subdomain, which are labels as RFC 1123 has them.
fn label(written: Option<&At<String>>, what: &str, problems: &mut Problems) -> Option<String> {
    valid::<PodName>(written?, what, problems).map(String::from)
}

/// The pods of a deployment that nobody wrote.
fn own_pods<'a>(own: &'a Own, file: &LabFile) -> Vec<Wanted<'a>> {
    let id = |n: u32| {
        let namespace = Namespace::try_from(own.namespace.to_owned()).ok()?;
        Some(PodId { namespace, name: PodName::try_from(format!("{}-{n}", own.name)).ok()? })
    };
    let pod = |id| Wanted {
        id,
        place: Place::default(),
        host: None,
        among: Vec::new(),
        address: None,
        labels: &own.labels,
        owner: Some(own.name.to_owned()),
        restart_policy: RestartPolicy::Always,
        hostname: None,
        subdomain: None,
        resolver: Resolver::default(),
        grace: grace(None),
        containers: vec![own.container.clone()],
    };
    let numbers = file.replaced.numbers(&ObjectKey::new(own.namespace, own.name), own.replicas);
    numbers.into_iter().filter_map(id).map(pod).collect()
}

fn namespace(written: Option<&At<String>>, problems: &mut Problems) -> Option<Namespace> {
    match written {
        Some(written) => valid(written, "namespace", problems),
        None => Namespace::try_from("default".to_owned()).ok(),
    }
}

fn single<'a>(damage: &Damage, name: &At<String>, spec: &'a PodSpec, problems: &mut Problems) -> Option<Wanted<'a>> {
    let pod: Option<PodName> = valid(name, "pod", problems);
    let namespace = namespace(spec.namespace.as_ref(), problems);
    containers::check_labels(&spec.labels, name, problems);
    let containers = containers::resolve(&Workload::of(damage, name, spec), problems);
    Some(Wanted {
        id: PodId { namespace: namespace?, name: pod? },
        place: name.place,
        host: spec.host.as_ref(),
        among: Vec::new(),
        address: spec.address.as_ref(),
        labels: &spec.labels,
        owner: None,
        restart_policy: spec.restart_policy.unwrap_or_default(),
        hostname: label(spec.hostname.as_ref(), "hostname", problems),
        subdomain: label(spec.subdomain.as_ref(), "subdomain", problems),
        resolver: resolver::resolve(spec.dns_policy.as_ref(), spec.dns_config.as_ref(), problems),
        grace: grace(spec.termination_grace_period_seconds.as_ref()),
        containers,
    })
}

fn replicas<'a>(
    (name, spec): (&At<String>, &'a DeploymentSpec),
    file: &LabFile,
    ground: &Ground,
    problems: &mut Problems,
) -> Vec<Wanted<'a>> {
    let count = spec.replicas.as_ref().map_or(1, |r| r.value);
    if count as usize > MOST_PODS {
        problems.push(too_many(spec.replicas.as_ref().map_or(name.place, |r| r.place)));
        return Vec::new();
    }
    let valid_name: Option<PodName> = valid(name, "deployment", problems);
    let namespace = namespace(spec.namespace.as_ref(), problems);
    containers::check_labels(&spec.labels, name, problems);
    let containers = containers::resolve(&Workload::of(&file.damage, name, spec), problems);
    let among: Vec<HostName> = spec
        .hosts
        .iter()
        .flatten()
        .filter_map(|written| known_host(written, file, ground, problems).map(|h| h.name.clone()))
        .collect();
    let (Some(valid_name), Some(namespace)) = (valid_name, namespace) else { return Vec::new() };
    let subdomain = label(spec.subdomain.as_ref(), "subdomain", problems);
    let resolver = resolver::resolve(spec.dns_policy.as_ref(), spec.dns_config.as_ref(), problems);
    let mut all = Vec::new();
    for n in file.replaced.numbers(&ObjectKey::new(namespace.as_str(), valid_name.as_str()), count) {
        let Ok(pod) = PodName::try_from(format!("{valid_name}-{n}")) else {
            let long = At::new(format!("{valid_name}-{n}"), name.place);
            valid::<PodName>(&long, "pod", problems);
            break;
        };
        all.push(Wanted {
            id: PodId { namespace: namespace.clone(), name: pod },
            place: name.place,
            host: None,
            among: among.clone(),
            address: None,
            labels: &spec.labels,
            owner: Some(valid_name.to_string()),
            restart_policy: RestartPolicy::Always,
            hostname: None,
            subdomain: subdomain.clone(),
            resolver: resolver.clone(),
            grace: grace(spec.termination_grace_period_seconds.as_ref()),
            containers: containers.clone(),
        });
    }
    all
}

fn known_host<'g>(
    written: &At<String>,
    file: &LabFile,
    ground: &'g Ground,
    problems: &mut Problems,
) -> Option<&'g Host> {
    let found = ground.hosts.iter().find(|h| h.name.as_str() == written.value);
    // Where there is no host at all, that is said once.
    let known = declared::host(file, written) || ground.hosts.is_empty();
    if found.is_none() && !known {
        let most = if problems.is_full() { 0 } else { usize::MAX };
        let names = || ground.hosts.iter().map(|h| h.name.as_str()).take(most);
        let known: Vec<_> = names().take(10).collect();
        problems.push(
            Problem::error(codes::HOST_UNKNOWN, format!("there is no host `{}`", written.value))
                .at(written.place, "not declared")
                .help(match did_you_mean(written, names()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("declare it under `hosts:`; known are: {}", known.join(", ")),
                }),
        );
    }
    found
}

fn check_names(wanted: &[Wanted], file: &LabFile, problems: &mut Problems) {
    let mut seen: HashMap<String, (Place, &str)> = HashMap::new();
    for (name, _) in file.hosts.iter() {
        seen.insert(name.value.clone(), (name.place, "host"));
    }
    for (name, _) in file.clients.iter() {
        seen.insert(name.value.clone(), (name.place, "client"));
    }
    seen.entry("router".to_owned()).or_insert((Place::default(), "router"));
    if machines::has_implied_internet(file) {
        seen.insert(INTERNET_NAME.to_owned(), (Place::default(), "client, which every lab has"));
    }
    for pod in wanted {
        if let Some((first, what)) = seen.insert(pod.id.to_string(), (pod.place, "pod")) {
            let mut problem =
                Problem::error(codes::NAME_TAKEN, format!("the name `{}` of this pod is taken by a {what}", pod.id))
                    .at(pod.place, "taken");
            if first != Place::default() && first != pod.place {
                problem = problem.at(first, format!("by this {what}"));
            }
            problems.push(
                problem.help("hosts, clients and pods of the namespace `default` share their names; take another"),
            );
        }
    }
}
