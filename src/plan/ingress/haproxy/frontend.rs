//! The frontend of haproxy.cfg: how requests are read, and where each goes.

use super::super::rendered::is_writable_host;
use super::super::types::{HostPattern, Location, PathPattern, Server};
use super::{CERTIFICATES, CLOSING, Manner, Page, put, quote};

impl Page<'_> {
    pub(super) fn frontend(&mut self, tls: bool) {
        let alpn = if self.routing.settings.http2 { "h2,http/1.1" } else { "http/1.1" };
        put!(self, "bind {}", self.place.http);
        if tls {
            let strict = if self.routing.default_certificate.is_some() { "" } else { " strict-sni" };
            put!(self, "bind {} ssl crt-list {CERTIFICATES} alpn {alpn}{strict}", self.place.https);
        }
        // Set before another process takes over, so that clients begin anew there.
        put!(
            self,
            "http-after-response set-header Connection close \
             if {{ var({CLOSING}) -m bool }} {{ fc_http_major 1 }} !{{ status 101 }}"
        );
        self.headers();
        self.paths();
        self.hosts();
        let rest = self.rest();
        put!(self, "default_backend {rest}");
    }

    /// What endpoints are told of the request, as by ingress-nginx.
    fn headers(&mut self) {
        put!(self, "http-request set-var(txn.proto) str(http)");
        put!(self, "http-request set-var(txn.proto) str(https) if {{ ssl_fc }}");
        put!(self, "http-request set-var(txn.port) dst_port");
        put!(self, "http-request set-var(txn.name) req.fhdr(host)");
        put!(self, "http-request set-var(txn.host) req.fhdr(host),field(1,:),lower,rtrim(.)");
        put!(self, "http-request del-header X-Original-Forwarded-For");
        let forwarded = "{ req.hdr(X-Forwarded-For) -m found }";
        put!(self, "http-request set-header X-Original-Forwarded-For %[req.fhdr(X-Forwarded-For)] if {forwarded}");
        if self.routing.settings.use_forwarded_headers {
            self.lines.comment(format_args!("ConfigMap, use-forwarded-headers"));
            put!(self, "http-request set-src req.hdr_ip(X-Forwarded-For,1) if {forwarded}");
            for (var, header) in
                [("proto", "X-Forwarded-Proto"), ("port", "X-Forwarded-Port"), ("name", "X-Forwarded-Host")]
            {
                put!(self, "http-request set-var(txn.{var}) req.fhdr({header}) if {{ req.hdr({header}) -m found }}");
            }
        }
        put!(self, "http-request set-header X-Request-ID %[uuid()] unless {{ req.hdr(X-Request-ID) -m found }}");
        for (header, value) in [
            ("X-Real-IP", "src"),
            ("X-Forwarded-For", "src"),
            ("X-Forwarded-Host", "var(txn.name)"),
            ("X-Forwarded-Port", "var(txn.port)"),
            ("X-Forwarded-Proto", "var(txn.proto)"),
            ("X-Forwarded-Scheme", "var(txn.proto)"),
            ("X-Scheme", "var(txn.proto)"),
        ] {
            put!(self, "http-request set-header {header} %[{value}]");
        }
        // httpoxy.org
        put!(self, "http-request del-header Proxy");
    }

    /// The path as nginx reads it, in `txn.path`; `txn.clean` is the same with its escapes. What the
    /// endpoint is sent stays as the client wrote it.
    fn paths(&mut self) {
        put!(self, "http-request set-var(txn.raw) pathq");
        // Slashes first: between two of them HAProxy would see a step, which `..` takes back.
        for step in ["percent-decode-unreserved", "path-merge-slashes", "path-strip-dot", "path-strip-dotdot full"] {
            put!(self, "http-request normalize-uri {step}");
        }
        put!(self, "http-request set-var(txn.clean) path");
        put!(self, "http-request set-var(txn.path) path,url_dec");
        put!(self, "http-request set-pathq %[var(txn.raw)] if {{ var(txn.raw) -m found }}");
        // Escapes that are none.
        put!(self, "http-request deny deny_status 400 unless {{ var(txn.path) -m found }}");
        // Escaped slashes and dots may have hidden a step, by which a rule could be walked around.
        put!(self, "acl hides var(txn.path) -m sub -- '/../' '/./' '//'");
        put!(self, "acl hides var(txn.path) -m end -- '/..' '/.'");
        // What some read as the path's end.
        put!(self, "acl hides path -m sub -- '%00'");
        put!(self, "http-request deny deny_status 400 if hides");
    }

    /// Where what no path takes goes.
    fn rest(&self) -> String {
        let Some(default) = &self.routing.default_backend else { return "not-found".to_owned() };
        self.sections.find(default, Manner::rest(self.routing)).unwrap_or("no-endpoints").to_owned()
    }

    fn hosts(&mut self) {
        let routing = self.routing;
        let writable = |server: &&Server| is_writable_host(&server.host);
        for server in routing.servers.iter().filter(|s| !is_writable_host(&s.host)) {
            self.told.refused.push(format!("{:?} is no name that a host can have", server.host.to_string()));
        }
        let servers: Vec<(usize, &Server)> = routing.servers.iter().filter(writable).enumerate().collect();
        // A request belongs to the first that fits, and to no other.
        for (n, server) in &servers {
            self.lines.comment(format_args!("host {}", server.host));
            let condition = match &server.host {
                HostPattern::Name(name) => format!("{{ var(txn.host) -m str -- '{name}' }}"),
                HostPattern::Wildcard(parent) => {
                    format!("{{ var(txn.host) -m reg -- '^[^.]+\\.{}$' }}", parent.replace('.', "\\."))
                }
                HostPattern::Any => "TRUE".to_owned(),
            };
            put!(self, "http-request set-var(txn.server) int({n}) if {condition} !{{ var(txn.server) -m found }}");
        }
        for (n, server) in &servers {
            self.app_root(*n, server);
        }
        for (n, server) in servers {
            self.lines.blank();
            self.lines.comment(format_args!("host {}", server.host));
            put!(self, "acl host_{n} var(txn.server) -m int {n}");
            let hsts = routing.settings.hsts.as_ref().filter(|_| routing.secret_of(server).is_some());
            if let Some(value) = hsts.and_then(|value| quote::quote_text(value)) {
                let how = "http-after-response set-header Strict-Transport-Security";
                put!(self, "{how} {value} if {{ ssl_fc }} {{ var(txn.server) -m int {n} }}");
            }
            for (m, location) in server.locations.iter().enumerate() {
                self.location((n, m), location);
            }
            let rest = self.rest();
            self.lines.comment(format_args!("what no path takes: the default backend"));
            put!(self, "use_backend {rest} if host_{n}");
        }
        self.lines.blank();
    }

    fn app_root(&mut self, n: usize, server: &Server) {
        let Some(location) = server.locations.iter().find(|l| l.options.app_root.is_some()) else { return };
        let root = location.options.app_root.as_deref().filter(|root| root.starts_with('/'));
        let Some(root) = root.and_then(quote::quote_text) else {
            return self.refuse(location, "HAProxy cannot be told its app-root");
        };
        self.lines.comment(format_args!("{}: app-root", location.source));
        put!(
            self,
            "http-request redirect code 302 location '%[var(txn.proto)]://%[var(txn.name)]'{root} \
             if {{ var(txn.server) -m int {n} }} {{ var(txn.path) -m str -- '/' }}"
        );
    }

    pub(super) fn refuse(&mut self, location: &Location, why: &str) {
        self.told.refused.push(format!("{}: {why}", location.source));
    }

    fn location(&mut self, (n, m): (usize, usize), location: &Location) {
        let Some(conditions) = conditions(&location.path) else {
            return self.refuse(location, "HAProxy cannot read its path: it is too long or has control characters");
        };
        let section = self.sections.find(&location.backend, Manner::of(location));
        let section = section.unwrap_or("no-endpoints").to_owned();
        self.lines.comment(format_args!("{}: {}", location.source, location.path));
        for condition in conditions {
            put!(self, "acl path_{n}_{m} var(txn.path) {condition}");
        }
        put!(self, "use_backend {section} if host_{n} path_{n}_{m}");
    }
}

/// Each of them takes the path.
fn conditions(path: &PathPattern) -> Option<Vec<String>> {
    Some(match path {
        PathPattern::Exact(path) => vec![format!("-m str -- {}", quote::quote(path)?)],
        PathPattern::Begin(path) => vec![format!("-m beg -- {}", quote::quote(path)?)],
        PathPattern::Prefix(path) => {
            let elements = path.trim_end_matches('/');
            let below = format!("-m beg -- {}", quote::quote(&format!("{elements}/"))?);
            if elements.is_empty() {
                vec![below]
            } else {
                vec![format!("-m str -- {}", quote::quote(elements)?), below]
            }
        }
        PathPattern::Regex(regex) => {
            vec![format!("-m reg -i -- {}", quote::quote(&super::super::rendered::anchored(regex))?)]
        }
    })
}
