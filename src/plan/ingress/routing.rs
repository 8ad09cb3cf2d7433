//! From ingresses to virtual hosts and locations, as ingress-nginx' controller reads them
//! (its `getBackendServers`, `createServers` and `updateServerLocations`).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::networking::v1::{HTTPIngressPath, Ingress, IngressBackend, IngressSpec};

use crate::objects::ObjectKey;
use crate::objects::ingress::annotations::{self, Annotations};
use crate::objects::ingress::pattern;
use crate::objects::ingress::settings::{self, Defaults};

use super::types::{
    Backend, BackendName, Certificate, HostPattern, Location, Options, PathPattern, Routing, SecretName, Server,
    Source, Tls,
};

/// What [`routing`] looks at.
#[derive(Debug, Clone, Copy)]
pub struct Objects<'a> {
    /// Those that the controller serves. Where two ask for one path of one host, the first has it.
    pub ingresses: &'a [Ingress],
    /// Certificates that are fit for use, by secret.
    pub certificates: &'a BTreeMap<SecretName, Certificate>,
    /// The ConfigMap.
    pub config: &'a BTreeMap<String, String>,
    /// The controller's default backend: a service, and one of its ports.
    pub default_backend: Option<(&'a ObjectKey, &'a str)>,
    pub default_certificate: Option<&'a Certificate>,
}

/// What a controller must do. What a file must not say is left out here: it was told when the
/// objects were read.
pub fn routing(objects: &Objects<'_>) -> Routing {
    let (settings, defaults, _) = settings::read(objects.config, &[]);
    let mut work = Work { objects, defaults, backends: BTreeMap::new(), hosts: BTreeMap::new() };
    let read = |ingress| One::read(ingress);
    let all: Vec<One<'_>> = objects.ingresses.iter().filter_map(read).collect();
    all.iter().for_each(|one| work.rules(one));
    // After all rules, because a rule for `/` of whichever ingress goes before a default.
    all.iter().for_each(|one| work.default_of(one));
    all.iter().for_each(|one| work.tls(one));
    let default_backend =
        objects.default_backend.map(|(service, port)| work.backend(service, port, &Annotations::default()));
    Routing {
        servers: work.hosts.into_iter().map(|(host, server)| server.finish(host)).collect(),
        backends: work.backends,
        default_backend,
        default_options: work.defaults.limits(),
        certificates: objects.certificates.clone(),
        default_certificate: objects.default_certificate.cloned(),
        settings,
    }
}

/// One ingress with its annotations.
struct One<'a> {
    key: ObjectKey,
    spec: &'a IngressSpec,
    annotations: Annotations,
}

impl<'a> One<'a> {
    fn read(ingress: &'a Ingress) -> Option<Self> {
        let written = ingress.metadata.annotations.as_ref();
        let annotations = written.map(|all| annotations::read(all).0).unwrap_or_default();
        Some(One { key: ObjectKey::of(&ingress.metadata), spec: ingress.spec.as_ref()?, annotations })
    }

    fn source(&self, field: impl Into<String>) -> Source {
        Source { ingress: self.key.clone(), field: field.into() }
    }

    /// The hosts that its rules name.
    fn hosts(&self) -> BTreeSet<HostPattern> {
        let rules = self.spec.rules.iter().flatten();
        rules.map(|rule| HostPattern::of(rule.host.as_deref().unwrap_or_default())).collect()
    }

    fn asks_for_regex(&self) -> bool {
        self.annotations.use_regex || self.annotations.rewrite.is_some()
    }
}

impl HostPattern {
    /// Of a rule's `host`; empty: every name.
    pub fn of(host: &str) -> HostPattern {
        let host = host.to_ascii_lowercase();
        match host.strip_prefix("*.") {
            _ if host.is_empty() => HostPattern::Any,
            Some(parent) => HostPattern::Wildcard(parent.to_owned()),
            None => HostPattern::Name(host),
        }
    }
}

