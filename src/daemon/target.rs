//! What a lab is to become: a text understood, and all that follows from it with the pods and hosts
//! as they are at the moment, worked out on threads of their own. With ten thousand services that
//! takes a good part of a second, for which nobody else of the lab is to wait. Bringing the lab there is
//! [`super::state`]'s.

use std::collections::HashMap;
use std::sync::Arc;

use crate::diag::{Problem, codes};
use crate::lab::names::PodId;
use crate::lab::{self, Lab, Pod, Run};
use crate::objects::EndpointSlice;
use crate::plan::balancers::Balancers;
use crate::plan::services::{self, PodState, Proxies};
use crate::plan::{self, Plan};
use crate::spec::edit::Edit;
use crate::spec::load::{Text, decode_text};

use super::objects;
use super::state::Daemon;

/// A text as it was understood.
pub struct Resolved {
    pub lab: Arc<Lab>,
    pub warnings: Vec<Problem>,
    /// The text's edits without those that did nothing.
    pub edits: Vec<Edit>,
}

/// What follows from a lab.
pub struct Target {
    /// The plan without what changes while the lab runs.
    pub bare: Plan,
    /// The whole plan.
    pub plan: Plan,
    pub slices: Vec<EndpointSlice>,
    pub proxies: Proxies,
    pub balancers: Balancers,
}

/// What each pod is up to.
pub type PodStates = HashMap<PodId, PodState>;

impl Daemon {
    /// The lab that `text` would make of this one.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub(super) async fn resolve(&self, text: &Text) -> Result<Resolved, Vec<Problem>> {
        let (text, before) = (text.clone(), self.lab());
        let resolved = tokio::task::spawn_blocking(move || {
            let mut loaded = decode_text(&text);
            let mut problems = std::mem::take(&mut loaded.problems);
            let edits = std::mem::take(&mut loaded.edits);
            match lab::resolve(&loaded, Some(&before), &mut problems) {
                Some(lab) => Ok(Resolved { lab: Arc::new(lab), warnings: problems.into_iter().collect(), edits }),
                None => Err(problems.into_iter().collect()),
            }
        });
        resolved.await.unwrap_or_else(|e| Err(vec![panicked(&e)]))
    }

    /// What follows from `lab` with its pods and hosts as they are now.
    ///
    /// # Errors
    /// A panic while it was worked out.
    pub(super) async fn target(&self, lab: &Arc<Lab>) -> Result<Target, Vec<Problem>> {
        let (lab, states, healthy) = (Arc::clone(lab), self.pod_states(lab), self.services.balancers.healthy());
        let target = tokio::task::spawn_blocking(move || {
            let bare = plan::plan(&lab);
            let slices = services::slices(&lab, |id| states.get(id).copied().unwrap_or_default());
            let proxies = services::proxies(&lab, &lab.services, &slices);
            let balancers = super::balancers::planned(&lab, &healthy);
            let mut plan = bare.clone();
            plan::services::add(&mut plan, &proxies);
            plan::balancers::add(&mut plan, &balancers);
            Target { bare, plan, slices, proxies, balancers }
        });
        target.await.map_err(|e| vec![panicked(&e)])
    }

    /// What the pods of `lab` are up to. Those that are still to be started count as what they will be
    /// at once: the echo server answers before `up` returns.
    pub(super) fn pod_states(&self, lab: &Lab) -> PodStates {
        let now = self.lab();
        let built = self.is_built();
        let there: HashMap<&PodId, &Pod> = now.pods.iter().filter(|_| built).map(|pod| (&pod.id, pod)).collect();
        let state = |pod: &Pod| {
            let terminating = self.services.is_terminating(&pod.id);
            if there.get(&pod.id).is_some_and(|p| p.containers == pod.containers) {
                let alive = !matches!(objects::pod_phase(self, pod), "Failed" | "Succeeded");
                return PodState { alive, ready: objects::is_ready(self, pod), terminating };
            }
            let ready = pod.containers.iter().all(|c| c.run == Run::Echo && c.readiness.is_none());
            PodState { alive: true, ready, terminating }
        };
        lab.pods.iter().map(|pod| (pod.id.clone(), state(pod))).collect()
    }
}

fn panicked(error: &tokio::task::JoinError) -> Problem {
    Problem::error(codes::KERNEL_REFUSED, format!("what the lab is to become cannot be worked out: {error}"))
}
