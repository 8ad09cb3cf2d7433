//! `apply` and `scale`: a running lab's objects changed beside its file, as kubectl does it.

use std::process::ExitCode;

use crate::daemon::api::{EditRequest, Event};
use crate::daemon::client::Client;
use crate::diag::{Place, Problem, Problems, codes};
use crate::spec::beside;
use crate::spec::edit::{self, Applied, Edit, ObjectKind, ObjectRef};
use crate::spec::load::{Text, decode_text};

use super::args::{ApplyArgs, ScaleArgs};
use super::{Done, Failure, find_lab, kube, named, output, show, up};

/// How long a new cluster DNS may take to serve, in seconds.
const DNS_SECONDS: u64 = 5;

pub fn apply(args: &ApplyArgs) -> Done {
    let mut manifests = beside::read_manifests(&args.files)?;
    let client = find_lab(args.lab.as_deref())?;
    if let Some(namespace) = &args.namespace {
        manifests.iter_mut().for_each(|m| m.namespace = Some(namespace.clone()));
        let is_it = |o: ObjectRef| o.kind == ObjectKind::Namespace && o.key.name == *namespace;
        if !manifests.iter().flat_map(edit::names).any(is_it) {
            kube::check_namespace(&client, namespace)?;
        }
    }
    let text: Text = client.get("/labctl/v1/text")?;
    let mut before = text.clone();
    let mut done: Vec<(ObjectRef, Applied)> = Vec::new();
    for manifest in &manifests {
        done.extend(edit::applied(&decode_text(&before).file, manifest));
        edit::push(&mut before.edits, Edit::Apply(manifest.clone()));
    }
    send(&client, text, manifests.into_iter().map(Edit::Apply).collect(), None)?;
    if done.is_empty() {
        output::line(format_args!("nothing was applied: there is no object in it that a lab acts on"));
    }
    for (object, what) in done {
        output::line(format_args!("{object} {what}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Have the daemon make these edits to a lab that has `text`.
pub fn send(client: &Client, mut text: Text, edits: Vec<Edit>, grace: Option<u32>) -> Result<(), Failure> {
    edits.iter().for_each(|edit| edit::push(&mut text.edits, edit.clone()));
    let loaded = decode_text(&text);
    // New texts are the last ones; of the others the faults were told when they were made.
    let applied = edits.iter().filter(|e| matches!(e, Edit::Apply(_))).count();
    let first = loaded.sources.iter().count().saturating_sub(applied);
    let is_new = |place: &Place| usize::from(place.source) >= first;
    let mut problems = Problems::default();
    let mut has_new_dns = false;
    let failed = match client.post::<Event>("/labctl/v1/edit", &EditRequest { edits, grace })? {
        Event::Done(summary) => {
            has_new_dns = summary.changes.iter().any(|change| change.contains("start coredns"));
            // What has no place is about the lab as it is now, such as a probe that lost its target.
            let tells = |w: &Problem| w.labels.is_empty() || w.labels.iter().any(|(place, _)| is_new(place));
            let new = summary.warnings.into_iter().filter(tells);
            problems.extend(new);
            false
        }
        Event::Failed(found) => {
            problems.extend(found.into_iter().filter(Problem::is_error));
            true
        }
        _ => false,
    };
    if failed {
        return Err(Failure::new(problems, loaded.sources));
    }
    show(&problems, &loaded.sources);
    if has_new_dns {
        // With its first service a lab gets DNS, and who asks at once for a name is to be answered. Where a pod is
        // in trouble, that is not this change's affair.
        let _ = up::await_ready(client, DNS_SECONDS, "");
    }
    Ok(())
}

pub fn scale(args: &ScaleArgs) -> Done {
    let objects = named::objects(&args.what, args.namespace.as_deref())?;
    let client = find_lab(args.lab.as_deref())?;
    let text: Text = client.get("/labctl/v1/text")?;
    for object in &objects {
        if object.kind != ObjectKind::Deployment {
            let message = format!("a {} has no replicas", object.kind);
            let help = "scale a deployment: `labctl scale deployment NAME --replicas N`";
            return Err(Box::new(Problem::error(codes::TARGET_UNKNOWN, message).help(help)).into());
        }
        kube::one(&client, object.kind, &object.key)?;
    }
    let replicas = args.replicas;
    let edits = objects.iter().map(|o| Edit::Scale { deployment: o.key.clone(), replicas }).collect();
    send(&client, text, edits, None)?;
    for object in objects {
        output::line(format_args!("{object} scaled"));
    }
    Ok(ExitCode::SUCCESS)
}
