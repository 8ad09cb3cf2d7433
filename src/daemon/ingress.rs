//! The lab's ingress controllers while it runs: what they are told, and whom its clients trust. The
//! processes are programs of their pods like others ([`super::programs`]); what they must do is pure
//! and is [`crate::plan::ingress`]'s.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::watch;

use crate::diag::{Problem, codes};
use crate::kernel::enter::Entry;
use crate::lab::Lab;
use crate::lab::names::NsName;
use crate::objects::EndpointSlice;
use crate::plan::ingress::{self as plan, Endpoints, Routing, Update};
use crate::plan::{Program, Role};
use crate::workload::ingress::{Config, VERB};

use super::authority::Authority;
use super::programs::Own;
use super::state::Daemon;

/// What is known of the ingress controllers of a running lab.
pub struct IngressLayer {
    pub authority: Authority,
    routing: watch::Sender<Option<Arc<[u8]>>>,
    endpoints: watch::Sender<Option<Arc<[u8]>>>,
}

/// Where programs of the usual distributions look for authorities: Debian and its like, Fedora and its
/// like, SUSE, Alpine.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

impl Default for IngressLayer {
    fn default() -> Self {
        let nothing = || watch::Sender::new(None);
        IngressLayer { authority: Authority::default(), routing: nothing(), endpoints: nothing() }
    }
}

impl IngressLayer {
    /// Tell all controllers, those that come later too, what to do. What they know already is not
    /// told again: a new routing may be a reload.
    fn tell(&self, routing: Routing, endpoints: Endpoints) {
        // Endpoints first: a controller that hears of a backend is to know who serves it.
        send(&self.endpoints, &Update::Endpoints(endpoints));
        send(&self.routing, &Update::Routing(Box::new(routing)));
    }
}

fn send(to: &watch::Sender<Option<Arc<[u8]>>>, update: &Update) {
    let Ok(mut line) = serde_json::to_vec(update) else { return };
    line.push(b'\n');
    to.send_if_modified(|old| {
        let new = old.as_deref() != Some(line.as_slice());
        if new {
            *old = Some(line.into());
        }
        new
    });
}

impl Daemon {
    /// How a program of labctl's own is started, and what it is told.
    pub(super) fn own(&self, program: &Program) -> io::Result<Option<Own>> {
        let Some(Role::Ingress(driver)) = &program.role else { return Ok(None) };
        let layer = &self.services.ingress;
        let config = Config { driver: driver.clone(), ..Config::default() };
        let config = serde_json::to_string(&config).map_err(io::Error::other)?;
        let command = ["/proc/self/exe", VERB, &config].map(str::to_owned).to_vec();
        Ok(Some(Own { command, feeds: vec![layer.endpoints.subscribe(), layer.routing.subscribe()] }))
    }

    /// The lab's authority as its clients' probes trust it.
    pub fn trusted(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        if let Some(pem) = self.authority_pem() {
            let certificate = CertificateDer::from_pem_slice(pem.as_bytes());
            // What was just written can be read.
            let _ = certificate.map(|certificate| roots.add(certificate));
        }
        Arc::new(roots)
    }

    /// The certificate of the lab's authority, where the lab has an ingress controller.
    pub fn authority_pem(&self) -> Option<String> {
        self.lab().ingress.as_ref()?;
        self.services.ingress.authority.pem().ok()
    }

    /// A client's way in with the lab's authority among those that the machine trusts.
    pub(super) fn with_authority(&self, mut entry: Entry) -> io::Result<Entry> {
        let Some(authority) = self.authority_pem() else { return Ok(entry) };
        for path in BUNDLES.iter().filter(|path| Path::new(path).is_file()) {
            let own = entry.dir.join(path.trim_start_matches('/'));
            if !own.exists() {
                let mut bundle = fs::read_to_string(path)?;
                bundle.push_str(&authority);
                if let Some(parent) = own.parent() {
                    fs::create_dir_all(parent)?;
                }
                fs::write(&own, bundle)?;
            }
            entry.files.push((*path).to_owned());
        }
        Ok(entry)
    }

    /// What the controllers of `lab` must do.
    pub fn routing_of(&self, lab: &Lab) -> Routing {
        let Some(layer) = &lab.ingress else { return Routing::default() };
        let authority = &self.services.ingress.authority;
        // Without randomness there are no certificates, and the controller says what it lacks.
        let signed = layer
            .generated
            .iter()
            .filter_map(|(secret, names)| Some((secret.to_string(), authority.certificate(secret, names).ok()?)));
        let certificates = plan::brought(lab).into_iter().chain(signed).collect();
        plan::of_lab(lab, &certificates, authority.fake().ok().as_ref())
    }

    /// The configuration that the controller in this pod was told, in its program's own words.
    ///
    /// # Errors
    /// A machine that is no pod of an ingress controller.
    pub fn ingress_config(&self, ns: &NsName) -> Result<String, Box<Problem>> {
        let lab = self.lab();
        let plan = self.plan();
        let mut programs = plan.get(ns).into_iter().flat_map(|n| &n.programs);
        let Some(Role::Ingress(driver)) = programs.find_map(|p| p.role.as_ref()) else {
            let problem = Problem::error(codes::TARGET_UNKNOWN, format!("{ns} is no pod of an ingress controller"));
            let help = "`labctl get pods -n ingress` shows those, where the lab has an ingress";
            return Err(Box::new(problem.help(help)));
        };
        let routing = self.routing_of(&lab);
        let endpoints = plan::endpoints(&routing, &lab.services, &self.services.slices());
        Ok(plan::text(driver, (&routing, &endpoints), Config::default().place()))
    }

    /// Tell the ingress controllers what there is.
    pub fn tell_ingress(&self, lab: &Lab, slices: &[EndpointSlice]) {
        if lab.ingress.is_none() {
            return;
        }
        let routing = self.routing_of(lab);
        let endpoints = plan::endpoints(&routing, &lab.services, slices);
        self.services.ingress.tell(routing, endpoints);
    }
}
