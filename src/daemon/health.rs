//! kube-proxy's health check servers (`healthcheck/service_health.go`): for each service that has a
//! healthCheckNodePort, a small HTTP server on every host, which tells a load balancer whether
//! the host has endpoints of its own. What they answer is planned in `plan::proxy::health`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::task::JoinHandle;

use crate::kernel::ns::NetNs;
use crate::lab::Lab;
use crate::lab::names::{HostName, NsName};
use crate::plan::proxy::health::HealthCheck;
use crate::plan::services::{Proxies, proxy_config};

/// How long a request may take to come, and a connection in all.
const HEAD: Duration = Duration::from_secs(5);
const SLOW: Duration = Duration::from_secs(30);
/// More connections at once than any load balancer has; the others wait in the kernel.
const AT_ONCE: usize = 64;

const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

/// Which host, and the address and port there.
type Key = (HostName, SocketAddr);

/// Every health check server of a lab.
#[derive(Default)]
pub struct HealthServers {
    answers: Rc<RefCell<HashMap<Key, HealthCheck>>>,
    tasks: RefCell<HashMap<Key, JoinHandle<()>>>,
    trouble: RefCell<Vec<String>>,
}

/// A server that is to be, and the namespace that it is to be in.
struct Wanted {
    key: Key,
    service: String,
    netns: NetNs,
}

impl HealthServers {
    /// Serve what these rules say, and nothing else. A port that somebody else listens on is told by
    /// [`HealthServers::trouble`] and tried again the next time.
    pub fn follow(&self, lab: &Lab, proxies: &Proxies, netns: impl Fn(&NsName) -> Option<NetNs>) {
        let mut wanted = Vec::new();
        let mut answers = HashMap::new();
        for host in &lab.hosts {
            let checks = proxies.get(&host.name).map(|p| p.health.as_slice()).unwrap_or_default();
            let (false, Some(netns)) = (checks.is_empty(), netns(&host.ns())) else { continue };
            let anywhere = || vec![IpAddr::from(Ipv4Addr::UNSPECIFIED)];
            let ips = proxy_config(lab, host).nodeport_ips().unwrap_or_else(anywhere);
            for (check, ip) in checks.iter().flat_map(|check| ips.iter().map(move |ip| (check, *ip))) {
                let key = (host.name.clone(), SocketAddr::new(ip, check.port));
                let service = check.service.to_string();
                wanted.push(Wanted { key: key.clone(), service, netns: netns.clone() });
                answers.insert(key, check.clone());
            }
        }
        let mut tasks = self.tasks.borrow_mut();
        tasks.retain(|key, task| {
            let stays = answers.contains_key(key) && !task.is_finished();
            if !stays {
                task.abort();
            }
            stays
        });
        *self.answers.borrow_mut() = answers;
        wanted.retain(|w| !tasks.contains_key(&w.key));
        let mut trouble = Vec::new();
        for (wanted, socket) in open(wanted) {
            match socket.and_then(tokio::net::TcpListener::from_std) {
                Ok(listener) => {
                    let task = serve(listener, wanted.key.clone(), Rc::clone(&self.answers));
                    tasks.insert(wanted.key, tokio::task::spawn_local(task));
                }
                Err(e) => {
                    let (host, at) = &wanted.key;
                    trouble.push(format!("host {host}: the health check of service {} on {at}: {e}", wanted.service));
                }
            }
        }
        *self.trouble.borrow_mut() = trouble;
    }

    pub fn trouble(&self) -> Vec<String> {
        self.trouble.borrow().clone()
    }
}

/// Make the sockets. One thread walks through the namespaces.
fn open(wanted: Vec<Wanted>) -> Vec<(Wanted, io::Result<TcpListener>)> {
    let socket = |wanted: &Wanted| -> io::Result<TcpListener> {
        wanted.netns.enter()?;
        let socket = TcpListener::bind(wanted.key.1)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    if wanted.is_empty() {
        return Vec::new();
    }
    let made = std::thread::scope(|scope| {
        scope.spawn(|| wanted.iter().map(socket).collect::<Vec<_>>()).join().unwrap_or_default()
    });
    wanted.into_iter().zip(made).collect()
}

async fn serve(listener: tokio::net::TcpListener, key: Key, answers: Rc<RefCell<HashMap<Key, HealthCheck>>>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.len() >= AT_ONCE {
            connections.join_next().await;
        }
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely: there will be some again, and asking at once is no help.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (key, answers) = (key.clone(), Rc::clone(&answers));
        connections.spawn_local(async move {
            let service = service_fn(|_| {
                let answer = answers.borrow().get(&key).map_or_else(gone, answer);
                async move { Ok::<_, Infallible>(answer) }
            });
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(16 << 10).title_case_headers(true);
            // Whatever a client does wrong ends its own connection.
            let _ = tokio::time::timeout(SLOW, builder.serve_connection(TokioIo::new(stream), service)).await;
        });
    }
}

/// A connection that was kept open is asked on for a service that is no more.
fn gone() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response
}

/// As kube-proxy answers, whatever the path: its JSON is indented by tabs and has no line end behind it.
fn answer(check: &HealthCheck) -> Response<Full<Bytes>> {
    let mut body = Vec::new();
    let form = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    // Writing to memory cannot fail, and the answer has nothing that JSON lacks.
    let _ = check.answer().serialize(&mut serde_json::Serializer::with_formatter(&mut body, form));
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = StatusCode::from_u16(check.status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(WEIGHT, HeaderValue::from(check.local_endpoints));
    response
}
