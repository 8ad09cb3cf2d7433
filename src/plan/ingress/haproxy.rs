//! haproxy.cfg as a pure function of what a controller must do: one frontend, which finds the virtual
//! host and the location, and a section for each backend in each manner that ingresses ask for.
//!
//! Debian's HAProxy 2.6 reads the file. Each part is preceded by the object that it comes from. Values
//! of objects are quoted by `quote`, the ConfigMap's fields written by `fields`, hosts and paths by
//! `frontend`, options and servers by `backend`; which endpoint has which server is `slots`'s.
//!
//! Where HAProxy cannot do what ingress-nginx does it does its own: a body without a length is not
//! measured, a cookie is `Secure` only where that is asked for.

mod backend;
mod fields;
mod frontend;
mod quote;
mod slots;

use std::collections::BTreeSet;

use super::rendered::{
    DEFAULT_CERTIFICATE, File, Lines, Place, Rendered, certificate_file, certificate_files, is_section,
};
use super::types::{BackendName, Endpoints, HostPattern, Location, Options, PathPattern, Routing, Server};
use fields::{Context, Fields};

pub use slots::{Change, Slots};

/// The Unix socket in the directory on which HAProxy takes commands.
pub const SOCKET: &str = "admin.sock";
/// A variable of the process: while it is true, clients are asked to come again over a new connection.
pub const CLOSING: &str = "proc.closing";
/// Which certificate is shown to whom (HAProxy's manual, "crt-list").
const CERTIFICATES: &str = "certificates.list";
/// What answers requests whose body is too large, in Lua.
const TOO_LARGE: &str = "too-large.lua";

/// The whole configuration for `routing`, with these endpoints to begin with. Files: `haproxy.cfg`,
/// the list of certificates and the certificates, to which it refers relative to itself.
pub fn render(routing: &Routing, place: Place<'_>, slots: &Slots) -> Rendered {
    let mut told = Rendered::default();
    let fields = Fields::read(&routing.settings.fields, &mut told);
    let sections = Sections::of(routing);
    let mut page = Page { routing, place, slots, fields, sections, lines: Lines::default(), told };
    let certificates = page.certificates();
    page.write(!certificates.is_empty());
    let Page { lines, told: mut rendered, .. } = page;
    let file = |name: &str, text: String| File { name: name.to_owned(), text, secret: false };
    rendered.files.push(file("haproxy.cfg", lines.finish()));
    rendered.files.push(file(CERTIFICATES, certificates));
    rendered.files.push(file(TOO_LARGE, include_str!("haproxy/too-large.lua").to_owned()));
    rendered.files.extend(certificate_files(routing));
    rendered
}

/// Servers for `endpoints`, as many as the ConfigMap asks for.
pub fn slots(routing: &Routing, endpoints: &Endpoints) -> Slots {
    let fields = Fields::read(&routing.settings.fields, &mut Rendered::default());
    Slots::new(routing, endpoints, fields.number("scale-server-slots"))
}

/// Commands of the runtime API that make `changes` to a HAProxy which serves `routing`.
pub fn commands(routing: &Routing, changes: &[Change]) -> Vec<String> {
    let sections = Sections::of(routing);
    let each = changes.iter().flat_map(|change| {
        let of = sections.0.iter().filter(|section| *section.backend == change.backend);
        of.flat_map(|section| {
            let server = format!("{}/s{}", section.name, change.server);
            match change.address {
                Some(address) => vec![
                    format!("set server {server} addr {} port {}", address.ip(), address.port()),
                    format!("set server {server} state ready"),
                ],
                None => vec![format!("set server {server} state maint")],
            }
        })
    });
    each.collect()
}

/// A `backend` of the file: a backend in one manner.
struct Section<'a> {
    name: String,
    backend: &'a BackendName,
    manner: Manner<'a>,
    /// The first location that leads here; nothing for a default backend.
    first: Option<&'a Location>,
}

/// What a section depends on, besides its backend.
#[derive(PartialEq, Clone, Copy)]
struct Manner<'a> {
    options: &'a Options,
    /// The path, where it is rewritten.
    path: Option<&'a PathPattern>,
}

