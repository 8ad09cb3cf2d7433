//! Which location takes a request: the rules of networking.k8s.io/v1 for hosts and paths.
//!
//! A [`Router`] is a [`Routing`] made ready for many questions: names in a map, patterns compiled. What
//! a request's host and path are, as rules see them, is [`super::request`]'s.

use std::collections::HashMap;
use std::sync::Arc;

use regex::bytes::{Captures, Regex, RegexBuilder};

use super::types::{BackendName, HostPattern, Location, Options, PathPattern, Routing, SecretName, Server};

/// Bytes that a compiled pattern may take, and as much again for each thread's search: a pattern is
/// written by a lab's user, and a slip such as `(a{1000}){1000}` must not take the machine.
const PATTERN_SIZE: usize = 1 << 20;

impl Routing {
    /// The virtual host that answers to `host`, a name in lower case without port.
    pub fn server(&self, host: &str) -> Option<&Server> {
        self.servers.iter().find(|server| server.host.fits(host))
    }

    /// The secret whose certificate `server` has for its own; nothing where it has the default one.
    pub fn secret_of<'a>(&self, server: &'a Server) -> Option<&'a SecretName> {
        let secret = server.tls.as_ref()?.certificate.as_ref()?;
        self.certificates.contains_key(secret).then_some(secret)
    }
}

/// A routing that can be asked, quickly.
#[derive(Debug)]
pub struct Router {
    routing: Arc<Routing>,
    names: HashMap<String, usize>,
    wildcards: HashMap<String, usize>,
    any: Option<usize>,
    /// For each server's locations, as they stand there.
    patterns: Vec<Vec<Pattern>>,
    app_roots: Vec<Option<String>>,
}

/// A path's pattern, compiled.
#[derive(Debug)]
enum Pattern {
    /// Compared as it stands in the location.
    Plain,
    Regex(Regex),
    /// It did not compile, and takes nothing.
    Bad,
}

/// A regular expression that cannot be used; its location is left out.
#[derive(Debug, Clone, PartialEq)]
pub struct BadPattern {
    pub server: HostPattern,
    pub location: Location,
    /// What is wrong, in one line.
    pub why: String,
}

/// Who takes a request.
#[derive(Debug, Clone, Copy)]
pub struct Choice<'a> {
    routing: &'a Routing,
    /// The virtual host; nothing where none has the name.
    pub server: Option<&'a Server>,
    /// Nothing where the virtual host has none for the path: the default backend's.
    pub location: Option<&'a Location>,
    /// Where the virtual host sends requests for `/`.
    pub app_root: Option<&'a str>,
    pattern: Option<&'a Regex>,
}

/// What a rewrite makes of a request's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewritten {
    /// Decoded; to be escaped again.
    pub path: Vec<u8>,
    /// What the target has after a `?`.
    pub query: Option<Vec<u8>>,
}

impl Router {
    /// Make `routing` ready. Patterns that do not compile are left out and returned.
    pub fn new(routing: Arc<Routing>) -> (Router, Vec<BadPattern>) {
        let mut bad = Vec::new();
        let patterns = routing.servers.iter().map(|server| compile_all(server, &mut bad)).collect();
        let app_root = |server: &Server| server.locations.iter().find_map(|l| l.options.app_root.clone());
        let app_roots = routing.servers.iter().map(app_root).collect();
        let (mut names, mut wildcards, mut any) = (HashMap::new(), HashMap::new(), None);
        // The first of a name wins, so later ones go in first.
        for (at, server) in routing.servers.iter().enumerate().rev() {
            match &server.host {
                HostPattern::Name(name) => drop(names.insert(name.clone(), at)),
                HostPattern::Wildcard(parent) => drop(wildcards.insert(parent.clone(), at)),
                HostPattern::Any => any = Some(at),
            }
        }
        (Router { routing, names, wildcards, any, patterns, app_roots }, bad)
    }

    pub fn routing(&self) -> &Arc<Routing> {
        &self.routing
    }

    /// Who takes a request for `path` (see [`super::normalise`]) of `host` (see [`super::host_of`];
    /// empty where the request names none).
    pub fn choose(&self, host: &str, path: impl AsRef<[u8]>) -> Choice<'_> {
        let nobody = Choice { routing: &self.routing, server: None, location: None, app_root: None, pattern: None };
        let Some(at) = self.server(host) else { return nobody };
        let Some(server) = self.routing.servers.get(at) else { return nobody };
        let here =
            Choice { server: Some(server), app_root: self.app_roots.get(at).and_then(Option::as_deref), ..nobody };
        let patterns = self.patterns.get(at).map_or(&[][..], Vec::as_slice);
        let taken = server.locations.iter().zip(patterns).find(|(location, p)| p.fits(location, path.as_ref()));
        match taken {
            Some((location, pattern)) => Choice { location: Some(location), pattern: pattern.regex(), ..here },
            None => here,
        }
    }

    fn server(&self, host: &str) -> Option<usize> {
        let wildcard = || {
            let (label, parent) = host.split_once('.')?;
            self.wildcards.get(parent).filter(|_| !label.is_empty())
        };
        self.names.get(host).or_else(wildcard).copied().or(self.any)
    }
}

