//! What is told of an answer while somebody wants to know: who asked for what, what was answered, and whose the
//! name is.

use std::net::SocketAddr;

use hickory_proto::op::Message;

use super::cluster::Found;
use super::name::{Name, text};
use super::query::{Asked, read};
use super::records::Records;
use crate::probe::rcode;
use crate::workload::events::{Did, Lookup, Teller};

/// Records of an answer that are told.
const MOST_RECORDS: usize = 8;

/// Tell of `reply`, with which `query` was answered.
pub fn tell(teller: &Teller, records: &Records, client: SocketAddr, (query, reply): (&[u8], &[u8])) {
    teller.tell_some(|| lookup(records, client, (query, reply)).map(Did::Resolved));
}

/// Nothing where it was not understood what is asked.
fn lookup(records: &Records, client: SocketAddr, (query, reply): (&[u8], &[u8])) -> Option<Lookup> {
    let Asked::Query(asked) = read(query) else { return None };
    let reply = Message::from_vec(reply).ok()?;
    let kind = reply.queries.first()?.query_type().to_string();
    let found: Vec<String> = reply.answers.iter().take(MOST_RECORDS).map(|r| r.data.to_string()).collect();
    let answer = if found.is_empty() { rcode(reply.metadata.response_code) } else { found.join(", ") };
    Some(Lookup {
        client,
        id: u16::from_be_bytes(asked.head.id),
        name: text(asked.name.wire()).trim_end_matches('.').to_owned(),
        kind,
        answer,
        source: records.source(&asked.name),
    })
}

impl Records {
    /// Whose a name is, in words.
    fn source(&self, name: &Name) -> String {
        let Some((from, is_reverse)) = self.zone_of(name) else {
            return match self.settings.outside(name) {
                Some(_) => "a name outside the cluster, of `dns.records` or of an ingress".to_owned(),
                None => "nobody: it is a name outside the cluster, and neither `dns.records` nor an ingress has it"
                    .to_owned(),
            };
        };
        if is_reverse {
            return "whoever has the address".to_owned();
        }
        let label = |n: usize| String::from_utf8_lossy(name.label(n)).into_owned();
        match (self.find(name, from, is_reverse), from) {
            (Found::Nothing, _) => "nobody: the cluster has no such name".to_owned(),
            (Found::Hosts(_) | Found::Alias(_), 3..) if label(from - 1) == "svc" => {
                format!("service {}/{}", label(from - 2), label(from - 3))
            }
            (Found::Hosts(_), 2..) => format!("a pod of the namespace {}", label(from - 2)),
            (Found::Own, _) => "the DNS server itself".to_owned(),
            _ => "the cluster's zone".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::DnsConfig;
    use super::super::name::parse;
    use super::super::records::Update;
    use super::*;

    #[test]
    fn whose_a_name_is_follows_from_where_it_is_found() {
        let update = serde_json::json!({ "set": {
            "services": [{ "metadata": { "name": "tea", "namespace": "shop" },
                           "spec": { "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "ports": [{ "port": 80 }] } }],
            "namespaces": ["shop"],
        } });
        let mut records = Records::new(&DnsConfig::default()).expect("a configuration");
        records.apply(&serde_json::from_value::<Update>(update).expect("an update"));
        let whose = |name: &str| records.source(&Name::read(&parse(name).expect("a name")).expect("a name"));
        assert_eq!(whose("tea.shop.svc.cluster.local"), "service shop/tea");
        assert_eq!(whose("shop.svc.cluster.local"), "the cluster's zone");
        assert!(whose("coffee.shop.svc.cluster.local").starts_with("nobody: the cluster has"));
        assert!(whose("example.com").starts_with("nobody: it is a name outside"));
    }
}
