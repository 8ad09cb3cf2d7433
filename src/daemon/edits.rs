//! Changes to a running lab's objects: `apply`, `delete` and `scale`.
//!
//! Each is an edit of the lab's text, and the lab is then changed to what the text says. Pods that
//! go by it are told beforehand, as Kubernetes does it: they count as terminating in their endpoints
//! at once, their programs get SIGTERM, and they go when these have ended or their time is over. A
//! deployment does not wait for that with the pod that takes such a one's place.

use std::rc::Rc;
use std::time::Duration;

use crate::diag::Problem;
use crate::lab::Pod;
use crate::lab::names::PodId;
use crate::objects::ObjectKey;
use crate::spec::edit::{self, Edit, ObjectKind, ObjectRef};
use crate::spec::load::Text;

use super::api::{EditRequest, Summary};
use super::state::Daemon;

/// A text with these edits made to it.
fn with(mut text: Text, edits: &[Edit]) -> Text {
    edits.iter().for_each(|edit| edit::push(&mut text.edits, edit.clone()));
    text
}

impl Daemon {
    /// Change the lab's objects, which takes as long as pods that go have to end.
    pub async fn edit(self: &Rc<Self>, request: &EditRequest) -> Result<Summary, Vec<Problem>> {
        // What is refused is refused before anybody is told to end.
        let (lab, _) = self.resolve(&with(self.text(), &request.edits))?;
        let going: Vec<Pod> = self.lab().pods.iter().filter(|p| lab.pod(&p.id).is_none()).cloned().collect();
        if going.is_empty() {
            return self.change_by(&request.edits).await;
        }
        let successors = self.successors(&request.edits);
        if !successors.is_empty() {
            self.change_by(&successors).await?;
        }
        self.terminate(&going, request.grace.map(|s| Duration::from_secs(s.into()))).await;
        let changed = self.change_by(&request.edits).await;
        for pod in &going {
            self.services.set_terminating(&pod.id, false);
        }
        self.workloads.changed.notify_waiters();
        changed
    }

    /// Make edits to the text that the lab has when it is their turn.
    async fn change_by(self: &Rc<Self>, edits: &[Edit]) -> Result<Summary, Vec<Problem>> {
        self.change_with(|text| with(text, edits)).await
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

fn is_called(id: &PodId, key: &ObjectKey) -> bool {
    id.namespace.as_str() == key.namespace && id.name.as_str() == key.name
}
