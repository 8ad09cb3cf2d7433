//! `get`: what a running lab has, in tables like kubectl's or as Kubernetes objects.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::daemon::client::Client;
use crate::diag::{Problem, codes};
use crate::objects::ObjectKey;
use crate::spec::edit::ObjectKind;

use super::args::{Format, GetArgs, Kind, Wanted};
use super::output::{self, text};
use super::{Done, config, find_lab, kube, named, reach, rules_tree, tables};

/// Objects of one kind that are asked for: those of these names, or all.
struct Asked<'a> {
    kind: Kind,
    names: Vec<&'a str>,
}

/// The objects that were found.
struct Found {
    kind: Kind,
    items: Vec<Value>,
}

/// Kubernetes' word for a kind; nothing for those that are labctl's own.
fn object_kind(kind: Kind) -> Option<ObjectKind> {
    Some(match kind {
        Kind::Pods => ObjectKind::Pod,
        Kind::Services => ObjectKind::Service,
        Kind::Endpoints => ObjectKind::Endpoints,
        Kind::EndpointSlices => ObjectKind::EndpointSlice,
        Kind::Deployments => ObjectKind::Deployment,
        Kind::Namespaces => ObjectKind::Namespace,
        Kind::Ingresses => ObjectKind::Ingress,
        Kind::IngressClasses => ObjectKind::IngressClass,
        Kind::Secrets => ObjectKind::Secret,
        Kind::ConfigMaps => ObjectKind::ConfigMap,
        Kind::Hosts | Kind::Clients | Kind::Networks | Kind::Rules | Kind::Config => return None,
    })
}

/// Where the objects of labctl's own kinds are, and what one is called.
fn own(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Hosts => ("/api/v1/nodes", "host"),
        Kind::Clients => ("/labctl/v1/clients", "client"),
        _ => ("/labctl/v1/networks", "network"),
    }
}

