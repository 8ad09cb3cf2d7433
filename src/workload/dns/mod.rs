//! The cluster's DNS server: what CoreDNS with its kubernetes plugin and kubeadm's Corefile answers
//! of the same services, endpoint slices and pods, under the DNS specification 1.1.0 of Kubernetes,
//! as a process of its own by the name of `coredns`.
//!
//! A message's way: [`query`] reads it, [`answer()`] decides, `cluster` looks names up in the
//! [`records`], `reply` writes. All of that is pure. `server`, `tcp` and `http` move messages,
//! `control` hears of changes. Making the pod, its service and the objects is the daemon's business.
//!
//! Messages are written by a writer of our own rather than by hickory-proto, which makes an object
//! of each label and record: with 2 to 8 of them in an answer that costs more than the look-up.
//! The tests read every answer with hickory-proto.

use std::io::{self, Read, Write};

pub use self::answer::{Transport, answer};
pub use self::config::{Config, DnsConfig, Pods, Record};
pub use self::lab::{config_of, names_outside, objects, records as records_of};
pub use self::records::{Gone, Objects, PodFact, Records, Update};
pub use self::server::Bound;

mod alias;
mod answer;
mod cluster;
pub mod config;
mod control;
mod counters;
mod digest;
mod http;
mod lab;
pub mod name;
pub mod query;
pub mod records;
mod reply;
mod server;
mod tcp;
mod told;
mod unique;

use super::events::Teller;

/// The hidden verb that is this server: `labctl lab-coredns CONFIG`, a [`Config`] in JSON, with the
/// control channel as standard input.
pub const VERB: &str = "lab-coredns";

/// Serve DNS in the namespace of the calling thread until `control` ends. `control` brings lines
/// of JSON, each an [`Update`]. On standard output come two lines: `listening ADDRESS:PORT` once
/// the sockets are bound, and `ready` once the first update is served; until then names of the
/// cluster are answered with SERVFAIL, as CoreDNS does before it has seen the API. Where that is ordered,
/// [`events`](super::events) follow.
///
/// A line that cannot be read is complained about on standard error, and what was before stays in
/// force. The thread is best the process's only one: a second is started to read `control`.
///
/// # Errors
/// A name in the configuration that is none, a port that cannot be bound, a failing `control`.
pub fn run(config: &Config, control: impl Read + Send + 'static) -> io::Result<()> {
    let say = |line: &str| {
        let mut out = io::stdout().lock();
        writeln!(out, "{line}")?;
        out.flush()
    };
    run_then(config, control, |bound| say(&format!("listening {}", bound.dns)), move || say("ready"))
}

/// As [`run`], with other things to be done when it listens and when it is ready.
///
/// # Errors
/// As [`run`], and those of `listening` and `ready`.
pub fn run_then(
    config: &Config,
    control: impl Read + Send + 'static,
    listening: impl FnOnce(&Bound) -> io::Result<()>,
    ready: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<()> {
    let records = control::Shared::new(&config.dns)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    runtime.block_on(async {
        let teller = Teller::default();
        let server = server::Server::bind(config, records.clone(), teller.clone())?;
        listening(server.bound())?;
        let ended = control::listen((records, teller), config.dns.clone(), control, ready)?;
        server.serve_until(ended).await
    })
}

/// Standard error may be closed, and that is no reason to stop answering.
fn log(what: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "coredns: {what}");
}
