//! Changes to a running lab's objects, by `apply`, `delete` and `scale`, or by `up` with another text.
//!
//! Each of the first is an edit of the lab's text, and the lab is then changed to what the text says. Pods
//! that go are told beforehand, as Kubernetes does it: they count as terminating in their endpoints
//! at once, their programs get SIGTERM, and they go when these have ended or their time is over. A
//! deployment does not wait for that with the pod that takes such a one's place.

use std::collections::HashSet;
use std::rc::Rc;
use std::time::Duration;

use crate::diag::Problem;
use crate::lab::names::{NsName, PodId};
use crate::lab::{Lab, Pod};
use crate::objects::ObjectKey;
use crate::plan::NsPlan;
use crate::plan::diff::{Op, Step};
use crate::spec::edit::{self, Edit, ObjectKind, ObjectRef};
use crate::spec::load::Text;

use super::api::{EditRequest, Summary};
use super::faults::Keep;
use super::kube::now;
use super::state::{Daemon, Preview};

/// A text with these edits made to it.
fn with(mut text: Text, edits: &[Edit]) -> Text {
    edits.iter().for_each(|edit| edit::push(&mut text.edits, edit.clone()));
    text
}

impl Daemon {
    /// Change the lab's objects, which takes as long as pods that go have to end.
    pub async fn edit(self: &Rc<Self>, request: &EditRequest) -> Result<Summary, Vec<Problem>> {
        // What is refused is refused before anybody is told to end.
        let resolved = self.resolve(&with(self.text(), &request.edits)).await?;
        for edit in &request.edits {
            if let Edit::Delete(ObjectRef { kind: ObjectKind::Secret, key }) = edit {
                self.services.ingress.authority.forget(key);
            }
        }
        let going = self.going(&resolved.lab);
        if going.is_empty() {
            return self.change_by(&request.edits).await;
        }
        let successors = self.successors(&request.edits);
        if !successors.is_empty() {
            self.change_by(&successors).await?;
        }
        let grace = request.grace.map(|s| Duration::from_secs(s.into()));
        self.change_without(Keep::All, &going, grace, |text| with(text, &request.edits)).await
    }

    /// Make the running lab what `text` says. What is in both stays untouched. Programs of pods that go
    /// have their pod's time to end.
    pub async fn change(self: &Rc<Self>, text: &Text) -> Result<Summary, Vec<Problem>> {
        let forgotten = edit::told(&self.text().edits);
        let lives = |pod: &Pod| !self.workloads.is_over(&pod.ns());
        let mut going = Vec::new();
        if self.lab().pods.iter().any(lives) {
            going = self.going(&self.resolve(text).await?.lab);
            going.retain(lives);
        }
        if going.is_empty() {
            let summary = self.change_with(Keep::None, |_| text.clone()).await?;
            return Ok(Summary { forgotten, ..summary });
        }
        // What is told of is the whole change, of which a part is made when the pods are told to end.
        let Preview { steps, services, objects } = self.steps_to(text).await?;
        let summary = self.change_without(Keep::None, &going, None, |_| text.clone()).await?;
        let changes = steps.iter().map(ToString::to_string).collect();
        Ok(Summary { steps: steps.len(), changes, services, objects, forgotten, ..summary })
    }

    /// The pods that `lab` has no more.
    fn going(&self, lab: &Lab) -> Vec<Pod> {
        let kept: HashSet<&PodId> = lab.pods.iter().map(|pod| &pod.id).collect();
        self.lab().pods.iter().filter(|pod| !kept.contains(&pod.id)).cloned().collect()
    }