impl<'a> Choice<'a> {
    /// Whose pods answer: the location's, else the default backend's; nothing means the
    /// controller's own 404.
    pub fn backend(&self) -> Option<&'a BackendName> {
        match self.location {
            Some(location) => Some(&location.backend),
            None => self.routing.default_backend.as_ref(),
        }
    }

    /// The rule that takes the request and the service that it leads to, in words; nothing where none does.
    pub fn words(&self) -> Option<String> {
        // As the ingress names it; the routing's own name for it means nothing to anybody else.
        let service = |name: &BackendName| match self.routing.backends.get(name) {
            Some(backend) => format!("service {} port {}", backend.service, backend.port),
            None => format!("service {name}"),
        };
        match self.location {
            Some(Location { source, path, backend, .. }) => Some(format!("{source} ({path}), {}", service(backend))),
            None => self.backend().map(|backend| format!("the default backend, {}", service(backend))),
        }
    }

    /// Whether the virtual host has a certificate of its own.
    pub fn has_certificate(&self) -> bool {
        self.server.is_some_and(|server| self.routing.secret_of(server).is_some())
    }

    /// What holds for the request, whoever answers it.
    pub fn options(&self) -> &'a Options {
        self.location.map_or(&self.routing.default_options, |location| &location.options)
    }

    /// What becomes of `path`, which this choice was made for; nothing where it stays.
    pub fn rewrite(&self, path: &[u8]) -> Option<Rewritten> {
        let target = self.location?.options.rewrite.as_deref()?;
        let groups = self.pattern.and_then(|pattern| pattern.captures(path));
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let groups = groups.as_ref();
        Some(Rewritten { path: fill(path, groups), query: query.map(|query| fill(query, groups)) })
    }
}

/// `target` with `$1` to `$9` replaced.
fn fill(target: &str, groups: Option<&Captures<'_>>) -> Vec<u8> {
    let mut filled = Vec::with_capacity(target.len());
    let mut rest = target.bytes().peekable();
    while let Some(byte) = rest.next() {
        let digit = rest.peek().filter(|d| byte == b'$' && (b'1'..=b'9').contains(d)).copied();
        match digit {
            None => filled.push(byte),
            Some(digit) => {
                rest.next();
                let group = groups.and_then(|groups| groups.get(usize::from(digit - b'0')));
                filled.extend_from_slice(group.map_or(&[][..], |group| group.as_bytes()));
            }
        }
    }
    filled
}

fn compile_all(server: &Server, bad: &mut Vec<BadPattern>) -> Vec<Pattern> {
    let compile = |location: &Location| match &location.path {
        PathPattern::Regex(text) => compile(text).map(Pattern::Regex).unwrap_or_else(|e| {
            // The crate draws a picture of several lines; its last says what is wrong.
            let why = e.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            bad.push(BadPattern { server: server.host.clone(), location: location.clone(), why });
            Pattern::Bad
        }),
        _ => Pattern::Plain,
    };
    server.locations.iter().map(compile).collect()
}

/// nginx' `location ~* "^PATTERN"`, byte by byte.
fn compile(text: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(&format!("^(?:{text})"))
        .case_insensitive(true)
        .unicode(false)
        .size_limit(PATTERN_SIZE)
        .dfa_size_limit(PATTERN_SIZE)
        .build()
}

impl Pattern {
    fn fits(&self, location: &Location, path: &[u8]) -> bool {
        match self {
            Pattern::Plain => location.path.takes(path),
            Pattern::Regex(regex) => regex.is_match(path),
            Pattern::Bad => false,
        }
    }

    fn regex(&self) -> Option<&Regex> {
        match self {
            Pattern::Regex(regex) => Some(regex),
            Pattern::Plain | Pattern::Bad => None,
        }
    }
}

impl PathPattern {
    /// Whether it takes `path`; never where it is a regular expression, which has to be compiled first.
    fn takes(&self, path: &[u8]) -> bool {
        match self {
            PathPattern::Exact(whole) => path == whole.as_bytes(),
            PathPattern::Begin(start) => path.starts_with(start.as_bytes()),
            PathPattern::Prefix(prefix) => {
                let elements = prefix.trim_end_matches('/').as_bytes();
                path.strip_prefix(elements).is_some_and(|rest| matches!(rest, [] | [b'/', ..]))
            }
            PathPattern::Regex(_) => false,
        }
    }
}

impl HostPattern {
    /// Whether it stands for `host`, a name in lower case without port.
    pub fn fits(&self, host: &str) -> bool {
        match self {
            HostPattern::Name(name) => name == host,
            HostPattern::Wildcard(parent) => {
                host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == parent)
            }
            HostPattern::Any => true,
        }
    }
}

impl std::fmt::Display for HostPattern {
    /// As an ingress has it; `*` for every name.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            HostPattern::Name(name) => f.write_str(name),
            HostPattern::Wildcard(parent) => write!(f, "*.{parent}"),
            HostPattern::Any => f.write_str("*"),
        }
    }
}
