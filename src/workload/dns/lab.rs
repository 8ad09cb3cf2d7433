//! What the DNS servers of a lab know: a lab's objects and names in the words of this server. Pure; telling the
//! servers is the daemon's business.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::lab::dns::Record;
use crate::lab::{Lab, Pod};
use crate::objects::EndpointSlice;
use crate::plan::DnsServer;
use crate::spec::types::PodRecords;

use super::{Config, DnsConfig, Objects, PodFact, Pods, Records, Update};

/// What a server that was told of all this answers from.
///
/// # Errors
/// A name in the server's own records that is none.
pub fn records(lab: &Lab, slices: &[EndpointSlice], server: &DnsServer) -> std::io::Result<Records> {
    let mut records = Records::new(&config_of(server).dns)?;
    for update in Update::between(None, objects(lab, slices)).into_iter().chain([Update::Outside(names_outside(lab))]) {
        records.apply(&update);
    }
    Ok(records)
}

/// The names of ingresses, which lead to the controller: a server of a cluster hears of them from a
/// public DNS, which a lab does not have.
pub fn names_outside(lab: &Lab) -> BTreeMap<String, Vec<IpAddr>> {
    let Some(public) = lab.ingress_address() else { return BTreeMap::new() };
    lab.ingress_hosts().into_iter().map(|name| (name.to_owned(), vec![public.ip])).collect()
}

/// What a DNS server knows of a cluster.
pub fn objects(lab: &Lab, slices: &[EndpointSlice]) -> Objects {
    let fact = |p: &Pod| PodFact { namespace: p.id.namespace.to_string(), name: p.id.name.to_string(), ip: p.ip() };
    Objects {
        services: lab.services.clone(),
        slices: slices.to_vec(),
        pods: lab.pods.iter().map(fact).collect(),
        namespaces: lab.namespaces.iter().cloned().collect(),
    }
}

/// The server's configuration: that of kubeadm's Corefile, with the lab's records.
pub fn config_of(server: &DnsServer) -> Config {
    let records = server.records.iter().map(|(name, record)| (name.clone(), wire_records(record))).collect();
    let pods = match server.pods {
        PodRecords::Disabled => Pods::Disabled,
        PodRecords::Insecure => Pods::Insecure,
        PodRecords::Verified => Pods::Verified,
    };
    Config {
        dns: DnsConfig {
            domain: server.domain.clone(),
            pods,
            records,
            local_ips: vec![server.ip],
            ..DnsConfig::default()
        },
        ..Config::default()
    }
}

fn wire_records(record: &Record) -> Vec<super::Record> {
    match record {
        Record::Alias(name) => vec![super::Record::Cname(name.clone())],
        Record::Addresses(all) => all
            .iter()
            .map(|ip| match ip {
                IpAddr::V4(ip) => super::Record::A(*ip),
                IpAddr::V6(ip) => super::Record::Aaaa(*ip),
            })
            .collect(),
    }
}
