//! nginx.conf as a pure function of what a controller must do, in the way of ingress-nginx: one
//! `server` for each virtual host, one `upstream` for each backend, and a balancer in Lua that asks
//! for endpoints, so that the file says nothing of pods and need not change with them.
//!
//! Debian's nginx 1.22 with its Lua module reads the file. Each part is preceded by the object that
//! it comes from. Values of objects are quoted by `quote`, paths ordered by `paths`, the ConfigMap's
//! fields written by `fields`, hosts and their locations by `server`. Checking, starting and
//! reloading is `crate::workload::ingress`'s.

mod fields;
mod paths;
mod quote;
mod server;

use super::rendered::{File, Lines, Place, Rendered, certificate_files, is_section, is_token};
use super::types::{Backend, Endpoints, Routing};
use fields::{Context, Fields};

/// Where Debian's packages put nginx' modules.
pub const MODULES: &str = "/usr/lib/nginx/modules";
/// The module that the balancer needs, and the one which that needs, with their packages.
pub const NEEDED: [(&str, &str); 2] =
    [("ndk_http_module.so", "libnginx-mod-http-ndk"), ("ngx_http_lua_module.so", "libnginx-mod-http-lua")];
/// The Unix socket in the directory on which endpoints are set.
pub const SOCKET: &str = "control.sock";
/// The file in the directory from which the balancer takes the first endpoints.
pub const FIRST_ENDPOINTS: &str = "endpoints";
/// The directories, besides, in which nginx keeps bodies that are too large for its memory.
pub const DIRECTORIES: [&str; 5] = ["body", "proxy", "fastcgi", "uwsgi", "scgi"];

/// The whole configuration for `routing`. Files: `nginx.conf`, the balancer, and one for each
/// certificate, to which `nginx.conf` refers relative to itself.
pub fn render(routing: &Routing, place: Place<'_>) -> Rendered {
    let mut told = Rendered::default();
    let fields = Fields::read(&routing.settings.fields, &mut told);
    let mut page = Page { routing, place, fields, lines: Lines::default(), told };
    page.main();
    let Page { lines, told: mut rendered, .. } = page;
    let file = |name: &str, text: String| File { name: name.to_owned(), text, secret: false };
    rendered.files.push(file("nginx.conf", lines.finish()));
    rendered.files.push(file("balancer.lua", include_str!("nginx/balancer.lua").to_owned()));
    rendered.files.extend(certificate_files(routing));
    rendered
}

/// Endpoints as the balancer reads them: `BACKEND HOST PORT`, a line each.
pub fn endpoints(endpoints: &Endpoints) -> String {
    let lines = endpoints.iter().flat_map(|(backend, all)| {
        all.iter().map(move |e| match e.address {
            std::net::SocketAddr::V4(a) => format!("{backend} {} {}\n", a.ip(), a.port()),
            std::net::SocketAddr::V6(a) => format!("{backend} [{}] {}\n", a.ip(), a.port()),
        })
    });
    lines.collect()
}

/// The file as it grows.
struct Page<'a> {
    routing: &'a Routing,
    place: Place<'a>,
    fields: Fields,
    lines: Lines,
    told: Rendered,
}

/// Write a line into a page.
macro_rules! put {
    ($page:expr, $($words:tt)*) => { $page.lines.line(format_args!($($words)*)) };
}
use put;

