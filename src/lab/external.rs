//! Routes of the router to addresses that only services know: `cluster.externalRoutes`. Kubernetes
//! gives an external IP to a service and leaves it to somebody else to bring its packets to a node;
//! here that somebody is the lab file.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use crate::diag::{Problem, Problems, codes, did_you_mean};
use crate::spec::LabFile;
use crate::spec::at::At;
use crate::spec::value::OneOrMore;

use super::declared;
use super::ipam::Ranges;
use super::model::Host;
use super::names::HostName;
use super::ranges::claim_range;

/// An address or a range that the router sends to hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExternalRoute {
    pub to: IpNet,
    /// At least one. Each connection keeps to one of them.
    pub hosts: Vec<HostName>,
}

pub(super) fn resolve(
    file: &LabFile,
    hosts: &[Host],
    ranges: &mut Ranges,
    problems: &mut Problems,
) -> Vec<ExternalRoute> {
    let mut all = Vec::new();
    for (to, written) in file.cluster.external_routes.iter() {
        let Some(net) = range(to, problems) else { continue };
        claim_range(net, &format!("cluster.externalRoutes {}", to.value), Some(to.place), ranges, problems);
        let words = match written {
            OneOrMore::One(word) => std::slice::from_ref(word),
            OneOrMore::More(words) => words.as_slice(),
            OneOrMore::Nothing => &[],
        };
        if words.is_empty() {
            let what = format!("{} is routed to no host", to.value);
            let problem = Problem::error(codes::SPEC_MISSING_FIELD, what).at(to.place, "leads nowhere");
            problems.push(problem.help("write a host behind it, such as `node1`, or a list of hosts"));
        }
        let named: Vec<HostName> = words.iter().filter_map(|word| host(file, (to, word), hosts, problems)).collect();
        all.push(ExternalRoute { to: net, hosts: named });
    }
    all.retain(|r| !r.hosts.is_empty());
    all
}

/// An address stands for itself alone.
fn range(to: &At<String>, problems: &mut Problems) -> Option<IpNet> {
    let net = to.parse::<IpAddr>().map(IpNet::from).or_else(|_| to.parse::<IpNet>().map(|n| n.trunc()));
    match net {
        Ok(net @ IpNet::V4(_)) if net.prefix_len() > 0 => Some(net),
        _ => {
            problems.push(
                Problem::error(codes::RANGE_INVALID, format!("`{}` cannot be routed to a host", to.value))
                    .at(to.place, "no IPv4 address or range")
                    .help("write an address such as 192.0.2.10, or a range such as 192.0.2.0/28"),
            );
            None
        }
    }
}

fn host(file: &LabFile, (to, word): (&At<String>, &str), hosts: &[Host], problems: &mut Problems) -> Option<HostName> {
    let found = hosts.iter().find(|h| h.name.as_str() == word);
    if found.is_none() && !declared::host(file, word) {
        let names = hosts.iter().map(|h| h.name.as_str());
        let help = match did_you_mean(word, names) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "write a host that is declared under `hosts:`".to_owned(),
        };
        let problem = Problem::error(codes::HOST_UNKNOWN, format!("there is no host `{word}`"));
        problems.push(problem.at(to.place, "is to be routed to it").help(help));
    }
    found.map(|h| h.name.clone())
}
