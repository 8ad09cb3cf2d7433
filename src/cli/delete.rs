//! `delete`: objects are taken out of a running lab. One that is not there does not keep the others.

use std::process::ExitCode;

use crate::daemon::client::Client;
use crate::diag::{Problem, Problems, Sources, codes};
use crate::lab::dns::{DNS_DEPLOYMENT, DNS_NAMESPACE, DNS_SERVICE};
use crate::lab::ingress::{INGRESS_NAME, INGRESS_NAMESPACE};
use crate::spec::beside;
use crate::spec::edit::{self, Edit, ObjectKind, ObjectRef};
use crate::spec::load::Text;

use super::args::DeleteArgs;
use super::{DIFFERED, Done, Failure, apply, find_lab, kube, named, output, point_to_explain, show};

pub fn run(args: &DeleteArgs) -> Done {
    let client = find_lab(args.lab.as_deref())?;
    let text: Text = client.get("/labctl/v1/text")?;
    if let Some(namespace) = &args.namespace {
        kube::check_namespace(&client, namespace)?;
    }
    let objects = objects(args)?;
    objects.iter().try_for_each(must_not_be_built_in)?;
    let (there, mut missing) = look_up(&client, objects)?;
    if args.ignore_not_found {
        missing = Problems::default();
    }
    if there.is_empty() && !missing.is_empty() {
        return Err(Failure::new(missing, Sources::default()));
    }
    let grace = if args.now { Some(1) } else { args.grace_period };
    if !there.is_empty() {
        apply::send(&client, text, there.iter().cloned().map(Edit::Delete).collect(), grace)?;
    }
    for object in &there {
        tell(object, signed_anew(&client, object)?);
    }
    show(&missing, &Sources::default());
    point_to_explain(missing.iter());
    // As kubectl has it: what could be done is done, and the exit code says that it was not all.
    Ok(if missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(DIFFERED) })
}

fn objects(args: &DeleteArgs) -> Result<Vec<ObjectRef>, Box<Problem>> {
    let mut all = Vec::new();
    for mut manifest in beside::read_manifests(&args.files)? {
        if let Err(problem) = manifest.text {
            return Err(Box::new(problem));
        }
        manifest.namespace.clone_from(&args.namespace);
        all.extend(edit::names(&manifest));
    }
    all.extend(named::objects(&args.what, args.namespace.as_deref())?);
    Ok(all)
}

/// Those that are in the lab, and why the others are not.
fn look_up(client: &Client, objects: Vec<ObjectRef>) -> Result<(Vec<ObjectRef>, Problems), Box<Problem>> {
    let (mut there, mut missing) = (Vec::new(), Problems::default());
    for object in objects {
        match kube::one(client, object.kind, &object.key) {
            Ok(_) => there.push(object),
            Err(problem) if problem.code == codes::TARGET_UNKNOWN => missing.push(*problem),
            Err(problem) => return Err(problem),
        }
    }
    Ok((there, missing))
}

/// Whether the lab makes the object anew: a secret that ingresses of its file name and nobody brings.
fn signed_anew(client: &Client, object: &ObjectRef) -> Result<bool, Box<Problem>> {
    if object.kind != ObjectKind::Secret {
        return Ok(false);
    }
    match kube::one(client, object.kind, &object.key) {
        Ok(_) => Ok(true),
        Err(problem) if problem.code == codes::TARGET_UNKNOWN => Ok(false),
        Err(problem) => Err(problem),
    }
}

fn tell(object: &ObjectRef, anew: bool) {
    let ObjectRef { kind, key } = object;
    match kind {
        _ if anew => output::line(format_args!(
            "{kind} \"{}\" deleted from {} namespace; the lab has signed another one, as its file asks for it",
            key.name, key.namespace
        )),
        kind if !kind.is_namespaced() => output::line(format_args!("{kind} \"{}\" deleted", key.name)),
        _ => output::line(format_args!("{kind} \"{}\" deleted from {} namespace", key.name, key.namespace)),
    }
}

/// What every lab with services has cannot be taken out.
fn must_not_be_built_in(object: &ObjectRef) -> Result<(), Box<Problem>> {
    let ObjectRef { kind, key } = object;
    let built_in: &[(ObjectKind, &str, &str)] = &[
        (ObjectKind::Service, "default", "kubernetes"),
        (ObjectKind::Service, DNS_NAMESPACE, DNS_SERVICE),
        (ObjectKind::Deployment, DNS_NAMESPACE, DNS_DEPLOYMENT),
        (ObjectKind::Namespace, "default", "default"),
        (ObjectKind::Namespace, "default", DNS_NAMESPACE),
        (ObjectKind::Namespace, "default", "kube-public"),
        (ObjectKind::Namespace, "default", "kube-node-lease"),
    ];
    let controllers: &[(ObjectKind, &str, &str)] = &[
        (ObjectKind::Service, INGRESS_NAMESPACE, INGRESS_NAME),
        (ObjectKind::Deployment, INGRESS_NAMESPACE, INGRESS_NAME),
        (ObjectKind::Namespace, "default", INGRESS_NAMESPACE),
    ];
    if controllers.contains(&(*kind, &key.namespace, &key.name)) {
        let problem = Problem::error(codes::TARGET_UNKNOWN, format!("{object} belongs to every lab with an ingress"));
        return Err(Box::new(problem.help("it stays as long as there is an ingress or `cluster.ingress`")));
    }
    if built_in.contains(&(*kind, &key.namespace, &key.name)) {
        let problem = Problem::error(codes::TARGET_UNKNOWN, format!("{object} belongs to every lab with services"));
        return Err(Box::new(problem.help("it stays as long as there is a service")));
    }
    Ok(())
}
