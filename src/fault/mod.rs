//! Faults that a lab can be given on purpose, as plain data: what each is, what a diagnosis must name and
//! where, what it does, and which question fails through it.
//!
//! [`catalogue`] has them all, one file a family. A fault *chooses* in a lab where it is to be
//! ([`site`]) and says what is to change there: what the kernel and the programs hold, as a
//! [`Twist`] of a plan, or the lab's objects, as edits. Nothing is done here: the lab's daemon does
//! it (`daemon::faults`), by the same steps as any other change.
//!
//! A fault must stay. kube-proxy's chains, the load balancers' rules and the DNS servers' processes are put
//! right by the daemon itself, so no fault takes anything from those: where such a rule is to have no
//! effect, another one stands in front of it, and where a server is to be dead, its pod is without it.

mod filters;
mod links;
mod names;
mod programs;
mod question;
mod routing;
mod services;
pub mod site;
mod twist;
mod vxlan;

use serde::{Deserialize, Serialize};

use crate::lab::names::NsName;
use crate::spec::edit::Edit;
use crate::trace::model::Cause;

pub use question::Question;
pub use site::{On, Site};
pub use twist::{Twist, apply, settle};

/// Something that can be wrong with a lab.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    /// Stable.
    pub name: &'static str,
    pub title: &'static str,
    /// What it is, in a sentence.
    pub says: &'static str,
    /// What a diagnosis must name.
    pub cause: Cause,
    /// The kind of machine where a diagnosis must find it.
    pub place: PlaceKind,
    /// What it does to a running lab.
    pub effect: &'static str,
    /// The back ends of flannel that it needs; any where there are none.
    pub backends: &'static [&'static str],
    /// What a lab must have, in words.
    pub needs: &'static str,
    #[serde(skip)]
    pub choose: fn(&Site) -> Result<Chosen, Lacks>,
}

/// A kind of machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlaceKind {
    Router,
    Host,
    Client,
    Pod,
}

impl PlaceKind {
    /// As [`NsName::kind`] says it.
    pub fn word(self) -> &'static str {
        match self {
            PlaceKind::Router => "router",
            PlaceKind::Host => "host",
            PlaceKind::Client => "client",
            PlaceKind::Pod => "pod",
        }
    }
}

/// Why a fault makes no sense in a lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lacks(pub String);

impl<T: Into<String>> From<T> for Lacks {
    fn from(why: T) -> Lacks {
        Lacks(why.into())
    }
}

/// A fault in one lab.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// What was chosen, as a person names it: `node1`, `pod a1`, `service tea-svc`.
    pub on: String,
    /// Where a diagnosis must find it.
    pub place: NsName,
    /// What is at fault there: a device, route, rule, setting or object.
    pub object: String,
    /// What is answered without the fault and not with it.
    pub question: Question,
    pub change: Change,
}

/// What is done to the lab.
#[derive(Debug, Clone)]
pub enum Change {
    /// What its machines hold.
    Machines(Vec<Twist>),
    /// Its objects, as `apply`, `delete` and `scale` change them.
    Objects(Vec<Edit>),
    /// The table of tracked connections of a host is filled.
    Connections(NsName),
}

/// Every fault, family by family.
pub fn catalogue() -> impl Iterator<Item = &'static Fault> {
    let families: [&'static [Fault]; 7] = [
        routing::FAULTS,
        links::FAULTS,
        vxlan::FAULTS,
        filters::FAULTS,
        services::FAULTS,
        names::FAULTS,
        programs::FAULTS,
    ];
    families.into_iter().flatten()
}

/// The fault of this name.
pub fn find(name: &str) -> Option<&'static Fault> {
    catalogue().find(|f| f.name == name)
}

impl Fault {
    /// Where it would be in a lab.
    ///
    /// # Errors
    /// Why it makes no sense there.
    pub fn at(&self, site: &Site) -> Result<Chosen, Lacks> {
        let backend = site.lab.cluster.backend.name();
        if !self.backends.is_empty() && !self.backends.contains(&backend) {
            return Err(format!("the lab's flannel is {backend}").into());
        }
        (self.choose)(site)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::diag::Problems;
    use crate::lab::{self, Lab};
    use crate::plan::services::{self, PodState};
    use crate::plan::{self, Plan};
    use crate::spec::load::{Input, load};

    fn lab(name: &str) -> Lab {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("labs/broken").join(name);
        lab::resolve(&load(&Input::Path(path)), None, &mut Problems::default()).expect("a valid lab")
    }

    /// What is chosen for a fault, with the plan that it is for.
    fn chosen(fault: &Fault, lab: &Lab, on: Option<On>) -> (Result<Chosen, Lacks>, Plan) {
        let mut plan = plan::plan(lab);
        let ready = PodState { alive: true, ready: true, terminating: false };
        let slices = services::slices(lab, |_| ready);
        services::add(&mut plan, &services::proxies(lab, &lab.services, &slices));
        (fault.at(&Site { lab, plan: &plan, slices: &slices, on }), plan)
    }

    #[test]
    fn every_fault_fits_a_lab_and_changes_it_where_it_says() {
        let labs = ["vxlan.yaml", "udp.yaml", "host-gw.yaml"].map(lab);
        for fault in catalogue() {
            let fits = labs.iter().filter_map(|lab| {
                let (chosen, plan) = chosen(fault, lab, None);
                chosen.ok().map(|c| (c, plan, lab))
            });
            let fits: Vec<_> = fits.collect();
            assert!(!fits.is_empty(), "{} fits no lab", fault.name);
            for (chosen, plan, lab) in fits {
                assert_eq!(chosen.place.kind(), fault.place.word(), "{}", fault.name);
                assert!(chosen.question.probe(lab).is_some(), "{}: {:?}", fault.name, chosen.question);
                if let Change::Machines(twists) = &chosen.change {
                    let mut broken = plan.clone();
                    apply(twists, &mut broken);
                    assert_ne!(broken, plan, "{} changes nothing", fault.name);
                }
            }
        }
    }

    #[test]
    fn a_place_that_cannot_be_is_told() {
        let lab = lab("vxlan.yaml");
        let service = Some(On::Service(crate::objects::ObjectKey::new("default", "tea-svc")));
        let fault = find("ip-forward-off").expect("a fault");
        assert!(chosen(fault, &lab, service).0.is_err_and(|lacks| lacks.0.contains("a fault of a machine")));
        let host = lab.find("node3").map(On::Machine);
        let (on_node3, _) = chosen(fault, &lab, host.clone());
        assert_eq!(on_node3.expect("it fits").place.path(), "host/node3");
        let selector = find("selector-wrong").expect("a fault");
        assert!(chosen(selector, &lab, host).0.is_err_and(|lacks| lacks.0.contains("a fault of a service")));
    }
}
