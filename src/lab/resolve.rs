//! From the file to the lab, in the order in which things depend on each other: ranges, networks,
//! machines, pods, services, ingresses, probes. Each step reports what is wrong and goes on with the rest, so that one
//! run finds every problem.

use crate::diag::{Problem, Problems, codes};
use crate::spec::At;
use crate::spec::load::Loaded;

use super::addressing::{self, Ground};
use super::model::{Backend, Lab, dns_address};
use super::names::{LabName, NameError};
use super::services::{self, Services};
use super::{dns, host_ports, ingress, placement, probes};

/// The meaning of what was loaded, or the problems why it has none. Warnings come with either.
///
/// `before` is the lab as it runs now: who is in both keeps host, address and device names.
pub fn resolve(loaded: &Loaded, before: Option<&Lab>, problems: &mut Problems) -> Option<Lab> {
    let file = &loaded.file;
    let name = lab_name(loaded, problems);
    let ground = addressing::lay(file, before, problems);
    let dns = dns::resolve(file, problems);
    let controller = ingress::controller(file, problems);
    let own = placement::own(dns.as_ref(), controller.as_ref());
    let pods = placement::place(file, &ground, (before, &own), problems);
    let Ground { cluster, networks, hosts, clients, external_routes } = ground;
    warn_host_gw(&cluster.backend, file, &hosts, &networks, problems);
    let dns_address = dns_address(cluster.service_cidr);
    let on = services::Ground { cluster: &cluster, pods: &pods, dns_address };
    let Services { services, slices, namespaces } = services::resolve(file, &on, before, problems);
    let (secrets, config_maps) =
        (ingress::checked_secrets(file, problems), ingress::checked_config_maps(file, problems));
    let sound = file.damage.is_empty() && !problems.has_errors() && !loaded.problems.has_errors();
    let scene =
        ingress::Scene { file, services: &services, secrets: &secrets, config_maps: &config_maps, before, sound };
    let ingress = controller.map(|controller| ingress::resolve(controller, &scene, problems));
    let mut lab = Lab {
        // A lab without a name goes on, so that what is wrong with its probes is found as well.
        name: name.clone().or_else(|| LabName::try_from("lab".to_owned()).ok())?,
        description: file.description.clone(),
        cluster,
        networks,
        hosts,
        clients,
        pods,
        deployments: placement::deployments(file, &own),
        services,
        slices,
        external_routes,
        namespaces,
        dns,
        ingress,
        secrets,
        config_maps,
        probes: Vec::new(),
    };
    host_ports::warn(file, &lab, problems);
    lab.probes = probes::resolve(file, &lab, before.filter(|_| loaded.edited), problems);
    let named = name.is_some();
    (named && !problems.has_errors() && !loaded.problems.has_errors()).then_some(lab)
}

fn lab_name(loaded: &Loaded, problems: &mut Problems) -> Option<LabName> {
    if let Some(written) = &loaded.file.name {
        return valid(written, "lab", problems);
    }
    // A file's name is not bound to be a label; make the nearest one of it.
    let near = nearest_label(&loaded.default_name);
    LabName::try_from(if near.is_empty() { "lab".to_owned() } else { near }).ok()
}

/// The text with everything that a label cannot have as a dash; empty where nothing is left.
fn nearest_label(text: &str) -> String {
    let good = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let near: String = text.chars().take(63).map(good).collect();
    near.trim_matches('-').to_owned()
}

/// Check a written name; a bad one is reported once, with what it is the name of.
pub(super) fn valid<T: TryFrom<String, Error = NameError>>(
    name: &At<String>,
    what: &str,
    problems: &mut Problems,
) -> Option<T> {
    match T::try_from(name.value.clone()) {
        Ok(name) => Some(name),
        Err(why) => {
            let near = nearest_label(&name.value);
            let problem =
                Problem::error(codes::NAME_INVALID, format!("`{}` cannot be a {what}'s name: {why}", name.value))
                    .at(name.place, "this name");
            problems.push(match near.as_str() {
                "" => problem.help("for example `node1`"),
                near => problem.help(format!("for example `{near}`")),
            });
            None
        }
    }
}

/// Claim 18: host-gw needs one layer-2 network. Real flannel starts all the same and logs that
/// the route cannot be added; so it is a warning here, and a failure when packets go there.
fn warn_host_gw(
    backend: &Backend,
    file: &crate::spec::LabFile,
    hosts: &[super::Host],
    networks: &[super::Network],
    problems: &mut Problems,
) {
    let mut used: Vec<usize> = hosts.iter().map(|h| h.attachment.network).collect();
    used.sort_unstable();
    used.dedup();
    if *backend != Backend::HostGw || used.len() < 2 {
        return;
    }
    let names: Vec<&str> = used.iter().map(|i| networks[*i].name.as_str()).collect();
    let place = file.cluster.flannel.backend.as_ref().map(|b| b.place).unwrap_or_default();
    problems.push(
        Problem::warning(
            codes::HOST_GW_ROUTER,
            format!("host-gw cannot join hosts of different networks ({}): pods there will not reach each other", names.join(", ")),
        )
        .at(place, "its routes name the peer host as next hop, which must be a neighbour")
        .help("put the hosts on one network, or take `backend: vxlan` with `directRouting: true`, which tunnels only between networks"),
    );
}
