//! What the cluster's DNS will answer: the server itself is asked, in this process, with what it will be told of the
//! lab.

use std::net::SocketAddr;

use hickory_proto::op::{Message, Query};

use crate::lab::Lab;
use crate::objects::EndpointSlice;
use crate::plan::Plan;
use crate::probe::{DnsQuestion, DnsReply, LookedUp, dns_query, dns_reply, no_record};
use crate::workload::dns::{Records, Transport, answer, records_of};

/// That a name has no address or no such record.
pub struct Unresolved {
    /// In words.
    pub says: String,
    /// What servers answered; nothing where none was asked or none answers.
    pub answers: Vec<LookedUp>,
}

/// The server of a lab, as it will answer.
pub struct Dns(Records);

impl Dns {
    /// Nothing where the lab has no DNS.
    pub fn of(lab: &Lab, plan: &Plan, slices: &[EndpointSlice]) -> Option<Dns> {
        let server = plan.namespaces.iter().find_map(|ns| ns.dns.as_ref())?;
        records_of(lab, slices, server).ok().map(Dns)
    }

    /// Ask for each of `names` until one has the record, as a resolver does.
    ///
    /// # Errors
    /// That none has it.
    pub fn ask(&self, server: SocketAddr, names: &[String], record: &str) -> Result<DnsReply, Unresolved> {
        let mut refused = Vec::new();
        for name in names {
            match self.one(&DnsQuestion { name, record, tcp: true }) {
                Some(reply) if !reply.records.is_empty() => return Ok(reply),
                Some(reply) => refused.push((reply.rcode, name.clone())),
                None => refused.push(("FORMERR".to_owned(), name.clone())),
            }
        }
        let says = no_record(server, &refused, record);
        let answers = refused.into_iter().map(|(rcode, name)| LookedUp { name, rcode }).collect();
        Err(Unresolved { says, answers })
    }

    fn one(&self, question: &DnsQuestion) -> Option<DnsReply> {
        let (message, bytes) = dns_query(question).ok()?;
        let mut response = Vec::new();
        answer(&self.0, &bytes, Transport::Tcp, &mut response)?;
        Some(dns_reply(&Message::from_vec(&response).ok()?, message.queries.first().map(Query::query_type)))
    }
}
