//! Headers on their way through: what concerns one connection only is taken out (RFC 9110, 7.6.1), what
//! an endpoint wants to know about the client is put in, as ingress-nginx' nginx.conf does.

use std::net::IpAddr;

use hyper::header::{
    CONNECTION, COOKIE, Entry, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE, TE, TRANSFER_ENCODING,
    UPGRADE,
};

pub const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
pub const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const FORWARDED_SCHEME: HeaderName = HeaderName::from_static("x-forwarded-scheme");
const SCHEME: HeaderName = HeaderName::from_static("x-scheme");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const ORIGINAL_FOR: HeaderName = HeaderName::from_static("x-original-forwarded-for");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
/// CGI programs would take it for a setting ("httpoxy"); ingress-nginx removes it.
const PROXY: HeaderName = HeaderName::from_static("proxy");

/// What an endpoint is told of a client.
#[derive(Debug, Clone)]
pub struct Facts {
    pub remote: IpAddr,
    /// As the client wrote it, port included.
    pub host: HeaderValue,
    pub port: HeaderValue,
    pub scheme: HeaderValue,
    pub id: HeaderValue,
}

/// Take out what concerns one connection only. `TE: trailers` stays: it is about the message, and gRPC
/// wants it.
pub fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .collect();
    for name in named {
        // Whose absence would change what is asked.
        if name != HOST && name != TE {
            headers.remove(name);
        }
    }
    for name in [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, PROXY_AUTHENTICATE, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    if let Entry::Occupied(te) = headers.entry(TE)
        && !te.get().as_bytes().eq_ignore_ascii_case(b"trailers")
    {
        te.remove();
    }
}

/// Put in what an endpoint wants to know.
pub fn tell(headers: &mut HeaderMap, facts: &Facts) {
    // Nobody but us says what came.
    headers.remove(ORIGINAL_FOR);
    let original: Vec<&[u8]> = headers.get_all(FORWARDED_FOR).iter().map(HeaderValue::as_bytes).collect();
    if let Some(original) = HeaderValue::from_bytes(&original.join(&b", "[..])).ok().filter(|o| !o.is_empty()) {
        headers.insert(ORIGINAL_FOR, original);
    }
    headers.remove(PROXY);
    join_cookies(headers);
    let remote = HeaderValue::try_from(facts.remote.to_string()).ok();
    if let Some(remote) = remote {
        headers.insert(REAL_IP, remote.clone());
        headers.insert(FORWARDED_FOR, remote);
    }
    headers.insert(HOST, facts.host.clone());
    headers.insert(FORWARDED_HOST, facts.host.clone());
    headers.insert(FORWARDED_PORT, facts.port.clone());
    headers.insert(FORWARDED_PROTO, facts.scheme.clone());
    headers.insert(FORWARDED_SCHEME, facts.scheme.clone());
    headers.insert(SCHEME, facts.scheme.clone());
    headers.insert(REQUEST_ID, facts.id.clone());
}

/// HTTP/2 clients send cookies apart, which HTTP/1 does not allow (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let all: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

/// The value of a client's cookie.
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// What a client wants to speak instead of HTTP, where it does (RFC 9110, 7.8). `h2c` is not one: it
/// concerns this connection, and nothing is said to it.
pub fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let wish = headers.get(UPGRADE)?;
    let protocols = headers.get_all(UPGRADE).iter().flat_map(|value| value.as_bytes().split(|&b| b == b','));
    let for_us = protocols.map(<[u8]>::trim_ascii).any(|protocol| protocol.eq_ignore_ascii_case(b"h2c"));
    let mut words = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let asked = words.any(|value| value.split(',').any(|word| word.trim().eq_ignore_ascii_case("upgrade")));
    (asked && !for_us).then(|| wish.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let parsed = |&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
        let mut headers = HeaderMap::new();
        for (name, value) in lines.iter().map(parsed) {
            headers.append(name, value);
        }
        headers
    }

    #[test]
    fn what_concerns_one_connection_goes_no_further() {
        let mut headers = map(&[
            ("connection", "close, x-secret"),
            ("connection", "host"),
            ("x-secret", "1"),
            ("host", "a"),
            ("keep-alive", "5"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("accept", "b"),
        ]);
        strip(&mut headers);
        assert_eq!(headers, map(&[("host", "a"), ("te", "trailers"), ("accept", "b")]));
    }

    #[test]
    fn a_client_cannot_forge_what_endpoints_are_told() {
        let mut headers = map(&[("x-forwarded-for", "6.6.6.6"), ("x-real-ip", "6.6.6.6"), ("proxy", "evil")]);
        let value = HeaderValue::from_static;
        let facts = Facts {
            remote: [10, 0, 0, 1].into(),
            host: value("a:80"),
            port: value("80"),
            scheme: value("http"),
            id: value("1"),
        };
        tell(&mut headers, &facts);
        assert_eq!(headers["x-forwarded-for"], "10.0.0.1");
        assert_eq!(headers["x-real-ip"], "10.0.0.1");
        assert_eq!(headers["x-original-forwarded-for"], "6.6.6.6");
        assert_eq!(headers["x-forwarded-host"], "a:80");
        assert!(!headers.contains_key("proxy"));
    }

    #[test]
    fn cookies_are_found_and_joined() {
        let mut headers = map(&[("cookie", "a=1"), ("cookie", "b=2; c=3")]);
        assert_eq!((cookie(&headers, "a"), cookie(&headers, "c"), cookie(&headers, "d")), (Some("1"), Some("3"), None));
        join_cookies(&mut headers);
        assert_eq!(headers, map(&[("cookie", "a=1; b=2; c=3")]));
    }

    #[test]
    fn an_upgrade_is_one_that_the_connection_asks_for() {
        assert!(upgrade(&map(&[("upgrade", "websocket"), ("connection", "keep-alive, Upgrade")])).is_some());
        assert!(upgrade(&map(&[("upgrade", "websocket")])).is_none());
        assert!(upgrade(&map(&[("upgrade", "h2c"), ("connection", "upgrade")])).is_none());
    }
}
