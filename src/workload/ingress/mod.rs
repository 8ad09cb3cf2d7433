//! Ingress controllers: the process that a controller's pod runs, told by the daemon what to do.
//!
//! Whatever serves in the end, the process is one: it hears [`Update`](crate::plan::ingress::Update)s on its standard input, keeps
//! the newest of each kind in [`Told`], answers `/healthz`, and gives both to a *driver*. The
//! driver `built_in` serves requests itself; `nginx` and `haproxy` write a configuration, start the
//! real program beside themselves and tell it of changes, as those controllers do in a cluster.
//! A driver is an async function of [`Config`] and [`Told`]; another one touches its own
//! file and the list in [`run`]. What must be done is [`crate::plan::ingress`]'s, who starts the
//! process the daemon's.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

pub use crate::lab::ingress::Driver;
use crate::plan::ingress::{Endpoints, Routing};
use crate::workload::events::Teller;
pub use report::Report;

pub mod built_in;
mod command;
mod control;
mod haproxy;
mod health;
mod nginx;
mod program;
mod report;

/// The hidden verb that is this process: `labctl lab-ingress CONFIG`, a [`Config`] in JSON, with the
/// control channel as standard input.
pub const VERB: &str = "lab-ingress";

/// Where ingress-nginx answers `/healthz`.
pub const HEALTH_PORT: u16 = 10254;

/// Which controller this is, and where it serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    pub driver: Driver,
    pub http: SocketAddr,
    pub https: SocketAddr,
    pub health: SocketAddr,
    /// Where files, sockets and pids of the real program are; the pod's own. Made where it is missing.
    pub directory: PathBuf,
}

impl Default for Config {
    /// The built-in one on the usual ports of every address.
    fn default() -> Self {
        let any = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
        Config {
            driver: Driver::BuiltIn,
            http: any(80),
            https: any(443),
            health: any(HEALTH_PORT),
            directory: PathBuf::from("/run/ingress"),
        }
    }
}

impl Config {
    /// Where a real program serves.
    pub fn place(&self) -> crate::plan::ingress::Place<'_> {
        crate::plan::ingress::Place { http: self.http, https: self.https, directory: &self.directory }
    }
}

/// What the process was told last. A receiver marks each value as seen, so every reader has a clone.
#[derive(Clone)]
pub struct Told {
    /// Nothing until the first routing came.
    pub routing: watch::Receiver<Option<Arc<Routing>>>,
    pub endpoints: watch::Receiver<Arc<Endpoints>>,
    /// To be set once what was told first is served, and again where that is no longer so;
    /// `/healthz` answers 200 while it is true.
    pub healthy: watch::Sender<bool>,
    /// Who tells of requests, where somebody wants to know.
    pub teller: Teller,
}

/// Serve until `control` ends. On standard output come [`Report`]s: `ready` once the first routing is
/// served; the access log and complaints go to standard error. The built-in controller tells
/// [`events`](super::events) of its requests, where that is ordered; a real program of its own does not.
///
/// # Errors
/// A port that cannot be bound, a program that cannot be started or ends, a failing `control`.
pub fn run(config: &Config, control: impl Read + Send + 'static) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(tokio::task::LocalSet::new().run_until(async {
        let (told, ended) = control::listen(control)?;
        let pages = health::serve(config.health, told.healthy.subscribe()).await?;
        tokio::select! {
            outcome = drive(config, told.clone()) => outcome,
            outcome = pages => outcome,
            outcome = say_ready(told.healthy.subscribe()) => outcome,
            outcome = ended => outcome.unwrap_or_else(|_| Err(io::Error::other("the control channel's reader panicked"))),
        }
    }))
}

async fn drive(config: &Config, told: Told) -> io::Result<()> {
    match &config.driver {
        // Drivers are listed here.
        Driver::BuiltIn => built_in::serve(config, told).await,
        Driver::Nginx => nginx::serve(config, told).await,
        Driver::Haproxy => haproxy::serve(config, told).await,
        Driver::Command { command, template } => command::serve(config, (command, template), told).await,
    }
}

/// Say `ready` when it is so for the first time. Ends only where that cannot be said.
async fn say_ready(mut healthy: watch::Receiver<bool>) -> io::Result<()> {
    healthy.wait_for(|is| *is).await.map_err(io::Error::other)?;
    match say(format_args!("{}", Report::Ready)) {
        Ok(()) => std::future::pending().await,
        Err(e) => Err(e),
    }
}

/// A line on standard output, at once.
pub(crate) fn say(what: std::fmt::Arguments<'_>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{what}")?;
    out.flush()
}

/// Standard error may be closed, and that is no reason to stop serving.
pub(crate) fn log(what: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "ingress: {what}");
}
