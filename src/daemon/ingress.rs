//! The lab's ingress controllers while it runs: what they are told, and whom its clients trust. The
//! processes are programs of their pods like others ([`super::programs`]); what they must do is pure
//! and is [`crate::plan::ingress`]'s.

use std::cell::RefCell;
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
    /// Endpoints and routing, a line each.
    told: watch::Sender<Option<Arc<[u8]>>>,
    /// What was told last, and what was told before that.
    routings: RefCell<[Routing; 2]>,
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
        IngressLayer { authority: Authority::default(), told: watch::Sender::new(None), routings: RefCell::default() }
    }
}

impl IngressLayer {
    /// Tell all controllers, those that come later too, what to do: `endpoints` finds who serves a
    /// routing. Endpoints go first, so that a controller that hears of a backend knows who serves it,
    /// and with those of the routing before, by which it serves until the new one is in force: it may
    /// take time, or be refused.
    fn tell(&self, routing: Routing, endpoints: impl Fn(&Routing) -> Endpoints) {
        let [now, before] = &mut *self.routings.borrow_mut();
        if *now != routing {
            *before = std::mem::replace(now, routing);
        }
        let mut all = endpoints(before);
        all.extend(endpoints(now));
        let updates = [Update::Endpoints(all), Update::Routing(Box::new(now.clone()))];
        let mut lines = Vec::new();
        for update in updates {
            let Ok(line) = serde_json::to_vec(&update) else { return };
            lines.extend(line);
            lines.push(b'\n');
        }
        self.told.send_if_modified(|old| {
            let differs = old.as_deref() != Some(lines.as_slice());
            *old = Some(lines.into());
            differs
        });
    }

    /// There is nothing to serve any more. Who comes later is not to begin with what was.
    fn forget(&self) {
        self.told.send_replace(None);
        *self.routings.borrow_mut() = Default::default();
    }
}

impl Daemon {
    /// How a program of labctl's own is started, and what it is told.
    pub(super) fn own(&self, program: &Program) -> io::Result<Option<Own>> {
        let Some(Role::Ingress(driver)) = &program.role else { return Ok(None) };
        let layer = &self.services.ingress;
        let config = Config { driver: driver.clone(), ..Config::default() };
        let config = serde_json::to_string(&config).map_err(io::Error::other)?;
        let command = ["/proc/self/exe", VERB, &config].map(str::to_owned).to_vec();
        Ok(Some(Own { command, feed: layer.told.subscribe() }))
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
                let mut bundle = fs::read(path)?;
                bundle.push(b'\n');
                bundle.extend(authority.as_bytes());
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
            return self.services.ingress.forget();
        }
        self.services.ingress.tell(self.routing_of(lab), |routing| plan::endpoints(routing, &lab.services, slices));
    }
}
