//! Running a lab's probes: questions asked from inside its namespaces, and what came of them.
//!
//! Each kind of probe has a file; [`expect`] judges what came back, [`report`] shows it. How a
//! probe is written and what its names mean is settled before, in `spec` and `lab`. Probes use
//! sockets made in the asker's namespace, so they take the way a program there would take.

mod dns;
mod exec;
pub mod expect;
mod http;
mod icmp;
mod identity;
mod mtu;
mod name;
mod outcome;
pub mod picture;
mod ping;
pub mod report;
mod run;
mod socket;
mod stream;
pub mod tls;
mod udp;

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::RootCertStore;
use socket2::Socket;
use tokio::time::Instant;

use crate::kernel::ns::NetNs;
use crate::kernel::process::Launch;
use crate::lab::Lab;
use crate::lab::names::NsName;
use crate::lab::probe::Expect;
use crate::spec::probe::FailureName;

pub use dns::rcode;
pub(crate) use dns::{
    Question as DnsQuestion, Reply as DnsReply, no as no_record, query as dns_query, reply as dns_reply,
};
pub use http::{hung_up, refused};
pub use name::{by_books, by_hosts_file};
pub use outcome::{Details, Failure, Kind, Outcome, Verdict, asked};
pub use run::run_all;
pub use socket::NOT_PERMITTED;

/// Makes what runs a program in a namespace, with that namespace's hostname, files and processes.
pub type Enter = Box<dyn Fn(&NsName, &[String]) -> io::Result<Launch> + Send + Sync>;

/// Where probes are run.
pub struct Field {
    pub lab: Arc<Lab>,
    pub namespaces: HashMap<NsName, NetNs>,
    pub enter: Enter,
    /// The lab's authority, whom its clients trust; nobody where it has signed nothing.
    pub authority: Arc<RootCertStore>,
}

impl Field {
    /// Every address of a namespace that others can meet: a host has, besides its own, the
    /// first two of its pod subnet, on flannel's device and on cni0.
    pub fn addresses(&self, ns: &NsName) -> Vec<IpAddr> {
        match ns {
            NsName::Router => self.lab.networks.iter().map(|n| n.gateway.addr()).collect(),
            NsName::Host(name) => self.lab.host(name).map_or_else(Vec::new, |host| {
                let bridge = host.pod_cidr.hosts().next().filter(|ip| *ip != host.pod_cidr.network());
                [host.ip(), host.pod_cidr.network()].into_iter().chain(bridge).collect()
            }),
            other => self.lab.address_of(other).into_iter().collect(),
        }
    }

    /// Whose certificates a machine believes: those of the cluster's own machines are told nothing.
    fn trusted_by(&self, ns: &NsName) -> Arc<RootCertStore> {
        match ns {
            NsName::Client(_) => Arc::clone(&self.authority),
            _ => Arc::new(RootCertStore::empty()),
        }
    }

    fn is_own(&self, ns: &NsName, ip: IpAddr) -> bool {
        ip.is_loopback() || self.addresses(ns).contains(&ip)
    }

    /// An address with the name of whom it belongs to, where it does.
    fn who(&self, ip: IpAddr) -> String {
        match self.lab.namespaces().find(|ns| self.addresses(ns).contains(&ip)) {
            Some(owner) => format!("{ip} ({owner})"),
            None => ip.to_string(),
        }
    }
}

/// A socket that something was asked with, by what its packets have of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Used {
    /// The source port.
    Tcp(u16),
    Udp(u16),
    /// The identifier of an ICMP echo request.
    Echo(u16),
}

/// What a DNS server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookedUp {
    /// The name as it was asked for.
    pub name: String,
    /// The response code's mnemonic.
    pub rcode: String,
}

/// One try of a probe, as the kinds see it.
struct Asking<'a> {
    /// With what was asked so far, of DNS servers too.
    used: Mutex<Vec<Used>>,
    /// What DNS servers have answered so far.
    looked_up: Mutex<Vec<LookedUp>>,
    field: &'a Field,
    from: &'a NsName,
    ns: &'a NetNs,
    expect: &'a Expect,
    deadline: Instant,
    limit: Duration,
}

impl Asking<'_> {
    fn note(&self, used: Used) {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).push(used);
    }

    fn note_answer(&self, name: &str, rcode: &str) {
        let answer = LookedUp { name: name.to_owned(), rcode: rcode.to_owned() };
        self.looked_up.lock().unwrap_or_else(PoisonError::into_inner).push(answer);
    }

    /// Note the port that the kernel gave a connected socket, where it did.
    fn note_port(&self, socket: &Socket, used: fn(u16) -> Used) {
        let local = socket.local_addr().ok().and_then(|a| a.as_socket());
        local.filter(|a| a.port() > 0).into_iter().for_each(|a| self.note(used(a.port())));
    }

    /// The future's result, or `None` where the try's time is up before.
    async fn within<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout_at(self.deadline, future).await.ok()
    }

    /// A failure because nothing came in time; `what` says what was missed, and of whom.
    fn silence(&self, kind: FailureName, what: impl std::fmt::Display) -> Failure {
        Failure::new(kind, format!("{what} within {} s", self.limit.as_secs_f64()))
    }

    /// Whether the probe looks at what an answer says, so that one must be had.
    fn wants_words(&self) -> bool {
        let Expect { body, pod, source, distribution, .. } = self.expect;
        body.is_some() || pod.is_some() || source.is_some() || distribution.is_some()
    }
}
