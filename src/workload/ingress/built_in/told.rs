//! What is told of a request while somebody wants to know: that it came and which rule takes it, to which endpoint
//! it goes on over which connection, and the answer's status.

use std::net::SocketAddr;

use hyper::body::Incoming;
use hyper::header::HOST;
use hyper::{Request as Http, StatusCode};

use super::connection::Peer;
use super::site::Site;
use crate::workload::events::{Did, Request, Teller};

/// A request that may be told of.
#[derive(Clone)]
pub struct Telling {
    teller: Teller,
    /// Nothing where nobody wanted to know when it came.
    number: Option<u64>,
}

impl Telling {
    pub fn begin(site: &Site) -> Telling {
        let number = site.teller.is_on().then(|| site.number_of_told());
        Telling { teller: site.teller.clone(), number }
    }

    pub fn is_wanted(&self) -> bool {
        self.number.is_some()
    }

    /// The request was read, and `rule` takes it.
    pub fn took(&self, peer: &Peer, http: &Http<Incoming>, rule: Option<String>) {
        self.tell(|request| {
            let uri = http.uri();
            let header = || http.headers().get(HOST).and_then(|value| value.to_str().ok());
            let host = uri.authority().map(|authority| authority.as_str()).or_else(header);
            Did::Took(Request {
                request,
                client: peer.client,
                method: http.method().to_string(),
                scheme: peer.scheme.name().to_owned(),
                host: host.unwrap_or_default().to_owned(),
                path: uri.path().to_owned(),
                rule,
            })
        });
    }

    pub fn passed(&self, from: Option<SocketAddr>, to: SocketAddr) {
        self.tell(|request| Did::Passed { request, from, to });
    }

    pub fn answered(&self, status: StatusCode, why: Option<String>) {
        self.tell(|request| Did::Answered { request, status: status.as_u16(), why });
    }

    fn tell(&self, did: impl FnOnce(u64) -> Did) {
        if let Some(number) = self.number {
            self.teller.tell(|| did(number));
        }
    }
}
