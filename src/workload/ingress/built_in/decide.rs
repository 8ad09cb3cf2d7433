//! What becomes of a request, in the order of nginx' phases: bad ones are refused, some are redirected or
//! forbidden, and the rest has a backend.

use std::net::IpAddr;

use hyper::body::{Body, Incoming};
use hyper::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::http::uri::{Authority, PathAndQuery};
use hyper::{Method, Request, StatusCode, Version};

use super::connection::Peer;
use super::headers::{self, Facts};
use super::pages::Page;
use crate::plan::ingress::{
    Arrived, Backend, BackendName, Choice, Options, OwnAnswer, Rewritten, Router, host_of, normalise,
};

/// Where a request goes.
pub struct Way<'a> {
    pub name: &'a BackendName,
    pub backend: &'a Backend,
    pub options: &'a Options,
    /// What the endpoint is asked for.
    pub target: PathAndQuery,
    pub facts: Facts,
    /// The client's cookie that names an endpoint.
    pub sticky: Option<String>,
    /// Whether the virtual host has a certificate of its own.
    pub secured: bool,
}

/// Says also which rule takes the request, to `taken`.
///
/// # Errors
/// The controller's own answer, where no endpoint is to be asked.
pub fn decide<'a>(
    router: &'a Router,
    peer: &Peer,
    (request, id): (&Request<Incoming>, &HeaderValue),
    taken: impl FnOnce(&Choice<'_>),
) -> Result<Way<'a>, Page> {
    let bad = |why: &str| Page::new(StatusCode::BAD_REQUEST, why);
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        return Err(Page::new(StatusCode::METHOD_NOT_ALLOWED, format!("it does not do {}", request.method())).closing());
    }
    let authority = authority(request)?;
    let written = authority.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default();
    let host = if authority.is_some() { host_of(written).map_err(bad)? } else { "".into() };
    let path = normalise(request.uri().path().as_bytes()).map_err(bad)?;
    let choice = router.choose(&host, &path);
    taken(&choice);
    let secured = choice.has_certificate();
    let asked = Asked { authority: authority.as_ref(), host: &host, path: &path, request, id };
    follow((router, peer), choice, asked).map(|way| Way { secured, ..way }).map_err(|page| Page { secured, ..page })
}

/// A request as it was read.
struct Asked<'a> {
    authority: Option<&'a HeaderValue>,
    host: &'a str,
    path: &'a [u8],
    request: &'a Request<Incoming>,
    id: &'a HeaderValue,
}

/// What the virtual host's rules say.
fn follow<'a>((router, peer): (&'a Router, &Peer), choice: Choice<'a>, asked: Asked<'_>) -> Result<Way<'a>, Page> {
    let Asked { authority, host, path, request, id } = asked;
    let trust = router.routing().settings.use_forwarded_headers;
    let facts = facts(peer, request.headers(), (authority.cloned(), id, trust));
    let arrived = Arrived {
        path,
        https: facts.scheme.as_bytes() == b"https",
        client: facts.remote,
        body: request.body().size_hint().lower(),
    };
    if let Some(own) = choice.own_answer(&arrived) {
        return Err(page(own, &facts, (authority, request)));
    }
    let options = choice.options();
    let (name, backend) = backend(router, &choice, host)?;
    let target = target(&choice, path, request)?;
    let cookie = backend.affinity.as_ref().and_then(|a| headers::cookie(request.headers(), &a.cookie));
    Ok(Way { name, backend, options, target, facts, sticky: cookie.map(str::to_owned), secured: false })
}

/// Whom the request is for, as written. Nothing in HTTP/1.0 without a Host header.
fn authority(request: &Request<Incoming>) -> Result<Option<HeaderValue>, Page> {
    let bad = |why: &str| Page::new(StatusCode::BAD_REQUEST, why);
    let mut hosts = request.headers().get_all(HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err(bad("the request has more than one Host header"));
    }
    // What an absolute-form request or HTTP/2's `:authority` says goes before the header (RFC 9112, 3.2.2).
    if let Some(authority) = request.uri().authority() {
        let bare = authority.as_str().rsplit_once('@').map_or(authority.as_str(), |(_, bare)| bare);
        return HeaderValue::from_str(bare).map(Some).map_err(|_| bad("the host's name cannot be read"));
    }
    match first {
        None if request.version() == Version::HTTP_10 => Ok(None),
        None => Err(bad("the request has no Host header")),
        some => Ok(some.cloned()),
    }
}

fn facts(peer: &Peer, headers: &HeaderMap, (host, id, trust): (Option<HeaderValue>, &HeaderValue, bool)) -> Facts {
    let believed = |name: HeaderName| first_of(headers.get(name).filter(|_| trust)?);
    let client = believed(headers::FORWARDED_FOR).and_then(|value| value.to_str().ok()?.parse::<IpAddr>().ok());
    let host = believed(headers::FORWARDED_HOST).or(host);
    Facts {
        remote: client.unwrap_or(peer.remote),
        host: host.unwrap_or_else(|| HeaderValue::from_static("localhost")),
        port: believed(headers::FORWARDED_PORT).unwrap_or_else(|| HeaderValue::from(peer.port)),
        scheme: believed(headers::FORWARDED_PROTO).unwrap_or_else(|| HeaderValue::from_static(peer.scheme.name())),
        id: headers.get(headers::REQUEST_ID).unwrap_or(id).clone(),
    }
}

