//! What is served now. Updates replace it at once and whole; a request in flight goes on with what it began
//! with, and connections live on.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use hyper::header::{HeaderMap, HeaderValue, STRICT_TRANSPORT_SECURITY};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

use super::super::log;
use super::balance::{self, Balancers};
use super::certificates;
use super::connection::Scheme;
use super::log::Log;
use super::pool::Pool;
use crate::plan::ingress::{Endpoints, Router, Routing, Settings};
use crate::workload::events::Teller;

/// Everything that connections share.
pub struct Site {
    now: RefCell<Rc<State>>,
    pub pool: Rc<Pool>,
    pub log: Rc<Log>,
    pub teller: Teller,
    fake: Arc<CertifiedKey>,
    random: Cell<u64>,
    /// The number of the last request that was told of.
    told: Cell<u64>,
}

/// What was told last, made ready.
#[derive(Clone)]
pub struct State {
    pub router: Rc<Router>,
    pub balancers: Rc<Balancers>,
    pub tls: TlsAcceptor,
    /// What answers over TLS say of hosts with a certificate of their own.
    hsts: Option<HeaderValue>,
}

impl State {
    pub fn settings(&self) -> &Settings {
        &self.router.routing().settings
    }

    /// Tell a client of TLS to come over nothing else, where its host is one that can be believed.
    pub fn secure(&self, scheme: Scheme, secured: bool, headers: &mut HeaderMap) {
        if let Some(hsts) = self.hsts.as_ref().filter(|_| secured && scheme == Scheme::Https) {
            headers.insert(STRICT_TRANSPORT_SECURITY, hsts.clone());
        }
    }
}

impl Site {
    /// # Errors
    /// TLS that cannot be done.
    pub fn new(routing: Arc<Routing>, endpoints: &Endpoints, teller: Teller) -> io::Result<Site> {
        let fake = certificates::fake().map_err(io::Error::other)?;
        let pool = Rc::new(Pool::new().map_err(io::Error::other)?);
        let hsts = hsts(&routing);
        let (tls, router) = ready(routing, &fake)?;
        let balancers = Rc::new(balance::renew(endpoints, &Balancers::new()));
        pool.keep_only(addresses(endpoints));
        let state = State { router, balancers, tls, hsts };
        let random = Cell::new(RandomState::new().hash_one(std::process::id()) | 1);
        let (now, log, told) = (RefCell::new(Rc::new(state)), Rc::default(), Cell::new(0));
        Ok(Site { now, pool, log, teller, fake, random, told })
    }

    pub fn state(&self) -> Rc<State> {
        Rc::clone(&self.now.borrow())
    }

    /// # Errors
    /// TLS that cannot be done; nothing is changed then.
    pub fn set_routing(&self, routing: Arc<Routing>) -> io::Result<()> {
        let hsts = hsts(&routing);
        let (tls, router) = ready(routing, &self.fake)?;
        let state = State { router, tls, hsts, ..(*self.state()).clone() };
        *self.now.borrow_mut() = Rc::new(state);
        Ok(())
    }

    pub fn set_endpoints(&self, endpoints: &Endpoints) {
        let before = self.state();
        let balancers = Rc::new(balance::renew(endpoints, &before.balancers));
        *self.now.borrow_mut() = Rc::new(State { balancers, ..(*before).clone() });
        self.pool.keep_only(addresses(endpoints));
    }

    /// Numbers a request that is told of.
    pub fn number_of_told(&self) -> u64 {
        self.told.set(self.told.get().wrapping_add(1));
        self.told.get()
    }

    /// Names a request in logs: 32 hexadecimal digits, as nginx' `$request_id`. No secret.
    pub fn request_id(&self) -> String {
        format!("{:016x}{:016x}", self.number(), self.number())
    }

    /// xorshift64*.
    fn number(&self) -> u64 {
        let mut x = self.random.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.random.set(x);
        x.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

fn hsts(routing: &Routing) -> Option<HeaderValue> {
    routing.settings.hsts.as_ref().and_then(|value| HeaderValue::try_from(value).ok())
}

fn ready(routing: Arc<Routing>, fake: &Arc<CertifiedKey>) -> io::Result<(TlsAcceptor, Rc<Router>)> {
    let config = certificates::config(&routing, fake).map_err(io::Error::other)?;
    let (router, bad) = Router::new(routing);
    for pattern in bad {
        let source = &pattern.location.source;
        log(format_args!("{} {} of {} is left out: {}", source.ingress, source.field, pattern.server, pattern.why));
    }
    Ok((TlsAcceptor::from(Arc::new(config)), Rc::new(router)))
}

fn addresses(endpoints: &Endpoints) -> HashSet<std::net::SocketAddr> {
    endpoints.values().flatten().map(|endpoint| endpoint.address).collect()
}
