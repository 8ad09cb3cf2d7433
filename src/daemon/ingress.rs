//! The lab's ingress controllers while it runs: what they are told, and whom its machines trust. The
//! processes are programs of their pods like others ([`super::programs`]); what they must do is pure
//! and is [`crate::plan::ingress`]'s.

use std::fs;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::watch;

use crate::diag::{Problem, codes};
use crate::kernel::enter::Entry;
use crate::lab::ingress::Unserved;
use crate::lab::names::NsName;
use crate::lab::{Lab, Pod};
use crate::objects::{EndpointSlice, ObjectKey};
use crate::plan::ingress::{self as plan, Endpoints, Routing, Update};
use crate::plan::{Program, Role};
use crate::workload::ingress::{Config, VERB};

use super::api::ControllerConfig;
use super::authority::Authority;
use super::controllers::{Controllers, Standing};
use super::programs::Own;
use super::state::Daemon;

/// What is known of the ingress controllers of a running lab.
pub struct IngressLayer {
    pub authority: Authority,
    /// Endpoints and routing, a line each.
    told: watch::Sender<Option<Arc<[u8]>>>,
    pub controllers: Controllers,
}

/// How many bad certificates are told of at once.
const MOST_NOTES: usize = 20;
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
        IngressLayer {
            authority: Authority::default(),
            told: watch::Sender::new(None),
            controllers: Controllers::default(),
        }
    }
}

impl IngressLayer {
    /// Tell all controllers, those that come later too, what to do: `endpoints` finds who serves a
    /// routing. Endpoints go first, so that a controller that hears of a backend knows who serves it,
    /// and with those of earlier routings, by which controllers serve until the new one is in force: it
    /// may take time, or be refused.
    fn tell(&self, routing: Routing, endpoints: impl Fn(&Routing) -> Endpoints) {
        let all = self.controllers.tell(routing.clone()).iter().flat_map(|r| endpoints(r)).collect();
        let updates = [Update::Endpoints(all), Update::Routing(Box::new(routing))];
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
        self.controllers.forget();
    }
}

impl Daemon {
    /// How a program of labctl's own is started, and what it is told.
    pub(super) fn own(&self, ns: &NsName, program: &Program) -> io::Result<Option<Own>> {
        let Some(Role::Ingress(driver)) = &program.role else { return Ok(None) };
        let layer = &self.services.ingress;
        let config = Config { driver: driver.clone(), ..Config::default() };
        let config = serde_json::to_string(&config).map_err(io::Error::other)?;
        let command = ["/proc/self/exe", VERB, &config].map(str::to_owned).to_vec();
        let telling = Rc::clone(&self.workloads.telling);
        Ok(Some(Own { command, feed: layer.told.subscribe(), hear: layer.controllers.hearing(ns), telling }))
    }

    /// The lab's authority as probes trust it.
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

    /// A way in with the lab's authority among those that the machine trusts, as if it were a public one.
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

    /// The configuration of the controller in this pod, in its program's own words: the one in force, or
    /// the `wanted` one.
    ///
    /// # Errors
    /// A machine that is no pod of an ingress controller.
    pub fn ingress_config(&self, ns: &NsName, wanted: bool) -> Result<ControllerConfig, Box<Problem>> {
        let lab = self.lab();
        let plan = self.plan();
        let mut programs = plan.get(ns).into_iter().flat_map(|n| &n.programs);
        let Some(Role::Ingress(driver)) = programs.find_map(|p| p.role.as_ref()) else {
            let problem = Problem::error(codes::TARGET_UNKNOWN, format!("{ns} is no pod of an ingress controller"));
            let help = "`labctl get pods -n ingress` shows those, where the lab has an ingress";
            return Err(Box::new(problem.help(help)));
        };
        let Standing { in_force, refused } = self.services.ingress.controllers.standing(ns);
        let routing = match in_force.filter(|_| !wanted) {
            Some(in_force) => Routing::clone(&in_force),
            None => self.routing_of(&lab),
        };
        let endpoints = plan::endpoints(&routing, &lab.services, &self.services.slices());
        Ok(ControllerConfig { text: plan::text(driver, (&routing, &endpoints), Config::default().place()), refused })
    }

    /// What the controller in this pod refuses, in words; nothing where it serves what it was told.
    pub fn refused_by(&self, ns: &NsName) -> Option<String> {
        let Standing { in_force, refused } = self.services.ingress.controllers.standing(ns);
        let serves = match in_force {
            Some(_) => "the earlier one is still served",
            None => "nothing is served yet",
        };
        Some(format!("the new configuration is refused, {serves}: {}", refused?))
    }

    /// What is wrong with the controllers' configurations, in words.
    pub fn refusals(&self, lab: &Lab) -> Vec<String> {
        let told = |pod: &Pod| Some(format!("pod {}: {}", pod.id, self.refused_by(&pod.ns())?));
        lab.pods.iter().filter_map(told).collect()
    }

    /// Which certificates of ingresses that fit are refused by clients, a line each and at most `MOST_NOTES`.
    pub fn certificate_notes(&self, lab: &Lab, fits: impl Fn(&ObjectKey) -> bool) -> Vec<String> {
        let Some(layer) = &lab.ingress else { return Vec::new() };
        let now = SystemTime::now();
        let all = layer.ingresses.iter().map(|ingress| (ObjectKey::of(&ingress.metadata), ingress));
        let told = all.filter(|(key, _)| fits(key)).flat_map(|(key, ingress)| {
            let bad = layer.bad_certificates(ingress, now);
            bad.into_iter().map(move |why| format!("ingress {key}: {why}"))
        });
        told.take(MOST_NOTES).collect()
    }

    /// What keeps an ingress from being served as it is written, in words.
    pub fn trouble_of(&self, key: &ObjectKey) -> Vec<String> {
        let lab = self.lab();
        let Some(layer) = &lab.ingress else { return Vec::new() };
        let is_it = |u: &&Unserved| ObjectKey::of(&u.ingress.metadata) == *key;
        let nobody = |u: &Unserved| {
            format!(
                "nobody serves it: it is of the class {}, which the controller {} does not serve",
                u.class, layer.controller.driver
            )
        };
        if let Some(unserved) = layer.unserved.iter().find(is_it) {
            return vec![nobody(unserved)];
        }
        let prefix = format!("ingress {key}: ");
        let own = self.certificate_notes(&lab, |k| k == key).into_iter();
        let own = own.map(|line| line.strip_prefix(&prefix).map(str::to_owned).unwrap_or(line));
        own.chain(self.refusals(&lab)).collect()
    }

    /// Tell the ingress controllers what there is.
    pub fn tell_ingress(&self, lab: &Lab, slices: &[EndpointSlice]) {
        if lab.ingress.is_none() {
            return self.services.ingress.forget();
        }
        self.services.ingress.tell(self.routing_of(lab), |routing| plan::endpoints(routing, &lab.services, slices));
    }
}
