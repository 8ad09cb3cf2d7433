//! A configuration file for a program that the user brings: text in which places are filled in, a
//! small part of what mustache is.
//!
//! | place | what comes there |
//! |---|---|
//! | `{{name}}` | the value as JSON has it, so a text stands in quotes; YAML and TOML read it alike |
//! | `{{{name}}}` | a text without quotes |
//! | `{{#name}}…{{/name}}` | what is inside, once for each of a list, or once where the value is there and not `false` |
//! | `{{^name}}…{{/name}}` | what is inside where the value is missing, `false` or an empty list |
//! | `{{! … }}` | nothing |
//!
//! A name inside a section means the innermost value of that name. Names are those of [`view`]:
//! `http`, `https` (`ADDRESS:PORT`), `httpPort`, `httpsPort`, `directory`, `routing` (the path of a file
//! with everything as JSON), `defaultBackend`, and
//!
//! - `hosts`: `host` (`*` for every name), `anyHost`, `wildcard` (of `*.foo.com`, `foo.com`), `tls`,
//!   `certificate` (the path of a file with chain and key, where there is one), `paths`: `path`, one of
//!   `exact`, `prefix`, `begin` and `regex` is true, `backend`, `source`, `sslRedirect`, `rewrite`;
//! - `backends`: `name`, `service`, `port`, `protocol`, `endpoints`: `address`, `ip`, `endpointPort`.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::rendered::{DEFAULT_CERTIFICATE, File, Place, Rendered, certificate_file, certificate_files};
use super::types::{Endpoints, HostPattern, Location, PathPattern, Routing, Server};

const NAMES: &[&str] = &[
    "address",
    "anyHost",
    "backend",
    "backends",
    "begin",
    "certificate",
    "defaultBackend",
    "directory",
    "endpointPort",
    "endpoints",
    "exact",
    "host",
    "hosts",
    "http",
    "httpPort",
    "https",
    "httpsPort",
    "ip",
    "name",
    "path",
    "paths",
    "port",
    "prefix",
    "protocol",
    "regex",
    "rewrite",
    "routing",
    "service",
    "source",
    "sslRedirect",
    "tls",
    "wildcard",
];

/// The file with everything that a controller is told, `{"routing": …, "endpoints": …}`, in the
/// directory.
pub const ROUTING: &str = "routing.json";

/// What is wrong with a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct Fault {
    /// From 1.
    pub line: usize,
    pub what: String,
}

/// A template that has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Node>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Text(String),
    Value { name: String, bare: bool },
    Section { name: String, inverted: bool, inside: Vec<Node> },
}

impl Template {
    /// # Errors
    /// A name that does not exist, a place or a section that does not end.
    pub fn read(text: &str) -> Result<Template, Fault> {
        let mut reader = Reader { text, at: 0 };
        Ok(Template(reader.nodes(None)?))
    }

    /// The text for what a controller is told.
    pub fn fill(&self, routing: &Routing, endpoints: &Endpoints, place: Place<'_>) -> String {
        let view = view(routing, endpoints, place);
        let mut text = String::new();
        fill(&self.0, &mut vec![&view], &mut text);
        text
    }