pub fn run(args: &GetArgs) -> Done {
    let asked = asked(args)?;
    if asked.iter().any(|a| a.kind == Kind::Rules) {
        return rules_tree::run(args, &asked[0].names);
    }
    if let Some(config) = asked.iter().find(|a| a.kind == Kind::Config) {
        return config::run(args, &config.names);
    }
    let client = find_lab(args.lab())?;
    if !args.scope.all_namespaces {
        kube::check_namespace(&client, &args.scope.namespace)?;
    }
    let found = asked.iter().map(|a| look(&client, args, a)).collect::<Result<Vec<Found>, _>>()?;
    let mut all = found.iter().flat_map(|f| &f.items).cloned();
    let value = match asked.as_slice() {
        [only] if only.names.len() == 1 && args.selectors().next().is_none() => all.next().unwrap_or_default(),
        // As kubectl prints what it has read, whatever the kind.
        _ => {
            let items: Vec<Value> = all.collect();
            json!({ "apiVersion": "v1", "kind": "List", "metadata": { "resourceVersion": "" }, "items": items })
        }
    };
    output::print(args.format.output, &value, |wide| draw_all(args, &found, wide));
    if matches!(args.format.output, Format::Table | Format::Wide) {
        tell_why_empty(&client, &asked, &found)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What the words behind `get` mean.
fn asked(args: &GetArgs) -> Result<Vec<Asked<'_>>, Box<Problem>> {
    let names = || args.names.iter().map(String::as_str).collect();
    let (kind, first) = match &args.wanted {
        Wanted::Kinds(kinds) if kinds.len() > 1 && kinds.contains(&Kind::Rules) => {
            let problem = Problem::error(codes::TARGET_UNKNOWN, "rules are no objects, and are shown alone");
            return Err(Box::new(problem.help("`labctl get rules HOST [SERVICE]`")));
        }
        Wanted::Kinds(kinds) => return Ok(kinds.iter().map(|kind| Asked { kind: *kind, names: names() }).collect()),
        Wanted::Named(kind, name) => (*kind, name.as_str()),
    };
    let mut all = vec![Asked { kind, names: vec![first] }];
    for word in &args.names {
        let Some((kind, name)) = Wanted::named(word) else {
            let problem = Problem::error(codes::TARGET_UNKNOWN, format!("`{word}` does not say of what kind it is"));
            return Err(Box::new(problem.help("write KIND/NAME for each, or the kind once: `labctl get pods a b`")));
        };
        match all.iter_mut().find(|a| a.kind == kind) {
            Some(same) => same.names.push(name),
            None => all.push(Asked { kind, names: vec![name] }),
        }
    }
    Ok(all)
}

fn look(client: &Client, args: &GetArgs, asked: &Asked) -> Result<Found, Box<Problem>> {
    let namespace = (!args.scope.all_namespaces).then_some(args.scope.namespace.as_str());
    let mut items = match object_kind(asked.kind) {
        Some(kind) if asked.names.is_empty() => kube::list(client, kind, namespace)?,
        Some(kind) => {
            let one = |name: &&str| object(client, kind, &named::key(name, namespace));
            asked.names.iter().map(one).collect::<Result<_, _>>()?
        }
        None => of_own_kind(client, asked)?,
    };
    items.retain(|item| args.selectors().all(|selector| selector.is_met(item)));
    Ok(Found { kind: asked.kind, items })
}

/// One object. Endpoints that nobody has written are told of as such.
fn object(client: &Client, kind: ObjectKind, key: &ObjectKey) -> Result<Value, Box<Problem>> {
    let found = kube::one(client, kind, key);
    if let (Err(problem), ObjectKind::Endpoints) = (&found, kind)
        && problem.code == codes::TARGET_UNKNOWN
        && let Ok(service) = kube::one(client, ObjectKind::Service, key)
    {
        let why = reach::notes(client, &service)?;
        let message = format!("service {key} has no endpoints: {}", why.join("; "));
        let help =
            "an EndpointSlice with the label `kubernetes.io/service-name` says where a service without selector leads";
        return Err(Box::new(Problem::error(codes::TARGET_UNKNOWN, message).help(help)));
    }
    found
}

fn of_own_kind(client: &Client, asked: &Asked) -> Result<Vec<Value>, Box<Problem>> {
    let (path, word) = own(asked.kind);
    let items = kube::items(client, path)?;
    if asked.names.is_empty() {
        return Ok(items);
    }
    let one = |name: &&str| {
        let found = items.iter().find(|item| text(item, "/metadata/name") == *name).cloned();
        let names = items.iter().map(|item| text(item, "/metadata/name"));
        found.ok_or_else(|| kube::not_found(word, name, None, names))
    };
    asked.names.iter().map(one).collect()
}

/// A service that was asked for by name, and whose endpoints nobody sees, has a reason.
fn tell_why_empty(client: &Client, asked: &[Asked], found: &[Found]) -> Result<(), Box<Problem>> {
    let named = asked.iter().zip(found).filter(|(a, f)| f.kind == Kind::Endpoints && !a.names.is_empty());
    for item in named.flat_map(|(_, f)| &f.items).filter(|item| !reach::has_ready(item)) {
        let key = ObjectKey::new(text(item, "/metadata/namespace"), text(item, "/metadata/name"));
        let service = kube::one(client, ObjectKind::Service, &key)?;
        for note in reach::notes(client, &service)? {
            anstream::eprintln!("service {key} has no endpoints: {note}");
        }
    }
    Ok(())
}

/// The tables, one for each kind. Where there are several, the kind stands in front of each name.
fn draw_all(args: &GetArgs, found: &[Found], wide: bool) -> String {
    let any: Vec<&Found> = found.iter().filter(|f| !f.items.is_empty()).collect();
    let Some(first) = found.first() else { return String::new() };
    if any.is_empty() {
        return nothing(args, first, found.len() == 1, wide);
    }
    let several = found.len() > 1;
    let tables = any.iter().map(|f| {
        let mut items = f.items.clone();
        for item in items.iter_mut().filter(|_| several) {
            let kind = object_kind(f.kind).map_or_else(|| own(f.kind).1.to_owned(), |k| k.to_string());
            item["metadata"]["name"] = format!("{kind}/{}", text(item, "/metadata/name")).into();
        }
        draw(args, f.kind, &items, wide)
    });
    tables.collect::<Vec<_>>().join("\n")
}

/// What is said where there is nothing to show.
fn nothing(args: &GetArgs, first: &Found, only: bool, wide: bool) -> String {
    match object_kind(first.kind) {
        None if only => draw(args, first.kind, &[], wide),
        Some(kind) if only && !kind.is_namespaced() => draw(args, first.kind, &[], wide),
        _ if args.scope.all_namespaces => "No resources found\n".to_owned(),
        _ => format!("No resources found in {} namespace.\n", args.scope.namespace),
    }
}

fn draw(args: &GetArgs, kind: Kind, items: &[Value], wide: bool) -> String {
    let look = tables::Look { wide, all_namespaces: args.scope.all_namespaces, labels: args.show_labels };
    let columns = match kind {
        Kind::Pods => &tables::PODS,
        Kind::Services => &tables::SERVICES,
        Kind::Endpoints => &tables::ENDPOINTS,
        Kind::EndpointSlices => &tables::SLICES,
        Kind::Deployments => &tables::DEPLOYMENTS,
        Kind::Namespaces => &tables::NAMESPACES,
        Kind::Ingresses => &tables::INGRESSES,
        Kind::IngressClasses => &tables::INGRESS_CLASSES,
        Kind::Secrets => &tables::SECRETS,
        Kind::ConfigMaps => &tables::CONFIG_MAPS,
        Kind::Hosts if items.is_empty() => return "the lab has no hosts\n".to_owned(),
        Kind::Hosts => &tables::HOSTS,
        Kind::Clients if items.is_empty() => return "the lab has no clients\n".to_owned(),
        Kind::Clients => &tables::CLIENTS,
        Kind::Networks | Kind::Rules | Kind::Config => &tables::NETWORKS,
    };
    // Hosts, clients and networks are in no namespace.
    let in_namespaces = object_kind(kind).is_some_and(ObjectKind::is_namespaced);
    tables::table(items, columns, tables::Look { all_namespaces: look.all_namespaces && in_namespaces, ..look })
}
