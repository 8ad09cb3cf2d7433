//! `apply`, `delete` and `scale`: a running lab's objects changed beside its file, as kubectl does it.

use std::process::ExitCode;

use crate::daemon::api::{EditRequest, Event};
use crate::daemon::client::Client;
use crate::diag::{Place, Problem, Problems, codes, did_you_mean};
use crate::objects::ObjectKey;
use crate::spec::beside;
use crate::spec::edit::{self, Applied, Edit, ObjectKind, ObjectRef};
use crate::spec::load::{Text, decode_text};

use super::args::{ApplyArgs, DeleteArgs, ScaleArgs};
use super::{Done, Failure, find_lab, kube, output, show};

pub fn apply(args: &ApplyArgs) -> Done {
    let manifests = beside::read_manifests(&args.files)?;
    let client = find_lab(args.lab.as_deref())?;
    let text: Text = client.get("/labctl/v1/text")?;
    let mut before = text.clone();
    let mut done: Vec<(ObjectRef, Applied)> = Vec::new();
    for manifest in &manifests {
        done.extend(edit::applied(&decode_text(&before).file, manifest));
        edit::push(&mut before.edits, Edit::Apply(manifest.clone()));
    }
    send(&client, text, manifests.into_iter().map(Edit::Apply).collect(), None)?;
    for (object, what) in done {
        output::line(format_args!("{object} {what}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Have the daemon make these edits to a lab that has `text`.
fn send(client: &Client, mut text: Text, edits: Vec<Edit>, grace: Option<u32>) -> Result<(), Failure> {
    edits.iter().for_each(|edit| edit::push(&mut text.edits, edit.clone()));
    let loaded = decode_text(&text);
    // New texts are the last ones; of the others the faults were told when they were made.
    let applied = edits.iter().filter(|e| matches!(e, Edit::Apply(_))).count();
    let first = loaded.sources.iter().count().saturating_sub(applied);
    let is_new = |place: &Place| usize::from(place.source) >= first;
    let mut problems = Problems::default();
    let failed = match client.post::<Event>("/labctl/v1/edit", &EditRequest { edits, grace })? {
        Event::Done(summary) => {
            let new = summary.warnings.into_iter().filter(|w| w.labels.iter().any(|(place, _)| is_new(place)));
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
    Ok(())
}

pub fn delete(args: &DeleteArgs) -> Done {
    let client = find_lab(args.lab.as_deref())?;
    let text: Text = client.get("/labctl/v1/text")?;
    let mut objects = Vec::new();
    for manifest in beside::read_manifests(&args.files)? {
        if let Err(problem) = manifest.text {
            return Err(Box::new(problem).into());
        }
        objects.extend(edit::names(&manifest));
    }
    objects.extend(named(&args.what, args.namespace.as_deref())?);
    for object in &objects {
        must_not_be_built_in(object)?;
        kube::one(&client, object.kind, &object.key)?;
    }
    let grace = if args.now { Some(1) } else { args.grace_period };
    send(&client, text, objects.iter().cloned().map(Edit::Delete).collect(), grace)?;
    for ObjectRef { kind, key } in objects {
        match kind {
            kind if !kind.is_namespaced() => output::line(format_args!("{kind} \"{}\" deleted", key.name)),
            _ => output::line(format_args!("{kind} \"{}\" deleted from {} namespace", key.name, key.namespace)),
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub fn scale(args: &ScaleArgs) -> Done {
    let objects = named(&args.what, args.namespace.as_deref())?;
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

/// The objects that words such as `pod tea-1 tea-2` or `svc/tea-svc` name.
fn named(words: &[String], namespace: Option<&str>) -> Result<Vec<ObjectRef>, Box<Problem>> {
    let Some(first) = words.first() else { return Ok(Vec::new()) };
    let all: Vec<(&str, &str)> = match first.split_once('/') {
        Some(_) => words.iter().map(|w| w.split_once('/').unwrap_or((w, ""))).collect(),
        None => words[1..].iter().map(|name| (first.as_str(), name.as_str())).collect(),
    };
    if all.is_empty() {
        let problem = Problem::error(codes::TARGET_UNKNOWN, format!("`{first}` alone names nothing"));
        return Err(Box::new(problem.help("name a kind and a name, such as `service tea-svc` or `pod/tea-1`")));
    }
    all.into_iter().map(|(kind, name)| object(kind, name, namespace)).collect()
}

fn object(word: &str, name: &str, namespace: Option<&str>) -> Result<ObjectRef, Box<Problem>> {
    let Some(kind) = ObjectKind::of(word) else {
        let kinds = [
            "pod",
            "deployment",
            "service",
            "endpointslice",
            "endpoints",
            "ingress",
            "ingressclass",
            "secret",
            "configmap",
            "namespace",
        ];
        let help = match did_you_mean(word, kinds) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("there are {}", kinds.join(", ")),
        };
        let problem = Problem::error(codes::TARGET_UNKNOWN, format!("`{word}` is no kind of object"));
        return Err(Box::new(problem.help(help)));
    };
    // A name may have its namespace in front, as `get pods` of all namespaces shows it.
    let (namespace, name) = match (namespace, name.split_once('/')) {
        (None, Some((namespace, name))) => (namespace, name),
        (namespace, _) => (namespace.unwrap_or("default"), name),
    };
    let namespace = if kind.is_namespaced() { namespace } else { "default" };
    Ok(ObjectRef { kind, key: ObjectKey::new(namespace, name) })
}

/// What every lab with services has cannot be taken out.
fn must_not_be_built_in(object: &ObjectRef) -> Result<(), Box<Problem>> {
    let ObjectRef { kind, key } = object;
    let built_in: &[(ObjectKind, &str, &str)] = &[
        (ObjectKind::Service, "default", "kubernetes"),
        (ObjectKind::Service, "kube-system", "kube-dns"),
        (ObjectKind::Deployment, "kube-system", "coredns"),
        (ObjectKind::Namespace, "default", "default"),
        (ObjectKind::Namespace, "default", "kube-system"),
        (ObjectKind::Namespace, "default", "kube-public"),
        (ObjectKind::Namespace, "default", "kube-node-lease"),
    ];
    if built_in.contains(&(*kind, &key.namespace, &key.name)) {
        let problem = Problem::error(codes::TARGET_UNKNOWN, format!("{object} belongs to every lab with services"));
        return Err(Box::new(problem.help("it stays as long as there is a service")));
    }
    Ok(())
}