impl Page<'_> {
    fn main(&mut self) {
        self.lines.comment(format_args!("Written by labctl from the lab's ingresses. What is changed here is lost."));
        for (module, _) in NEEDED {
            put!(self, "load_module {MODULES}/{module};");
        }
        let directory = self.place.directory.display();
        self.lines.blank();
        put!(self, "user root;");
        put!(self, "daemon off;");
        put!(self, "pid {directory}/nginx.pid;");
        self.fields.write(Context::Main, &mut self.lines);
        self.lines.blank();
        self.block("events", |page| page.fields.write(Context::Events, &mut page.lines));
        self.lines.blank();
        self.block("http", Page::http);
    }

    fn block(&mut self, head: &str, inside: impl FnOnce(&mut Self)) {
        put!(self, "{head} {{");
        self.lines.depth += 1;
        inside(self);
        self.lines.depth -= 1;
        put!(self, "}}");
    }

    fn http(&mut self) {
        let directory = self.place.directory.display();
        for (name, what) in DIRECTORIES.iter().zip(["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]) {
            put!(self, "{what}_temp_path {directory}/{name};");
        }
        self.lines.blank();
        put!(self, "lua_package_path \"{directory}/current/?.lua;/usr/share/lua/5.1/?.lua;;\";");
        put!(self, "lua_shared_dict endpoints 32m;");
        put!(self, "init_by_lua_block {{ require(\"balancer\").init(\"{directory}/{FIRST_ENDPOINTS}\") }}");
        put!(self, "init_worker_by_lua_block {{ require(\"balancer\").begin() }}");
        self.lines.blank();
        self.settings();
        self.hashes();
        self.log();
        self.lines.blank();
        self.variables();
        self.lines.blank();
        self.headers();
        self.control();
        self.upstreams();
        self.servers();
    }

    fn settings(&mut self) {
        let settings = &self.routing.settings;
        put!(self, "keepalive_timeout {}ms;", settings.keep_alive.as_millis());
        put!(self, "keepalive_requests {};", settings.keep_alive_requests.max(1));
        put!(self, "client_header_timeout {}ms;", settings.header_timeout.as_millis());
        put!(self, "client_body_timeout {}ms;", settings.body_timeout.as_millis());
        self.fields.write(Context::Http, &mut self.lines);
        put!(
            self,
            "proxy_buffers {} {};",
            self.fields.get("proxy-buffers-number"),
            self.fields.get("proxy-buffer-size")
        );
        put!(self, "tcp_nopush on;");
        put!(self, "tcp_nodelay on;");
        put!(self, "default_type text/plain;");
        if settings.use_forwarded_headers {
            self.lines.comment(format_args!("ConfigMap, use-forwarded-headers"));
            for range in self.fields.get("proxy-real-ip-cidr").split(' ') {
                put!(self, "set_real_ip_from {range};");
            }
            put!(self, "real_ip_header X-Forwarded-For;");
            put!(self, "real_ip_recursive on;");
        }
        if self.fields.is("allow-backend-server-header") {
            put!(self, "proxy_pass_header Server;");
        }
        let hidden: Vec<&str> = self.fields.get("hide-headers").split([',', ' ']).filter(|h| !h.is_empty()).collect();
        for header in hidden {
            if is_token(header) {
                self.lines.line(format_args!("proxy_hide_header {header};"));
            } else {
                self.told
                    .refused
                    .push(format!("the ConfigMap's hide-headers has {header:?}, which is no header's name"));
            }
        }
    }

    /// nginx wants to be told how long the longest name is, and how many there are.
    fn hashes(&mut self) {
        let longest = self.routing.servers.iter().map(|s| s.host.to_string().len()).max().unwrap_or(0);
        put!(self, "server_names_hash_bucket_size {};", (longest + 32).next_power_of_two().max(64));
        put!(self, "server_names_hash_max_size {};", (self.routing.servers.len() * 2).next_power_of_two().max(1024));
        put!(self, "proxy_headers_hash_max_size 1024;");
        put!(self, "proxy_headers_hash_bucket_size 128;");
    }

    fn log(&mut self) {
        let format = self.fields.get("log-format-upstream");
        put!(self, "log_format upstreaminfo {format};");
        if self.fields.is("disable-access-log") {
            put!(self, "access_log off;");
        } else {
            put!(self, "access_log /dev/stdout upstreaminfo;");
        }
    }

    /// ingress-nginx' own variables, under its names.
    fn variables(&mut self) {
        let believed = self.routing.settings.use_forwarded_headers;
        let mut map = |from: &str, to: &str, filled: &str, empty: &str| {
            put!(self, "map {from} {to} {{ default {filled}; '' {empty}; }}");
        };
        map("$http_upgrade", "$connection_upgrade", "upgrade", "''");
        map("$http_x_request_id", "$req_id", "$http_x_request_id", "$request_id");
        map("$http_host", "$this_host", "$http_host", "$host");
        let (host, scheme, port, from) = if believed {
            ("$http_x_forwarded_host", "$http_x_forwarded_proto", "$http_x_forwarded_port", "$http_x_forwarded_for")
        } else {
            ("$this_host", "$scheme", "$server_port", "$remote_addr")
        };
        map(host, "$best_http_host", host, "$this_host");
        map(scheme, "$pass_access_scheme", scheme, "$scheme");
        map(port, "$pass_port", port, "$server_port");
        if believed && self.fields.is("compute-full-forwarded-for") {
            let full = "\"$http_x_forwarded_for, $realip_remote_addr\"";
            put!(self, "map {from} $full_forwarded_for {{ default {full}; '' $realip_remote_addr; }}");
        } else {
            put!(self, "map '' $full_forwarded_for {{ default $remote_addr; }}");
        }
        put!(self, "geo $dollar {{ default \"$\"; }}");
    }

    /// What endpoints are told of the request, as by ingress-nginx.
    fn headers(&mut self) {
        put!(self, "proxy_http_version 1.1;");
        put!(self, "proxy_redirect off;");
        put!(self, "proxy_ssl_verify off;");
        put!(self, "grpc_ssl_verify off;");
        put!(self, "grpc_next_upstream {};", self.fields.get("proxy-next-upstream"));
        let headers = [
            ("Host", "$best_http_host"),
            ("X-Request-ID", "$req_id"),
            ("X-Real-IP", "$remote_addr"),
            ("X-Forwarded-For", "$full_forwarded_for"),
            ("X-Forwarded-Host", "$best_http_host"),
            ("X-Forwarded-Port", "$pass_port"),
            ("X-Forwarded-Proto", "$pass_access_scheme"),
            ("X-Forwarded-Scheme", "$pass_access_scheme"),
            ("X-Scheme", "$pass_access_scheme"),
            ("X-Original-Forwarded-For", "$http_x_forwarded_for"),
            // httpoxy.org
            ("Proxy", "\"\""),
        ];
        for (name, value) in headers {
            put!(self, "proxy_set_header {name} {value};");
            put!(self, "grpc_set_header {name} {value};");
        }
        put!(self, "proxy_set_header Upgrade $http_upgrade;");
        put!(self, "proxy_set_header Connection $connection_upgrade;");
    }

    /// Where the controller sets endpoints, for nobody but whoever may open the socket.
    fn control(&mut self) {
        let socket = self.place.directory.join(SOCKET);
        self.lines.blank();
        self.block("server", |page| {
            put!(page, "listen unix:{};", socket.display());
            put!(page, "access_log off;");
            put!(page, "client_max_body_size 0;");
            put!(page, "client_body_buffer_size 64m;");
            put!(page, "location / {{ content_by_lua_block {{ require(\"balancer\").control() }} }}");
        });
    }

    fn upstreams(&mut self) {
        let routing = self.routing;
        for (name, backend) in &routing.backends {
            if !is_section(name) {
                self.told.refused.push(format!("{name:?} cannot be the name of an upstream of nginx"));
                continue;
            }
            self.lines.blank();
            self.lines.comment(format_args!("service {}, port {}", backend.service, backend.port));
            self.block(&format!("upstream {name}"), |page| page.upstream(name, backend));
        }
    }

    fn upstream(&mut self, name: &str, backend: &Backend) {
        let tries = self.routing.settings.tries;
        let affinity = backend.affinity.as_ref().filter(|a| is_token(&a.cookie));
        let affinity = affinity.map(|a| format!(", {}, {}", quote::quote_lua(&a.cookie), a.change_on_failure));
        let affinity = affinity.unwrap_or_default();
        put!(self, "server 0.0.0.1;");
        put!(self, "balancer_by_lua_block {{ require(\"balancer\").choose(\"{name}\", {tries}{affinity}) }}");
        self.fields.write(Context::Upstream, &mut self.lines);
    }
}