    /// The program's files: its configuration under `name`, everything as JSON, and certificates.
    pub fn render(&self, name: &str, (routing, endpoints): (&Routing, &Endpoints), place: Place<'_>) -> Rendered {
        let everything = json!({ "routing": routing, "endpoints": endpoints });
        let own = File { name: name.to_owned(), text: self.fill(routing, endpoints, place), secret: false };
        let routing_file = File { name: ROUTING.to_owned(), text: everything.to_string(), secret: true };
        let mut files = vec![own, routing_file];
        files.extend(certificate_files(routing));
        Rendered { files, ..Rendered::default() }
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn fault<T>(&self, at: usize, what: impl Into<String>) -> Result<T, Fault> {
        Err(Fault { line: self.text[..at].matches('\n').count() + 1, what: what.into() })
    }

    /// Up to the end of the section that is open, or of the text.
    fn nodes(&mut self, open: Option<(&str, usize)>) -> Result<Vec<Node>, Fault> {
        let mut nodes = Vec::new();
        loop {
            let rest = &self.text[self.at..];
            let Some(length) = rest.find("{{") else {
                nodes.push(Node::Text(rest.to_owned()));
                return match open {
                    Some((name, at)) => self.fault(at, format!("the section `{name}` has no end `{{{{/{name}}}}}`")),
                    None => Ok(nodes),
                };
            };
            nodes.push(Node::Text(rest[..length].to_owned()));
            let start = self.at + length;
            let place = self.place(start)?;
            let (name, known) = (place.name, NAMES.contains(&place.name));
            match place.kind {
                '!' => {}
                '/' if open.is_some_and(|(open, _)| open == name) => return Ok(nodes),
                '/' => return self.fault(start, format!("`{{{{/{name}}}}}` ends a section that is not open")),
                _ if !known => {
                    return self.fault(start, format!("there is no `{name}`; there are {}", NAMES.join(", ")));
                }
                '#' | '^' => {
                    let inside = self.nodes(Some((name, start)))?;
                    nodes.push(Node::Section { name: name.to_owned(), inverted: place.kind == '^', inside });
                }
                kind => nodes.push(Node::Value { name: name.to_owned(), bare: kind == '{' }),
            }
        }
    }

    /// The place that begins at `start`.
    fn place(&mut self, start: usize) -> Result<Placeholder<'a>, Fault> {
        let inside = &self.text[start + 2..];
        let kind = inside.chars().next().filter(|c| "!/#^{".contains(*c));
        let end = if kind == Some('{') { "}}}" } else { "}}" };
        let Some(length) = inside.find(end) else { return self.fault(start, "`{{` without an end") };
        self.at = start + 2 + length + end.len();
        let name = inside[usize::from(kind.is_some())..length.max(usize::from(kind.is_some()))].trim();
        Ok(Placeholder { kind: kind.unwrap_or(' '), name })
    }
}

struct Placeholder<'a> {
    kind: char,
    name: &'a str,
}

fn fill(nodes: &[Node], scopes: &mut Vec<&Value>, text: &mut String) {
    for node in nodes {
        match node {
            Node::Text(words) => text.push_str(words),
            Node::Value { name, bare } => match look_up(scopes, name) {
                Some(Value::String(words)) if *bare => text.push_str(words),
                // Writing into a string does not fail.
                Some(value) => drop(write!(text, "{value}")),
                None => {}
            },
            Node::Section { name, inverted, inside } => {
                let value = look_up(scopes, name).filter(|v| !matches!(v, Value::Null | Value::Bool(false)));
                let each: Vec<&Value> = match value {
                    Some(Value::Array(all)) => all.iter().collect(),
                    Some(one) => vec![one],
                    None => Vec::new(),
                };
                if *inverted && each.is_empty() {
                    fill(inside, scopes, text);
                }
                for one in each.into_iter().filter(|_| !inverted) {
                    scopes.push(one);
                    fill(inside, scopes, text);
                    scopes.pop();
                }
            }
        }
    }
}

fn look_up<'a>(scopes: &[&'a Value], name: &str) -> Option<&'a Value> {
    scopes.iter().rev().find_map(|scope| scope.get(name))
}

/// What templates see.
pub fn view(routing: &Routing, endpoints: &Endpoints, place: Place<'_>) -> Value {
    let file = |name: &str| place.directory.join("current").join(name).display().to_string();
    let hosts: Vec<Value> = routing.servers.iter().map(|server| host(server, routing, &file)).collect();
    let of = |(name, backend): (&String, &super::types::Backend)| {
        let all = endpoints.get(name).into_iter().flatten().map(|e| e.address);
        let all = all.map(|a| json!({ "address": a.to_string(), "ip": a.ip().to_string(), "endpointPort": a.port() }));
        json!({
            "name": name,
            "service": backend.service.to_string(),
            "port": backend.port,
            "protocol": backend.protocol,
            "endpoints": all.collect::<Vec<_>>(),
        })
    };
    json!({
        "http": place.http.to_string(),
        "httpPort": place.http.port(),
        "https": place.https.to_string(),
        "httpsPort": place.https.port(),
        "directory": place.directory.display().to_string(),
        "routing": place.directory.join(ROUTING).display().to_string(),
        "defaultBackend": routing.default_backend,
        "hosts": hosts,
        "backends": routing.backends.iter().map(of).collect::<Vec<_>>(),
    })
}