    /// Tell these pods to end, and make a change by which they go when they have.
    async fn change_without(
        self: &Rc<Self>,
        faults: Keep,
        going: &[Pod],
        grace: Option<Duration>,
        edited: impl FnOnce(Text) -> Text,
    ) -> Result<Summary, Vec<Problem>> {
        self.terminate(going, grace).await;
        let changed = self.change_with(faults, edited).await;
        for pod in going {
            self.services.set_terminating(&pod.id, false);
            self.births.forget_leaving(&key(&pod.id));
        }
        let changed = match changed {
            Ok(summary) => Ok(summary),
            Err(problems) => Err(self.stay_after_all(going, problems).await),
        };
        self.workloads.changed.notify_waiters();
        changed
    }

    /// Start the programs of pods anew that were to go and stay, as the change after their end could
    /// not be made. Returns its problems, with what became of the pods.
    async fn stay_after_all(&self, pods: &[Pod], mut problems: Vec<Problem>) -> Vec<Problem> {
        let turn = self.turn().await;
        let plan = self.plan();
        let ended = |ns: &NsName| plan.get(ns).is_some_and(|n| !n.programs.is_empty()) && self.workloads.is_over(ns);
        let (names, steps): (Vec<String>, Vec<Vec<Step>>) = pods
            .iter()
            .filter(|pod| ended(&pod.ns()))
            .map(|pod| (pod.id.to_string(), plan.get(&pod.ns()).map(start_anew).unwrap_or_default()))
            .unzip();
        if names.is_empty() {
            return problems;
        }
        let done = self.run(&steps.concat()).await.is_ok();
        drop(turn);
        let so = match done {
            true => "stay, and their programs were started anew",
            false => "have ended programs: take the cause away and delete them again",
        };
        for problem in problems.iter_mut().filter(|p| p.is_error()) {
            problem.message = format!("{}; the pods that were to go ({}) {so}", problem.message, names.join(", "));
        }
        problems
    }

    /// Make edits to the text that the lab has when it is their turn.
    async fn change_by(self: &Rc<Self>, edits: &[Edit]) -> Result<Summary, Vec<Problem>> {
        self.change_with(Keep::All, |text| with(text, edits)).await
    }

    /// The edits by which a deployment gets other pods in place of those that are deleted.
    fn successors(&self, edits: &[Edit]) -> Vec<Edit> {
        let lab = self.lab();
        let owned = |key: &ObjectKey| lab.pods.iter().any(|p| p.owner.is_some() && is_called(&p.id, key));
        let of = |edit: &Edit| match edit {
            Edit::Delete(ObjectRef { kind: ObjectKind::Pod, key }) if owned(key) => Some(Edit::Replace(key.clone())),
            _ => None,
        };
        edits.iter().filter_map(of).collect()
    }

    /// Tell these pods to end, and wait until they have.
    async fn terminate(self: &Rc<Self>, pods: &[Pod], grace: Option<Duration>) {
        for pod in pods {
            self.births.note_leaving(key(&pod.id), now(), grace.unwrap_or(pod.grace));
            self.services.set_terminating(&pod.id, true);
        }
        self.sync_services().await;
        for pod in pods {
            self.workloads.tell_to_end(&pod.ns(), grace.unwrap_or(pod.grace));
        }
        loop {
            let changed = self.workloads.changed.notified();
            tokio::pin!(changed);
            // From here on no end is missed.
            changed.as_mut().enable();
            if pods.iter().all(|p| self.workloads.is_over(&p.ns())) {
                return;
            }
            changed.await;
        }
    }
}

/// The steps that put new programs in the place of those of a pod.
fn start_anew(pod: &NsPlan) -> Vec<Step> {
    let step = |op| Step { ns: pod.ns.clone(), op };
    let stop = pod.programs.iter().map(|p| step(Op::StopProgram(p.clone())));
    stop.chain(pod.programs.iter().map(|p| step(Op::StartProgram(p.clone())))).collect()
}

fn key(id: &PodId) -> ObjectKey {
    ObjectKey::new(id.namespace.as_str(), id.name.as_str())
}

fn is_called(id: &PodId, key: &ObjectKey) -> bool {
    id.namespace.as_str() == key.namespace && id.name.as_str() == key.name
}
