//! The cluster's DNS: which pods serve it, and what it answers beside services and pods. How it
//! answers is `workload::dns`'s.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;

use crate::diag::{Problem, Problems, codes};
use crate::objects::validate::is_dns_subdomain;
use crate::spec::LabFile;
use crate::spec::types::{DnsRecord, PodRecords};
use crate::spec::value::{Labels, Protocol};

use super::model::{Container, HttpCheck, Port, Readiness, ReadinessCheck, Run};
use super::services;

/// As kubeadm calls them.
pub const DNS_NAMESPACE: &str = "kube-system";
pub const DNS_SERVICE: &str = "kube-dns";
/// Where it listens.
pub const DNS_PORT: u16 = 53;
pub const DNS_LABEL: (&str, &str) = ("k8s-app", "kube-dns");
/// The deployment's name.
pub const DNS_DEPLOYMENT: &str = "coredns";
/// kubeadm's number of CoreDNS pods.
const REPLICAS: u32 = 2;
/// Beyond it a typing error is likelier than a wish.
const MOST_REPLICAS: u32 = 100;

/// The DNS server of a lab that has one.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Dns {
    pub replicas: u32,
    pub pods: PodRecords,
    /// Names outside the cluster, without a dot at their end, in lower case.
    pub records: BTreeMap<String, Record>,
    #[serde(skip)]
    pub labels: Labels,
}

/// What a name outside the cluster stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Record {
    Addresses(Vec<IpAddr>),
    Alias(String),
}

/// The lab's DNS, where it has services or asks for it.
pub(super) fn resolve(file: &LabFile, problems: &mut Problems) -> Option<Dns> {
    if !services::wanted(file) {
        return None;
    }
    let empty = crate::spec::types::DnsSpec::default();
    let spec = file.dns.as_ref().unwrap_or(&empty);
    let replicas = spec.replicas.as_ref().map_or(REPLICAS, |r| r.value);
    if let Some(written) = spec.replicas.as_ref().filter(|r| r.value > MOST_REPLICAS) {
        problems.push(
            Problem::error(codes::SPEC_BAD_VALUE, format!("{replicas} DNS pods are too many"))
                .at(written.place, "this number")
                .help(format!("take 0 to {MOST_REPLICAS}")),
        );
    }
    let mut records = BTreeMap::new();
    for (name, written) in spec.records.iter() {
        let key = name.trim_end_matches('.').to_ascii_lowercase();
        let plain = key.strip_prefix("*.").unwrap_or(&key);
        let record = record(written);
        if let (true, Some(record)) = (is_name(plain), record) {
            records.insert(key, record);
        } else {
            problems.push(
                Problem::error(codes::SPEC_BAD_VALUE, format!("`{}` cannot be a record of the DNS", name.value))
                    .at(name.place, "this name, or what stands behind it")
                    .help("write `name: ADDRESS`, `name: [ADDRESS, ADDRESS]` or `name: OTHER-NAME`"),
            );
        }
    }
    let labels = Labels::from([(DNS_LABEL.0.to_owned(), DNS_LABEL.1.to_owned())]);
    Some(Dns { replicas: replicas.min(MOST_REPLICAS), pods: spec.pods.unwrap_or_default(), records, labels })
}

/// Names of hosts, and those with an underscore that some records have.
fn is_name(name: &str) -> bool {
    is_dns_subdomain(&name.replace('_', "x"))
}

fn record(written: &DnsRecord) -> Option<Record> {
    match written {
        DnsRecord::One(word) => match word.parse() {
            Ok(ip) => Some(Record::Addresses(vec![ip])),
            Err(_) => {
                let name = word.trim_end_matches('.').to_ascii_lowercase();
                is_name(&name).then_some(Record::Alias(name))
            }
        },
        DnsRecord::Several(words) => {
            let all: Option<Vec<IpAddr>> = words.iter().map(|w| w.parse().ok()).collect();
            all.filter(|a| !a.is_empty()).map(Record::Addresses)
        }
    }
}

/// The container of a DNS pod, as kubeadm's deployment has it.
pub(super) fn container() -> Container {
    let port = |number, protocol, name: &str| Port { number, protocol, name: Some(name.to_owned()), host_port: None };
    Container {
        name: DNS_DEPLOYMENT.to_owned(),
        ports: vec![port(53, Protocol::Udp, "dns"), port(53, Protocol::Tcp, "dns-tcp")],
        run: Run::Dns,
        readiness: Some(Readiness {
            check: ReadinessCheck::HttpGet(HttpCheck { path: "/ready".to_owned(), port: 8181, ..HttpCheck::default() }),
            initial_delay: std::time::Duration::ZERO,
            period: std::time::Duration::from_secs(10),
            timeout: std::time::Duration::from_secs(1),
            success_threshold: 1,
            failure_threshold: 3,
        }),
    }
}