fn host(server: &Server, routing: &Routing, file: &impl Fn(&str) -> String) -> Value {
    let own = server.tls.as_ref().and_then(|tls| tls.certificate.as_ref());
    let own = own.filter(|secret| routing.certificates.contains_key(*secret)).map(|secret| certificate_file(secret));
    let default = routing.default_certificate.as_ref().map(|_| DEFAULT_CERTIFICATE.to_owned());
    let wildcard = match &server.host {
        HostPattern::Wildcard(parent) => Some(parent),
        _ => None,
    };
    json!({
        "host": server.host.to_string(),
        "anyHost": server.host == HostPattern::Any,
        "wildcard": wildcard,
        "tls": server.tls.is_some(),
        "certificate": own.or(default).map(|name| file(&name)),
        "paths": server.locations.iter().map(path).collect::<Vec<_>>(),
    })
}

fn path(location: &Location) -> Value {
    json!({
        "path": location.path.text(),
        "exact": matches!(location.path, PathPattern::Exact(_)),
        "prefix": matches!(location.path, PathPattern::Prefix(_)),
        "begin": matches!(location.path, PathPattern::Begin(_)),
        "regex": matches!(location.path, PathPattern::Regex(_)),
        "backend": location.backend,
        "source": location.source.to_string(),
        "sslRedirect": location.options.ssl_redirect,
        "rewrite": location.options.rewrite,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::objects::ObjectKey;
    use crate::plan::ingress::{Backend, BackendProtocol, Endpoint, Options, Source};

    fn filled(text: &str) -> String {
        let source = Source { ingress: ObjectKey::new("default", "cafe"), field: "spec".to_owned() };
        let path = PathPattern::Prefix("/a\"b".to_owned());
        let location = Location { path, backend: "b".to_owned(), options: Options::default(), source };
        let server = Server { host: HostPattern::Wildcard("h.com".to_owned()), tls: None, locations: vec![location] };
        let service = ObjectKey::new("default", "tea");
        let backend = Backend { service, port: "80".to_owned(), protocol: BackendProtocol::Http, affinity: None };
        let backends = [("b".to_owned(), backend.clone()), ("c".to_owned(), backend)].into();
        let routing = Routing { servers: vec![server], backends, ..Routing::default() };
        let pods = [1, 2].map(|n| Endpoint { address: ([10, 0, 0, n], 8080).into(), pod: String::new() });
        let endpoints = [("b".to_owned(), pods.to_vec())].into();
        let at = |port| ([0, 0, 0, 0], port).into();
        let place = Place { http: at(80), https: at(443), directory: Path::new("/run/ingress") };
        Template::read(text).unwrap().fill(&routing, &endpoints, place)
    }

    #[test]
    fn places_are_filled_in() {
        assert_eq!(
            filled("{{httpPort}} {{http}} {{{http}}} {{! no }}{{ routing }}"),
            "80 \"0.0.0.0:80\" 0.0.0.0:80 \"/run/ingress/routing.json\""
        );
        assert_eq!(
            filled("{{#hosts}}{{{host}}}:{{#paths}} {{path}}>{{backend}}{{/paths}};{{/hosts}}"),
            "*.h.com: \"/a\\\"b\">\"b\";"
        );
        let backends = "{{#backends}}{{{name}}}={{#endpoints}}{{{ip}}}:{{endpointPort}},{{/endpoints}}{{^endpoints}}none{{/endpoints}} {{/backends}}";
        assert_eq!(filled(backends), "b=10.0.0.1:8080,10.0.0.2:8080, c=none ");
        assert_eq!(
            filled(
                "{{#hosts}}{{#tls}}yes{{/tls}}{{^tls}}no{{/tls}}{{#wildcard}} of {{wildcard}}{{/wildcard}}{{/hosts}}"
            ),
            "no of \"h.com\""
        );
    }

    #[test]
    fn a_fault_has_its_line_and_reason() {
        let fault = |text: &str| Template::read(text).unwrap_err();
        assert!(fault("\n{{hots}}").to_string().starts_with("line 2: there is no `hots`; there are address"));
        assert_eq!(fault("{{#hosts}}\n{{host}}").to_string(), "line 1: the section `hosts` has no end `{{/hosts}}`");
        assert_eq!(fault("a\n\n{{/hosts}}").line, 3);
        assert_eq!(fault("{{host").to_string(), "line 1: `{{` without an end");
        assert!(fault("{{}}").to_string().contains("there is no ``"));
        assert!(fault("{{{}}").to_string().contains("without an end"));
    }
}