/// The first of a list, which is what the proxy nearest to the client wrote.
fn first_of(value: &HeaderValue) -> Option<HeaderValue> {
    let first = value.as_bytes().split(|&b| b == b',').next()?.trim_ascii();
    HeaderValue::from_bytes(first).ok().filter(|value| !value.is_empty())
}

/// The page of an answer of the controller's own.
fn page(own: OwnAnswer, facts: &Facts, (authority, request): (Option<&HeaderValue>, &Request<Incoming>)) -> Page {
    match own {
        OwnAnswer::AppRoot(root) => {
            let written = authority.and_then(|value| value.to_str().ok()).unwrap_or_default();
            let to = format!("{}://{written}{root}", facts.scheme.to_str().unwrap_or("http"));
            Page::redirect(StatusCode::FOUND, to)
        }
        OwnAnswer::TooLarge(limit) => too_large(limit),
        OwnAnswer::ToHttps => {
            let host = facts.host.to_str().ok().and_then(|written| host_of(written).ok());
            let rest = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
            Page::redirect(StatusCode::PERMANENT_REDIRECT, format!("https://{}{rest}", host.unwrap_or_default()))
        }
        OwnAnswer::Forbidden => {
            let why = format!("{} is in none of the ranges that may come here", facts.remote);
            Page::new(StatusCode::FORBIDDEN, why)
        }
    }
}

pub fn too_large(limit: u64) -> Page {
    Page::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than proxy-body-size, {limit} bytes"))
        .closing()
}

fn backend<'a>(router: &'a Router, choice: &Choice<'a>, host: &str) -> Result<(&'a BackendName, &'a Backend), Page> {
    let Some(name) = choice.backend() else {
        let why = match choice.server {
            None => format!("no ingress has a rule for the host {host}, and there is no default backend"),
            Some(server) => {
                format!("no rule for the host {} takes this path, and there is no default backend", server.host)
            }
        };
        return Err(Page::new(StatusCode::NOT_FOUND, why));
    };
    let backend = router.routing().backends.get_key_value(name);
    backend.ok_or_else(|| Page::new(StatusCode::SERVICE_UNAVAILABLE, format!("there is no backend {name}")))
}

/// What the endpoint is asked for: what the client wrote, or what a rewrite makes of it.
fn target(choice: &Choice<'_>, path: &[u8], request: &Request<Incoming>) -> Result<PathAndQuery, Page> {
    let uri = request.uri();
    let Some(rewritten) = choice.rewrite(path) else {
        return Ok(uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")));
    };
    let text = join(&rewritten, uri.query());
    let slash = if text.starts_with('/') { "" } else { "/" };
    let bad = |_| Page::new(StatusCode::BAD_REQUEST, "the rewritten path is none");
    PathAndQuery::try_from(format!("{slash}{text}")).map_err(bad)
}

/// The rewritten path, escaped as nginx escapes it, with both queries, the target's first.
fn join(rewritten: &Rewritten, query: Option<&str>) -> String {
    let mut text = String::with_capacity(rewritten.path.len() + 16);
    escape(&rewritten.path, |b| matches!(b, b'%' | b'?' | b'#'), &mut text);
    // A target that ends with `?` drops the request's own.
    let (own, theirs) = match &rewritten.query {
        Some(own) if own.is_empty() => (None, None),
        own => (own.as_ref(), query.filter(|query| !query.is_empty())),
    };
    let mut mark = '?';
    if let Some(own) = own {
        text.push(mark);
        escape(own, |b| b == b'#', &mut text);
        mark = '&';
    }
    if let Some(theirs) = theirs {
        text.push(mark);
        text.push_str(theirs);
    }
    text
}

fn escape(bytes: &[u8], also: impl Fn(u8) -> bool, text: &mut String) {
    for &byte in bytes {
        match byte {
            b'!'..=b'~'
                if !also(byte) && !matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}') =>
            {
                text.push(char::from(byte));
            }
            other => text.push_str(&format!("%{other:02X}")),
        }
    }
}

/// The authority of an address, where a request names no host that one could be made of.
pub fn authority_of(facts: &Facts, address: std::net::SocketAddr) -> Option<Authority> {
    let written = Authority::try_from(facts.host.as_bytes());
    written.or_else(|_| Authority::try_from(address.to_string())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rewritten_path_is_escaped_and_keeps_the_query() {
        let rewritten = |path: &str, query: Option<&str>| Rewritten {
            path: path.as_bytes().to_vec(),
            query: query.map(|query| query.as_bytes().to_vec()),
        };
        for (path, target, query, whole) in [
            ("/a b", None, None, "/a%20b"),
            ("/a?b#c%d", None, Some("x=1"), "/a%3Fb%23c%25d?x=1"),
            ("/a", Some("y=2"), Some("x=1"), "/a?y=2&x=1"),
            ("/a", Some(""), Some("x=1"), "/a"),
            ("/é", None, None, "/%C3%A9"),
        ] {
            assert_eq!(join(&rewritten(path, target), query), whole);
        }
    }
}
