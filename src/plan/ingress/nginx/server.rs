//! Virtual hosts and their locations in nginx.conf.

use super::super::rendered::{
    DEFAULT_CERTIFICATE, anchored, certificate_file, is_attribute, is_section, is_token, is_writable_host,
};
use super::super::types::{Affinity, BackendProtocol, HostPattern, Location, Options, PathPattern, Server};
use super::paths::{Matcher, ways};
use super::{Page, put, quote};

impl Page<'_> {
    pub(super) fn servers(&mut self) {
        let routing = self.routing;
        if !routing.servers.iter().any(|s| s.host == HostPattern::Any) {
            self.lines.blank();
            self.lines.comment(format_args!("every name that no ingress has"));
            let rest = Server { host: HostPattern::Any, tls: None, locations: Vec::new() };
            self.server(&rest);
        }
        for server in &routing.servers {
            if !is_writable_host(&server.host) {
                let host = server.host.to_string();
                self.told.refused.push(format!("{host:?} is no name that a host can have"));
                continue;
            }
            self.lines.blank();
            self.lines.comment(format_args!("host {}", server.host));
            self.server(server);
        }
    }

    fn server(&mut self, server: &Server) {
        let ways = ways(&server.locations);
        self.block("server", |page| {
            page.listen(server);
            page.certificate(server);
            put!(page, "set $proxy_upstream_name \"-\";");
            page.app_root(server);
            for (matcher, location) in ways {
                page.lines.blank();
                match location {
                    Some(location) => page.location(&matcher, location),
                    None => page.rest(&matcher),
                }
            }
        });
    }

    fn listen(&mut self, server: &Server) {
        let any = if server.host == HostPattern::Any { " default_server" } else { "" };
        let http2 = if self.routing.settings.http2 { " http2" } else { "" };
        put!(self, "listen {}{any};", self.place.http);
        put!(self, "listen {} ssl{http2}{any};", self.place.https);
        match &server.host {
            HostPattern::Name(name) => put!(self, "server_name {name};"),
            // nginx' own wildcards stand for several labels.
            HostPattern::Wildcard(parent) => {
                put!(self, "server_name \"~^[^.]+\\.{}$\";", parent.replace('.', "\\."));
            }
            HostPattern::Any => put!(self, "server_name _;"),
        }
    }

    fn certificate(&mut self, server: &Server) {
        let own = server.tls.as_ref().zip(self.routing.secret_of(server));
        let file = match own {
            Some((tls, secret)) => {
                self.lines.comment(format_args!("{}: secret {secret}", tls.source));
                certificate_file(secret)
            }
            None if self.routing.default_certificate.is_some() => DEFAULT_CERTIFICATE.to_owned(),
            None => return put!(self, "ssl_reject_handshake on;"),
        };
        put!(self, "ssl_certificate {file};");
        put!(self, "ssl_certificate_key {file};");
        if own.is_some() {
            self.hsts();
        }
    }

    fn hsts(&mut self) {
        let Some(value) = self.routing.settings.hsts.as_ref().and_then(|value| quote::quote_text(value, false)) else {
            return;
        };
        // A header without a value is not sent.
        put!(self, "set $hsts \"\";");
        put!(self, "if ($scheme = https) {{ set $hsts {value}; }}");
        put!(self, "add_header Strict-Transport-Security $hsts always;");
    }

    /// Before any location is chosen, as by ingress-nginx.
    fn app_root(&mut self, server: &Server) {
        let Some(location) = server.locations.iter().find(|l| l.options.app_root.is_some()) else { return };
        let root = location.options.app_root.as_deref().filter(|root| root.starts_with('/'));
        let target = root.and_then(|root| {
            let root = quote::quote_text(root, false)?;
            // Its first quote gives way to what stands before it.
            root.strip_prefix('"').map(|root| format!("\"${{pass_access_scheme}}://${{best_http_host}}{root}"))
        });
        let Some(target) = target else {
            return self.refuse(location, "nginx cannot be told its app-root");
        };
        self.lines.comment(format_args!("{}: app-root", location.source));
        put!(self, "if ($uri = /) {{ return 302 {target}; }}");
    }

    fn refuse(&mut self, location: &Location, why: &str) {
        self.told.refused.push(format!("{}: {why}", location.source));
    }

    fn location(&mut self, matcher: &Matcher, location: &Location) {
        let Some(directive) = matcher.directive() else {
            return self.refuse(location, "nginx cannot read its path: it is too long or has control characters");
        };
        self.lines.comment(format_args!("{}: {}", location.source, location.path));
        self.block(&format!("location {directive}"), |page| {
            page.redirect(&location.options);
            page.limits(&location.options);
            page.rewrite(location);
            page.proxy(&location.backend, &location.options);
        });
    }

    /// What no location takes.
    fn rest(&mut self, matcher: &Matcher) {
        let Some(directive) = matcher.directive() else { return };
        let routing = self.routing;
        self.lines.comment(format_args!("what no path takes: the default backend"));
        self.block(&format!("location {directive}"), |page| match &routing.default_backend {
            Some(backend) => {
                page.limits(&routing.default_options);
                page.proxy(backend, &routing.default_options);
            }
            None => put!(page, "return 404;"),
        });
    }

    fn redirect(&mut self, options: &Options) {
        if options.ssl_redirect {
            let port = self.place.https.port();
            let port = if port == 443 { String::new() } else { format!(":{port}") };
            let code = self.fields.get("http-redirect-code");
            put!(self, "if ($pass_access_scheme = http) {{ return {code} https://$host{port}$request_uri; }}");
        }
    }

    fn limits(&mut self, options: &Options) {
        let Options { allow, body_size, .. } = options;
        for range in allow {
            put!(self, "allow {range};");
        }
        if !allow.is_empty() {
            put!(self, "deny all;");
        }
        put!(self, "client_max_body_size {body_size};");
    }

    fn rewrite(&mut self, location: &Location) {
        let Some(target) = &location.options.rewrite else { return };
        let regex = match &location.path {
            PathPattern::Regex(regex) => format!("(?i){}", anchored(regex)),
            _ => "^".to_owned(),
        };
        let target = target.starts_with('/').then(|| quote::quote_text(target, true)).flatten();
        match (quote::quote(&regex), target) {
            (Some(regex), Some(target)) => put!(self, "rewrite {regex} {target} break;"),
            _ => self.refuse(location, "nginx cannot be told its rewrite-target"),
        }
    }

    fn proxy(&mut self, name: &str, options: &Options) {
        let Some(backend) = self.routing.backends.get(name).filter(|_| is_section(name)) else {
            return put!(self, "return 503;");
        };
        let (kind, scheme) = match backend.protocol {
            BackendProtocol::Http => ("proxy", "http"),
            BackendProtocol::Https => ("proxy", "https"),
            BackendProtocol::Grpc => ("grpc", "grpc"),
            BackendProtocol::Grpcs => ("grpc", "grpcs"),
        };
        put!(self, "{kind}_connect_timeout {}ms;", options.connect_timeout.as_millis());
        put!(self, "{kind}_read_timeout {}ms;", options.read_timeout.as_millis());
        put!(self, "{kind}_send_timeout {}ms;", options.send_timeout.as_millis());
        put!(self, "set $proxy_upstream_name \"{name}\";");
        put!(self, "access_by_lua_block {{ require(\"balancer\").admit(\"{name}\") }}");
        if let Some(affinity) = &backend.affinity {
            self.stick(name, affinity);
        }
        put!(self, "{kind}_pass {scheme}://{name};");
    }

    fn stick(&mut self, backend: &str, affinity: &Affinity) {
        if !is_token(&affinity.cookie) {
            return self.told.refused.push(format!("{backend}: {:?} cannot be a cookie's name", affinity.cookie));
        }
        let attributes = attributes(affinity);
        let (cookie, attributes) = (quote::quote_lua(&affinity.cookie), quote::quote_lua(&attributes));
        put!(self, "header_filter_by_lua_block {{ require(\"balancer\").stick({cookie}, {attributes}) }}");
    }
}

/// A cookie's attributes as ingress-nginx writes them. Without `Secure` where it is not asked for: the
/// balancer adds it to answers over https.
fn attributes(affinity: &Affinity) -> String {
    let mut text = String::new();
    let path = if is_attribute(&affinity.path) { &affinity.path } else { "/" };
    text.push_str("; Path=");
    text.push_str(path);
    if let Some(seconds) = affinity.max_age {
        text.push_str(&format!("; Max-Age={seconds}"));
    }
    if let Some(site) = affinity.same_site.as_ref().filter(|s| is_attribute(s)) {
        text.push_str("; SameSite=");
        text.push_str(site);
    }
    if affinity.secure {
        text.push_str("; Secure");
    }
    text + "; HttpOnly"
}
