//! The backends of haproxy.cfg: options, affinity, servers.

use std::time::Duration;

use super::super::rendered::{anchored, is_attribute, is_token};
use super::super::types::{Affinity, Backend, BackendProtocol, Location, Options, PathPattern};
use super::{Page, put, quote};

impl Page<'_> {
    pub(super) fn backends(&mut self) {
        let routing = self.routing;
        for section in std::mem::take(&mut self.sections.0) {
            let Some(backend) = routing.backends.get(section.backend) else { continue };
            self.lines.comment(format_args!("service {}, port {}", backend.service, backend.port));
            self.section(&format!("backend {}", section.name), |page| {
                page.tries();
                page.answers(section.manner.options);
                match section.first {
                    Some(location) => page.lines.comment(format_args!("{}", location.source)),
                    None => page.lines.comment(format_args!("what no path takes: the default backend")),
                }
                page.options(section.manner.options);
                if let Some(location) = section.first {
                    page.rewrite(location);
                }
                if let Some(affinity) = &backend.affinity {
                    page.affinity(section.backend, affinity);
                }
                page.servers(section.backend, backend);
            });
        }
    }

    /// Another endpoint is tried as by nginx: where one refuses, or closes without a word, unless the
    /// request may have had an effect.
    fn tries(&mut self) {
        put!(self, "retries {}", self.most_tries() - 1);
        put!(self, "option redispatch 1");
        put!(self, "retry-on conn-failure empty-response");
        put!(self, "http-request disable-l7-retry unless METH_GET or METH_OPTIONS");
    }

    fn most_tries(&self) -> u32 {
        match self.routing.settings.tries {
            0 => 16,
            tries => tries,
        }
    }

    /// HAProxy says 503 both where nobody serves and where whoever serves cannot be reached, which is
    /// 502 or, where it takes too long, 504 (RFC 9110, 15.6). Which of these it was tells the time that
    /// passed: an endpoint that refuses is asked again after a second or the limit, whichever is less.
    fn answers(&mut self, options: &Options) {
        let limit = milliseconds(options.connect_timeout);
        let all = limit * u128::from(self.most_tries()) - limit / 2;
        put!(self, "http-request set-var(txn.begun) date(0,ms)");
        put!(self, "http-response set-var(txn.answered) bool(true)");
        let unreached = "{ status 503 } { nbsrv gt 0 } !{ var(txn.answered) -m found }";
        put!(self, "http-after-response set-status 504 if {unreached} {{ date(0,ms),sub(txn.begun) ge {all} }}");
        put!(self, "http-after-response set-status 502 if {unreached}");
        put!(self, "http-error status 503 content-type text/plain string 'No endpoint could be asked.'");
    }

    fn options(&mut self, options: &Options) {
        let Options { ssl_redirect, allow, body_size, connect_timeout, read_timeout, .. } = options;
        put!(self, "timeout connect {}ms", milliseconds(*connect_timeout));
        // HAProxy has one limit for both directions; which is to be noticed is who does not answer.
        put!(self, "timeout server {}ms", milliseconds(*read_timeout));
        if *ssl_redirect {
            let port = self.place.https.port();
            let port = if port == 443 { String::new() } else { format!(":{port}") };
            put!(
                self,
                "http-request redirect code 308 location https://%[var(txn.host)]{port}%[var(txn.raw)] \
                 if {{ var(txn.proto) -m str -- http }}"
            );
        }
        // One a line: a line has room for some sixty words.
        for range in allow {
            put!(self, "acl allowed src {range}");
        }
        if !allow.is_empty() {
            put!(self, "http-request deny deny_status 403 unless allowed");
        }
        if *body_size > 0 {
            put!(self, "http-request use-service lua.too-large if {{ req.body_size gt {body_size} }}");
        }
    }

    fn rewrite(&mut self, location: &Location) {
        let Some(target) = &location.options.rewrite else { return };
        let regex = match &location.path {
            PathPattern::Regex(regex) => format!("(?i){}.*$", anchored(regex)),
            _ => "^.*$".to_owned(),
        };
        let (target, query) = target.split_once('?').map_or((target.as_str(), None), |(t, q)| (t, Some(q)));
        let rewrite = target.starts_with('/').then(|| quote::quote_rewrite(target)).flatten();
        let words = (quote::quote(&regex), rewrite, quote::quote_text(query.unwrap_or_default()));
        let (Some(regex), Some(target), Some(new)) = words else {
            return self.refuse(location, "HAProxy cannot be told its rewrite-target");
        };
        put!(self, "http-request set-path %[var(txn.clean)]");
        put!(self, "http-request replace-path {regex} {target}");
        match query {
            None | Some("") => {}
            Some(_) => {
                put!(self, "http-request set-query {new}'&%[query]' if {{ query -m found }}");
                put!(self, "http-request set-query {new} unless {{ query -m found }}");
            }
        }
    }

    fn affinity(&mut self, backend: &str, affinity: &Affinity) {
        if !is_token(&affinity.cookie) {
            return self.told.refused.push(format!("{backend}: {:?} cannot be a cookie's name", affinity.cookie));
        }
        let mut attributes = vec![format!("Path={}", affinity.path)];
        attributes.extend(affinity.max_age.map(|seconds| format!("Max-Age={seconds}")));
        attributes.extend(affinity.same_site.as_ref().map(|site| format!("SameSite={site}")));
        let written = attributes.iter().filter(|a| is_attribute(a)).filter_map(|a| quote::quote(a));
        let attributes: String = written.map(|a| format!(" attr {a}")).collect();
        let secure = if affinity.secure { " secure" } else { "" };
        put!(self, "cookie {} insert indirect nocache httponly dynamic{secure}{attributes}", affinity.cookie);
        // Makes cookies of addresses; there is nothing to keep secret in it.
        put!(self, "dynamic-cookie-key labctl");
        if !affinity.change_on_failure {
            put!(self, "no option redispatch");
        }
    }

    fn servers(&mut self, name: &str, backend: &Backend) {
        let how = match backend.protocol {
            BackendProtocol::Http => "",
            BackendProtocol::Https => " ssl verify none",
            BackendProtocol::Grpc => " proto h2",
            BackendProtocol::Grpcs => " ssl verify none alpn h2",
        };
        let servers = self.slots.servers(name);
        for (n, address) in (1..).zip(servers) {
            match address {
                Some(address) => put!(self, "server s{n} {address}{how}"),
                None => put!(self, "server s{n} 127.0.0.1:{n} disabled{how}"),
            }
        }
    }
}

/// A limit as HAProxy takes it: never none.
fn milliseconds(time: Duration) -> u128 {
    super::milliseconds(&time).max(1)
}