/// A virtual host while it is put together.
#[derive(Default)]
struct Host {
    tls: Option<Tls>,
    /// Whether an ingress wants regular expressions, which holds for the whole host.
    regex: bool,
    locations: Vec<Draft>,
}

struct Draft {
    location: Location,
    /// Whether plain http is redirected although the host has no TLS.
    always: bool,
}

impl Host {
    /// Take a location in, unless there is one for these paths.
    fn add(&mut self, draft: Draft) {
        let same = |d: &Draft| d.location.path.rank() == draft.location.path.rank();
        if !self.locations.iter().any(same) {
            self.locations.push(draft);
        }
    }

    fn finish(mut self, host: HostPattern) -> Server {
        self.locations.sort_by(|a, b| a.location.path.rank().cmp(&b.location.path.rank()));
        let (regex, tls) = (self.regex, self.tls);
        let finish = |draft: Draft| {
            let mut location = draft.location;
            location.options.ssl_redirect = draft.always || (location.options.ssl_redirect && tls.is_some());
            if regex {
                location.path = PathPattern::Regex(location.path.text().to_owned());
            }
            location
        };
        // One that nobody can read would make a controller refuse all others, too.
        let readable = |location: &Location| !regex || pattern::fault(location.path.text()).is_none();
        let locations = self.locations.into_iter().map(finish).filter(readable).collect();
        Server { host, tls, locations }
    }
}

impl PathPattern {
    pub fn text(&self) -> &str {
        match self {
            PathPattern::Exact(path)
            | PathPattern::Prefix(path)
            | PathPattern::Begin(path)
            | PathPattern::Regex(path) => path,
        }
    }

    /// The order in which paths are tried: the longest first, of equal ones Exact, then Prefix. The
    /// `/` at a prefix' end is no element.
    fn rank(&self) -> (std::cmp::Reverse<usize>, u8, &str) {
        let (kind, path) = match self {
            PathPattern::Exact(path) => (0, path.as_str()),
            PathPattern::Prefix(path) => (1, path.trim_end_matches('/')),
            PathPattern::Begin(path) => (2, path.as_str()),
            PathPattern::Regex(path) => (3, path.as_str()),
        };
        (std::cmp::Reverse(path.len()), kind, path)
    }
}

struct Work<'a> {
    objects: &'a Objects<'a>,
    defaults: Defaults,
    backends: BTreeMap<BackendName, Backend>,
    hosts: BTreeMap<HostPattern, Host>,
}

impl Defaults {
    /// As ingress-nginx has them for a location that no rule asks for.
    fn limits(&self) -> Options {
        Options {
            body_size: self.body_size,
            connect_timeout: self.connect_timeout,
            read_timeout: self.read_timeout,
            send_timeout: self.send_timeout,
            ..Options::default()
        }
    }
}