impl<'a> Manner<'a> {
    fn of(location: &'a Location) -> Manner<'a> {
        let path = location.options.rewrite.is_some().then_some(&location.path);
        Manner { options: &location.options, path }
    }

    /// Of the default backend.
    fn rest(routing: &'a Routing) -> Manner<'a> {
        Manner { options: &routing.default_options, path: None }
    }
}

struct Sections<'a>(Vec<Section<'a>>);

impl<'a> Sections<'a> {
    fn of(routing: &'a Routing) -> Sections<'a> {
        let mut sections = Sections(Vec::new());
        for location in routing.servers.iter().flat_map(|s| &s.locations) {
            sections.add(routing, &location.backend, Manner::of(location), Some(location));
        }
        if let Some(default) = &routing.default_backend {
            sections.add(routing, default, Manner::rest(routing), None);
        }
        sections
    }

    fn add(&mut self, routing: &Routing, backend: &'a BackendName, manner: Manner<'a>, first: Option<&'a Location>) {
        if !routing.backends.contains_key(backend) || !is_section(backend) || self.find(backend, manner).is_some() {
            return;
        }
        // A colon is in no backend's name.
        let number = self.0.iter().filter(|s| s.backend == backend).count() + 1;
        let name = if number == 1 { backend.clone() } else { format!("{backend}:{number}") };
        self.0.push(Section { name, backend, manner, first });
    }

    fn find(&self, backend: &str, manner: Manner<'_>) -> Option<&str> {
        let found = self.0.iter().find(|s| s.backend == backend && s.manner == manner);
        found.map(|section| section.name.as_str())
    }
}

/// The file as it grows.
struct Page<'a> {
    routing: &'a Routing,
    place: Place<'a>,
    slots: &'a Slots,
    fields: Fields,
    sections: Sections<'a>,
    lines: Lines,
    told: Rendered,
}

/// Write a line into a page.
macro_rules! put {
    ($page:expr, $($words:tt)*) => { $page.lines.line(format_args!($($words)*)) };
}
use put;

impl Page<'_> {
    fn write(&mut self, tls: bool) {
        self.lines.comment(format_args!("Written by labctl from the lab's ingresses. What is changed here is lost."));
        self.section("global", Page::global);
        self.section("defaults", Page::defaults);
        self.section("frontend ingress", |page| page.frontend(tls));
        self.section("backend not-found", |page| {
            put!(page, "http-request return status 404 content-type text/plain string 'default backend - 404'");
        });
        self.section("backend no-endpoints", |page| put!(page, "http-request deny deny_status 503"));
        self.backends();
    }

    fn section(&mut self, head: &str, inside: impl FnOnce(&mut Self)) {
        put!(self, "{head}");
        self.lines.depth += 1;
        inside(self);
        self.lines.depth -= 1;
        self.lines.blank();
    }

    fn global(&mut self) {
        put!(self, "default-path config");
        put!(self, "log stdout format raw local0 info");
        let socket = self.place.directory.join(SOCKET);
        put!(self, "stats socket unix@{} mode 600 level admin expose-fd listeners", socket.display());
        put!(self, "stats timeout 1m");
        put!(self, "tune.ssl.default-dh-param 2048");
        put!(self, "lua-load {TOO_LARGE}");
        // For `normalize-uri`.
        put!(self, "expose-experimental-directives");
        self.fields.write(Context::Global, &mut self.lines);
    }

    fn defaults(&mut self) {
        let settings = &self.routing.settings;
        put!(self, "mode http");
        if !self.fields.is("disable-access-log") {
            put!(self, "log global");
        }
        match self.fields.get("log-format") {
            "" => put!(self, "option httplog"),
            _ => self.fields.write_or("log-format", "", &mut self.lines),
        }
        let ms = |time: std::time::Duration| format!("{}ms", milliseconds(&time));
        self.fields.write_or("timeout-client", &ms(settings.body_timeout), &mut self.lines);
        self.fields.write_or("timeout-http-request", &ms(settings.header_timeout), &mut self.lines);
        self.fields.write_or("timeout-http-keep-alive", &ms(settings.keep_alive), &mut self.lines);
        put!(self, "timeout connect 5s");
        put!(self, "timeout server 60s");
        self.fields.write(Context::Defaults, &mut self.lines);
        if settings.keep_alive_requests != super::Settings::default().keep_alive_requests {
            self.told
                .refused
                .push("HAProxy does not count a connection's requests: keep-alive-requests is passed over".into());
        }
    }

    /// Who is shown which certificate. The first line is for those who ask for no name of the list.
    fn certificates(&self) -> String {
        let own = |server: &Server| self.routing.secret_of(server).map(|secret| certificate_file(secret));
        let servers = &self.routing.servers;
        let any = servers.iter().find(|s| s.host == HostPattern::Any).and_then(own);
        let default = self.routing.default_certificate.as_ref().map(|_| DEFAULT_CERTIFICATE.to_owned());
        let mut lines: Vec<String> = any.or(default.clone()).into_iter().collect();
        let mut named = BTreeSet::new();
        for server in servers.iter().filter(|s| super::rendered::is_writable_host(&s.host)) {
            // A name without a certificate must not get that of a wildcard.
            let Some(file) = own(server).or_else(|| default.clone()) else { continue };
            if server.host != HostPattern::Any && named.insert(&server.host) {
                lines.push(format!("{file} {}", server.host));
            }
        }
        lines.into_iter().map(|line| line + "\n").collect()
    }
}
/// A time in milliseconds, as far as HAProxy can count: a longer one would be refused with the file.
fn milliseconds(time: &std::time::Duration) -> u128 {
    time.as_millis().min(i32::MAX.unsigned_abs().into())
}