impl Work<'_> {
    fn rules(&mut self, one: &One<'_>) {
        for (r, rule) in one.spec.rules.iter().flatten().enumerate() {
            let host = HostPattern::of(rule.host.as_deref().unwrap_or_default());
            let server = self.hosts.entry(host.clone()).or_default();
            server.regex |= one.asks_for_regex();
            let paths = rule.http.iter().flat_map(|http| &http.paths);
            for (p, path) in paths.enumerate() {
                let source = one.source(format!("spec.rules[{r}].http.paths[{p}]"));
                self.location(one, &host, (pattern(path), &path.backend), source);
            }
        }
    }

    /// An ingress' default backend takes what is left of its hosts; where it has no rules, of every name.
    fn default_of(&mut self, one: &One<'_>) {
        let Some(backend) = &one.spec.default_backend else { return };
        let mut hosts = one.hosts();
        if hosts.is_empty() {
            hosts.insert(HostPattern::Any);
        }
        for host in hosts {
            let taken = |d: &Draft| matches!(d.location.path.text(), "/" | "") && d.location.path.rank().1 != 0;
            if !self.hosts.get(&host).is_some_and(|server| server.locations.iter().any(taken)) {
                let everything = PathPattern::Prefix("/".to_owned());
                self.location(one, &host, (everything, backend), one.source("spec.defaultBackend"));
            }
        }
    }

    fn location(
        &mut self,
        one: &One<'_>,
        host: &HostPattern,
        (path, backend): (PathPattern, &IngressBackend),
        source: Source,
    ) {
        let Some(service) = &backend.service else { return };
        let Some(port) = service.port.as_ref().and_then(|p| p.name.clone().or(p.number.map(|n| n.to_string()))) else {
            return;
        };
        let backend = self.backend(&ObjectKey::new(&one.key.namespace, &service.name), &port, &one.annotations);
        let options = self.options(&one.annotations);
        let always = one.annotations.force_ssl_redirect.unwrap_or(self.defaults.force_ssl_redirect);
        let draft = Draft { location: Location { path, backend, options, source }, always };
        self.hosts.entry(host.clone()).or_default().add(draft);
    }

    fn options(&self, asked: &Annotations) -> Options {
        let usual = &self.defaults;
        Options {
            rewrite: asked.rewrite.clone(),
            app_root: asked.app_root.clone(),
            ssl_redirect: asked.ssl_redirect.unwrap_or(usual.ssl_redirect),
            allow: asked.allow.clone().unwrap_or_else(|| usual.allow.clone()),
            body_size: asked.body_size.unwrap_or(usual.body_size),
            connect_timeout: asked.connect_timeout.unwrap_or(usual.connect_timeout),
            read_timeout: asked.read_timeout.unwrap_or(usual.read_timeout),
            send_timeout: asked.send_timeout.unwrap_or(usual.send_timeout),
        }
    }

    /// The name of a backend like this. Two ingresses may want one port spoken to in different ways,
    /// and hyphens do not say where a namespace ends, so a name may need a number behind it.
    fn backend(&mut self, service: &ObjectKey, port: &str, asked: &Annotations) -> BackendName {
        let wanted = Backend {
            service: service.clone(),
            port: port.to_owned(),
            protocol: asked.protocol,
            affinity: asked.affinity.clone(),
        };
        let base = format!("{}-{}-{port}", service.namespace, service.name);
        let mut name = base.clone();
        let mut number = 2;
        while self.backends.get(&name).is_some_and(|there| *there != wanted) {
            name = format!("{base}-{number}");
            number += 1;
        }
        self.backends.insert(name.clone(), wanted);
        name
    }

    /// Give hosts the secrets that an ingress names for them; where two do, the first has it.
    fn tls(&mut self, one: &One<'_>) {
        for (n, entry) in one.spec.tls.iter().flatten().enumerate() {
            let secret = entry.secret_name.as_ref().map(|name| format!("{}/{name}", one.key.namespace));
            let certificate = secret.filter(|name| self.objects.certificates.contains_key(name));
            let tls = Tls { certificate, source: one.source(format!("spec.tls[{n}]")) };
            let named: Vec<HostPattern> = entry.hosts.iter().flatten().map(|host| HostPattern::of(host)).collect();
            for host in one.hosts().iter().filter(|host| named.is_empty() || named.iter().any(|n| n.covers(host))) {
                if let Some(server) = self.hosts.get_mut(host) {
                    server.tls.get_or_insert_with(|| tls.clone());
                }
            }
        }
    }
}

impl HostPattern {
    /// Whether a certificate for this name is one for `host`.
    fn covers(&self, host: &HostPattern) -> bool {
        self == host || matches!(host, HostPattern::Name(name) if *self != HostPattern::Any && self.fits(name))
    }
}

fn pattern(path: &HTTPIngressPath) -> PathPattern {
    let text = path.path.clone().filter(|p| !p.is_empty()).unwrap_or_else(|| "/".to_owned());
    match path.path_type.as_str() {
        "Exact" => PathPattern::Exact(text),
        "Prefix" => PathPattern::Prefix(text),
        _ => PathPattern::Begin(text),
    }
}

#[cfg(test)]
mod tests;
